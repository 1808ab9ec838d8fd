"""Functions that children and copies of test_fork_anywhere run."""

import os
import sys
import time

import mitogen.core
import mitogen.service


class Echo(mitogen.service.Service):
    """A service that answers."""

    @mitogen.service.expose(mitogen.service.AllowAny())
    @mitogen.service.arg_spec({'value': int})
    def echo(self, value):
        return value


@mitogen.core.takes_router
def ask_echo(router):
    """Call the service of the master."""
    return router.context_by_id(0).call_service(u'fork_targets.Echo', u'echo', value=7)


def use_new_router():
    """
    Start a child from here, as if there was nothing else in this process; return what it says.
    """
    import targets
    import mitogen.master
    broker = mitogen.master.Broker()
    try:
        return mitogen.master.Router(broker).local().call(targets.add, 1, 2)
    finally:
        broker.shutdown()
        broker.join()


def send(sender, value):
    """Send a value to a receiver elsewhere."""
    sender.send(value)


def signal_parent_and_answer(pid, signum, count):
    """Send a signal to a process some times, then return."""
    for _ in range(count):
        os.kill(pid, signum)
        time.sleep(0.05)
    return 'answer'


def fork_and_return_twice():
    """Return the pid of the copy, in this process and in the copy."""
    return os.fork() or os.getpid()


def import_in_a_fork():
    """Import what only the master has, in a copy of this process; return what happened there."""
    rfd, wfd = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            import no_such_module_anywhere
        except BaseException:
            os.write(wfd, sys.exc_info()[0].__name__.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(wfd)
    try:
        return os.read(rfd, 100).decode()
    finally:
        os.close(rfd)


def send_await(sender):
    """Send something that wants an answer, and return the answer."""
    return sender.context.send_await(mitogen.core.Message(handle=sender.dst_handle))


def log_badly():
    """Log by a handler that raises."""
    import logging

    class BadHandler(logging.Handler):
        def emit(self, record):
            raise ValueError('on purpose')

    handler = BadHandler()
    logging.getLogger().addHandler(handler)
    try:
        logging.getLogger('x').error('hello')
    except ValueError:
        pass
    finally:
        logging.getLogger().removeHandler(handler)


def send_numbers(sender, count):
    """Send numbers from 0 on, not too fast."""
    for i in range(count):
        sender.send(i)
        time.sleep(0.001)


def say_and_sleep(sender):
    """Tell a sender that we are here, then sleep."""
    sender.send(os.getpid())
    time.sleep(600)


class Interrupted(Exception):
    """The exception that a handler of a signal raises."""


def handle_signals():
    """Have a signal raise an exception; return our pid."""
    import signal

    def handler(*_args):
        raise Interrupted()

    signal.signal(signal.SIGUSR1, handler)
    return os.getpid()


def import_twice(name, path):
    """
    Import a module; when that is interrupted, say so by making a file, and try again. Return its
    VALUE.
    """
    while True:
        try:
            return mitogen.core.import_module(name).VALUE
        except Interrupted:
            open(path, 'w').close()


def never_let_go(sender):
    """
    Tell a sender which process this is, then keep the interpreter in one call of a C function, for
    hours.
    """
    sender.send(os.getpid())
    sum(range(10 ** 13))
