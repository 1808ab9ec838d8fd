# SPDX-License-Identifier: BSD-3-Clause
"""
Mapping: the calls of one `map` of an executor, with the compiled core. Nobody sees their futures,
so there are none: the thread that iterates reads the answers itself.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional

import mitogen.core
from mitogen._tree import errors, typed
from mitogen._tree.compiled import core as _native

if TYPE_CHECKING:
    from mitogen._tree.host import Host

#: Answers that have come are read each time that so many calls were sent.
READ_EVERY = 64


class _Failed:
    """
    Stands for a result that is an error.
    """
    def __init__(self, error: BaseException) -> None:
        self.error = error


class Lane:
    """
    The calls that go to one place of the executor. A call is a list, into which its result is put.

    :ivar pending: handle -> call.
    """
    def __init__(self, place: Any) -> None:
        self.place = place
        self.host: Host = place.host
        self.pending: dict[int, list[Any]] = {}
        self._receiver = mitogen.core.Receiver(self.host.router)
        #: Held by the thread that waits for an answer.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.pending) + self.place.count  # type: ignore[no-any-return]

    def send(self, fn: Any, args: Any) -> tuple[Lane, int, list[Any]]:
        """
        Have a function called. Return the lane, the handle and the call.
        """
        place = self.place
        call: list[Any] = []
        msg = typed.message(self.host, fn, args, {})
        msg.handle = place.queue.handle
        self.host._tasks.await_lessons(place.queue.number)
        return self, _native.ask(self._receiver, self.host, msg, self.pending, call), call

    def read(self) -> None:
        """
        Read what has come.
        """
        _native.settle(self._receiver, self.pending, self._put, 'append', sys.maxsize)

    def _put(self, call: list[Any], msg: Any) -> None:
        try:
            call.append(msg.unpickle())
        except Exception as e:
            call.append(_Failed(errors.told(e, self.host)))
        except BaseException as e:
            # Ctrl-C, for example. The answer will not come again.
            call.append(_Failed(e))
            raise

    def wait(self, handle: int, deadline: Optional[float]) -> None:
        """
        Wait until the answer to a call was read.

        :param deadline: on the monotonic clock, or None.
        :raises mitogen.core.TimeoutError: it did not come in time.
        """
        while handle in self.pending:
            left = None if deadline is None else max(0, deadline - time.monotonic())
            if not self._lock.acquire(timeout=-1 if left is None else left):
                raise mitogen.core.TimeoutError()
            try:
                self.read()
                if handle not in self.pending:
                    return
                # The one that comes next, and then all that came with it.
                try:
                    msg = self._receiver.get(left, throw_dead=False)
                except mitogen.core.ChannelError:
                    if handle in self.pending:
                        raise
                    # Another thread has cancelled it, and then closed this.
                    return
                call = self.pending.pop(msg.handle, None)
                if call is not None:
                    self._put(call, msg)
                self.read()
            finally:
                self._lock.release()

    def cancel(self, handle: int) -> None:
        """
        Have a call end, unless it has.
        """
        call = self.pending.pop(handle, None)
        if call is None:
            return
        call.append(_Failed(concurrent.futures.CancelledError()))
        with contextlib.suppress(KeyError):
            self.host.router.del_handler(handle)
            self.host._tasks.cancel(handle, self.place.queue.number)

    def drop(self, handle: int) -> None:
        """
        Have a call end if it has not begun. Does not wait.
        """
        def tell(began: Optional[bool]) -> None:
            call = self.pending.pop(handle, None) if began is False else None
            if call is not None:
                call.append(_Failed(concurrent.futures.CancelledError()))
                with contextlib.suppress(KeyError):
                    self.host.router.del_handler(handle)
                # Wakes the thread that waits for it.
                self._receiver._on_receive(mitogen.core.Message())
        self.host._tasks.cancel(handle, self.place.queue.number, tell, gently=True)

    def close(self) -> None:
        """
        Take no more answers.
        """
        self._receiver.close()


class Mapping:
    """
    The calls of one `map`.

    :param places: those of the executor: each has a `host`, a `queue` and a `count`.
    :param done: called once no call is pending, by the thread that finds that. Repeatable.
    """
    def __init__(self, places: Iterable[Any], done: Callable[[Mapping], object]) -> None:
        self._lanes = [Lane(place) for place in places]
        self._calls: collections.deque[tuple[Lane, int, list[Any]]] = collections.deque()
        self._done = done

    def send_all(self, fn: Any, items: Iterable[Any]) -> None:
        """
        Have a function called with the arguments of each item, where the fewest calls are pending.
        """
        lanes, calls = self._lanes, self._calls
        for number, args in enumerate(items, 1):
            calls.append(min(lanes, key=Lane.__len__).send(fn, args))
            if not number % READ_EVERY:
                for lane in lanes:
                    lane.read()

    def results(self, deadline: Optional[float]) -> Iterator[Any]:
        """
        Yield the results, in order. At an early end the other calls are cancelled.
        """
        calls = self._calls
        try:
            while calls:
                lane, handle, call = calls.popleft()
                if not call:
                    self._wait(lane, handle, call, deadline)
                if type(call[0]) is _Failed:
                    raise call.pop().error
                yield call.pop()
        finally:
            while calls:
                lane, handle, call = calls.popleft()
                lane.cancel(handle)
            self.finish()

    def _wait(self, lane: Lane, handle: int, call: list[Any], deadline: Optional[float]) -> None:
        try:
            lane.wait(handle, deadline)
            return
        except mitogen.core.TimeoutError:
            lane.cancel(handle)
        except BaseException:
            lane.cancel(handle)
            raise
        raise concurrent.futures.TimeoutError()

    def drop(self) -> None:
        """
        Cancel the calls that have not begun. Does not wait.
        """
        for lane in self._lanes:
            for handle in list(lane.pending):
                lane.drop(handle)

    def finish(self) -> None:
        """
        Wait until no call is pending. Any thread.
        """
        for lane in self._lanes:
            for handle in list(lane.pending):
                lane.wait(handle, None)
            lane.close()
        self._done(self)
