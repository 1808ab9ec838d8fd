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
    :param extra:
        More such files, which are left out from where there is no room left.
    :param int level: of the compression.
    :raises _TooLarge: the files or pieces have more bytes.
    """
    #: Bytes of a piece.
    piece_size = 262144

    def __init__(self, files, extra, most, level):
        import hashlib
        #: Bytes of the files.
        self.size = 0
        #: Bytes of all pieces.
        self.packed_size = 0
        self.pieces = []
        self._rest = b('')
        self._hash = hashlib.sha256()
        self._packer = zlib.compressobj(level)
        for entry in files:
            self._add_file(*entry)
            self._check(most)
        # The compressor holds back fewer bytes than that in any case.
        for entry in extra:
            if self.packed_size + len(entry[-1]) + 65536 > most:
                break
            self._add_file(*entry)
        self._add(self._packer.compress(b('\n')) + self._packer.flush())
        self._check(most)
        self.pieces.append(self._rest)
        self.digest = self._hash.hexdigest()

    def _add_file(self, path, is_program, time, content):
        head = '%s %d %d %s\n' % ('x' if is_program else '-', time, len(content),
                                  path)
        self.size += len(content)
        self._add(self._packer.compress(head.encode('utf-8')))
        self._add(self._packer.compress(content))

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
    An archive would have more bytes than it may.
    """
    pass
