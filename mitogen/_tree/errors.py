# SPDX-License-Identifier: BSD-3-Clause
"""
The errors of a tree. Each derives from the error that the older interface raises in the same case.
"""

from __future__ import annotations

import re
import sys
import time
from typing import Any, Optional

import mitogen.core
import mitogen.parent


def wrong_answer(host: Any, text: str) -> mitogen.core.StreamError:
    """
    Return the error for an answer that a host must not give.

    :param host: has a `name`.
    :param text: follows the name.
    """
    return mitogen.core.StreamError('the answer of %s %s', host.name, text)


class RemoteError(mitogen.core.CallError):
    """
    A function that was called on a host raised.

    :ivar host: name of the host.

    The other attributes are those of :class:`mitogen.core.CallError`; `cause`, `context` and
    `members` are errors of this class, too.
    """
    host: Optional[str] = None

    @classmethod
    def of(cls, error: mitogen.core.CallError, host: Optional[str]) -> RemoteError:
        """
        Return the error of this class for one of the older interface.
        """
        new = cls(*error.args)
        vars(new).update(vars(error))
        new.host = host
        for name in ('cause', 'context'):
            other = getattr(error, name)
            if isinstance(other, mitogen.core.CallError):
                setattr(new, name, cls.of(other, host))
        vars(new)['members'] = [cls.of(member, host) for member in error.members]
        _note(new, host)
        return new

    @property
    def reason(self) -> str:
        """
        The reason, in one line.
        """
        return _first_line(self)


class ConnectionLost(mitogen.core.ChannelError, ConnectionError):
    """
    A host cannot be reached any more, or never could.

    Attributes are None where nothing is known. All of them but `host` are the word of the context
    that noticed the loss: of a host behind another one, that is the other one.

    :ivar host: name of the host.
    :ivar detail: which connection ended, when and why.
    """
    host: Optional[str] = None

    #: Characters of `detail` that the other attributes are taken from. We write fewer, and another
    #: context may send as many as a message holds.
    _told_max = 4000

    def _found(self, pattern: str) -> tuple[Any, ...]:
        match = re.search(pattern, (self.detail or '')[:self._told_max])
        return match.groups() if match else (None,) * 3

    @property
    def link(self) -> Optional[str]:
        """
        The name of the connection that ended.
        """
        return self._found(r" was lost at [0-9:]+, with the connection u?['\"](.*?)['\"]: ")[0]

    @property
    def when(self) -> Optional[float]:
        """
        The time of the loss, as :func:`time.time` has it, in whole seconds.
        """
        hours, minutes, seconds = self._found(r' was lost at ([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9]), ')
        if hours is None:
            return None
        now = time.time()
        day = time.localtime(now)[:3]
        when = time.mktime((*day, int(hours), int(minutes), int(seconds), 0, 0, -1))
        return when if when <= now else when - 86400

    @property
    def returncode(self) -> Optional[int]:
        """
        The exit status of the process behind the connection, or minus the number of a signal. It is
        known for a process that ran on this machine.
        """
        status, signal, _ = self._found(
            r'; the process exited (?:with return code ([0-9]{1,10})|due to signal ([0-9]{1,3}))\b()')
        return int(status) if status else -int(signal) if signal else None

    @property
    def output(self) -> str:
        """
        The last lines that it wrote to its stderr.
        """
        lines = (self.detail or '')[:self._told_max].partition('\nLast lines of its stderr:\n')[2].split('\n')
        return '\n'.join(line[2:] for line in lines)

    @classmethod
    def of(cls, error: mitogen.core.ChannelError, host: Optional[str]) -> ConnectionLost:
        """
        Return the error of this class for one of the older interface.
        """
        new = cls(*error.args)
        new.detail = error.detail
        new.host = host
        return new

    @property
    def reason(self) -> str:
        """
        The reason, in one line: which connection ended, when and why, if that is known.
        """
        return (self.detail or '').strip().partition('\n')[0] or _first_line(self)


