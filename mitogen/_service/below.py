# SPDX-License-Identifier: BSD-3-Clause
"""
Open a file below a directory, and no file outside of it, even through a link.
"""

from __future__ import absolute_import  # house

import os  # house
import stat  # house

from mitogen.service import Error  # house


#: Opens a directory to look into it, which takes no permission to list it.
_O_DIRECTORY = (getattr(os, 'O_PATH', os.O_RDONLY) | os.O_DIRECTORY |
                os.O_NOFOLLOW | getattr(os, 'O_CLOEXEC', 0))

#: O_NONBLOCK: the file may have become a pipe.
_O_FILE = (os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW |
           getattr(os, 'O_CLOEXEC', 0))

#: Whether this Python opens a file in an open directory. Python 2 does not:
#: there a user who may write below the prefix may put a link in place of a
#: directory between the check and the opening.
_CAN_WALK = os.open in getattr(os, 'supports_dir_fd', ())

_irregular_msg = '%r is not a regular file'


def _is_below(path, prefix):
    """
    Return whether a normal path is a directory, or stands below it.
    """
    return path == prefix or path.startswith(prefix.rstrip(os.sep) + os.sep)


def _need_regular(st, path):
    if not stat.S_ISREG(st.st_mode):
        raise Error(_irregular_msg % (path,))


def _open_regular(path):
    """
    Open what a path leads to, links followed, if that is a regular file.
    Return its descriptor.
    """
    # Only a regular file: opening other kinds may have effects.
    _need_regular(os.stat(path), path)
    return os.open(path, _O_FILE & ~os.O_NOFOLLOW)


def _open_below(path, prefixes):
    """
    Open a regular file below one of some directories. Links are followed as
    long as they stay below it. Return its descriptor.

    :param path:
        Normal path, below one of `prefixes`.
    :raises mitogen.service.Error:
        It is no regular file, or not below one of the directories.
    :raises OSError:
        There is no such file, or a part of the path has become a link since it
        was looked at.
    """
    real = os.path.realpath(path)
    for prefix in prefixes:
        root = os.path.realpath(prefix)
        if _is_below(path, prefix) and _is_below(real, root):
            if not _CAN_WALK:
                return _open_here(real, path)
            parts = [part for part in real[len(root):].split(os.sep) if part]
            return _walk(root, parts, path)
    raise Error('%r leads out of the directory that may be fetched from' %
                (path,))


def _open_here(name, path, **kwargs):
    """
    Open the regular file of that name, and no link.
    """
    _need_regular(os.lstat(name) if not kwargs else
                  os.stat(name, follow_symlinks=False, **kwargs), path)
    return os.open(name, _O_FILE, **kwargs)


def _walk(root, parts, path):
    """
    Open a file part by part, so that each is in the directory before it, and
    none is a link.
    """
    if not parts:
        return _open_here(root, path)
    folder = os.open(root, _O_DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = inner
        return _open_here(parts[-1], path, dir_fd=folder)
    finally:
        os.close(folder)
