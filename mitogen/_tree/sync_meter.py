# SPDX-License-Identifier: BSD-3-Clause
"""
SyncMeter: how much of a tree has arrived where an older copy of it was.
"""

from __future__ import annotations

from typing import Optional

from mitogen._files.items import DATA
from mitogen._files.sync_items import AS_IT_WAS, COPY, HOLE, KEEP, PACKED, SUM, TIME
from mitogen._tree.meter import Copied, Meter, Progress


class Synced(Copied):
    """
    The result of a sync: a :class:`Copied` that counts the files which were written.

    :ivar same: files and links that were left as they were.
    :ivar sent: bytes of content that were sent, compressed or not.
    :ivar removed: files, links and folders that were removed.
    """
    same: int
    sent: int
    removed: int

    def __init__(
        self, files: int = 0, folders: int = 0, links: int = 0, bytes: int = 0, skipped: Optional[list[str]] = None,
        same: int = 0, sent: int = 0, removed: int = 0,
    ) -> None:
        super().__init__(files, folders, links, bytes, skipped)
        self.same = same
        self.sent = sent
        self.removed = removed


class SyncMeter(Meter):
    """
    Counts items that have arrived, and tells of the progress.
    """
    copied: Synced

    def __init__(self, progress: Optional[Progress], name: str) -> None:
        super().__init__(progress, name)
        self.copied = Synced()

    def _sent(self, data: bytes) -> None:
        self.copied.sent += len(data)
        self._more(len(data))

    def _packed(self, data: bytes, size: int) -> None:
        self.copied.sent += len(data)
        self._more(size)

    def _keep(self) -> None:
        self._done = self._total

    def _as_it_was(self, name: bytes, size: int) -> None:
        self.copied.same += 1

    def _nothing(self, what: object) -> None:
        pass

    _KINDS = {
        **Meter._KINDS, DATA: _sent, PACKED: _packed, COPY: Meter._more, HOLE: Meter._more, KEEP: _keep,
        AS_IT_WAS: _as_it_was, TIME: _nothing, SUM: _nothing,
    }
