# SPDX-License-Identifier: BSD-3-Clause
"""
Caller: an object that can run functions on a host.
"""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from mitogen._tree import errors, typed, worker
from mitogen._tree.future import HostFuture
from mitogen._tree.options import CallOptions, DEFAULT
from mitogen._tree.stream import Stream

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, Unpack

    from mitogen._tree.host import Host
    from mitogen._tree.options import Changes

    P = ParamSpec('P')

T = TypeVar('T')


class Caller:
    """
    A host, or a host with options: functions run there.
    """
    _options = DEFAULT

    def _target(self) -> Host:
        """
        Return the host that functions run on.
        """
        raise NotImplementedError

    def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Call a function there and return its result. Any thread but the broker's.

        :raises RemoteError: the function raised.
        :raises ConnectionLost: the host went away, or has gone before.
        :raises DeadlineExceeded: it was not done within the option `timeout`.
        :raises TypeError: the function has no name that leads to it.
        """
        future = self.submit(fn, *args, **kwargs)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C, for example, while it runs.
            future.cancel()
            raise
        finally:
            # The traceback refers to this frame.
            del future

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        """
        Have a function called there, and return a future of its result. Any thread. Functions that
        were given to one host run in the order in which they were given, one at a time, as those of
        `call` do; more at a time if the tree has more `threads`.
        """
        host, options = self._target(), self._options
        if options.worker:
            sent, args, kwargs = typed.travelling(host, fn, args, kwargs)  # type: ignore[assignment]
            return worker.submit(host, options, sent, args, kwargs)
        queue = host._tasks.queue(host.tree.threads)
        future = HostFuture(host, queue.number)
        # The arguments go in containers, so that the function may have any keyword.
        msg = future._make_msg(fn, args, kwargs, options.name)
        msg.handle = queue.handle
        future._send(msg)
        if options.timeout is not None:
            # After the call is sent, so that there is a task to end, however short the time is.
            future._limit(options.timeout)
        return future

    def stream(self, fn: Callable[P, Iterable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Stream[T]:
        """
        Call a generator there, and return an iterator of what it yields. To be closed, best by
        ``with``.
        """
        host = self._target()
        sent, args, kwargs = typed.travelling(host, fn, args, kwargs)  # type: ignore[assignment]
        return Stream(host, self._options, host._tasks.queue(host.tree.threads), sent, args, kwargs)

    def map(self, fn: Callable[..., T], /, *iterables: Iterable[Any]) -> Iterator[T]:
        """
        Call a function there with each item of the iterables, as the built-in `map` does, and
        return an iterator of the results, in order. Items are taken as results are: at most as many
        calls as the option `window` says are outstanding.
        """
        return in_order(self.submit, self._options.window, fn, zip(*iterables))

    def options(self, **changes: Unpack[Changes]) -> Caller:
        """
        Return a caller of the same host with other options, see :class:`CallOptions`.
        """
        return Tuned(self._target(), self._options.changed(changes))


class Tuned(Caller):
    """
    A host with options.
    """
    def __init__(self, host: Host, options: CallOptions) -> None:
        self._host = host
        self._options = options

    def __repr__(self) -> str:
        return '%r.options(%r)' % (self._host, self._options)

    def _target(self) -> Host:
        return self._host


def in_order(
    submit: Callable[..., concurrent.futures.Future[T]], window: int, fn: Callable[..., T], items: Iterable[Any],
) -> Iterator[T]:
    """
    Yield results in the order of the items, with a window of calls outstanding. Those are cancelled
    at an early end.
    """
    futures: collections.deque[concurrent.futures.Future[T]] = collections.deque()
    try:
        for args in items:
            futures.append(submit(fn, *args))
            if len(futures) >= window:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        for future in futures:
            future.cancel()


def failed(error: BaseException) -> concurrent.futures.Future[Any]:
    """
    Return a future that has failed.
    """
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    future.set_exception(error)
    return future


def call_directly(host: Host, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """
    Call a function as :meth:`mitogen.parent.Context.call` does, without a future.
    """
    try:
        host.default_call_chain._log_call('call', fn, args, kwargs)
        return host.send_async(typed.message(host, fn, args, kwargs)).get().unpickle()
    except errors.OLDER as e:
        # Raised outside of the block: else the older error, which says the same, would be shown
        # first.
        error = errors.told(e, host)
    raise error
