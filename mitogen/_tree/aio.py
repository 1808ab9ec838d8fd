# SPDX-License-Identifier: BSD-3-Clause
"""
The classes of :mod:`mitogen` for asyncio: a method that blocks there is a
coroutine here. Any loop of that interface will do.

If an awaiting task is cancelled, by `asyncio.timeout` or a TaskGroup for example, the function on
the host is cancelled, too.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union

import mitogen._tasks
import mitogen.core
from mitogen._tree import errors, files, meter, observing, running, sync_meter, typed
from mitogen._tree.bridge import begin, bridge, settle
from mitogen._tree.group import DownHost, Group as _Group, Result
from mitogen._tree.host import Host as _Host
from mitogen._tree.options import CallOptions, DEFAULT
from mitogen._tree.tree import Tree as _Tree

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, Self, Unpack

    from mitogen._tree.options import Changes

    P = ParamSpec('P')

T = TypeVar('T')
C = TypeVar('C', bound=meter.Copied)


async def _in_thread(
    func: Callable[..., T], *args: Any, pool: Optional[concurrent.futures.Executor] = None, **kwargs: Any,
) -> T:
    # Observers look at variables of the context that the caller has, such as the span it is in.
    run = functools.partial(contextvars.copy_context().run, func, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(pool, run)


class _Ended(BaseException):
    """
    Ends a copy whose task was cancelled.
    """


def _as_reporter(progress: Optional[meter.Progress], ended: list[None]) -> meter.Progress:
    """
    Return a function for the progress of a copy, which raises once the copy is to end.
    """
    def report(path: str, done: int, total: int) -> None:
        if ended:
            raise _Ended()
        if progress is not None:
            progress(path, done, total)
    return report


async def _copied(copy: Callable[..., C], *args: Any, progress: Optional[meter.Progress], **options: Any) -> C:
    """
    Copy something in a thread, until the awaiting task is cancelled.
    """
    ended: list[None] = []
    try:
        return await _in_thread(copy, *args, progress=_as_reporter(progress, ended), **options)
    except asyncio.CancelledError:
        ended.append(None)
        raise


class _Process:
    """
    A process that a thread starts and waits for, and that may have to end before.
    """
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stream: Optional[running.Running] = None
        self._is_over = False

    def begin(self, stream: running.Running) -> None:
        """
        Remember the stream of its output. Called by the thread that waits.
        """
        with self._lock:
            self._stream = stream
            is_over = self._is_over
        if is_over:
            stream.close()

    def end(self) -> None:
        """
        End it. Any thread.
        """
        with self._lock:
            self._is_over = True
            stream = self._stream
        if stream is not None:
            stream.close()


class Host:
    """
    A host, for coroutines.

    :ivar sync: the :class:`mitogen.Host`, which threads may use at the same time.
    """
    def __init__(self, sync: _Host, options: CallOptions = DEFAULT) -> None:
        self.sync = sync
        self._options = options

    def __repr__(self) -> str:
        return 'aio.Host(%r)' % (self.sync,)

    @property
    def name(self) -> Optional[str]:
        """
        Text for people.
        """
        return self.sync.name  # type: ignore[no-any-return]

    def options(self, **changes: Unpack[Changes]) -> Host:
        """
        Return the same host with other options, see :class:`mitogen.CallOptions`. Time is limited
        by `asyncio.timeout`.
        """
        if changes.get('timeout') is not None or changes.get('worker'):
            raise TypeError(
                'the options of a coroutine are name, window and window_bytes; for time see asyncio.timeout')
        return Host(self.sync, self._options.changed(changes))

    def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """
        Call a function there. Returns an awaitable of its result, which is a coroutine for all that
        takes coroutines: asyncio.create_task(), gather(), a TaskGroup. For asyncio.wait(), which
        refuses coroutines, make a task of it. Errors are those of :meth:`mitogen.Host.call`. Most
        calls are sent at once, so in the order in which they were made.
        """
        call = begin(self.sync, fn, args, kwargs)
        return self._call(fn, args, kwargs) if call is None else call

    async def _call(self, fn: Any, args: Any, kwargs: Any) -> Any:
        """
        The way of calls that `begin` does not know.
        """
        sync = self.sync
        router = sync.router
        fn, args, kwargs = typed.travelling(sync, fn, args, kwargs)
        if not sync._tasks.is_ready(sync.tree.threads):
            await self._start()
        queue = sync._tasks.queue(sync.tree.threads)
        put = bridge().put
        future = asyncio.get_running_loop().create_future()
        give = functools.partial(settle, future, sync)
        observed = None
        if sync.tree._observers:
            observed = observing.Observed(sync.tree._observers, sync, fn, args, kwargs, self._options.name)
            msg = observed.make_msg()
        else:
            msg = sync.default_call_chain._make_msg(fn, args, kwargs, None)
        msg.handle = queue.handle
        sync._tasks.await_lessons(queue.number)
        handle = msg.reply_to = router.add_handler(lambda msg: put(give, msg), persist=False, respondent=sync)
        try:
            sync.send(msg)
            value = await future
        except (asyncio.CancelledError, mitogen.core.Error) as e:
            if _forget(router, handle):
                sync._tasks.cancel(handle, queue.number)
            if observed is not None:
                observed.end(e)
            raise
        if observed is not None:
            observed.end(None)
        return value

    async def _start(self) -> None:
        """
        Have the host begin to take tasks, and start its threads. Waits for the host the first time
        only.
        """
        await _in_thread(self.sync._tasks.queue, self.sync.tree.threads)

    def stream(self, fn: Callable[P, Iterable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Stream[T]:
        """
        Call a generator there, and return an asynchronous iterator of what it yields.
        """
        return Stream(self, fn, args, kwargs)

    async def run(self, args: running.Command, **options: Any) -> running.Completed:
        """
        Run a process there and wait for its end: as :meth:`mitogen.Host.run`, with the same
        options. If the awaiting task is cancelled, the process is ended with its group.
        """
        process = _Process()
        try:
            return await _in_thread(running.run, self.sync, args, begun=process.begin, **options)
        except asyncio.CancelledError:
            process.end()
            raise

    async def put(
        self, local: files.Path, remote: files.Path, *, progress: Optional[meter.Progress] = None,
    ) -> meter.Copied:
        """
        Copy a file or a tree from here to the host: as :meth:`mitogen.Host.put`. If the awaiting
        task is cancelled, the copy ends soon. A thread calls `progress`.
        """
        return await _copied(self.sync.put, local, remote, progress=progress)

    async def get(
        self, remote: files.Path, local: files.Path, *, progress: Optional[meter.Progress] = None,
    ) -> meter.Copied:
        """
        Copy a file or a tree from the host to here, as `put` does the other way round.
        """
        return await _copied(self.sync.get, remote, local, progress=progress)

    async def sync_to(
        self, local: files.Path, remote: files.Path, *, checksum: bool = False, resume: bool = False,
        compress: bool = False, delete: bool = False, progress: Optional[meter.Progress] = None,
    ) -> sync_meter.Synced:
        """
        Have the host get a file or a tree of here, of which only what differs is sent: as
        :meth:`mitogen.Host.sync`, whose name is that of the attribute here. If the awaiting task is
        cancelled, the copy ends with its next block, or when it finds no other. A thread calls
        `progress`.
        """
        return await _copied(
            self.sync.sync, local, remote, checksum=checksum, resume=resume, compress=compress, delete=delete,
            progress=progress)

    async def sync_from(
        self, remote: files.Path, local: files.Path, *, checksum: bool = False, resume: bool = False,
        compress: bool = False, delete: bool = False, progress: Optional[meter.Progress] = None,
    ) -> sync_meter.Synced:
        """
        Get a file or a tree of the host, as `sync_to` does the other way round: see
        :meth:`mitogen.Host.sync_from`.
        """
        return await _copied(
            self.sync.sync_from, remote, local, checksum=checksum, resume=resume, compress=compress, delete=delete,
            progress=progress)

    async def connect(self, target: str, /, **options: Any) -> Host:
        """
        Have this host start another one, and return that.
        """
        return Host(await _in_thread(self.sync.connect, target, **options))

    async def close(self, timeout: Optional[float] = None) -> None:
        """
        End it, and all hosts below it.
        """
        await _in_thread(self.sync.close, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


def _forget(router: Any, handle: int) -> bool:
    try:
        router.del_handler(handle)
        return True
    except KeyError:
        # The answer came meanwhile.
        return False


class Stream(AsyncIterator[T]):
    """
    The items of a generator that runs on a host, as an asynchronous iterator. To be closed, best by
    ``async with``.
    """
    def __init__(self, host: Host, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._host = host
        self._call = fn, args, kwargs
        self._inner: Any = None
        self._waiter: Optional[asyncio.Future[None]] = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._inner is None:
            fn, args, kwargs = self._call
            await self._host._start()
            sync = self._host.sync
            self._inner = sync.options(**vars(self._host._options)).stream(fn, *args, **kwargs)
            put = bridge().put
            if self._inner._items is not None:
                self._inner._items.notify = lambda _recv: put(self._wake, None)
        inner = self._inner
        while True:
            # First: an item that comes from now on wakes it.
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                return inner._take(0)  # type: ignore[no-any-return]
            except mitogen.core.TimeoutError:
                await self._waiter
            except StopIteration:
                raise StopAsyncIteration

    def _wake(self, _nothing: None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def aclose(self) -> None:
        """
        End the generator over there. Does not wait for that; repeatable.
        """
        if self._inner is not None:
            self._inner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


Member = Union[Host, DownHost]


class Group(Sequence[Member]):
    """
    Hosts, for coroutines, in the order of their targets. One that could not be connected is a
    :class:`mitogen.DownHost`.

    :ivar sync: the :class:`mitogen.Group`, which threads may use at the same time.
    """
    def __init__(
        self, sync: _Group, concurrency: Optional[int] = None, timeout: Optional[float] = None,
    ) -> None:
        self.sync = sync
        self._concurrency = concurrency
        self._timeout = timeout
        self._members: list[Member] = [Host(member) if isinstance(member, _Host) else member for member in sync]

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(self.sync[index], self._concurrency, self._timeout)
        return self._members[index]

    @property
    def failed(self) -> Mapping[str, errors.ConnectError]:
        """
        Target -> error of those that could not be connected.
        """
        return self.sync.failed

    @property
    def alive(self) -> list[Host]:
        """
        The hosts that were connected and are not lost.
        """
        return [member for member in self._members if isinstance(member, Host) and member.sync.lost is None]

    def options(self, *, concurrency: Optional[int] = None, timeout: Optional[float] = None) -> Group:
        """
        Return the same group with other options.

        :param concurrency: on how many hosts a call of `map` runs at a time; None for all.
        :param timeout: seconds that each host may take.
        """
        if concurrency is not None and concurrency < 1:
            raise ValueError('concurrency must be at least 1')
        return type(self)(self.sync, concurrency, timeout)

    def map(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Result[T]]:
        """
        Call the same function on every host, and yield results as they come: one for each host. It
        raises nothing that has to do with a host. If it is closed, or the task is cancelled, the
        calls end.
        """
        return self._each(lambda host: host.call(fn, *args, **kwargs))

    def sync_to(
        self, local: files.Path, remote: files.Path, *, checksum: bool = False, resume: bool = False,
        compress: bool = False, delete: bool = False,
    ) -> AsyncIterator[Result[sync_meter.Synced]]:
        """
        Have every host get a file or a tree of here, and yield results, as `map` does. Files are
        read and compressed once for all hosts, see :meth:`mitogen.Group.sync`.
        """
        from mitogen._tree import shared_blocks, sync
        shared = shared_blocks.SharedBlocks()
        pool = concurrent.futures.ThreadPoolExecutor(max(1, len(self._members)), 'mitogen.sync')

        def put(host: _Host, progress: meter.Progress) -> sync_meter.Synced:
            return sync.put(host, local, remote, checksum, resume, compress, delete, progress, shared)
        return self._each(
            lambda host: _copied(put, host.sync, progress=None, pool=pool), lambda: pool.shutdown(wait=False))

    async def _each(
        self, job: Callable[[Host], Awaitable[T]], end: Callable[[], object] = lambda: None,
    ) -> AsyncIterator[Result[T]]:
        """
        Do a job on each host, and yield results as they come.

        :param end: called when no more are wanted.
        """
        room = asyncio.Semaphore(self._concurrency or max(1, len(self._members)))

        async def result_of(member: Member) -> Result[T]:
            async with room:
                began = time.monotonic()
                value, error = await self._outcome(member, job)
                return Result(str(member.name), error is None, value, error, time.monotonic() - began)
        tasks = [asyncio.ensure_future(result_of(member)) for member in self._members]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            for other in tasks:
                other.cancel()
            end()

    async def _outcome(
        self, member: Member, job: Callable[[Host], Awaitable[Any]],
    ) -> tuple[Any, Optional[BaseException]]:
        if isinstance(member, DownHost):
            return None, member.error
        try:
            return await asyncio.wait_for(job(member), self._timeout), None
        except mitogen.core.Error as e:
            return None, e
        except asyncio.TimeoutError:
            return None, errors.DeadlineExceeded.after(self._timeout or 0, member.name, True)


class Tree:
    """
    A tree, for coroutines.

    :param sync: the :class:`mitogen.Tree` to use, which others may use at the same time and which
        somebody else ends; a new one by default.
    :param options: of the new one.
    :ivar sync: the tree.
    """
    def __init__(self, sync: Optional[_Tree] = None, **options: Any) -> None:
        self._owns = sync is None
        self.sync = _Tree(**options) if sync is None else sync

    async def connect(self, target: str = 'local:', /, **options: Any) -> Host:
        """
        Start a Python where a target says, and return its host: as :meth:`mitogen.Tree.connect`.
        """
        return Host(await _in_thread(self.sync.connect, target, **options))

    async def ssh(self, hostname: str, **options: Any) -> Host:
        """
        Start a Python at a host by ssh, and return it. The options are those of
        :class:`mitogen.ssh.Options`.
        """
        return Host(await _in_thread(self.sync.ssh, hostname=hostname, **options))

    async def connect_all(self, targets: Iterable[str], /, **options: Any) -> Group:
        """
        Connect many hosts at a time and return them as a group: as
        :meth:`mitogen.Tree.connect_all`, with the same options.
        """
        return Group(await _in_thread(self.sync.connect_all, targets, **options))

    async def close(self) -> None:
        """
        End all hosts of a tree of our own.
        """
        if self._owns:
            await _in_thread(self.sync.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()
