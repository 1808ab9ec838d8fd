# SPDX-License-Identifier: BSD-3-Clause
"""
Tree: a router with the newer interface.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

import mitogen.core
import mitogen.master
import mitogen.parent
from mitogen._tree import errors, observing, output as outputs, target as targets
from mitogen._tree.future import Callbacks
from mitogen._tree.group import DownHost, Group
from mitogen._tree.host import Host
from mitogen._tree.python import search

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from mitogen.parent import (
        _Buildah, _Doas, _Docker, _Fork, _Incus, _Jail, _Kubectl, _Local, _Lxc,
        _Lxd, _Podman, _Setns, _Srun, _Ssh, _Su, _Sudo,
    )

#: Methods whose child runs where its parent does: an interpreter of the same path is there, too.
_SAME_MACHINE = ('local', 'fork', 'sudo', 'su', 'doas')


class _Broker(mitogen.master.Broker):
    """
    A broker that ends with the program, and not with the thread that happened to make it.
    """
    def __init__(self) -> None:
        super().__init__(install_watcher=False)
        self._end_with(threading.main_thread())


class Tree(mitogen.master.Router):
    """
    All hosts of a program: a :class:`mitogen.master.Router`. Any thread may make and use it. The
    end of its block of ``with`` ends all hosts.

    :param output: called with a host and each line that is printed there, without its end, on a
        thread of its own; control characters are escaped. By default the lines appear in our own
        output, each behind the name of its host: ``[web1] done``. With None they are records of
        :mod:`logging`, as those of any router.
    :param limits: names and values of :class:`mitogen.limits.Limits`.
    :param max_message_size: bytes that one message may have.
    :param threads: number of threads of each host that run functions. One means the main thread,
        which runs functions in the order of the calls.
    :param cache: bytes that a target keeps, for later runs, of distributions that travel whole; by
        default none, or what the environment says in ``MITOGEN_TARGET_CACHE``.
    """
    broker_class = _Broker
    context_class = Host

    def __init__(
        self, *, output: Union[outputs.Hook, outputs.Standard, None] = outputs.STANDARD,
        limits: Optional[Mapping[str, float]] = None, max_message_size: Optional[int] = None, threads: int = 1,
        cache: Optional[int] = None,
    ) -> None:
        if output is not None and output is not outputs.STANDARD and not callable(output):
            raise TypeError('output is a function, or None, and not %r' % (output,))
        if threads < 1:
            raise ValueError('threads must be at least 1')
        if cache is not None:
            if not isinstance(cache, int) or cache < 0:
                raise ValueError('cache is a number of bytes, and not %r' % (cache,))
            self.target_cache_bytes = cache
        super().__init__(max_message_size=max_message_size)
        self.threads = threads
        self._callbacks = Callbacks(self.broker)
        self._output: Optional[outputs.Output] = None
        if output is not None:
            self._output = outputs.Output(self.broker, output)
            self.log_forwarder._on_output = self._output.put
            self._shows_output = True
        self._observers: tuple[observing.Observer, ...] = ()
        for name, value in (limits or {}).items():
            setattr(self.limits, name, value)

    if TYPE_CHECKING:
        # The methods of any router: those of a tree return hosts.
        def buildah(self, **kwargs: Unpack[_Buildah]) -> Host: ...
        def doas(self, **kwargs: Unpack[_Doas]) -> Host: ...
        def docker(self, **kwargs: Unpack[_Docker]) -> Host: ...
        def fork(self, **kwargs: Unpack[_Fork]) -> Host: ...
        def incus(self, **kwargs: Unpack[_Incus]) -> Host: ...
        def jail(self, **kwargs: Unpack[_Jail]) -> Host: ...
        def kubectl(self, **kwargs: Unpack[_Kubectl]) -> Host: ...
        def local(self, **kwargs: Unpack[_Local]) -> Host: ...
        def lxc(self, **kwargs: Unpack[_Lxc]) -> Host: ...
        def lxd(self, **kwargs: Unpack[_Lxd]) -> Host: ...
        def podman(self, **kwargs: Unpack[_Podman]) -> Host: ...
        def setns(self, **kwargs: Unpack[_Setns]) -> Host: ...
        def srun(self, **kwargs: Unpack[_Srun]) -> Host: ...
        def ssh(self, **kwargs: Unpack[_Ssh]) -> Host: ...
        def su(self, **kwargs: Unpack[_Su]) -> Host: ...
        def sudo(self, **kwargs: Unpack[_Sudo]) -> Host: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """
        End all hosts and wait until that is done. Any thread but the broker's; may be repeated.
        """
        self.broker.shutdown()
        self.broker.join()
        self._callbacks.join()
        if self._output is not None:
            self._output.join()

    def observe(self, begin: observing.Begin, there: Optional[observing.There] = None) -> Callable[[], None]:
        """
        Have functions called when tasks of this tree begin and end: the functions that are given to
        `call`, `submit`, `map` and `stream` of its hosts, executors and coroutines. An exception of
        an observer is logged, and the task goes on.

        :param begin: called with a :class:`mitogen.ObservedTask` before it is sent, by the thread
            that gives it. It may return a function to be called once when the task has ended: with
            None, or with the exception. That is called by a thread of the tree, by the one that
            iterates over a stream, or by the event loop's.
        :param there: function of a module that hosts can import. It is called on the host with the
            name of the task and with the headers that `begin` has filled in, and returns a context
            manager; the task runs within it.
        :return: a function that ends this observation.
        :raises TypeError: `there` has no name that leads to it.
        """
        observer = observing.observer(begin, there)
        self._observers += (observer,)

        def stop() -> None:
            self._observers = tuple(other for other in self._observers if other is not observer)
        return stop

    @property
    def hosts(self) -> list[Host]:
        """
        The hosts that are connected.
        """
        return [host for host in list(self._context_by_id.values())
                if isinstance(host, Host) and host._watched and host.lost is None]

    def connect(  # type: ignore[override]
        self, target: str = 'local:', /, name: Optional[str] = None, *, via: Optional[mitogen.parent.Context] = None,
        timeout: Optional[float] = None, **options: Any,
    ) -> Host:
        """
        Start a Python where a target says, and return its host. Not on the broker's thread.

        A target is ``local:``, ``ssh://user@host:port``, the name of a host for ssh, ``sudo:user``,
        ``su:``, ``doas:``, ``docker:name``, ``podman:``, ``k8s:namespace/pod``, ``slurm:job/node``,
        ``lxc:``, ``setns:kind/name``, or a chain of them with a slash between:
        ``ssh://bastion/ssh://web1/sudo:``. The bare name of a method of connection, such as
        ``ssh``, is that method, as ever.

        :param name: of the host, for people.
        :param via: the host that is to connect it in our place.
        :param timeout: seconds for the whole chain.
        :param options: those of the last method.
        :raises ConnectError: the host could not be connected.
        :raises ValueError: it is no target.
        """
        if via is not None and getattr(via, 'router', self) is not self:
            mitogen.parent._raise_foreign(self, via)
        if _is_method(target):
            hops = [(target, {})]
        else:
            hops = targets.parse(target)
        return self._follow(hops, _Shared(), target, via, _Clock(timeout), dict(options, name=name))

    def _follow(
        self, hops: list[targets.Hop], shared: _Shared, target: str, via: Optional[mitogen.parent.Context],
        clock: _Clock, options: dict[str, Any],
    ) -> Host:
        """
        Connect one hop after the other, and return the last host.
        """
        for i, (method, own) in enumerate(hops[:-1]):
            def make(method: str = method, own: dict[str, Any] = own, via: Any = via) -> Host:
                return self._hop(method, target, via, clock, own)
            via = shared.get(hops[:i + 1], make)
        method, own = hops[-1]
        return self._hop(method, target, via, clock, dict(own, **options))

    def _hop(
        self, method: str, target: str, via: Optional[mitogen.parent.Context], clock: _Clock, options: dict[str, Any],
    ) -> Host:
        if method not in _SAME_MACHINE:
            options['python_path'] = options.get('python_path') or search()
        if via is not None:
            options['via'] = via
        try:
            clock.set(options)
            host: Host = super().connect(method, **options)
        except (mitogen.core.StreamError, mitogen.core.ChannelError) as e:
            raise errors.connect_error(e, target) from e
        host._watch()
        return host

    def connect_all(
        self, targets_: Iterable[str], /, *, concurrency: int = 32, timeout: Optional[float] = None, **options: Any,
    ) -> Group:
        """
        Connect many hosts at a time and return them as a group. Hosts that stand at the beginning
        of several targets are connected once. A host that cannot be connected raises nothing here:
        the group has it, with its error.

        :param concurrency: how many are being connected at a time.
        :param timeout: seconds for each.
        :param options: those of the last method of each.
        :raises ValueError: one is no target.
        """
        names = list(targets_)
        chains = [targets.parse(name) for name in names]
        shared = _Shared()

        def connect(name: str, hops: list[targets.Hop]) -> Any:
            try:
                return self._follow(hops, shared, name, None, _Clock(timeout), dict(options))
            except errors.ConnectError as e:
                return DownHost(name, errors.as_target(e, name))

        return Group(_all_of([functools.partial(connect, name, hops) for name, hops in zip(names, chains)], concurrency))

    def connect_below(self, via: Host, count: int) -> list[Host]:
        """
        Have a host start some others on its machine, all at the same time, and return them.

        :raises ConnectError: one could not be started; then none is.
        """
        return _all_of([functools.partial(self.connect, 'local:', via=via)] * count, 32)


def _all_of(jobs: list[Callable[[], Any]], concurrency: int) -> list[Any]:
    """
    Do jobs at the same time, each of which connects a host, and return the hosts. If one raises,
    the hosts of the others are closed. At Ctrl-C, this does not wait for them.
    """
    pool = concurrent.futures.ThreadPoolExecutor(min(concurrency, len(jobs) or 1), 'mitogen.connect')
    futures: list[concurrent.futures.Future[Any]] = []
    try:
        futures.extend(pool.submit(job) for job in jobs)
        return [future.result() for future in futures]
    except BaseException as e:
        if isinstance(e, Exception):
            concurrent.futures.wait(futures)
        for future in futures:
            future.add_done_callback(_let_go)
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _let_go(future: concurrent.futures.Future[Any]) -> None:
    """
    End the host that somebody wanted, if it was connected.
    """
    if not future.cancelled() and future.exception() is None and isinstance(future.result(), Host):
        with contextlib.suppress(mitogen.core.Error):
            future.result().shutdown(wait=False)


def _is_method(target: str) -> bool:
    """
    Tell whether a target is the bare name of a method of connection, as the older interface has it.
    """
    return target in _METHODS


#: Names of the methods of connection.
_METHODS = frozenset(['buildah', 'doas', 'docker', 'fork', 'incus', 'jail', 'kubectl', 'local', 'lxc', 'lxd', 'podman',
                      'setns', 'srun', 'ssh', 'su', 'sudo'])


class _Clock:
    """
    The time that is left for a chain.
    """
    def __init__(self, timeout: Optional[float]) -> None:
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def set(self, options: dict[str, Any]) -> None:
        """
        Limit a method to what is left.

        :raises StreamError: nothing is.
        """
        if self._deadline is None:
            return
        left = self._deadline - time.monotonic()
        if left <= 0:
            error = mitogen.parent.ConnectError(mitogen.parent.Router.connection_timeout_msg)
            error.facts = {'timeout': True}
            raise error
        options['connect_timeout'] = left


class _Shared:
    """
    The hosts on the way to others, each connected once.
    """
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hosts: dict[str, concurrent.futures.Future[Host]] = {}

    def get(self, hops: list[targets.Hop], make: Callable[[], Host]) -> Host:
        """
        Return the host that some hops lead to; `make` connects it unless another thread does.
        """
        key = repr(hops)
        with self._lock:
            mine = key not in self._hosts
            future = self._hosts.setdefault(key, concurrent.futures.Future())
        if mine:
            try:
                future.set_result(make())
            except BaseException as e:
                future.set_exception(e)
        return future.result()


def connect(target: str = 'local:', /, **options: Any) -> Host:
    """
    Return a host with a tree of its own, which ends with it::

        with mitogen.connect('ssh://web1') as web:
            print(web.call(os.uname))

    :param options: those of :meth:`Tree.connect`.
    """
    tree = Tree()
    try:
        host = tree.connect(target, **options)
    except BaseException:
        tree.close()
        raise
    host._owns_tree = True
    return host
