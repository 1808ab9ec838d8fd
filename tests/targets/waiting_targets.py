"""
Functions that wait, for the tests that take away what is waited for. Children ask the master for
this file.
"""

import os
import sys
import threading
import time

import mitogen.core
import mitogen.service
from mitogen.core import takes_econtext, takes_router


def say_and_sleep(started, seconds=600):
    """
    Tell a sender which process this is, then sleep.
    """
    started.send(os.getpid())
    time.sleep(seconds)


def say_and_hold(started, seconds=600):
    """
    Tell a sender which process this is, then hold the interpreter with pure Python code.
    """
    started.send(os.getpid())
    end = time.time() + seconds
    while time.time() < end:
        pass


class SleepyService(mitogen.service.Service):
    """
    A service that does not answer.
    """
    @mitogen.service.expose(mitogen.service.AllowParents())
    @mitogen.service.arg_spec({'started': mitogen.core.Sender})
    def sleep(self, started):
        say_and_sleep(started)


def write_whole(path, text):
    """
    Write a file of which nobody ever sees a part.
    """
    with open(path + '.new', 'w') as fp:
        fp.write(text)
    os.rename(path + '.new', path)


def outcome_of(func, *args):
    """
    Call a function and describe what it returns or raises.
    """
    try:
        return 'returned %r' % (func(*args),)
    except BaseException:
        error = sys.exc_info()[1]
        return '%s: %s' % (type(error).__name__, error)


def import_module(name, econtext):
    return mitogen.core.import_module(name).__name__


def read_resource(name, econtext):
    return econtext.importer._resource_requester._get_resource('no_such_package', name)


def call_master(name, econtext):
    return econtext.router.context_by_id(0).send_await(mitogen.core.Message(handle=int(name)))


def allocate(name, econtext):
    return econtext.router.allocate_id()


def get_pushed_file(name, econtext):
    pool = mitogen.service.get_or_create_pool(router=econtext.router)
    return pool.get_service(u'mitogen.service.PushFileService').get(mitogen.core.to_text(name))


def shut_down(name, econtext):
    import mitogen.parent
    return mitogen.parent.Context(econtext.router, int(name)).shutdown(wait=True)


@takes_econtext
def start_waiting(what, name, path, econtext):
    """
    Begin to wait, in a thread that writes to a file how it ended. Return at once.
    """
    import mitogen.parent
    mitogen.parent.upgrade_router(econtext)
    thread = threading.Thread(
        target=lambda: write_whole(path, outcome_of(globals()[what], name, econtext)))
    thread.daemon = True
    thread.start()


@takes_econtext
def detach(sender, econtext):
    """
    Leave the parent, and stay.
    """
    sender.send(os.getpid())
    econtext.detach()


@takes_router
def private_context_call(context_id, started, path, router):
    """
    Call another context by an object that is no one else's.
    """
    import mitogen.parent
    context = mitogen.parent.Context(router, context_id)
    write_whole(path, outcome_of(context.call, say_and_sleep, started))
