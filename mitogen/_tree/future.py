# SPDX-License-Identifier: BSD-3-Clause
"""
Futures of what hosts were asked to do.
"""

from __future__ import annotations

import concurrent.futures
import queue
import threading
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

import mitogen.core
from mitogen._tree import errors

if TYPE_CHECKING:
    from mitogen._tree.host import Host

T = TypeVar('T')


class Callbacks:
    """
    The thread that runs what was added with `add_done_callback`. The broker's thread must not: a callback may wait for
    another host, and nobody would read the answer. It is started for the first callback and ends with the broker.
    """
    def __init__(self, broker: Any) -> None:
        self._broker = broker
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Optional[Callable[[], object]]] = queue.SimpleQueue()
        self._thread: Optional[threading.Thread] = None

    def run(self, func: Callable[[], object]) -> None:
        """
        Have a function called: on that thread if this is the broker's, or else now.
        """
        if threading.get_ident() != self._broker._ident:
            func()
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name='mitogen.callbacks')
                self._thread.start()
                mitogen.core.listen(self._broker, 'exit', lambda: self._queue.put(None))
        self._queue.put(func)

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
        if thread is not None and thread is not threading.current_thread():
            thread.join()


class HostFuture(concurrent.futures.Future):  # type: ignore[type-arg]
    """
    A :class:`concurrent.futures.Future` of a function that runs on a host. Callbacks run on a thread of the tree, and
    may block.

    :ivar host: the :class:`Host`.
    """
    def __init__(self, host: Host) -> None:
        super().__init__()
        self.host = host
        self._handle: Optional[int] = None

    def _send(self, msg: Any) -> None:
        router = self.host.router
        msg.reply_to = self._handle = router.add_handler(self._on_reply, persist=False, respondent=self.host)
        try:
            self.host.send(msg)
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        try:
            self.host.router.del_handler(self._handle)
        except KeyError:
            # The answer came meanwhile.
            pass

    def _on_reply(self, msg: Any) -> None:
        """
        Take the answer. Broker thread.
        """
        value = error = None
        try:
            value = msg.unpickle()
        except Exception as e:
            error = errors.told(e, self.host)
        self._settle(value, error)

    def _settle(self, value: Any, error: Optional[BaseException]) -> None:
        try:
            if error is None:
                self.set_result(value)
            else:
                self.set_exception(error)
        except concurrent.futures.InvalidStateError:
            # It was cancelled.
            pass

    def _invoke_callbacks(self) -> None:
        if self._done_callbacks:
            self.host.tree._callbacks.run(super()._invoke_callbacks)
