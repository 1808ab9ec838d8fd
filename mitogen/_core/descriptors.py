# SPDX-License-Identifier: BSD-3-Clause
"""
Files, pipes and sockets, by descriptor.
"""

from __future__ import absolute_import  # house

import errno  # house
import os  # house
import sys  # house

import mitogen  # house
from mitogen.core import _seldom, PY3  # house

if not PY3:  # house
    import fcntl  # house


if PY3:
    set_blocking = os.set_blocking
else:
    def get_blocking(fd):
        """Tell whether `fd` is in blocking mode."""
        return not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK

    def set_blocking(fd, blocking):
        """Put `fd` in blocking mode or out of it."""
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        if blocking:
            flags &= ~os.O_NONBLOCK
        else:
            flags |= os.O_NONBLOCK
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)


def set_cloexec(fd):
    """
    Have `fd` closed by exec.

    :raises AssertionError: it is a standard stream that Python has open.
    """
    if fd <= 2:
        mitogen.core._check_standard(fd)
    if PY3:
        os.set_inheritable(fd, False)
    else:
        flags = fcntl.fcntl(fd, fcntl.F_GETFD)
        fcntl.fcntl(fd, fcntl.F_SETFD, flags | fcntl.FD_CLOEXEC)


@_seldom
def _check_standard(fd):
    fp = (sys.stdin, sys.stdout, sys.stderr)[fd]
    assert fp is None or fp.closed, 'fd %d is a standard stream' % fd


def io_op(func, *args):
    """
    Call a function that does I/O, again when a signal interrupted it.

    :returns: (result, None), or (None, exception) when the other end is gone.
    """
    while True:
        try:
            return func(*args), None
        # On Python 2 the error of select() is no EnvironmentError.
        except Exception:
            e = sys.exc_info()[1]
            code = e.args and e.args[0]
            if code in (errno.EPIPE, errno.EIO, errno.ECONNRESET):
                return None, e
            if code != errno.EINTR:
                raise


def _both(pair, blocking):
    if blocking is not None:
        for fp in pair:
            set_blocking(fp.fileno(), blocking)
    return pair


def pipe(blocking=None):
    """Return a (read, write) pair of unbuffered binary files."""
    rfd, wfd = os.pipe()
    return _both((os.fdopen(rfd, 'rb', 0), os.fdopen(wfd, 'wb', 0)), blocking)


@_seldom
def socketpair(blocking=None):
    """Return two connected socket objects."""
    import socket
    return _both(socket.socketpair(), blocking)
