# SPDX-License-Identifier: BSD-3-Clause
"""
Blocks of a file, which both ends know by digests. Blocks begin at multiples of their size: a file
to which something was added at its end, or in which something was replaced, has the others as
before.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import errno
import hashlib
import os
import sys
import threading
import zlib

from mitogen._files.items import CHUNK, DATA, is_bytes
from mitogen._files.sync_items import PACKED
from mitogen.core import Blob

#: Bytes of a digest, and the value that stands for the digest of a hole, or of a block that could
#: not be read.
DIGEST = 32
NO_DIGEST = b'\0' * DIGEST

#: Blocks that a file has, at most: the digests of all are one message.
MOST_BLOCKS = 1 << 16

#: A quick level of compression. Data that it does not make this much smaller is sent as it is.
_LEVEL, _WORTH = 1, 0.9

_SEEK_DATA = getattr(os, 'SEEK_DATA', None)


def block_size(size):
    """
    Return how many bytes the blocks of a file have. Both ends know it by the size of the file.
    """
    return CHUNK * max(1, -(-size // (CHUNK * MOST_BLOCKS)))


def blocks_of(size):
    """
    Yield (position, bytes) of each block of a file.
    """
    block = block_size(size)
    position = 0
    while position < size:
        yield position, min(block, size - position)
        position += block


def digest(data):
    """
    Return the digest of a block.
    """
    return hashlib.sha256(data).digest()


def are_sums(value, size):
    """
    Tell whether something may be digests of blocks of a file.
    """
    return is_bytes(value) and len(value) % DIGEST == 0 and len(value) // DIGEST <= -(-size // block_size(size))


def read_at(fd, position, count):
    """
    Return bytes of a file; fewer only if it ends before.
    """
    os.lseek(fd, position, 0)
    found = []
    while count:
        data = os.read(fd, min(count, 1 << 20))
        if not data:
            break
        found.append(data)
        count -= len(data)
    return found[0] if len(found) == 1 else b''.join(found)


def hole_from(fd, position, block, size):
    """
    Return where the last whole block of a hole ends, if a hole begins at the beginning of a block;
    0 if none does.

    :param block: bytes of the block that begins there.
    """
    if _SEEK_DATA is None:
        return 0
    try:
        end = min(os.lseek(fd, position, _SEEK_DATA), size)
    except OSError:
        # The file system may have no holes. Where it has, this one goes on to the end.
        end = size if sys.exc_info()[1].errno == errno.ENXIO else 0
    if end == size:
        return size
    return position + (end - position) // block * block if end >= position + block else 0


class Block(object):
    """
    A block that is to be sent. Any thread.
    """
    def __init__(self, data):
        self.data, self.digest = data, digest(data)
        #: Guards `_packed`, so that no two threads compress it.
        self._lock = threading.Lock()
        self._packed = None

    def items(self, packs):
        """
        Return its items.

        :param packs: whether they are compressed.
        """
        pieces = [self.data[start:start + CHUNK] for start in range(0, len(self.data), CHUNK)]
        if not packs:
            return [(DATA, Blob(piece)) for piece in pieces]
        with self._lock:
            if self._packed is None:
                self._packed = [_packed(piece) for piece in pieces]
            return self._packed


def _packed(piece):
    data = zlib.compress(piece, _LEVEL)
    if len(data) > _WORTH * len(piece):
        return DATA, Blob(piece)
    return PACKED, Blob(data), len(piece)


def unpacked(data, size):
    """
    Return data that was compressed; None if it does not have this size. No more than that is held
    in memory.
    """
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(bytes(data), size + 1)
    except zlib.error:
        return None
    return found if len(found) == size else None


class Tally(object):
    """
    The digest of a whole file: the digest of the digests of its blocks.
    """
    def __init__(self, size):
        self._block = block_size(size)
        self._whole = hashlib.sha256()
        self._hash, self._count = hashlib.sha256(), 0

    def update(self, data):
        """
        Add the next piece of the file. A piece lies in one block.
        """
        self._hash.update(data)
        self._count += len(data)
        if self._count >= self._block:
            self._end_block()

    def add(self, found):
        """
        Add the digest of the next block.
        """
        self._whole.update(found)

    def _end_block(self):
        self._whole.update(self._hash.digest())
        self._hash, self._count = hashlib.sha256(), 0

    def digest(self):
        """
        Return it, of all.
        """
        if self._count:
            self._end_block()
        return self._whole.digest()
