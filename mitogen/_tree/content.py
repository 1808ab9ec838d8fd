# SPDX-License-Identifier: BSD-3-Clause
"""
Content: the bytes of one file, as they come from a host.
"""

from __future__ import annotations

from typing import Any, Optional

from mitogen._files import error, FileError
from mitogen._files.items import checked, DATA, DONE, FILE, FOLDER, NoTree


class Content:
    """
    The bytes of a file that comes. The host may say anything.
    """
    def __init__(self, path: bytes, limit: int) -> None:
        self._path, self._limit = path, limit
        self._found = bytearray()
        self._size: Optional[int] = None
        self._done, self._whole = 0, False

    def take(self, items: Any) -> None:
        """
        Take some items.

        :raises FileError: an item is not of a file, or there are too many
            bytes.
        """
        try:
            for item in checked(items):
                self._KINDS.get(item[0], Content._other)(self, *item[1:])
            return
        except NoTree as e:
            found = self._error('what comes is no file: %s' % (e,))
        raise found

    def _error(self, why: str) -> FileError:
        return error(self._path, why)

    def _file(self, name: bytes, mode: Optional[int], size: int) -> None:
        if self._size is not None:
            raise NoTree('more than one')
        self._size = size
        self._limited(size)

    def _limited(self, size: int) -> None:
        if size > self._limit:
            raise self._error('it has more than %d bytes: use get, or a higher limit' % (self._limit,))

    def _data(self, data: bytes) -> None:
        if self._size is None or self._whole:
            raise NoTree('data of no file')
        self._done += len(data)
        if self._done > self._size >= 0:
            raise self._error('more data arrived than was announced')
        self._limited(self._done)
        self._found += data

    def _end(self) -> None:
        self._whole = True

    def _folder(self, name: bytes, mode: int) -> None:
        raise self._error('it is a folder')

    def _other(self, *args: Any) -> None:
        raise NoTree('an item that is not part of a file')

    def finish(self) -> bytes:
        """
        Return all of it.

        :raises FileError: not all has come.
        """
        if not self._whole or self._done < (self._size or 0):
            raise self._error('the end of the file did not arrive')
        return bytes(self._found)

    _KINDS = {
        FILE: _file, DATA: _data, DONE: _end,
        FOLDER: _folder,
    }
