"""What children and copies of test_fork_anywhere run."""

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
    """Start a child from here, as if there was nothing else in this process; return what it says."""
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
