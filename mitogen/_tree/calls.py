# SPDX-License-Identifier: BSD-3-Clause
"""
Calls: several calls that are under way to one host, which answers them in order.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable

import mitogen._files.opened
import mitogen.core
from mitogen._tree import errors, tasks

if TYPE_CHECKING:
    from mitogen._tree.host import Host


class Calls:
    """
    Calls of functions of :mod:`mitogen._files.opened` that are on their way to a host, in order.
    The host's main thread runs them, also if its tree has more threads. Older Pythons run them,
    too.
    """
    def __init__(self, host: Host) -> None:
        self._host = host
        self._waiting: collections.deque[Any] = collections.deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, fn: Callable[..., Any], *args: Any) -> None:
        """
        Have a function called.
        """
        self._waiting.append((self._host.call_async(fn, *args), args))

    def end(self) -> tuple[Any, Any]:
        """
        Wait for the first one. Return what it returned, and its arguments.
        """
        receiver, args = self._waiting.popleft()
        try:
            return receiver.get().unpickle(), args
        except errors.OLDER as e:
            error = errors.told(e, self._host)
        finally:
            receiver.close()
        raise error

    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        """
        Call a function, when none is on its way.
        """
        self.begin(fn, *args)
        return self.end()[0]

    def open(self, fn: Callable[..., Any], *args: Any) -> int:
        """
        Have something opened, and return the number that the host knows it by.

        :raises StreamError: the host sent something else. It would be sent back with each call.
        """
        return tasks.numbers(self._host, [self.call(fn, *args)], 1)[0]

    @contextlib.contextmanager
    def opened(self, number: int) -> Iterator[None]:
        """
        Have what the host knows by a number closed if the block fails. After an interrupt, this
        does not wait for it.
        """
        try:
            yield
        except BaseException as e:
            while self._waiting:
                self._waiting.popleft()[0].close()
            with contextlib.suppress(mitogen.core.Error):
                if isinstance(e, Exception):
                    self.call(mitogen._files.opened.close, number)
                else:
                    self._host.call_no_reply(mitogen._files.opened.close, number)
            raise