class ConnectError(mitogen.parent.ConnectError, ConnectionError):
    """
    A host could not be connected. Attributes are None where nothing is known.

    :ivar host: the target, as it was given.
    :ivar stage: how far the attempt got.
    :ivar hint: a sentence that says what to do.
    :ivar returncode: how the program ended that was to connect: its status, or minus the number of
        a signal.
    :ivar output: the last lines that were received.
    """
    host: Optional[str] = None
    stage: Optional[str] = None
    hint: Optional[str] = None
    returncode: Optional[int] = None
    output: str = ''

    @property
    def reason(self) -> str:
        """
        The reason, in one line.
        """
        return self.hint or _first_line(self)


class AuthError(ConnectError):
    """The login was refused, by the host or by the tool that changes the user."""


class HostKeyError(ConnectError):
    """The key of the host is unknown, or another one."""


class HostDown(ConnectError):
    """The host, or the container, is not there, or does not answer."""


class NoPython(ConnectError):
    """There is no interpreter of that name."""


class ConnectTimeout(ConnectError, mitogen.core.TimeoutError, TimeoutError):
    """The host was not ready in time. It is a built-in TimeoutError, too."""


class DeadlineExceeded(mitogen.core.TimeoutError, TimeoutError):
    """
    A host did not finish in time, and its work was stopped. It is a built-in TimeoutError, too.

    :ivar host: name of the host.
    :ivar began: whether it had begun; None if the host did not say so in time.
    """
    host: Optional[str] = None
    began: Optional[bool] = None

    @classmethod
    def after(cls, seconds: float, host: Optional[str], began: Optional[bool]) -> DeadlineExceeded:
        """
        Return the error for something that may take some seconds.
        """
        how = {True: 'it was told to stop', False: 'it had not begun, and was dropped',
               None: 'the host does not say that it was stopped'}[began]
        new = cls('not done within %g seconds on %s: %s' % (seconds, host, how))
        new.host, new.began = host, began
        return new

    @property
    def reason(self) -> str:
        """
        The reason, in one line.
        """
        return _first_line(self)


#: Kind of a failure, as `mitogen.parent` tells it -> class.
_CLASSES = {'auth': AuthError, 'key': HostKeyError, 'down': HostDown, 'python': NoPython, 'timeout': ConnectTimeout}


def _first_line(error: BaseException) -> str:
    text = str(error.args[0]) if error.args else ''
    return text.strip().partition('\n')[0] or type(error).__name__


def _note(error: BaseException, host: Optional[str]) -> None:
    if sys.version_info >= (3, 11) and host:
        error.add_note('on host %s' % (host,))


def connect_error(error: BaseException, target: str) -> ConnectError:
    """
    Return the ConnectError for the exception of an attempt to connect.
    """
    facts: dict[str, Any] = mitogen.parent._facts_of_failure(error)
    new = _CLASSES.get(facts['kind'], ConnectError)(mitogen.parent._error_text(error))
    new.detail = getattr(error, 'detail', '')
    new.host = target
    for name in ('stage', 'hint', 'returncode', 'output'):
        setattr(new, name, facts[name])
    return new


def as_target(error: ConnectError, target: str) -> ConnectError:
    """
    Return an error as one of a target. It may have been raised for another target whose way has the
    same beginning.
    """
    if error.host == target:
        return error
    new = type(error)(*error.args)
    vars(new).update(vars(error))
    new.host = target
    return new


def told(error: BaseException, host: Any) -> BaseException:
    """
    Return the error of a tree for one of the older interface that has to do with a host.
    """
    if isinstance(error, mitogen.parent.ValueRefused):
        error.host = host.name
        return error
    if isinstance(error, mitogen.core.CallError) and not isinstance(error, RemoteError):
        return RemoteError.of(error, host.name)
    if isinstance(error, mitogen.core.ChannelError) and not isinstance(error, ConnectionLost):
        return ConnectionLost.of(error, host.name)
    return error


#: Exceptions of the older interface where a call fails.
OLDER = (mitogen.core.CallError, mitogen.core.ChannelError)
