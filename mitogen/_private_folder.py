# SPDX-License-Identifier: BSD-3-Clause
"""
A folder of a process, for files that only this process may see. The folder is
removed when the process ends.

A shell that outlives the process removes the folder when the other end of a
pipe is closed, so also if the process is killed. If the shell is killed, too,
the folder stays; a lock in it tells a later run that nobody uses it.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import contextlib
import fcntl
import os
import shutil
import stat
import subprocess
import tempfile
import threading
import time

import mitogen.core


PREFIX = 'mitogen-freight-'
LOCK = '.lock'

#: At most this many folders of other runs are looked at.
SWEEP_MAX = 200

#: Seconds after which a folder without a lock was left by a process that was
#: killed before it could make one.
ABANDONED = 3600

_REMOVE = 'exec 3<&0; (trap "" HUP INT TERM; read x <&3; rm -rf -- "$0") &'


# Guards what follows.
_lock = threading.Lock()
_base = None        # our folder
_held = []          # descriptors that keep our folder from being removed


def _replace_lock():
    """
    In a child made by fork: the thread that may have held it is not there.
    """
    global _lock
    _lock = threading.Lock()


mitogen.core._fork_hooks.append(_replace_lock)


def places():
    """
    Return the folders in which ours may be: first the one that is in memory.
    """
    found = ['/dev/shm']
    try:
        found.append(tempfile.gettempdir())
    except (IOError, OSError):
        pass
    return found + ['/var/tmp', os.path.expanduser('~')]


def _why_not(place, size):
    """
    Return why files of that size cannot be in a place, or None.
    """
    try:
        found = os.statvfs(place)
    except OSError as e:
        return e.strerror
    if not os.access(place, os.W_OK | os.X_OK):
        return 'it cannot be written'
    if found.f_flag & getattr(os, 'ST_NOEXEC', 8):
        return 'nothing can be run from there'
    free = found.f_bavail * found.f_frsize
    # We must not fill a file system in memory.
    if free < size * (4 if place == '/dev/shm' else 1) + 1048576:
        return 'only %d bytes are free' % (free,)
    return None


def _choose(size):
    reasons = []
    for place in places():
        why_not = _why_not(place, size)
        if why_not is None:
            return place
        reasons.append('%s: %s' % (place, why_not))
    raise OSError('there is no folder for %d bytes (%s)' % (
        size, '; '.join(reasons)))


def _hold(folder):
    """
    Lock a folder, and return the descriptor that holds the lock. Copies of this
    process hold it, too.
    """
    fd = os.open(os.path.join(folder, LOCK),
                 os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (IOError, OSError):
        os.close(fd)
        raise
    return fd


def _remove_later(folder):
    """
    Have a folder removed when we are gone, however we go.

    :returns: descriptor of the end of a pipe which we and our copies have.
    """
    read, write = os.pipe()
    try:
        process = subprocess.Popen(
            ['/bin/sh', '-c', _REMOVE, folder], stdin=read, cwd='/',
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True)
        # The shell that waits is its child, and no child of ours.
        process.wait()
    except BaseException:
        os.close(write)
        raise
    finally:
        os.close(read)
    return write


def _is_left_behind(folder):
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return False
    if not os.path.exists(os.path.join(folder, LOCK)):
        return found.st_mtime < time.time() - ABANDONED
    os.close(_hold(folder))
    return True


def sweep():
    """
    Remove folders of processes of our user that are gone.
    """
    for place in set(places()):
        try:
            names = os.listdir(place)
        except OSError:
            continue
        ours = [name for name in names if name.startswith(PREFIX)]
        for name in ours[:SWEEP_MAX]:
            folder = os.path.join(place, name)
            try:
                if _is_left_behind(folder):
                    shutil.rmtree(folder, True)
            except (IOError, OSError):
                # A process uses it, or another one has removed it.
                pass


def _get_base(size):
    """
    Return our folder in which there is room, made if there was none.
    """
    global _base
    if _base is None or _why_not(_base, size):
        sweep()
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=_choose(size))
        try:
            _held.append(_hold(folder))
            _held.append(_remove_later(folder))
        except BaseException:
            shutil.rmtree(folder, True)
            raise
        _base = folder
    return _base


def keep(folder):
    """
    Have a folder, of a name like ours, removed when we are gone.
    """
    with _lock:
        _held.append(_hold(folder))
        _held.append(_remove_later(folder))


@contextlib.contextmanager
def new_folder(size):
    """
    Make a new, empty folder in ours. It is removed if the body fails.

    :param int size: bytes of the files that will be there.
    :raises OSError: there is no room, or it cannot be written.
    """
    with _lock:
        base = _get_base(size)
    folder = tempfile.mkdtemp(dir=base)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, True)
        raise
