# SPDX-License-Identifier: BSD-3-Clause
"""
HostExecutor: an executor of the standard library's kind, whose workers are threads or processes of
a host.
"""

from __future__ import annotations

import concurrent.futures
import os
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

import mitogen._tasks
import mitogen.core
from mitogen._tree.future import HostFuture
from mitogen._tree.mapping import Mapping
from mitogen._tree.tasks import MAIN, numbers, Queue

if TYPE_CHECKING:
    from mitogen._tree.host import Host


T = TypeVar('T')

AFTER_SHUTDOWN = 'cannot schedule new futures after shutdown'


def _processors(host: Host) -> int:
    """
    Return how many processors a host says it has, and at most as many as a pool may have threads.
    """
    (count,) = numbers(host, [host.call(os.cpu_count) or 1], 1)
    return min(count, mitogen._tasks.THREADS_MAX)


class _Place:
    """
    A queue of a host that takes functions, and the number of functions that it has now.
    """
    def __init__(self, host: Host, queue: Queue) -> None:
        self.host = host
        self.queue = queue
        self.count = 0


class HostExecutor(concurrent.futures.Executor):
    """
    Runs functions in threads of a host, or in processes below it.

    :param max_workers: how many run at a time; the number of processors there if None.
    :param processes: whether each worker is a process.
    """
    def __init__(self, host: Host, max_workers: Optional[int] = None, processes: bool = False) -> None:
        if max_workers is not None and max_workers < 1:
            raise ValueError('max_workers must be greater than 0')
        host._tasks.start()
        count = max_workers or _processors(host)
        # Not a plain lock: with it held, the collector may end the iterator of a `map` that nobody
        # has any more, and that takes it again.
        self._lock = threading.RLock()
        self._outstanding: set[HostFuture] = set()
        self._mappings: set[Mapping] = set()
        self._is_shut = False
        #: Hosts that end with the executor.
        self._own: list[Host] = []
        self._host = host
        if processes:
            self._own = list(host.tree.connect_below(host, count))
            self._places = [_Place(child, MAIN) for child in self._own]
            for child in self._own:
                child._tasks.start()
        else:
            self._places = [_Place(host, host._tasks.new_pool(count))]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> HostFuture:
        """
        Have a function called, and return its future. Any thread.

        :raises RuntimeError: the executor is shut down.
        """
        with self._lock:
            if self._is_shut:
                raise RuntimeError(AFTER_SHUTDOWN)
            place = min(self._places, key=lambda place: place.count)
            future = HostFuture(place.host, place.queue.number)
            self._outstanding.add(future)
            place.count += 1
        future._on_done = lambda: self._note_done(place, future)
        try:
            # Without the lock: this calls observers, which may use this executor.
            msg = future._make_msg(fn, args, kwargs)
            msg.handle = place.queue.handle
            future._send(msg)
        except BaseException:
            self._note_done(place, future)
            raise
        return future

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: Optional[float] = None, chunksize: int = 1,
        **more: Any,
    ) -> Iterator[T]:
        """
        As that of :class:`concurrent.futures.Executor`. Each item is a message of its own, whatever
        `chunksize` says.
        """
        if more:
            return super().map(fn, *iterables, timeout=timeout, chunksize=chunksize, **more)
        deadline = None if timeout is None else time.monotonic() + timeout
        if mitogen.core.CORE != 'native' or self._host.tree._observers:
            return _results([self.submit(fn, *args) for args in zip(*iterables)], deadline)
        mapping = Mapping(self._places, self._note_mapped)
        with self._lock:
            if self._is_shut:
                raise RuntimeError(AFTER_SHUTDOWN)
            self._mappings.add(mapping)
        try:
            mapping.send_all(fn, zip(*iterables))
        except BaseException:
            # The calls that were sent run, as with executors of the standard library.
            _finish_soon([mapping])
            raise
        return mapping.results(deadline)

    def _note_mapped(self, mapping: Mapping) -> None:
        with self._lock:
            over = mapping in self._mappings and self._is_over_without(mapping)
        if over:
            self._release()

    def _is_over_without(self, mapping: Optional[Mapping] = None) -> bool:
        """
        With the lock: forget a mapping, and return whether nothing is left to be waited for.
        """
        self._mappings.discard(mapping)  # type: ignore[arg-type]
        return self._is_shut and not self._outstanding and not self._mappings

    def _note_done(self, place: _Place, future: HostFuture) -> None:
        with self._lock:
            if future in self._outstanding:
                self._outstanding.discard(future)
                place.count -= 1
            over = self._is_over_without()
        if over:
            self._release()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """
        Take no more functions, and end the workers when those that were taken are done.

        :param wait: return then.
        :param cancel_futures: drop those that have not begun.
        """
        with self._lock:
            first = not self._is_shut
            self._is_shut = True
            left, mappings = list(self._outstanding), list(self._mappings)
        if cancel_futures:
            for future in left:
                future._drop()
            for mapping in mappings:
                mapping.drop()
        if first and not left and not mappings:
            self._release()
        if not wait and mappings:
            # Their results may be taken by nobody, and then nobody else would see that they are
            # there.
            _finish_soon(mappings)
        if wait:
            _finish(mappings)
            concurrent.futures.wait(left)
            for child in self._own:
                child.close()

    def _release(self) -> None:
        """
        End the workers. Any thread; does not wait.
        """
        try:
            for child in self._own:
                child.shutdown(wait=False)
            if not self._own:
                number = self._places[0].queue.number
                self._host.default_call_chain.call_no_reply(mitogen._tasks.stop_pool, number)
        except mitogen.core.Error:
            # The tree has ended.
            pass


def _results(futures: list[HostFuture], deadline: Optional[float]) -> Iterator[Any]:
    """
    Yield the results of futures, in order. At an early end the others are cancelled, and that which
    was waited for. The standard library does not cancel that before Python 3.10.
    """
    futures.reverse()
    try:
        while futures:
            futures[-1].result(None if deadline is None else max(0, deadline - time.monotonic()))
            yield futures.pop().result()
    finally:
        while futures:
            futures.pop().cancel()


def _finish(mappings: Iterable[Mapping]) -> None:
    for mapping in mappings:
        mapping.finish()


def _finish_soon(mappings: Iterable[Mapping]) -> None:
    threading.Thread(target=_finish, args=(mappings,), name='mitogen.mappings', daemon=True).start()
