# SPDX-License-Identifier: BSD-3-Clause
"""
Files of ours that nobody else may read, or choose for us: logs, profiles, dumps.
"""

from __future__ import absolute_import  # house

import errno  # house
import os  # house
import sys  # house

from mitogen.core import _seldom, PY3, set_cloexec  # house


@_seldom
def _is_private(path):
    """Return whether a path is a folder that only we can look into."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    # 0o170000 is what `stat` calls S_IFMT, and 0o40000 is a folder.
    return (found.st_mode & 0o170077 == 0o40000 and
            found.st_uid == os.geteuid() and os.access(path, os.W_OK))


@_seldom
def _private_folder():
    """
    Return a folder that only this user can look into: XDG_RUNTIME_DIR where
    that is one, else `mitogen.UID` in the folder for temporary files. Where
    another user has taken that name, the folder gets a longer one.

    This imports nothing: a log is written by threads that must not.
    """
    path = os.environ.get('XDG_RUNTIME_DIR', '')
    if path[:1] == '/' and _is_private(path):
        return path
    base = os.path.join(os.environ.get('TMPDIR') or '/tmp',
                        'mitogen.%d' % (os.geteuid(),))
    path = base
    for _ in range(10):
        try:
            os.mkdir(path, 0o700)
        except OSError:
            if sys.exc_info()[1].errno != errno.EEXIST:
                raise
        if _is_private(path):
            return path
        noise = bytearray(os.urandom(8))
        path = base + '.' + ''.join(['%02x' % (byte,) for byte in noise])
    raise OSError(errno.EACCES, 'no folder is private to this user', base)


@_seldom
def _open_own(path, flags=0):
    """
    Open a file for writing that only this user may have, and return its
    descriptor. A new file has mode 0600. No link is followed.

    :param flags: such as `os.O_EXCL` or `os.O_APPEND`. Without either what the
        file held is lost.
    :raises OSError: the file cannot be opened, or is somebody else's.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600)
    try:
        if not PY3:
            set_cloexec(fd)
        found = os.fstat(fd)
        # Devices belong to root.
        if found.st_uid not in (0, os.geteuid()):
            raise OSError(errno.EPERM, 'the file belongs to user %d' % (
                found.st_uid,), path)
        if not flags and found.st_mode & 0o170000 == 0o100000:
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd
