# SPDX-License-Identifier: BSD-3-Clause
"""
Groups of hosts, and the results of a call on each.
"""

from __future__ import annotations

import concurrent.futures
import queue
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional, TypeVar, Union

import mitogen.core
from mitogen._tree import caller, errors
from mitogen._tree.host import Host
from mitogen._tree.options import CallOptions, DEFAULT
from mitogen._tree.record import Record

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, Unpack

    from mitogen._tree import files, sync_meter
    from mitogen._tree.options import Changes

    P = ParamSpec('P')

T = TypeVar('T')


class Result(Record, Generic[T]):
    """
    The result of a call on one host of a group.

    :ivar host: name of the host.
    :ivar ok: whether there is a value.
    :ivar value: the function's result; None if there is none.
    :ivar error: why there is no value, or None.
    :ivar seconds: how long it took.
    """
    host: str
    ok: bool
    value: Optional[T]
    error: Optional[BaseException]
    seconds: float

    def __init__(
        self, host: str, ok: bool, value: Optional[T], error: Optional[BaseException], seconds: float,
    ) -> None:
        self.host = host
        self.ok = ok
        self.value = value
        self.error = error
        self.seconds = seconds

    def unwrap(self) -> T:
        """
        Return the value, or raise the error.
        """
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


class DownHost(caller.Caller):
    """
    A member of a group that could not be connected. Each call raises why.

    :ivar name: the target.
    :ivar error: the :class:`ConnectError`.
    """
    def __init__(self, name: str, error: errors.ConnectError) -> None:
        self.name = name
        self.error = error

    def __repr__(self) -> str:
        return 'DownHost(%r, %r)' % (self.name, self.error.reason)

    def _target(self) -> Host:
        raise self.error

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        return caller.failed(self.error)


Member = Union[Host, DownHost]


class Group(Sequence[Member]):
    """
    Hosts, in the order of their targets. One that could not be connected is a :class:`DownHost`.
    """
    def __init__(
        self, members: Sequence[Member], concurrency: Optional[int] = None, options: CallOptions = DEFAULT,
    ) -> None:
        self._members = tuple(members)
        self._concurrency = concurrency
        self._options = options

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(self._members[index], self._concurrency, self._options)
        return self._members[index]

    def __repr__(self) -> str:
        return 'Group(%r)' % (list(self._members),)

    @property
    def failed(self) -> Mapping[str, errors.ConnectError]:
        """
        Target -> error of those that could not be connected.
        """
        return {member.name: member.error for member in self._members if isinstance(member, DownHost)}

    @property
    def alive(self) -> list[Host]:
        """
        The hosts that were connected and are not lost.
        """
        return [member for member in self._members if isinstance(member, Host) and member.lost is None]

    def options(self, *, concurrency: Optional[int] = None, **changes: Unpack[Changes]) -> Group:
        """
        Return the same group with other options.

        :param concurrency: on how many hosts a call of `map` runs at a time; None for all.
        :param changes: see :class:`CallOptions`.
        """
        if concurrency is not None and concurrency < 1:
            raise ValueError('concurrency must be at least 1')
        return type(self)(self._members, concurrency, self._options.changed(changes))

    def map(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[Result[T]]:
        """
        Call the same function on every host, and return an iterator of results: one for each host,
        as they come. It raises nothing that has to do with a host.
        """
        options = self._options

        def submit(member: Member) -> concurrent.futures.Future[Any]:
            if isinstance(member, DownHost) or options is DEFAULT:
                return member.submit(fn, *args, **kwargs)
            return caller.Tuned(member, options).submit(fn, *args, **kwargs)
        calls = _Calls(self._members, submit)
        calls.begin(self._concurrency or len(self._members))
        return calls.results()

    def sync(
        self, local: files.Path, remote: files.Path, *, checksum: bool = False, resume: bool = False,
        compress: bool = False, delete: bool = False,
    ) -> Iterator[Result[sync_meter.Synced]]:
        """
        Have every host get a file or a tree of here, as :meth:`Host.sync` does, and return an
        iterator of results: one for each host, as they come. The files are read and compressed once
        for all hosts, while none is more than some 64 MiB behind the first one. A host that is slow
        delays no other.
        """
        from mitogen._tree import shared_blocks, sync
        shared = shared_blocks.SharedBlocks()
        pool = concurrent.futures.ThreadPoolExecutor(max(1, len(self._members)), 'mitogen.sync')

        def submit(member: Member) -> concurrent.futures.Future[Any]:
            if isinstance(member, DownHost):
                return caller.failed(member.error)
            return pool.submit(sync.put, member, local, remote, checksum, resume, compress, delete, None, shared)
        calls = _Calls(self._members, submit)
        calls.begin(self._concurrency or len(self._members))
        return calls.results(lambda: pool.shutdown(wait=False))


def _result_of(member: Member, seconds: float, future: concurrent.futures.Future[Any]) -> Result[Any]:
    """
    Return the result for a future that is done.
    """
    try:
        error = future.exception()
    except concurrent.futures.CancelledError as e:
        error = e
    return Result(str(member.name), error is None, None if error else future.result(), error, seconds)


class _Calls:
    """
    The calls of one `Group.map`.
    """
    def __init__(self, members: Sequence[Member], submit: Callable[[Member], concurrent.futures.Future[Any]]) -> None:
        self._left = iter(members)
        self._count = len(members)
        self._submit = submit
        self._done: queue.SimpleQueue[tuple[Member, float, concurrent.futures.Future[Any]]] = queue.SimpleQueue()

    def begin(self, count: int) -> None:
        for _, member in zip(range(count), self._left):
            started = time.monotonic()
            try:
                future = self._submit(member)
            except mitogen.core.Error as e:
                future = caller.failed(errors.told(e, member))
            future.add_done_callback(lambda future, member=member, started=started: self._note(  # type: ignore[misc]
                member, started, future))

    def _note(self, member: Member, started: float, future: concurrent.futures.Future[Any]) -> None:
        # The value is read by the thread that wants it: other hosts need this one.
        self._done.put((member, time.monotonic() - started, future))

    def results(self, end: Callable[[], object] = lambda: None) -> Iterator[Result[Any]]:
        """
        Yield the results.

        :param end: called when no more are wanted.
        """
        try:
            for _ in range(self._count):
                done = self._done.get()
                self.begin(1)
                yield _result_of(*done)
        finally:
            end()
