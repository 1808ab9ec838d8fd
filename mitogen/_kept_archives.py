# SPDX-License-Identifier: BSD-3-Clause
"""
Archives of distributions that stay on this machine for later runs, if the master asks for that.

They are in a folder that only our user can enter, each under the hash of its content. The master
says which hash it wants, and the archive is unpacked anew in each run. One whose content has
another hash is deleted, and comes from the master as if it had not been here. A child fetches this
module if it needs it.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import errno
import fcntl
import logging
import os
import pwd
import stat
import time
import zlib

LOG = logging.getLogger('mitogen')

#: Bytes that are read at a time. No piece of an archive has more.
STEP = 262144

#: Seconds after which an archive that is not complete was left by a process that was killed.
ABANDONED = 3600

_NEW = 'new-'

#: Numbers of errors for which an archive is not kept and nothing is wrong. Our own have none.
_EXPECTED = (None, errno.EWOULDBLOCK)


def place():
    """
    Return the path of the folder.
    """
    cache = os.environ.get('XDG_CACHE_HOME', '')
    if not os.path.isabs(cache):
        # HOME may be that of the user who has called sudo.
        cache = os.path.join(pwd.getpwuid(os.geteuid()).pw_dir, '.cache')
    return os.path.join(cache, 'mitogen-archives')


def _open_folder(path):
    """
    Return a descriptor of the folder, which is made if there is none. All else goes by the
    descriptor: others might be able to put another folder in its place.

    :raises OSError: it cannot be had, or others may enter it.
    """
    if not os.path.isdir(os.path.dirname(path)):
        os.makedirs(os.path.dirname(path), 0o700)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        os.close(fd)
        raise OSError('%s belongs to another user, or others may enter it' % (path,))
    return fd


class _Archives(object):
    """
    The archives in the folder.

    :param int folder: descriptor of it.
    :param int most: bytes that they may have together.
    """
    def __init__(self, folder, most):
        self.folder = folder
        self._most = most

    def read(self, digest):
        """
        Yield the content of an archive, whatever that is; nothing if it cannot be read.
        """
        try:
            fd = os.open(digest, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self.folder)
            with os.fdopen(fd, 'rb') as fp:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode) or found.st_size > self._most:
                    return
                # The one that was used longest ago is the first to go.
                os.utime(fd)
                for data in iter(lambda: fp.read(STEP), b''):
                    yield data
        except OSError as e:
            LOG.debug('cannot read the kept archive %s: %s', digest, e)

    def has(self, digest):
        """
        Tell whether there is something of that name.
        """
        return digest in os.listdir(self.folder)

    def remove(self, name):
        """
        Delete an archive.
        """
        try:
            os.unlink(name, dir_fd=self.folder)
        except OSError as e:
            LOG.debug('cannot delete the kept archive %s: %s', name, e)

    def _list(self):
        """
        Return tuples of time, size and name, the oldest first.
        """
        found = []
        for name in os.listdir(self.folder):
            try:
                status = os.stat(name, dir_fd=self.folder, follow_symlinks=False)
            except OSError:
                continue
            found.append((status.st_mtime, status.st_size, name))
        return sorted(found)

    def make_room(self, size):
        """
        Delete the oldest until there is room for one more.

        :param int size: bytes that it has at most.
        :raises OSError: it is larger than all of them may be.
        """
        if size > self._most:
            raise OSError('it may need %d bytes, and %d may be kept' % (size, self._most))
        found = self._list()
        total = sum(length for _, length, _ in found)
        for moment, length, name in found:
            if total + size > self._most or name.startswith(_NEW) and moment < time.time() - ABANDONED:
                self.remove(name)
                total -= length


class _NewArchive(object):
    """
    Writes an archive that comes from the master. If that fails, it is only not kept.

    :param _Archives archives: that it is to belong to.
    :param str digest: its hash.
    :param int size: bytes that it has at most.
    """
    def __init__(self, archives, digest, size):
        self._archives = archives
        self._digest = digest
        self._name = '%s%d-%s' % (_NEW, os.getpid(), digest)
        self._fp = None
        try:
            # Two at a time could have more bytes than are allowed.
            fcntl.flock(archives.folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            archives.make_room(size)
            self._fp = os.fdopen(os.open(
                self._name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=archives.folder), 'wb', 0)
        except OSError as e:
            self._tell(e)

    def _tell(self, error):
        # Another process that writes, or a limit, is no mistake. A full disk is one: each later run
        # waits for the archive anew, and nothing else says why.
        LOG.log(logging.DEBUG if error.errno in _EXPECTED else logging.WARNING, 'not keeping the archive %s: %s',
                self._digest, error)

    def tee(self, pieces):
        """
        Yield pieces, each once it is written.
        """
        for piece in pieces:
            if self._fp is not None:
                self._try(self._fp.write, piece)
            yield piece

    def _try(self, func, *args, **kwargs):
        if self._fp is not None:
            try:
                func(*args, **kwargs)
            except OSError as e:
                self._tell(e)
                self.close()

    def finish(self):
        """
        Give the archive its name: its content is what it should be.
        """
        self._try(os.rename, self._name, self._digest, src_dir_fd=self._archives.folder, dst_dir_fd=self._archives.folder)
        if self._fp is not None:
            self._fp.close()
            self._fp = None

    def close(self):
        """
        Delete what is not finished.
        """
        if self._fp is not None:
            self._fp.close()
            self._fp = None
            self._archives.remove(self._name)


def _unpack_kept(archives, offer, unpack):
    """
    Return a folder with the files of an archive that is here, None if it is not.
    """
    if archives.has(offer.digest):
        try:
            return unpack(offer, archives.read(offer.digest))
        except (ValueError, zlib.error) as e:
            LOG.warning('the kept archive %s comes again from the master: %s', offer.digest, e)
            archives.remove(offer.digest)


def _unpack_new(archives, offer, pieces, unpack):
    """
    Return a folder with the files of an archive that comes from the master, and keep it.
    """
    new = _NewArchive(archives, offer.digest, offer.count * STEP)
    try:
        folder = unpack(offer, new.tee(pieces))
        new.finish()
        return folder
    finally:
        new.close()


def unpack(offer, pieces, unpack):
    """
    Return a folder with the files of an archive, be it kept here or not.

    :param offer: that the master has made.
    :param pieces: generator of the archive's pieces, which asks the master.
    :param unpack: function that makes the folder from an offer and pieces.
    """
    try:
        folder = _open_folder(place())
    except (KeyError, OSError) as e:
        LOG.warning('no archives are kept here: %s', e)
        return unpack(offer, pieces)
    try:
        archives = _Archives(folder, offer.kept)
        return _unpack_kept(archives, offer, unpack) or _unpack_new(archives, offer, pieces, unpack)
    finally:
        os.close(folder)
