# SPDX-License-Identifier: BSD-3-Clause
"""
Observing: functions of a program that are told when a task begins and ends, here and on its host.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

import mitogen._tasks.observed
import mitogen.core
import mitogen.parent

if TYPE_CHECKING:
    from mitogen._tree.host import Host

LOG = logging.getLogger('mitogen.tree')

#: Told of an end: None, or the exception that the task has ended with.
End = Callable[[Optional[BaseException]], object]


class Task(NamedTuple):
    """
    A task, as an observer is told of it.

    :ivar host: the :class:`mitogen.Host` that it is for.
    :ivar name: module and name of the function, with a dot between, unless the option `name` says
        another one; of a process or a copy, the method of the host.
    :ivar kind: ``call``, ``stream``, ``run`` or ``copy``.
    :ivar headers: names and values, all text, that travel with it, if it is a call or a stream. The
        observer fills them in.
    """
    host: Host
    name: str
    kind: str
    headers: dict[str, str]


Begin = Callable[[Task], Optional[End]]
There = Callable[[str, Mapping[str, str]], 'AbstractContextManager[object]']


class Observer(NamedTuple):
    """
    The functions that are called for each task of a tree.

    :ivar there: names that lead to the function for the host, or None.
    """
    begin: Begin
    there: Optional[tuple[str, None, str]]


class Observed:
    """
    A task on its way: the call to send in its place, and the functions that are told of its end.

    :ivar call: function, args and kwargs to send.
    :param name: what it is called; None for module and function.
    """
    def __init__(
        self, observers: tuple[Observer, ...], host: Host, fn: Any, args: Any, kwargs: Any, name: Optional[str] = None,
    ) -> None:
        self._ends: list[End] = []
        self._observers = observers
        self._host = host
        self._fn, self._args, self._kwargs = mitogen.parent._take_apart(fn, args, kwargs)
        self._names = host.default_call_chain._find(self._fn)
        self._name = name or '.'.join(part for part in self._names if part)

    @classmethod
    def named(cls, host: Host, name: str) -> Observed:
        """
        Return one for a task of more than one call.
        """
        self = cls.__new__(cls)
        self._ends = []
        self._observers = host.tree._observers
        self._host = host
        self._name = name
        return self

    def _begin(self, kind: str) -> list[Any]:
        """
        Tell all observers, and return the steps that the host takes for them, see
        :mod:`mitogen._tasks.observed`.
        """
        steps: list[Any] = []
        for begin, there in self._observers:
            task = Task(self._host, self._name, kind, {})
            try:
                end = begin(task)
                if end is not None:
                    self._ends.append(end)
                if there is not None:
                    steps.append((there, self._name, _only_text(task.headers)))
            except Exception:
                LOG.exception('an observer failed at the start of %s', self._name)
        return steps

    def make_msg(self) -> Any:
        """
        Tell all observers that the task begins, and return the message of the call.
        """
        chain = self._host.default_call_chain
        # Made in any case: if an argument cannot be sent, the error then names that argument of the
        # function.
        plain = chain._make_msg(self._fn, self._args, self._kwargs, None)
        steps = self._begin('call')
        if not steps:
            return plain
        try:
            return chain._make_msg(mitogen._tasks.observed.run, self._packed(steps), {}, None)
        except BaseException as e:
            self.end(e)
            raise

    def make_stream(self) -> tuple[Any, Any, Any]:
        """
        Tell all observers that the task begins, and return the (names, args, kwargs) of the
        generator to run.
        """
        steps = self._begin('stream')
        if not steps:
            return self._names, self._args, self._kwargs
        names = self._host.default_call_chain._find(mitogen._tasks.observed.items)
        return names, self._packed(steps), {}

    def _packed(self, steps: list[Any]) -> Any:
        return steps, self._names, self._args, mitogen.core.Kwargs(self._kwargs)

    def end(self, error: Optional[BaseException]) -> None:
        """
        Tell all observers that the task has ended. Only the first time counts.
        """
        ends, self._ends = self._ends, []
        for end in reversed(ends):
            try:
                end(error)
            except Exception:
                LOG.exception('an observer failed at the end of %s', self._name)


@contextlib.contextmanager
def whole(host: Host, method: str, kind: str) -> Iterator[None]:
    """
    Tell observers of the begin and the end of a method of a host that is more than one call.
    """
    if not host.tree._observers:
        yield
        return
    observed = Observed.named(host, 'mitogen.Host.' + method)
    observed._begin(kind)
    try:
        yield
    except BaseException as e:
        observed.end(e)
        raise
    observed.end(None)


def observer(begin: Begin, there: Optional[There]) -> Observer:
    """
    Return the observer that has some functions.

    :raises TypeError: the second one is no function of a module.
    """
    if there is None:
        return Observer(begin, None)
    # Most are made by `contextlib.contextmanager`, so they are closures: one may be called if its
    # name leads to it.
    module, name = getattr(there, '__module__', ''), getattr(there, '__name__', '')
    if getattr(sys.modules.get(module), name, None) is not there:
        raise TypeError('a host cannot find %r: it is to be a function of a module' % (there,))
    return Observer(begin, (module, None, name))


def _only_text(headers: Mapping[str, str]) -> dict[str, str]:
    """
    Return a copy of headers, which may be of a class of the observer's.
    """
    for item in headers.items():
        for part in item:
            if not isinstance(part, str):
                raise TypeError('headers of a task are text, and not %r' % (part,))
    return {str(name): str(value) for name, value in headers.items()}
