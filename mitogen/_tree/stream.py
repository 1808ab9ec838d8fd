# SPDX-License-Identifier: BSD-3-Clause
"""
Streams: the items that a generator yields on a host, one by one.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

import mitogen._tasks
import mitogen.core
import mitogen.parent
from mitogen._tree import errors, observing, tasks
from mitogen._tree.options import CallOptions

if TYPE_CHECKING:
    from typing_extensions import Self

    from mitogen._tree.host import Host

T = TypeVar('T')


class Stream(Iterator[T]):
    """
    The items of a generator that runs on a host, as an iterator. The end of its block of ``with``,
    or `close`, ends the generator, too. An exception of the generator is raised here once, after
    its items. One thread at a time.

    The host is at most a window of items, or of bytes, ahead of the iteration.
    """
    def __init__(
        self, host: Host, options: CallOptions, queue: tasks.Queue, fn: Callable[..., Any], args: Any, kwargs: Any,
    ) -> None:
        self._host = host
        self._options = options
        self._queue = queue
        self._taken = self._bytes = 0
        self._told = self._told_bytes = 0
        self._ack_handle: Optional[int] = None
        self._deadline = None if options.timeout is None else time.monotonic() + options.timeout
        self._answer: Any = None
        # A host that keeps to its window sends no more than this: the last item may have any size.
        room = options.window_bytes + host.router.max_message_size
        self._items: Optional[Any] = mitogen.core.Receiver(host.router, respondent=host, max_bytes=room)
        try:
            self._begin(fn, args, kwargs)
        except BaseException as e:
            self._end(e)
            raise

    _observed: Optional[observing.Observed] = None
    #: Whether observers are told of it.
    _is_observed = True
    #: The function over there that calls the generator function, and sends items.
    _starter = staticmethod(mitogen._tasks.stream)

    def _names(self, fn: Any) -> Any:
        """
        Return the names that lead to a function: module, class or None, function.
        """
        return self._host.default_call_chain._find(fn)

    def _begin(self, fn: Any, args: Any, kwargs: Any) -> None:
        host, options = self._host, self._options
        fn, args, kwargs = mitogen.parent._take_apart(fn, args, kwargs)
        chain = host.default_call_chain
        names = self._names(fn)
        if host.tree._observers and self._is_observed:
            self._observed = observing.Observed(host.tree._observers, host, fn, args, kwargs, options.name)
            names, args, kwargs = self._observed.make_stream()
        msg = chain.make_msg(
            self._starter, names, args, mitogen.core.Kwargs(kwargs), self._items.to_sender(), options.window,
            options.window_bytes)
        msg.handle = self._queue.handle
        host._tasks.await_lessons(self._queue.number)
        answer = _Answer(self, self._items)
        msg.reply_to = self._task_handle = host.router.add_handler(answer.take, persist=False, respondent=host)
        host.send(msg)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        left = None if self._deadline is None else max(0, self._deadline - time.monotonic())
        try:
            return self._take(left)
        except mitogen.core.TimeoutError:
            pass
        error = errors.DeadlineExceeded.after(self._options.timeout or 0, self._host.name, True)
        self._stop(error)
        raise error

    def _take(self, timeout: Optional[float]) -> T:
        """
        Return the next item.

        :raises TimeoutError: it did not come in time.
        """
        if self._items is None:
            raise StopIteration
        try:
            if self._ack_handle is None:
                self._ack_handle = self._handle_of(self._items.get(timeout))
            msg = self._items.get(timeout)
        except mitogen.core.ChannelError as e:
            self._finish(e)
            raise StopIteration
        self._taken += 1
        self._bytes += len(msg.data)
        options = self._options
        if (2 * (self._taken - self._told) >= options.window or
                2 * (self._bytes - self._told_bytes) >= options.window_bytes):
            self._tell()
        try:
            return msg.unpickle()  # type: ignore[no-any-return]
        except mitogen.core.StreamError as e:
            self._stop(e)
            raise

    def _handle_of(self, msg: Any) -> int:
        """
        Return the handle for acknowledgements, which comes first.
        """
        try:
            return tasks.numbers(self._host, [msg.unpickle()], 1)[0]
        except mitogen.core.StreamError as e:
            self._stop(e)
            raise

    def _tell(self) -> None:
        """
        Tell the host how much was taken.
        """
        self._told, self._told_bytes = self._taken, self._bytes
        self._host.send(mitogen.core.Message.pickled(self._taken, handle=self._ack_handle))

    def _finish(self, end: mitogen.core.ChannelError) -> None:
        """
        Raise what the generator raised, or that it is not known how it ended.
        """
        if self._answer is None:
            error = errors.told(end, self._host)
            self._stop(error)
            raise error
        try:
            self._answer.unpickle()
            self._end(None)
            return
        except errors.OLDER as e:
            error = errors.told(e, self._host)
        self._end(error)
        raise error

    def _end(self, error: Optional[BaseException]) -> None:
        if self._items is not None:
            self._items.close()
            self._items = None
            if self._observed is not None:
                self._observed.end(error)

    def close(self) -> None:
        """
        End the generator: ``GeneratorExit`` or ``TaskCancelled`` is raised in it. Does not wait for
        that; repeatable.
        """
        self._stop(GeneratorExit())

    def _stop(self, error: BaseException) -> None:
        if self._items is not None:
            self._end(error)
            try:
                self._host.router.del_handler(self._task_handle)
            except KeyError:
                # It has ended.
                return
            self._host._tasks.cancel(self._task_handle, self._queue.number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, '_items', None) is not None:
            self.close()


class _Answer:
    """
    Takes the answer, which comes after the last item, and ends the iteration. Refers to the stream
    weakly: one that is forgotten ends.
    """
    def __init__(self, stream: Stream[Any], items: Any) -> None:
        self._stream = weakref.ref(stream)
        self._items = items

    def take(self, msg: Any) -> None:
        """
        Handle the answer. Broker thread.
        """
        stream = self._stream()
        if stream is not None and not msg.is_dead:
            stream._answer = msg
        # One that is dead tells why.
        self._items._on_receive(msg if msg.is_dead else mitogen.core.Message.dead())
