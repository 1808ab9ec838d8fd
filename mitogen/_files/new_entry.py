# SPDX-License-Identifier: BSD-3-Clause
"""
NewFile and NewLink: entries of a folder that have a name of their own until they are whole.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import binascii
import os

from mitogen._files import error
from mitogen._files.open_folder import NO_FOLLOW


class _NewEntry(object):
    """
    An entry that is made in a folder, under a temporary name. It is given its name once it is
    whole, and removed otherwise.

    :ivar path: where it will be.
    :ivar clear: called with the folder and the name before it gets that, or None.
    """
    clear = None

    def __init__(self, folder, name):
        self.path = folder.path_of(name)
        self._folder, self._name = folder, name
        # Set before the entry is made: an interrupt may come at any time, and the entry has to be
        # removed then.
        self._own_name = b'.mitogen-' + binascii.hexlify(os.urandom(8))

    def _meanwhile(self):
        """
        Return its temporary name. That is empty, so that the system refuses it, once the entry was
        removed because the process ends.
        """
        return self._own_name or b''

    def _give_name(self):
        """
        An entry that had the name before is replaced at once.
        """
        if self.clear is not None:
            self.clear(self._folder, self._name)
        self._folder.rename(self._meanwhile(), self._name)
        self._own_name = None

    def remove(self):
        """
        Remove it unless it has its name. May be repeated. Any thread.
        """
        name, self._own_name = self._own_name, None
        if name is not None:
            try:
                self._folder.call(os.unlink, name)
            except OSError:
                # It has its name, is not made yet, or someone else has removed it.
                pass


class NewLink(_NewEntry):
    """
    A symbolic link.
    """
    def make(self, text):
        """
        Make it, and give it its name.
        """
        self._folder.link(text, self._meanwhile())
        self._give_name()

    def close(self):
        """
        Remove it unless it has its name. May be repeated.
        """
        self.remove()


class NewFile(_NewEntry):
    """
    A file that is being written.

    :param mode: what it gets; None for what the umask leaves.
    :param size: how many bytes it is to have; -1 if that is not known.
    :param owner: the numbers of the user and the group it should belong to, or None.
    """
    def __init__(self, folder, name, mode, size, owner):
        super(NewFile, self).__init__(folder, name)
        self._mode, self._size, self._owner = mode, size, owner
        self._done, self._fd = 0, None

    def open(self):
        """
        Make it. Others may not read it before it has its mode.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW
        self._fd = self._folder.call(os.open, self._meanwhile(), flags, 0o666 if self._mode is None else 0o600)

    def write(self, data):
        """
        Write what comes next.
        """
        self._done += len(data)
        if self._done > self._size >= 0:
            raise error(self.path, 'more data arrived than was announced')
        data = memoryview(data)
        while data:
            data = data[os.write(self._fd, data):]

    def finish(self):
        """
        Give it its name.
        """
        if self._done < self._size:
            raise error(self.path, 'less data arrived than was announced')
        if self._owner is not None:
            self._give_away(*self._owner)
        if self._mode is not None:
            os.fchmod(self._fd, self._mode)
        fd, self._fd = self._fd, None
        os.close(fd)
        self._give_name()

    def _give_away(self, user, group):
        found = os.fstat(self._fd)
        if (found.st_uid, found.st_gid) != (user, group):
            try:
                os.fchown(self._fd, user, group)
            except OSError:
                # Only root may, and nobody where the file system has no owners.
                pass

    def close(self):
        """
        Remove it unless it is finished. May be repeated.
        """
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)
        self.remove()
