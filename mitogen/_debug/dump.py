# SPDX-License-Identifier: BSD-3-Clause
"""
The dump: a signal has the description written to stderr or a file.
"""

from __future__ import absolute_import  # house

import os  # house
import signal  # house
import sys  # house

import mitogen.core  # house

from mitogen.debug import LOG, _open_own, describe  # house


#: Where dumps go: None for stderr, or the name of a file.
_dump_path = None

#: Open for faulthandler as long as it may write there.
_fault_fp = None


def _open_dump():
    """
    Return a descriptor to write a dump to.
    """
    if _dump_path is None:
        return os.dup(2)
    return _open_own(_dump_path.replace('%(pid)s', str(os.getpid())),
                     os.O_APPEND)


def _write_dump():
    data = (describe() + u'\n').encode('utf-8', 'replace')
    fd = _open_dump()
    try:
        while data:
            data = data[os.write(fd, data):]
    finally:
        os.close(fd)


def _on_dump_signal(signum, frame):
    # On a thread of its own: the interrupted one may hold any lock. By the
    # low-level function, since `threading` has a lock, too.
    mitogen.core.thread.start_new_thread(_write_dump, ())


def _path_of_environment():
    """
    Return the path that MITOGEN_DEBUG_SIGNAL names, or None for stderr.
    """
    global _dump_path
    wanted = os.environ.get('MITOGEN_DEBUG_SIGNAL', '')
    if '/' not in wanted:
        return None
    _dump_path = wanted
    try:
        os.close(_open_dump())
    except OSError:
        LOG.warning('MITOGEN_DEBUG_SIGNAL is %r, which cannot be written, so '
                    'dumps go to stderr: %s', wanted, sys.exc_info()[1])
        return None
    return wanted


def enable_dump(path=None, signum=None):
    """
    Have a signal write :func:`describe` to stderr or a file. Main thread.

    Where the module :mod:`faulthandler` is there, it writes the stacks of all
    threads first: at once, even while a thread keeps the interpreter to
    itself. The rest comes as soon as the main thread executes Python code.

    :param path:
        Name of a file to append to, in which `%(pid)s` is the process id. It
        must be ours, or not be there yet, and no symbolic link. If
        :data:`None`, MITOGEN_DEBUG_SIGNAL of the environment, where that has a
        slash in it, else stderr. In a child, that is logged by its master.
    :param int signum:
        The signal, SIGUSR2 if :data:`None`.
    """
    global _dump_path, _fault_fp
    if signum is None:
        signum = signal.SIGUSR2
    if path is None:
        path = _path_of_environment()
    _dump_path = path
    try:
        signal.signal(signum, _on_dump_signal)
    except ValueError:
        LOG.debug('not on the main thread: stacks only')
    try:
        import faulthandler
    except ImportError:
        return
    old, _fault_fp = _fault_fp, os.fdopen(_open_dump(), 'w')
    # Chained: then our handler is called, too.
    faulthandler.register(signum, file=_fault_fp, all_threads=True, chain=True)
    if old is not None:
        old.close()


def disable_dump(signum=None):
    """
    Undo :func:`enable_dump`. Main thread.
    """
    global _fault_fp
    if signum is None:
        signum = signal.SIGUSR2
    faulthandler = sys.modules.get('faulthandler')
    if faulthandler is not None:
        faulthandler.unregister(signum)
    signal.signal(signum, signal.SIG_DFL)
    if _fault_fp is not None:
        _fault_fp.close()
        _fault_fp = None
