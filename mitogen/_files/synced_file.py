# SPDX-License-Identifier: BSD-3-Clause
"""
SyncedFile: a file that is made of data that comes, and of its older content.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import fcntl
import os
import sys

from mitogen._files import error
from mitogen._files.basis import Basis, is_file, is_our_part, open_to_read, part_of
from mitogen._files.blocks import NO_DIGEST, read_at, Tally
from mitogen._files.items import CHUNK
from mitogen._files.new_entry import NewFile
from mitogen._files.open_folder import NO_FOLLOW

_ZEROS = b'\0' * CHUNK


class SyncedFile(NewFile):
    """
    A file that takes the place of an older one. Its descriptor stands where the next bytes go.

    :param resumes: whether it stays as a part if it does not become whole, and begins with such a
        part.
    :ivar time: when it was changed.
    :ivar digest: the digest of its content; empty if the older content is kept.
    """
    def __init__(self, folder, name, mode, size, owner, resumes):
        super(SyncedFile, self).__init__(folder, name, mode, size, owner)
        self._resumes = resumes
        self.time = self.digest = None
        self._tally = Tally(size)
        self._old = self._basis = None
        #: Bytes of the part.
        self._had = 0

    def open(self):
        self._old = open_to_read(self._folder, self._name, is_file)
        if self._resumes:
            self._open_part()
        else:
            super(SyncedFile, self).open()
        self._basis = Basis(self._fd if self._had else None, self._old)

    def _open_part(self):
        name = part_of(self._name)
        found = self._folder.stat(name)
        if found is not None and not is_our_part(found):
            self._folder.call(os.unlink, name)
        self._own_name = None
        flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | NO_FOLLOW
        self._fd = self._folder.call(os.open, name, flags, 0o600)
        if not self._is_mine(name):
            raise error(self.path, 'another copy is at work on it')
        self._own_name = name
        self._had = os.fstat(self._fd).st_size

    def _is_mine(self, name):
        """
        Lock the part, and tell whether its name still leads to it: another process could have
        completed and renamed it.
        """
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except EnvironmentError:
            return False
        here, there = os.fstat(self._fd), self._folder.stat(name)
        return is_our_part(here) and there is not None and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def write(self, data):
        super(SyncedFile, self).write(data)
        self._tally.update(data)

    def copy(self, count):
        """
        Copy the next bytes from the older content.
        """
        self._announced(count)
        fd = self._basis.source_of(self._done, count)
        while count:
            data = b'' if fd is None else read_at(fd, self._done, min(count, CHUNK))
            if not data:
                raise error(self.path, 'it changed meanwhile')
            if fd == self._fd:
                self._done += len(data)
                self._tally.update(data)
            else:
                self.write(data)
            count -= len(data)

    def _announced(self, count):
        if self._done + count > self._size:
            raise error(self.path, 'more data arrived than was announced')

    def keep(self):
        """
        Take all of the older content.
        """
        if self._done or self._old is None or os.fstat(self._old).st_size != self._size:
            raise error(self.path, 'it changed meanwhile')
        self._basis = Basis(None, self._old)
        while self._done < self._size:
            self.copy(min(CHUNK, self._size - self._done))
        self.digest = b''

    def skip(self, count):
        """
        Let zeros come next: a hole, where the file system has holes.
        """
        self._announced(count)
        end = self._done + count
        for position in range(self._done, min(self._had, end), CHUNK):
            os.write(self._fd, _ZEROS[:min(CHUNK, self._had - position, end - position)])
        if end > max(self._had, self._done):
            os.ftruncate(self._fd, end)
        os.lseek(self._fd, end, 0)
        self._done = end
        self._tally.add(NO_DIGEST)

    def finish(self):
        if self._done == self._size:
            self._verify()
            os.ftruncate(self._fd, self._size)
            self._set_time()
        super(SyncedFile, self).finish()
        self._close_old()

    def _verify(self):
        if self.digest is None or (self.digest and self.digest != self._tally.digest()):
            self._resumes = False
            raise error(self.path, 'its checksum is not that of the file that was sent')

    def _set_time(self):
        if self.time is None:
            return
        try:
            if os.utime in getattr(os, 'supports_fd', ()):
                os.utime(self._fd, ns=(self.time, self.time))
            else:
                seconds = self.time / 1e9
                os.utime(self._folder.path_of(self._meanwhile()), (seconds, seconds))
        except (OverflowError, ValueError):
            raise error(self.path, 'the system cannot store this time: %s' % (sys.exc_info()[1],))

    def remove(self):
        """
        Remove it unless it has its name, or is kept as a part. May be repeated. Any thread.
        """
        if self._resumes and (self._done or self._had):
            self._own_name = None
        else:
            super(SyncedFile, self).remove()

    def close(self):
        super(SyncedFile, self).close()
        self._close_old()

    def _close_old(self):
        if self._old is not None:
            fd, self._old = self._old, None
            os.close(fd)
