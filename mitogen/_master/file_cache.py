# SPDX-License-Identifier: BSD-3-Clause
"""
Results that were made from files of modules, once for all routers of this process.
"""

from __future__ import absolute_import  # house

import os  # house
import threading  # house

import mitogen.core  # house


class _FileCache(object):
    """
    Keeps results that were made from a file, as long as the file has the same
    time and size. Any thread; no lock is held while something is made.

    :param int most: bytes that are kept.
    """
    def __init__(self, most):
        self._most = most
        self._lock = threading.Lock()   # guards what follows
        self._made = {}                 # (path, stamp, kind) -> result
        self._size = 0

    def get(self, path, stamp, kind, make):
        """
        Return the result of `make()`, or its earlier result for the same file.

        :param stamp: what :func:`_stamp_of` returned before the file was read.
        :param kind: what is made from it.
        """
        if stamp is None:
            return make()
        key = path, stamp, kind
        with self._lock:
            if key in self._made:
                return self._made[key]
        made = make()
        size = len(made)
        with self._lock:
            if self._size + size > self._most:
                # Few masters serve so much for long.
                self._made.clear()
                self._size = 0
            self._made[key] = made
            self._size += size
        return made

    def _forked(self):
        self._lock = threading.Lock()


def _stamp_of(path):
    """
    Return a value that changes when a file is edited, :data:`None` if there is
    no such file.
    """
    try:
        st = os.stat(path)
    except (OSError, ValueError):
        return None
    return getattr(st, 'st_mtime_ns', st.st_mtime), st.st_size


_file_cache = _FileCache(256 * 1048576)
mitogen.core._fork_hooks.append(_file_cache._forked)
