# SPDX-License-Identifier: BSD-3-Clause
"""
Host: a context with the ways of today.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union

import mitogen.core
import mitogen.parent
from mitogen._tree import caller, errors
from mitogen._tree.executor import HostExecutor
from mitogen._tree.tasks import HostTasks

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, Self

    from mitogen._tree.tree import Tree

    P = ParamSpec('P')

T = TypeVar('T')


class Host(caller.Caller, mitogen.parent.Context):
    """
    A Python somewhere that functions can be called in: a :class:`mitogen.parent.Context`, and so all that takes a
    context takes a host. The end of its block of ``with`` ends it.

    :ivar name: text for people.
    :ivar via: the host that was asked to start this one, or None.
    :ivar lost: the :class:`ConnectionLost` that tells why it cannot be reached any more, or None.
    """
    lost: Optional[errors.ConnectionLost] = None
    #: The whole tree ends with this host.
    _owns_tree = False
    _watched = False

    def __init__(self, router: Any, context_id: int, name: Optional[str] = None) -> None:
        super().__init__(router, context_id, name)
        self._tasks = HostTasks(self)

    @property
    def tree(self) -> Tree:
        """
        The tree that it belongs to.
        """
        return self.router  # type: ignore[no-any-return]

    def _target(self) -> Host:
        return self

    def _watch(self) -> None:
        """
        Begin to take note of a loss.
        """
        self._watched = True
        mitogen.core.listen(self, 'disconnect', self._on_lost)

    def _on_lost(self) -> None:
        text = mitogen.core.Router.respondent_disconnect_msg + getattr(self, '_loss', '')
        self.lost = errors.ConnectionLost.of(mitogen.core.ChannelError(text), self.name)

    def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self.tree.threads != 1 or inspect.iscoroutinefunction(fn):
            return super().call(fn, *args, **kwargs)
        return caller.call_directly(self, fn, args, kwargs)  # type: ignore[no-any-return]
    call.__doc__ = caller.Caller.call.__doc__

    def connect(self, target: str, /, **options: Any) -> Host:
        """
        Have this host start another one, and return that: as :meth:`Tree.connect`.
        """
        return self.tree.connect(target, via=self, **options)

    def sudo(self, user: str = 'root', *, password: Union[str, Callable[[], str], None] = None, **options: Any) -> Host:
        """
        Return a host that is another user here, by way of sudo.

        :param password: text, or a function that is called for it.
        """
        if callable(password):
            password = password()
        return self.connect('sudo:' + user, password=password, **options)

    def executor(self, max_workers: Optional[int] = None, *, processes: bool = False) -> HostExecutor:
        """
        Return a :class:`concurrent.futures.Executor` whose workers are threads of this host, or processes below it.

        :param max_workers: how many functions run at a time; the number of processors there if None.
        """
        return HostExecutor(self, max_workers, processes)

    def close(self, timeout: Optional[float] = None) -> None:
        """
        End it, and all hosts below it, and wait until that is done. May be repeated.

        :param timeout: seconds to wait for its last words; then the connection is cut. None is for no limit.
        :raises ChannelError: it does not want to end.
        """
        if self._owns_tree:
            self.tree.close()
        elif self.lost is None:
            try:
                self.shutdown(wait=False).get(timeout)
            except mitogen.core.TimeoutError:
                self.tree.disconnect(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
