# SPDX-License-Identifier: BSD-3-Clause
"""
Basis: the older content of a file, and the part of a new copy that an interrupted sync has left.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import binascii
import hashlib
import os
import stat

from mitogen._files.blocks import blocks_of, digest, hole_from, NO_DIGEST, read_at
from mitogen._files.items import CHUNK
from mitogen._files.open_folder import NO_FOLLOW
from mitogen.core import Blob

_TO_READ = os.O_RDONLY | os.O_NONBLOCK | NO_FOLLOW


def part_of(name):
    """
    Return the name of the part of a file of some name. It is no longer than names may be.
    """
    return b'.mitogen-part-' + binascii.hexlify(digest(name)[:12])


def is_our_part(found):
    """
    Tell by its status whether a file may be a part of ours: it is a file of our user, and has no
    other name.
    """
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1


def open_to_read(folder, name, test):
    """
    Return a descriptor of a file in a folder. None if it cannot be read, or if a test of its status
    says no.
    """
    try:
        fd = folder.call(os.open, name, _TO_READ)
    except EnvironmentError:
        return None
    if test(os.fstat(fd)):
        return fd
    os.close(fd)
    return None


def is_file(found):
    """
    Tell of a status whether it is of a file.
    """
    return stat.S_ISREG(found.st_mode)


class Basis(object):
    """
    The content that a new file can be copied from: that of the part and, behind the end of the
    part, that of the older file. It does not close their descriptors.

    :param part: descriptor, or None.
    :param old: descriptor, or None.
    """
    def __init__(self, part, old):
        self._sources = [(fd, os.fstat(fd).st_size) for fd in (part, old) if fd is not None]

    def source_of(self, position, count):
        """
        Return the descriptor of the file that has a block; None if neither has it.
        """
        for fd, size in self._sources:
            if position + count <= size:
                return fd
        return None

    def sums(self, size):
        """
        Return the digests of the blocks that a file of some size could take from here.
        """
        found = []
        for position, count in blocks_of(size):
            fd = self.source_of(position, count)
            if fd is None:
                break
            found.append(_digest_of(fd, position, count))
        return Blob(b''.join(found))


def _digest_of(fd, position, count):
    """
    Return the digest of a block, of any size, which is not held in memory.
    """
    if hole_from(fd, position, count, position + count):
        # The other end knows its own holes.
        return NO_DIGEST
    hashed = hashlib.sha256()
    while count:
        data = read_at(fd, position, min(count, CHUNK))
        if not data:
            return NO_DIGEST
        hashed.update(data)
        position += len(data)
        count -= len(data)
    return hashed.digest()
