# SPDX-License-Identifier: BSD-3-Clause
"""
Start a process over a terminal.
"""

from __future__ import absolute_import  # house

import errno  # house
import fcntl  # house
import os  # house
import signal  # house
import struct  # house
import termios  # house

import mitogen.core  # house
from mitogen.parent import _close_all, ConnectError, create_best_pipe, disable_echo, popen, PopenProcess  # house


IS_LINUX = os.uname()[0] == 'Linux'
IS_SOLARIS = os.uname()[0] == 'SunOS'

#: Request numbers of the Linux PTY multiplexer, which `termios` lacks.
LINUX_TIOCGPTN = 2147767344
LINUX_TIOCSPTLCK = 1074025521

OPENPTY_MSG = (
    'Could not create a PTY: %s. The system-wide limit may be reached: look at '
    'the sysctl kern.tty.ptmx_max on macOS, or kernel.pty.max on Linux. A '
    'connection method that works without a PTY (no password typed, no '
    'question answered) avoids the limit.'
)


def _acquire_controlling_tty():
    """
    Runs in a new child: begin a session and make the terminal on fd 2 the
    session's own, so that questions on /dev/tty come to us.
    """
    # Under nohup SIGHUP is ignored: then ssh would not end with its terminal,
    # but send the end of input as an empty answer, which is refused.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.setsid()
    if IS_LINUX:
        # For a session leader without a terminal, opening one is enough.
        try:
            os.close(os.open(os.ttyname(2), os.O_RDWR))
        except (IOError, OSError):
            # The name may not exist in this /dev; the descriptor does.
            pass
    if (hasattr(termios, 'TIOCSCTTY') and not mitogen.core.IS_WSL and
            not IS_SOLARIS):
        fcntl.ioctl(2, termios.TIOCSCTTY)


def _linux_broken_devpts_openpty():
    """
    Make a PTY by way of the multiplexer device. C libraries refuse where
    /dev/pts is mounted with the wrong group; the kernel does not mind.
    """
    master_fd = os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY)
    try:
        unlock = struct.pack('i', 0)
        fcntl.ioctl(master_fd, LINUX_TIOCSPTLCK, unlock)
        number = struct.unpack(
            'i', fcntl.ioctl(master_fd, LINUX_TIOCGPTN, unlock))[0]
        slave_fd = os.open('/dev/pts/%d' % (number,),
                           os.O_RDWR | os.O_NOCTTY)
    except BaseException:
        os.close(master_fd)
        raise
    return master_fd, slave_fd


def openpty():
    """
    Make a PTY in raw mode and return (master, slave), unbuffered binary files.

    :raises mitogen.core.StreamError: the system has none to give.
    """
    try:
        master_fd, slave_fd = os.openpty()
    except OSError as e:
        if not (IS_LINUX and e.args[0] == errno.EPERM):
            raise ConnectError(OPENPTY_MSG % (e,))
        try:
            master_fd, slave_fd = _linux_broken_devpts_openpty()
        except (IOError, OSError) as e:
            raise ConnectError(OPENPTY_MSG % (e,))

    master_fp = os.fdopen(master_fd, 'r+b', 0)
    slave_fp = os.fdopen(slave_fd, 'r+b', 0)
    try:
        mitogen.core.set_cloexec(master_fd)
        mitogen.core.set_cloexec(slave_fd)
        if not IS_SOLARIS:
            # On such systems the master is no terminal.
            disable_echo(master_fd)
        disable_echo(slave_fd)
        mitogen.core.set_blocking(slave_fd, True)
    except BaseException:
        _close_all(master_fp, slave_fp)
        raise
    return master_fp, slave_fp


def tty_create_child(args):
    """
    Start a process whose standard files are all one PTY, which is also its
    controlling terminal.

    :param list args: the command line.
    :returns: `PopenProcess` whose stdin and stdout are the PTY's master.
    """
    master_fp, slave_fp = openpty()
    try:
        proc = popen(args=args, stdin=slave_fp, stdout=slave_fp,
                     stderr=slave_fp, close_fds=True,
                     preexec_fn=_acquire_controlling_tty)
    except BaseException:
        master_fp.close()
        raise
    finally:
        slave_fp.close()
    return PopenProcess(proc, stdin=master_fp, stdout=master_fp)


def hybrid_tty_create_child(args, escalates_privilege=False):
    """
    Start a process that talks over a socket pair but has a PTY as stderr and
    controlling terminal, where tools ask for passwords.

    :param list args: the command line.
    :param bool escalates_privilege: see :func:`create_best_pipe`.
    :returns: `PopenProcess` whose stderr is the PTY's master.
    """
    master_fp, slave_fp = openpty()
    parent_r = child_w = child_r = parent_w = None
    try:
        parent_r, child_w, child_r, parent_w = create_best_pipe(
            escalates_privilege=escalates_privilege, blocking=True)
        proc = popen(args=args, stdin=child_r, stdout=child_w,
                     stderr=slave_fp, close_fds=True,
                     preexec_fn=_acquire_controlling_tty)
    except BaseException:
        _close_all(master_fp, parent_r, parent_w)
        raise
    finally:
        _close_all(slave_fp, child_r, child_w)
    return PopenProcess(proc, stdin=parent_w, stdout=parent_r,
                        stderr=master_fp)
