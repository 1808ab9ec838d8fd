# SPDX-License-Identifier: BSD-3-Clause
"""
HostExecutor: an executor of the standard library's kind, whose workers are threads or processes of
a host.
"""

from __future__ import annotations

import concurrent.futures
import os
import threading
from typing import TYPE_CHECKING, Any, Callable, Optional

import mitogen._tasks
import mitogen.core
from mitogen._tree import typed
from mitogen._tree.future import HostFuture
from mitogen._tree.tasks import MAIN, numbers, Queue

if TYPE_CHECKING:
    from mitogen._tree.host import Host


def _processors(host: Host) -> int:
    """
    Return how many processors a host says it has, and at most as many as a pool may have threads.
    """
    (count,) = numbers([host.call(os.cpu_count) or 1], 1)
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
        self._lock = threading.Lock()
        self._outstanding: set[HostFuture] = set()
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
                raise RuntimeError('cannot schedule new futures after shutdown')
            place = min(self._places, key=lambda place: place.count)
            future = HostFuture(place.host, place.queue.number)
            self._outstanding.add(future)
            place.count += 1
        future._on_done = lambda: self._note_done(place, future)
        try:
            # Without the lock: this calls observers, which may use this executor.
            msg = future._make_msg(*typed.travelling(place.host, fn, args, kwargs))
            msg.handle = place.queue.handle
            future._send(msg)
        except BaseException:
            self._note_done(place, future)
            raise
        return future

    def _note_done(self, place: _Place, future: HostFuture) -> None:
        with self._lock:
            if future in self._outstanding:
                self._outstanding.discard(future)
                place.count -= 1
            over = self._is_shut and not self._outstanding
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
            left = list(self._outstanding)
        if cancel_futures:
            for future in left:
                future._drop()
        if first and not left:
            self._release()
        if wait:
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
