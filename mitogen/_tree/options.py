# SPDX-License-Identifier: BSD-3-Clause
"""
Options of calls. They stand apart, as the keywords of a call belong to the function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Optional

from mitogen._tree.record import Record

#: Bytes that :meth:`Host.read_bytes` takes, unless the caller says more: as many as a message may
#: have.
MOST_READ = 128 << 20


if TYPE_CHECKING:
    from typing_extensions import TypedDict

    class Changes(TypedDict, total=False):
        """
        Some of :class:`CallOptions`.
        """
        timeout: Optional[float]
        worker: bool
        window: int
        window_bytes: int
        name: Optional[str]


class CallOptions(Record):
    """
    Not to be changed: see `changed`.

    :ivar timeout: seconds until the work is stopped; None for no limit.
    :ivar worker: run it in a process of its own, which is ended with it.
    :ivar window: items of a stream, or calls of a map, that may be on their way.
    :ivar window_bytes: bytes of a stream that may be on their way.
    :ivar name: what observers, and spans, call the work; by default its module and function.
    """
    timeout: Optional[float]
    worker: bool
    window: int
    window_bytes: int
    name: Optional[str]

    def __init__(
        self, timeout: Optional[float] = None, worker: bool = False, window: int = 256, window_bytes: int = 4 * 1048576,
        name: Optional[str] = None,
    ) -> None:
        vars(self).update(timeout=timeout, worker=worker, window=window, window_bytes=window_bytes, name=name)
        if timeout is not None and not timeout == timeout:
            raise ValueError('timeout must be a number of seconds, or None')
        for which, value in (('window', window), ('window_bytes', window_bytes)):
            if not isinstance(value, int) or value < 1:
                raise ValueError('%s must be a whole number of at least 1, and not %r' % (which, value))

    def changed(self, changes: Any) -> CallOptions:
        """
        Return these with some changed.

        :param changes: name -> value.
        :raises TypeError: there is no such option.
        """
        return CallOptions(**{**vars(self), **changes})

    def __setattr__(self, name: str, value: object = None) -> NoReturn:
        raise AttributeError('options are not changed; make new ones, as changed() does')

    __delattr__ = __setattr__  # type: ignore[assignment]

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))


DEFAULT = CallOptions()
