# SPDX-License-Identifier: BSD-3-Clause
"""
Meter: how much of a file or a tree has arrived.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Any, Callable, Optional

import mitogen.core
from mitogen._files.items import DATA, DONE, FILE, FOLDER, LINK, SKIPPED, UP
from mitogen._tree.record import Record

LOG = logging.getLogger('mitogen.tree')

#: Called with the path of a file below the source, its bytes that are there, and all that it has.
Progress = Callable[[str, int, int], object]

#: At most this many lines about files that did not travel are kept, and
#: logged.
MOST_SKIPPED = 1000


class Copied(Record):
    """
    Tells how much has travelled.

    :ivar files: how many.
    :ivar folders: how many.
    :ivar links: how many symbolic links.
    :ivar bytes: of all files.
    :ivar skipped: a line about each special file, such as a fifo, and each that went away
        meanwhile; at most a thousand.
    """
    files: int
    folders: int
    links: int
    bytes: int
    skipped: list[str]

    def __init__(
        self, files: int = 0, folders: int = 0, links: int = 0, bytes: int = 0, skipped: Optional[list[str]] = None,
    ) -> None:
        self.files = files
        self.folders = folders
        self.links = links
        self.bytes = bytes
        self.skipped = [] if skipped is None else skipped


class Meter:
    """
    Counts items that have arrived, and tells of the progress.
    """
    def __init__(self, progress: Optional[Progress], name: str) -> None:
        self.copied = Copied()
        self._progress = progress
        self._name = name
        self._folders: list[str] = []
        self._path, self._done, self._total = '', 0, 0

    def note(self, items: Iterable[Any]) -> None:
        """
        Count some items, which a writer has taken.
        """
        for item in items:
            self._KINDS[item[0]](self, *item[1:])

    def _path_of(self, name: bytes) -> str:
        return '/'.join(self._folders[1:] + [os.fsdecode(bytes(name))])

    def _folder(self, name: bytes, mode: int) -> None:
        self.copied.folders += 1
        # The top of a tree has no name that counts.
        self._folders.append(os.fsdecode(bytes(name)) if self._folders else '')

    def _up(self) -> None:
        self._folders.pop()

    def _file(self, name: bytes, mode: int, size: int) -> None:
        self._path = self._path_of(name) if self._folders else self._name
        self._done, self._total = 0, size

    def _data(self, data: bytes) -> None:
        self._more(len(data))

    def _more(self, count: int) -> None:
        self._done += count
        if self._done != self._total:
            self._tell(max(self._done, self._total))

    def _end(self) -> None:
        self.copied.files += 1
        self.copied.bytes += self._done
        self._tell(self._done)

    def _tell(self, total: int) -> None:
        if self._progress is not None:
            self._progress(self._path, self._done, total)

    def _link(self, name: bytes, text: bytes) -> None:
        self.copied.links += 1

    def _skipped(self, name: bytes, why: str) -> None:
        if len(self.copied.skipped) >= MOST_SKIPPED:
            return
        path = self._path_of(name).encode('utf-8', 'replace')
        line = mitogen.core._printable('%s: %s' % (path.decode(), why))
        LOG.warning('not copied: %s', line)
        self.copied.skipped.append(line)

    _KINDS = {FOLDER: _folder, UP: _up, FILE: _file, DATA: _data, DONE: _end, LINK: _link, SKIPPED: _skipped}
