# SPDX-License-Identifier: BSD-3-Clause
"""
Caller: what can run functions.
"""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from mitogen._tree import errors
from mitogen._tree.future import HostFuture

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    from mitogen._tree.host import Host

    P = ParamSpec('P')

T = TypeVar('T')


class Caller:
    """
    What can run functions: a host, for example.
    """
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
        :raises TypeError: the function has no name that leads to it.
        """
        return self.submit(fn, *args, **kwargs).result()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        """
        Have a function called there, and return a future of its result. Any thread. Functions that were given to one
        host run in the order in which they were given, one at a time, as those of `call` do.
        """
        host = self._target()
        future = HostFuture(host)
        future._send(host.default_call_chain.make_msg(fn, *args, **kwargs))
        return future


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
        return host.default_call_chain.call(fn, *args, **kwargs)
    except errors.OLDER as e:
        # Not within the block: the older error would be shown first, and says the same.
        error = errors.told(e, host)
    raise error
