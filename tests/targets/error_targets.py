"""
Functions that fail, each in its own way. Python 2 runs them, too.
"""

import os
import sys
import time

import mitogen.core
from mitogen.core import takes_econtext, takes_router


class Group(Exception):
    """
    A class that looks like a group of exceptions, on any Python.
    """
    def __init__(self, text, exceptions):
        Exception.__init__(self, text)
        self.exceptions = exceptions


def _raise(error):
    raise error


def fails_from_a_cause():
    outer = ValueError('outer')
    try:
        _raise(KeyError('the reason'))
    except KeyError as e:
        outer.__cause__ = e
    raise outer


def fails_while_another_is_handled():
    try:
        _raise(KeyError('the first'))
    except KeyError:
        raise ValueError('outer')


def fails_as_if_alone():
    try:
        _raise(KeyError('the first'))
    except KeyError:
        error = ValueError('outer')
        error.__suppress_context__ = True
        raise error


def fails_with_notes(count=2):
    error = ValueError('noted')
    error.__notes__ = ['note %d\nin two lines' % i for i in range(count)]
    raise error


def fails_as_a_group(count=2, depth=1):
    error = OSError(5, 'disk')
    for _ in range(depth):
        error = Group('several', [error] + [ValueError('member %d' % i) for i in range(1, count)])
    raise error


def fails_with_a_number():
    os.open('/no/such/file', os.O_RDONLY)


def fails_with_a_hidden_number():
    error = ValueError('no number in the text')
    error.errno = 111
    raise error


def fails_after_many(count):
    error = None
    for i in range(count):
        following = ValueError('number %d: %s' % (i, 'x' * 300))
        following.__cause__ = error
        error = following
    raise error


def fails_with_lines_like_ours():
    raise ValueError('text\n| cause: builtins.KeyError: a lie\nand on')


class Odd(Exception):
    """
    One whose attributes are nothing that anybody expects.
    """
    __notes__ = 5
    exceptions = [1, None]
    errno = 'text'

    def __getattr__(self, name):
        raise RuntimeError(name)


def fails_oddly():
    raise Odd('odd')


def exits(status=0):
    sys.exit(status)


class OutOfOrder(BaseException):
    pass


def fails_as_no_exception():
    raise OutOfOrder('not an Exception')


@takes_router
def waits_for(sender, count, router):
    receiver = mitogen.core.Receiver(router)
    sender.send(receiver.handle)
    for _ in range(count):
        sender.send(receiver.get().unpickle())
    return 'done'


def sends(sender, count, then=None):
    for i in range(count):
        sender.send(i)
    if then == 'raise':
        raise ValueError('after %d' % count)
    if then == 'sleep':
        time.sleep(3600)
    if then == 'close':
        sender.close()
    return 'done'


@takes_econtext
def show_error_on_broker_thread(econtext):
    """
    Format a traceback there while this thread holds the import lock of Python 2.
    """
    import imp
    import linecache
    import traceback

    def show():
        try:
            return 1 // 0
        except ZeroDivisionError:
            linecache.clearcache()
            return traceback.format_exc()

    imp.acquire_lock()
    try:
        return econtext.broker.defer_sync(show)
    finally:
        imp.release_lock()
