# SPDX-License-Identifier: BSD-3-Clause
"""
Futures: results that hosts will give.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import queue
import threading
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

import mitogen.core
from mitogen._tree import errors, observing, replies, typed

if TYPE_CHECKING:
    from mitogen._tree.host import Host

T = TypeVar('T')

LOG = logging.getLogger('mitogen.tree')


class Callbacks:
    """
    The thread that runs what was added with `add_done_callback`. The broker's thread must not: a
    callback may wait for another host, and nobody would read the answer. It is started for the
    first callback and ends with the broker. If the system gives no thread, callbacks wait for one,
    or for the end of the tree.
    """
    def __init__(self, broker: Any) -> None:
        self._broker = broker
        self._queue: queue.SimpleQueue[Optional[Callable[[], object]]] = queue.SimpleQueue()
        self._thread: Optional[threading.Thread] = None

    def run(self, func: Callable[[], object]) -> None:
        """
        Have a function called: on that thread if this is the broker's, or else now.
        """
        if threading.get_ident() != self._broker._ident:
            func()
            return
        self._queue.put(func)
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._serve, name='mitogen.callbacks')
        try:
            thread.start()
        except RuntimeError as e:
            LOG.error('callbacks of futures wait: %s', e)
            return
        self._thread = thread
        if self._broker._exitted:
            # A broker that has crashed tells some of their end now.
            self._queue.put(None)
        else:
            mitogen.core.listen(self._broker, 'exit', lambda: self._queue.put(None))

    def _serve(self) -> None:
        for func in iter(self._queue.get, None):
            # It logs what a callback raises.
            func()
            func = None

    def join(self) -> None:
        """
        Wait for the thread to end, which it does after the broker.
        """
        thread = self._thread
        if thread is threading.current_thread():
            return
        if thread is not None:
            thread.join()
        # Callbacks that still wait for one.
        self._queue.put(None)
        self._serve()


def notify_cancel(future: concurrent.futures.Future[Any], cancel: Callable[[], bool]) -> bool:
    """
    Cancel a future, and tell those who wait for it, which the standard library leaves to its
    executors.
    """
    with future._condition:
        first = not future.cancelled()
        if not cancel():
            return False
        if first:
            future.set_running_or_notify_cancel()
    return True


class Unread:
    """
    An answer that is read when somebody wants its value, on that thread.
    """
    def __init__(self, msg: Any, host: Host) -> None:
        self._msg = msg
        self._host = host
        #: Held while the answer is read.
        self._lock = threading.Lock()
        self._outcome: Optional[tuple[Any, Optional[BaseException]]] = None

    def read(self) -> tuple[Any, Optional[BaseException]]:
        """
        Return its value, or None and an error. Any thread; may take long.
        """
        with self._lock:
            if self._outcome is None:
                self._outcome = outcome_of(self._msg, self._host)
                self._msg = None
            return self._outcome


def outcome_of(msg: Any, host: Host) -> tuple[Any, Optional[BaseException]]:
    """
    Return the value that an answer of a host holds, or None and an error.
    """
    try:
        return msg.unpickle(), None
    except Exception as e:
        return None, errors.told(e, host)


class HostFuture(concurrent.futures.Future):  # type: ignore[type-arg]
    """
    A :class:`concurrent.futures.Future` of a function that runs on a host. Callbacks run on a
    thread of the tree, and may block. `cancel` also ends a function that runs.

    :ivar host: the :class:`Host`.
    """
    #: Seconds that a host has, after a deadline, to say whether the function had begun.
    grace = 1.0

    #: Bytes of an answer that the broker's thread reads.
    read_at_once = replies.READ_AT_ONCE

    def __init__(self, host: Host, queue: int = 0) -> None:
        super().__init__()
        self.host = host
        self._queue = queue
        self._handle: Optional[int] = None
        self._replies: Optional[replies.Replies] = None
        self._timer: Any = None
        self._is_limited = False
        #: Called once it is done, on any thread, before callbacks are.
        self._on_done: Optional[Callable[[], None]] = None
        self._observed: Optional[observing.Observed] = None

    def _make_msg(self, fn: Any, args: Any, kwargs: Any, name: Optional[str] = None) -> Any:
        """
        Return the message that has a function called, to be sent by `_send`. Observers are told
        that it begins.
        """
        observers = self.host.tree._observers
        if not observers:
            return typed.message(self.host, fn, args, kwargs)
        fn, args, kwargs = typed.travelling(self.host, fn, args, kwargs)
        self._observed = observing.Observed(observers, self.host, fn, args, kwargs, name)
        return self._observed.make_msg()

    def _send(self, msg: Any) -> None:
        router = self.host.router
        self.host._tasks.await_lessons(self._queue)
        self._replies = replies.of(router)
        try:
            if self._replies is not None:
                self._handle = self._replies.ask(self, msg)
                return
            self._handle = router.add_handler(self._on_reply, persist=False, respondent=self.host)
            msg.reply_to = self._handle
            self.host.send(msg)
        except BaseException as e:
            if self._handle is not None:
                self._forget()
            if self._observed is not None:
                self._observed.end(e)
            raise

    def _forget(self) -> None:
        if self._replies is not None:
            self._replies.pending.pop(self._handle, None)  # type: ignore[arg-type]
        try:
            self.host.router.del_handler(self._handle)
        except KeyError:
            # The answer came meanwhile.
            pass

    def _on_value(self, value: Any) -> None:
        """
        Take the value of a short answer. Broker thread.
        """
        self._settle(value, None)

    def _on_reply(self, msg: Any) -> None:
        """
        Take the answer. Broker thread.
        """
        if len(msg.data) <= self.read_at_once:
            self._settle(*outcome_of(msg, self.host))
        elif self._observed is None and not self._waiters:
            self._settle(Unread(msg, self.host), None)
        else:
            # Observers, and those who wait by `concurrent.futures.wait`, want to know whether it is
            # an error.
            self._stop_timer()
            self.host._reader.read(lambda: self._read_aside(msg))

    def _read_aside(self, msg: Any) -> None:
        outcome = outcome_of(msg, self.host)
        try:
            self.host.router.broker.defer(self._settle, *outcome)
        except mitogen.core.Error:
            # The broker has exited.
            self._settle(*outcome)

    def result(self, timeout: Optional[float] = None) -> Any:
        value = super().result(timeout)
        if isinstance(value, Unread):
            self._read(value)
            value = super().result(0)
        return value
    result.__doc__ = concurrent.futures.Future.result.__doc__

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        error = super().exception(timeout)
        if error is None:
            value = super().result(0)
            if isinstance(value, Unread):
                self._read(value)
                error = super().exception(0)
        return error
    exception.__doc__ = concurrent.futures.Future.exception.__doc__

    def _get_snapshot(self) -> tuple[bool, bool, Any, Optional[BaseException]]:
        # asyncio takes the outcome from here, from Python 3.15 on.
        snapshot = super()._get_snapshot()  # type: ignore[misc]
        if isinstance(snapshot[2], Unread):
            self._read(snapshot[2])
            snapshot = super()._get_snapshot()  # type: ignore[misc]
        return snapshot  # type: ignore[no-any-return]

    def _read(self, answer: Unread) -> None:
        value, error = answer.read()
        with self._condition:
            self._result, self._exception = value, error

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _settle(self, value: Any, error: Optional[BaseException]) -> None:
        self._stop_timer()
        try:
            if error is None:
                self.set_result(value)
            else:
                self.set_exception(error)
        except concurrent.futures.InvalidStateError:
            # The future was cancelled, or the answer is late.
            pass

    def _tell_observers(self) -> None:
        observed, self._observed = self._observed, None
        if observed is not None:
            observed.end(concurrent.futures.CancelledError() if self.cancelled() else self.exception())

    def cancel(self) -> bool:
        """
        Drop the function if it has not begun, or end it if it runs. Return whether there was still
        something to cancel. Does not wait for that.
        """
        if self.done():
            return self.cancelled()
        if not notify_cancel(self, super().cancel):
            return False
        self._forget()
        self.host._tasks.cancel(self._handle, self._queue)
        if self._is_limited:
            # The end of a broker waits for its timers.
            with contextlib.suppress(mitogen.core.Error):
                self.host.router.broker.defer(self._stop_timer)
        return True

    # Deadlines. All on the broker's thread.

    def _limit(self, seconds: float) -> None:
        broker = self.host.router.broker
        self._is_limited = True

        def begin() -> None:
            if not self.done():
                self._timer = broker.timers.schedule(mitogen.core.now() + seconds, lambda: self._on_late(seconds))
        broker.defer(begin)

    def _on_late(self, seconds: float) -> None:
        self._forget()

        def tell(began: Optional[bool]) -> None:
            self._settle(None, errors.DeadlineExceeded.after(seconds, self.host.name, began))
        timers = self.host.router.broker.timers
        self._timer = timers.schedule(mitogen.core.now() + self.grace, lambda: tell(None))
        self.host._tasks.cancel(self._handle, self._queue, tell)

    def _drop(self) -> None:
        """
        Cancel it if it has not begun. Does not wait.
        """
        def tell(began: Optional[bool]) -> None:
            # If the function has ended, its answer came before this one.
            if began is False and notify_cancel(self, super(HostFuture, self).cancel):
                self._forget()
        self.host._tasks.cancel(self._handle, self._queue, tell, gently=True)

    def _invoke_callbacks(self) -> None:
        done, self._on_done = self._on_done, None
        if done is not None:
            done()
        if self._observed is not None:
            self.host.tree._callbacks.run(self._tell_observers)
        if self._done_callbacks:
            self.host.tree._callbacks.run(super()._invoke_callbacks)
