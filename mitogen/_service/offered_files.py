# SPDX-License-Identifier: BSD-3-Clause
"""
The files that a service offers: those that may be fetched, and their paths.
"""

from __future__ import absolute_import  # house

import os  # house
import threading  # house

import mitogen.core  # house

from mitogen.service import _is_below, _need_regular, _open_below, _open_regular, _PARENTS, _PATH, _text_path  # house
from mitogen.service import arg_spec, Error, expose, Service, to_text  # house


class _OfferedFiles(Service):
    """
    Base of a service that sends files: opens those that were registered, and no
    others, for contexts without authority.
    """
    unregistered_msg = 'the file %r is not one that may be fetched'

    def __init__(self, router):
        super(_OfferedFiles, self).__init__(router)
        self._lock = threading.Lock()
        self._paths = set()     # guarded by _lock
        self._prefixes = set()  # guarded by _lock

    @expose(_PARENTS)
    @arg_spec(_PATH)
    def register(self, path):
        """
        Let every context fetch the file of exactly this name.

        :param path: text.
        """
        with self._lock:
            self._paths.add(_text_path(path))

    @expose(_PARENTS)
    @arg_spec(_PATH)
    def register_prefix(self, path):
        """
        Let every context fetch the files in a directory, at any depth. A
        symbolic link counts if it leads to a file below the directory, too.
        """
        with self._lock:
            self._prefixes.add(os.path.abspath(_text_path(path)))

    def _is_permitted(self, path, msg):
        return (self._is_exempt(path, msg) or
                bool(self._prefixes_of(os.path.abspath(_text_path(path)))))

    def _is_exempt(self, path, msg):
        """
        Return whether a file may be fetched, even if it is a link.
        """
        with self._lock:
            if _text_path(path) in self._paths:
                return True
        return mitogen.core.has_parent_authority(msg)

    def _prefixes_of(self, name):
        with self._lock:
            return [prefix for prefix in self._prefixes
                    if _is_below(name, prefix)]

    def _need_sane(self, path, msg):
        """
        Refuse a path that is longer than any that a file has.
        """
        limits, name = mitogen.core._limits_of(self.router), _text_path(path)
        limit = None
        if mitogen.core.has_parent_authority(msg):
            return
        if len(name) > limits.path_bytes:
            limit = 'path_bytes'
        elif name.count(os.sep) > limits.path_parts:
            limit = 'path_parts'
        if limit:
            mitogen.core._refuse(
                self.router, self.router.stream_by_id(msg.src_id), limit,
                'it asks for a file by a path of %d characters', len(name))
            raise Error(self.unregistered_msg % (name[:100] + '...',))

    def _open(self, path, msg):
        """
        Open a regular file and return it, and its :func:`os.fstat`.

        :raises Error:
            It may not be fetched, or is no regular file.
        """
        if self._is_exempt(path, msg):
            fd = _open_regular(path)
        else:
            name = os.path.abspath(_text_path(path))
            prefixes = self._prefixes_of(name)
            if not prefixes:
                raise Error(self.unregistered_msg % (path,))
            fd = _open_below(name, prefixes)
        fp = os.fdopen(fd, 'rb', 0)
        try:
            if not mitogen.core.PY3:
                mitogen.core.set_cloexec(fp.fileno())
            st = os.fstat(fp.fileno())
            _need_regular(st, path)
        except Exception:
            fp.close()
            raise
        return fp, st

    @staticmethod
    def _metadata(st):
        import grp
        import pwd
        names = []
        for find, number in ((pwd.getpwuid, st.st_uid),
                             (grp.getgrgid, st.st_gid)):
            try:
                names.append(to_text(find(number)[0]))
            except KeyError:
                names.append(None)
        return {
            u'size': st.st_size,
            u'mode': st.st_mode,
            u'owner': names[0],
            u'group': names[1],
            u'mtime': st.st_mtime,
            u'atime': st.st_atime,
        }
