# SPDX-License-Identifier: BSD-3-Clause
"""
Archives: the files of a distribution as they travel.
"""

from __future__ import absolute_import  # house

import zlib  # house

from mitogen.master import b  # house


class _Archive(object):
    """
    The files of a distribution, compressed and cut into pieces.

    :param files: as of :meth:`_DistributionFiles.load`.
    :param int most: bytes that the pieces may have together.
    :raises _TooLarge: they have more.
    """
    #: Bytes of a piece.
    piece_size = 262144

    #: Of the compression. Most of it is machine code, and the child waits.
    level = 3

    def __init__(self, files, most):
        import hashlib
        #: Bytes of the files.
        self.size = 0
        #: Bytes of all pieces.
        self.packed_size = 0
        self.pieces = []
        self._rest = b('')
        self._hash = hashlib.sha256()
        packer = zlib.compressobj(self.level)
        for path, is_program, time, content in files:
            head = '%s %d %d %s\n' % ('x' if is_program else '-', time,
                                      len(content), path)
            self.size += len(content)
            self._add(packer.compress(head.encode('utf-8')))
            self._add(packer.compress(content))
            self._check(most)
        self._add(packer.compress(b('\n')) + packer.flush())
        self._check(most)
        self.pieces.append(self._rest)
        self.digest = self._hash.hexdigest()

    def _check(self, most):
        if self.packed_size > most:
            raise _TooLarge(most)

    def _add(self, data):
        self._hash.update(data)
        self.packed_size += len(data)
        self._rest += data
        while len(self._rest) > self.piece_size:
            self.pieces.append(self._rest[:self.piece_size])
            self._rest = self._rest[self.piece_size:]


class _TooLarge(Exception):
    """
    An archive has more bytes than it may have.
    """
