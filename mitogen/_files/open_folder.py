# SPDX-License-Identifier: BSD-3-Clause
"""
OpenFolder: a folder that is read or written.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import errno
import os
import stat
import sys

from mitogen._files.items import MOST_FOLDERS

#: Whether a file can be named by its folder's descriptor, which no other process can make lead
#: elsewhere.
_BY_FOLDER = os.open in getattr(os, 'supports_dir_fd', ())

NO_FOLLOW = getattr(os, 'O_NOFOLLOW', 0)
_AS_FOLDER = os.O_RDONLY | getattr(os, 'O_DIRECTORY', 0)


class OpenFolder(object):
    """
    An open folder. Its functions raise what the system does.

    :ivar path: for people, and where there is no better way to name what lies in it.
    :ivar mode: what it gets at its end, or None.
    """
    def __init__(self, path, fd, mode=None):
        self.path, self.fd, self.mode = path, fd, mode

    @classmethod
    def at(cls, path, mode=None):
        """
        Return the folder at a path. A symbolic link to one will do.
        """
        return cls(path, os.open(path, _AS_FOLDER), mode)

    def folder(self, name, mode=None):
        """
        Return a folder that lies in this one. A symbolic link to one will not do.
        """
        return OpenFolder(self.path_of(name), self.call(os.open, name, _AS_FOLDER | NO_FOLLOW), mode)

    def path_of(self, name):
        """
        Return the path of the entry of that name.
        """
        return os.path.join(self.path, name)

    def names(self):
        """
        Return the sorted names of all entries, as bytes.
        """
        if _BY_FOLDER:
            return sorted(os.fsencode(name) for name in os.listdir(self.fd))
        return sorted(os.listdir(self.path))

    def call(self, func, name, *args):
        """
        Call a function of the system for the entry of that name.
        """
        if _BY_FOLDER:
            return func(name, *args, dir_fd=self.fd)
        return func(self.path_of(name), *args)

    def stat(self, name):
        """
        Return the status of the entry of that name, None if there is none.
        """
        try:
            return self.call(os.lstat, name)
        except OSError:
            if sys.exc_info()[1].errno != errno.ENOENT:
                raise
            return None

    def link(self, text, name):
        """
        Make a symbolic link.
        """
        if _BY_FOLDER:
            os.symlink(text, name, dir_fd=self.fd)
        else:
            os.symlink(text, self.path_of(name))

    def rename(self, old, new):
        """
        Rename an entry. It replaces an entry that has the new name already.
        """
        if _BY_FOLDER:
            os.rename(old, new, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        else:
            os.rename(self.path_of(old), self.path_of(new))

    def remove(self, name, deeper=MOST_FOLDERS):
        """
        Remove the entry of that name; a folder with all that lies in it. Links are removed, and not
        followed. Return how many entries were removed; none if somebody else was faster.

        :param deeper: folders that may lie in each other.
        """
        found = self.stat(name)
        if found is None:
            return 0
        if not stat.S_ISDIR(found.st_mode):
            self.call(os.unlink, name)
            return 1
        if not deeper:
            raise EnvironmentError(errno.ELOOP, 'folders are nested more than %d deep' % (MOST_FOLDERS,))
        folder = self.folder(name)
        try:
            count = sum([folder.remove(inside, deeper - 1) for inside in folder.names()])
        finally:
            folder.close()
        self.call(os.rmdir, name)
        return count + 1

    def close(self):
        """
        Let it go, with its mode.
        """
        try:
            if self.mode is not None:
                os.fchmod(self.fd, self.mode)
        finally:
            os.close(self.fd)
