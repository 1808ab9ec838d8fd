# SPDX-License-Identifier: BSD-3-Clause
"""
Start a process over pipes or sockets.
"""

from __future__ import absolute_import  # house

import fcntl  # house
import os  # house
import socket  # house
import subprocess  # house
import sys  # house

import mitogen.core  # house
from mitogen.parent import PopenProcess, PY3  # house


try:
    SC_OPEN_MAX = os.sysconf('SC_OPEN_MAX')
except (AttributeError, ValueError, OSError):
    SC_OPEN_MAX = 1024

#: Called in each new child between fork and exec when set. Any callable
#: without arguments; see :func:`popen`.
_preexec_hook = None


def _read_selinux_enabled():
    """Return True if SELinux is present and enforcing."""
    try:
        with open('/sys/fs/selinux/enforce', 'rb') as fp:
            return bool(int(fp.read()))
    except (IOError, OSError, ValueError):
        return False


SELINUX_ENABLED = _read_selinux_enabled()


def _environment(args):
    """
    Return the environment of a new process, :data:`None` for our own. PYTHON_GIL
    is for our own interpreter: 0 keeps one that cannot do without the GIL from
    starting.
    """
    if 'PYTHON_GIL' not in os.environ or args[:1] == [sys.executable]:
        return None
    return dict((name, os.environ[name]) for name in os.environ
                if name != 'PYTHON_GIL')


def popen(**kwargs):
    """
    Start a process and return its :class:`subprocess.Popen`. Takes the same
    keyword arguments, with one difference: :data:`_preexec_hook`, if set, runs
    in the child before `preexec_fn`. Another interpreter than ours does not
    inherit PYTHON_GIL.

    Without either of the two nothing runs between fork and exec, and recent
    Pythons start the process by vfork(), which is many times faster for a
    large parent.
    """
    hook = _preexec_hook
    preexec_fn = kwargs.pop('preexec_fn', None)
    if hook is None:
        kwargs['preexec_fn'] = preexec_fn
    else:
        def run_hooks():
            hook()
            if preexec_fn is not None:
                preexec_fn()
        kwargs['preexec_fn'] = run_hooks
    if 'env' not in kwargs:
        kwargs['env'] = _environment(list(kwargs['args']))
    return subprocess.Popen(**kwargs)


#: Bytes of send buffer of a connection to a child on this machine. Whenever it
#: is full, the kernel switches from the sender to the reader, which costs more
#: than copying. The pure core copies each read several times, so there a large
#: buffer does not pay.
_BUFFER_SIZE = mitogen.core.CHUNK_SIZE * (
    4 if mitogen.core.CORE == 'native' else 1)


def create_socketpair(size=None, blocking=None):
    """
    Return two connected sockets, (parent's, child's).

    :param int size: bytes of send buffer; `mitogen.core.CHUNK_SIZE` if None.
    :param blocking: mode of both; left as the system makes them if None.
    """
    ends = mitogen.core.socketpair(blocking)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF,
                       size or mitogen.core.CHUNK_SIZE)
    return ends


def create_best_pipe(escalates_privilege=False, blocking=None):
    """
    Return a connection in both directions as four files: (parent's read end,
    child's write end, child's read end, parent's write end).

    One socket pair serves for all four, except that SELinux takes sockets, but
    not pipes, away from a process that changes its domain.
    """
    if escalates_privilege and SELINUX_ENABLED:
        parent_r, child_w = mitogen.core.pipe(blocking)
        try:
            child_r, parent_w = mitogen.core.pipe(blocking)
        except Exception:
            _close_all(parent_r, child_w)
            raise
        return parent_r, child_w, child_r, parent_w

    parentfp, childfp = create_socketpair(_BUFFER_SIZE, blocking)
    return parentfp, childfp, childfp, parentfp


def _close_all(*fps):
    """Close each file once; None and repeated ones are fine."""
    seen = []
    for fp in fps:
        if fp is not None and not any(fp is other for other in seen):
            seen.append(fp)
            fp.close()


def _is_inherited(fd):
    """Return whether a program that is started now has a descriptor."""
    try:
        return not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    except (IOError, OSError):
        return False


def _own_session(preexec_fn):
    """
    Return the arguments of `popen` that give a process a session of its own:
    Ctrl-C at our terminal is for us, and ends no child and no ssh client.

    :param preexec_fn: called in the child before exec, or None.
    """
    if PY3:
        return {'start_new_session': True, 'preexec_fn': preexec_fn}

    def begin():
        os.setsid()
        if preexec_fn is not None:
            preexec_fn()

    return {'preexec_fn': begin}


def create_child(args, merge_stdio=False, stderr_pipe=False,
                 escalates_privilege=False, preexec_fn=None):
    """
    Start a process that talks over a socket pair, in a session of its own.

    :param list args: the command line.
    :param bool merge_stdio: the same socket is its stderr, too.
    :param bool stderr_pipe: its stderr is a pipe to us; otherwise inherited.
        A pipe in any case when ours is closed, or closes on exec, as Ansible
        wants it: the first file that a program opens would be its stderr.
    :param bool escalates_privilege: see :func:`create_best_pipe`.
    :param preexec_fn: called in the child before exec.
    :returns: `PopenProcess`
    :raises OSError: the program cannot be run. Nothing is left open then.
    """
    parent_r, child_w, child_r, parent_w = create_best_pipe(
        escalates_privilege=escalates_privilege)
    stderr_r = stderr_w = stderr = None
    try:
        if merge_stdio:
            stderr = child_w
        elif stderr_pipe or not _is_inherited(2):
            stderr_r, stderr_w = mitogen.core.pipe()
            mitogen.core.set_cloexec(stderr_r.fileno())
            stderr = stderr_w

        # A program may have given each new socket a timeout, which makes this one not block.
        mitogen.core.set_blocking(child_r.fileno(), True)
        proc = popen(args=args, stdin=child_r, stdout=child_w, stderr=stderr,
                     close_fds=True, **_own_session(preexec_fn))
    except BaseException:
        _close_all(parent_r, parent_w, stderr_r)
        raise
    finally:
        _close_all(child_r, child_w, stderr_w)

    return PopenProcess(proc, stdin=parent_w, stdout=parent_r, stderr=stderr_r)
