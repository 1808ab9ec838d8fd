# SPDX-License-Identifier: BSD-3-Clause
"""
A write to a child that has just died raises an error, and sends this process
no signal.
"""

from __future__ import absolute_import  # house

import functools  # house
import signal  # house

import mitogen.core  # house


def _forget_sigpipe():
    """
    Take back the signal that a write has left for this thread, if any.
    """
    if hasattr(signal, 'sigtimedwait'):
        signal.sigtimedwait([signal.SIGPIPE], 0)
    elif signal.SIGPIPE in signal.sigpending():
        signal.sigwait([signal.SIGPIPE])


def _without_sigpipe(write):
    """
    Return a method that writes as `write` does, but fails where SIGPIPE would
    end the process: Python ignores that signal, and a command line tool may
    have put it back to its default. Writes to the program's own
    files still raise the signal.
    """
    @functools.wraps(write)
    def wrapper(self, *args):
        if signal.getsignal(signal.SIGPIPE) is not signal.SIG_DFL:
            return write(self, *args)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
        try:
            return write(self, *args)
        finally:
            if signal.SIGPIPE not in before:
                _forget_sigpipe()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPIPE])
    return wrapper


# Python 2 cannot block a signal.
if hasattr(signal, 'pthread_sigmask'):
    for _object, _name in ((mitogen.core.Side, 'write'),
                           (mitogen.core.BufferedWriter, '_flush'),
                           (mitogen.core.BufferedWriter, '_relay')):
        setattr(_object, _name, _without_sigpipe(getattr(_object, _name)))
