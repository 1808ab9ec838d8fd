# SPDX-License-Identifier: BSD-3-Clause
"""
Sync: trees to a host, and from it, of which only what differs is sent.
"""

from __future__ import annotations

import collections
import contextlib
import os
from typing import TYPE_CHECKING, Any, Callable, Optional

import mitogen._files
import mitogen._files.comparison
import mitogen._files.opened
import mitogen._files.sync_opened
import mitogen._files.sync_source
from mitogen._tree import files, tasks
from mitogen._tree.calls import Calls
from mitogen._tree.meter import Progress
from mitogen._tree.shared_blocks import SharedBlocks
from mitogen._tree.sync_meter import SyncMeter, Synced

if TYPE_CHECKING:
    from mitogen._tree.host import Host

#: Lists of offers that are ahead of what is written.
AHEAD = 4


class _Way:
    """
    The calls of one sync, of several kinds. Each kind has a function that takes what the host
    returned.
    """
    def __init__(self, calls: Calls, number: int) -> None:
        self._calls, self._number = calls, number
        self._kinds: collections.deque[Callable[[Any], None]] = collections.deque()

    def begin(self, kind: Callable[[Any], None], fn: Callable[..., Any], *args: Any) -> None:
        self._kinds.append(kind)
        self._calls.begin(fn, self._number, *args)

    def waiting(self, kind: Callable[[Any], None]) -> int:
        """
        Return how many calls of a kind are on their way.
        """
        return self._kinds.count(kind)

    def end(self) -> bool:
        """
        Wait for the first one, if there is one. Return whether there was.
        """
        if not self._kinds:
            return False
        kind = self._kinds.popleft()
        kind(self._calls.end()[0])
        return True


class _Put:
    """
    A sync to a host.
    """
    def __init__(self, source: Any, meter: SyncMeter, way: _Way) -> None:
        self._source, self._meter, self._way = source, meter, way
        #: Lists of items that are on their way, and their sizes.
        self._sent: collections.deque[Any] = collections.deque()
        self._sizes: collections.deque[int] = collections.deque()
        #: Lists of offers that are not sent yet, and whether there may be more.
        self._batches, self._offering = 0, True

    def run(self) -> None:
        """
        Send until the host has all.
        """
        while self._offering or self._batches:
            self._offer()
            read = self._source.read()
            if read is None:
                self._way.end()
                continue
            self._write(*read)
        while self._way.end():
            pass

    def _offer(self) -> None:
        while self._offering and self._batches < AHEAD:
            offers = self._source.offers()
            if offers is None:
                self._offering = False
                return
            self._batches += 1
            self._way.begin(self._take_answers, mitogen._files.sync_opened.compare_on, offers)

    def _write(self, items: Any, is_last: bool) -> None:
        self._batches -= is_last
        if not items:
            return
        while files._is_full(self._sizes):
            self._way.end()
        self._sent.append(items)
        self._sizes.append(files._size_of(items))
        self._way.begin(self._note_written, mitogen._files.opened.write_on, items)

    def _take_answers(self, answers: Any) -> None:
        self._source.answer(answers)

    def _note_written(self, nothing: Any) -> None:
        self._sizes.popleft()
        self._meter.note(self._sent.popleft())


class _Get:
    """
    A sync from a host, which may say anything.
    """
    def __init__(self, path: bytes, comparison: Any, writer: Any, meter: SyncMeter, way: _Way) -> None:
        self._path, self._comparison, self._writer, self._meter, self._way = path, comparison, writer, meter, way
        #: Lists of offers that were answered and are not here yet, and whether there may be more.
        self._batches, self._offering = 0, True
        #: How often the host has sent nothing, in a row.
        self._nothing = 0

    def run(self) -> None:
        """
        Receive until all is here.
        """
        while self._offering or self._batches:
            while self._offering and self._batches + self._way.waiting(self._take_offers) < AHEAD:
                self._way.begin(self._take_offers, mitogen._files.sync_opened.offer_on)
            while self._batches and self._way.waiting(self._take_items) < files.WINDOW:
                self._way.begin(self._take_items, mitogen._files.sync_opened.send_on)
            self._way.end()
        while self._way.end():
            pass

    def _take_offers(self, offers: Any) -> None:
        if offers is None:
            self._offering = False
            return
        answers = self._comparison.take(offers)
        if self._offering:
            self._batches += 1
            self._way.begin(self._ignore, mitogen._files.sync_opened.answer_on, answers)

    def _take_items(self, told: Any) -> None:
        items, is_last = ([], False) if told is None else self._checked(told)
        self._nothing = 0 if items or is_last is True else self._nothing + 1
        # Only calls that were on their way before the last answer have a reason to return nothing.
        if self._nothing > files.WINDOW:
            raise mitogen._files.error(self._path, 'the host does not send the files that were asked for')
        self._writer.take(items)
        self._meter.note(items)
        self._batches -= is_last is True

    def _checked(self, told: Any) -> Any:
        if not isinstance(told, (tuple, list)) or len(told) != 2 or not self._batches:
            raise mitogen._files.error(self._path, 'the host sent something that is not a list of items')
        return told

    def _ignore(self, nothing: Any) -> None:
        pass


def put(
    host: Host, local: files.Path, remote: files.Path, checksum: bool, resume: bool, compress: bool, delete: bool,
    progress: Optional[Progress], shared: Optional[SharedBlocks] = None,
) -> Synced:
    """
    See :meth:`Host.sync`.
    """
    path, target = files._blob(local), files._blob(remote)
    name = files._name_of(path)
    meter = SyncMeter(progress, os.fsdecode(name or b''))
    load = shared.load if shared else mitogen._files.sync_source.read_block
    with files._telling(host):
        with contextlib.closing(mitogen._files.sync_source.SyncSource(path, compress, load)) as source:
            calls = Calls(host)
            number = calls.open(mitogen._files.sync_opened.start_receiving, target, name, checksum, resume, delete)
            with calls.opened(number):
                _Put(source, meter, _Way(calls, number)).run()
                removed = calls.call(mitogen._files.opened.finish_writing, number)
                (meter.copied.removed,) = tasks.numbers(host, [removed], 1)
    return meter.copied


def get(
    host: Host, remote: files.Path, local: files.Path, checksum: bool, resume: bool, compress: bool, delete: bool,
    progress: Optional[Progress],
) -> Synced:
    """
    See :meth:`Host.sync_from`.
    """
    path, target = files._blob(remote), files._blob(local)
    name = files._name_of(path)
    meter = SyncMeter(progress, os.fsdecode(name or b''))
    # Unless the caller wants it, a host is not told what is here.
    receiving = mitogen._files.sync_opened.Receiving(target, name, checksum, checksum, resume, delete)
    with files._telling(host), contextlib.closing(receiving):
        calls = Calls(host)
        number = calls.open(mitogen._files.sync_opened.start_sending, path, compress)
        with calls.opened(number):
            _Get(target, receiving.comparison, receiving, meter, _Way(calls, number)).run()
            calls.call(mitogen._files.opened.close, number)
        meter.copied.removed = receiving.finish()
    return meter.copied
