# SPDX-License-Identifier: BSD-3-Clause
"""
HostTasks: makes calls of one host tasks, which can be cancelled.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

import mitogen._tasks
import mitogen.core
from mitogen._tree import errors
from mitogen._tree.future import HostFuture, outcome_of

if TYPE_CHECKING:
    from mitogen._tree.host import Host

LOG = logging.getLogger('mitogen.tree')


class Queue(NamedTuple):
    """
    Where a host waits for tasks: the number by which it knows the queue, and its handle.
    """
    number: int
    handle: int


def numbers(host: Any, value: Any, count: int) -> tuple[int, ...]:
    """
    Return the handles, or other such numbers, that a host has sent.

    :raises StreamError: it has sent something else.
    """
    if isinstance(value, (tuple, list)) and len(value) == count and all(
            type(number) is int and 0 <= number < 1 << 32 for number in value):
        return tuple(value)
    raise errors.wrong_answer(host, 'is not a number' if count == 1 else 'is not %d numbers' % (count,))


class _Started(HostFuture):
    """
    The future of the handles for CANCEL and KILL. The broker's thread reads it at once, so no other
    thread has to read it later.
    """
    def _on_value(self, value: Any) -> None:
        try:
            self._settle(numbers(self.host, value, 2), None)
        except mitogen.core.StreamError as e:
            self._settle(None, e)

    def _on_reply(self, msg: Any) -> None:
        value, error = None, errors.wrong_answer(self.host, 'has no handles, but %d bytes' % (len(msg.data),))
        if len(msg.data) <= self.read_at_once:
            value, error = outcome_of(msg, self.host)
        try:
            if error is None:
                value = numbers(self.host, value, 2)
        except mitogen.core.StreamError as e:
            error = e
        self._settle(value, error)


#: That of the main thread, which plain calls go to, too.
MAIN = Queue(0, mitogen.core.CALL_FUNCTION)


class HostTasks:
    """
    The tasks of one host. Before its first call the host is told to make each call a task. Any
    thread.
    """
    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.RLock()
        #: Held while the host makes the pool. Never waited for by the broker's thread.
        self._pool_lock = threading.Lock()
        self._started: Optional[HostFuture] = None
        self._pool: Optional[Queue] = None

    def start(self) -> HostFuture:
        """
        Have the host make calls tasks, and return the future of its handles for CANCEL and KILL.
        Does not wait: a call that is sent after this is a task.
        """
        with self._lock:
            if self._started is None:
                future = _Started(self._host)
                future._send(self._host.default_call_chain.make_msg(mitogen._tasks.start))
                self._started = future
            return self._started

    def queue(self, threads: int) -> Queue:
        """
        Return the queue for tasks of a tree, which is served by so many threads.
        """
        self.start()
        if threads == 1:
            return MAIN
        with self._pool_lock:
            if self._pool is None:
                self._pool = self.new_pool(threads)
            return self._pool

    def is_ready(self, threads: int) -> bool:
        """
        Return whether `queue` would not wait.
        """
        return self._pool is not None or (threads == 1 and self._started is not None)

    def new_pool(self, threads: int) -> Queue:
        """
        Return a new queue. Waits for the host.
        """
        self.start()
        return Queue(*numbers(self._host, self._host.default_call_chain.call(mitogen._tasks.start_pool, threads), 2))

    def await_lessons(self, queue: int) -> None:
        """
        Wait until the host has imported the modules of the registered classes that it was told of,
        if a task is for another thread than the main one, which imports them.
        """
        lessons = vars(self._host).get('_lessons')
        if not queue or not lessons:
            return
        with self._pool_lock:
            for module, receiver in list(lessons.items()):
                if receiver is not None:
                    receiver.get()
                    lessons[module] = None

    def cancel(
        self, handle: Any, queue: int, tell: Optional[Callable[[Optional[bool]], None]] = None, gently: bool = False,
    ) -> None:
        """
        Have the task ended whose answer goes to a handle. Does not wait.

        :param gently: do nothing to it if it has begun.
        :param tell: called with whether it had begun, or None if the host does not know tasks.
            Broker's thread.
        """
        started = self.start()
        # If the host has not answered yet, this is called later, on a thread for callbacks.
        started.add_done_callback(lambda started: self._send_cancel(started, (handle, queue, gently), tell))

    def _send_cancel(self, started: Any, what: Any, tell: Optional[Callable[[Optional[bool]], None]]) -> None:
        router = self._host.router
        if started.exception() is not None:
            LOG.debug('%r cannot end a task: %s', self._host, started.exception())
            if tell is not None:
                router.broker.defer(tell, None)
            return
        msg = mitogen.core.Message.pickled(what, handle=started.result()[0])
        if tell is not None:
            def on_answer(msg: Any) -> None:
                # An answer of another length is no bool, and may take long to be read.
                began = outcome_of(msg, self._host)[0] if len(msg.data) < 100 else None
                tell(began if isinstance(began, bool) else None)
            msg.reply_to = router.add_handler(on_answer, persist=False, respondent=self._host)
        try:
            self._host.send(msg)
        except mitogen.core.Error:
            # The tree has ended, and the task with it.
            pass

    def kill(self, context_id: int) -> None:
        """
        Have the host kill the process of a child that it has started. Waits for the host only if it
        does not know tasks yet.
        """
        self._host.send(mitogen.core.Message.pickled(context_id, handle=self.start().result()[1]))
