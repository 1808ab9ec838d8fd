# SPDX-License-Identifier: BSD-3-Clause
"""
Processes, scripts and functions that run on a host and whose output is sent back.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

import mitogen._running
import mitogen._tasks
import mitogen.core
from mitogen._tree import errors, observing
from mitogen._tree.options import CallOptions, DEFAULT
from mitogen._tree.record import Record
from mitogen._tree.stream import Stream

if TYPE_CHECKING:
    from mitogen._tree.host import Host

#: Words of a command, or a line for the shell.
Command = Union[Sequence[str], str]

#: Called with the bytes of output, as they come.
Output = Callable[[bytes], object]

STDOUT, STDERR, END = 1, 2, 0

#: Bytes of output in one item. Hosts send some as they read them, see `mitogen._running.CHUNK`.
ITEM_MAX = 1 << 20

#: Exit statuses, and numbers of signals, that any system has.
STATUSES = range(-1000, 1 << 32)

#: Bytes of the end of an output, which the error of a process may show.
TAIL = 4096

#: Bytes of output that :meth:`Host.run` keeps of one process, unless it is told another number.
KEPT_MAX = 256 * 1048576


class Completed(Record):
    """
    A process that has ended on a host, with the attributes of :class:`subprocess.CompletedProcess`.

    :ivar args: its command.
    :ivar returncode: its exit status, or minus the number of the signal that ended it.
    :ivar stdout: text, or bytes; None where it was handed to a function.
    :ivar stderr: likewise.
    :ivar host: name of the host.
    """
    args: Any
    returncode: int
    stdout: Any
    stderr: Any
    host: Optional[str]

    def __init__(self, args: Any, returncode: int, stdout: Any, stderr: Any, host: Optional[str]) -> None:
        self.args = args
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr
        self.host = host

    def check_returncode(self) -> None:
        """
        :raises CommandError: the exit status is not zero.
        """
        if self.returncode:
            raise CommandError.of(self)


class CommandError(mitogen.core.Error, subprocess.CalledProcessError):
    """
    A process on a host ended with another status than zero. Attributes are those of
    :class:`subprocess.CalledProcessError`.

    :ivar host: name of the host.
    """
    host: Optional[str] = None

    @classmethod
    def of(cls, done: Completed) -> CommandError:
        """
        Return the error for a process.
        """
        how = 'exit status %d' % done.returncode if done.returncode >= 0 else 'signal %d' % -done.returncode
        last = _last_line(done.stderr) or _last_line(done.stdout)
        new = cls('%s on %s ended with %s%s' % (_shown(done.args), done.host, how, ': ' + last if last else ''))
        new.cmd, new.returncode, new.host = done.args, done.returncode, done.host
        new.output, new.stderr = done.stdout, done.stderr
        return new

    def __str__(self) -> str:
        return str(self.args[0])


class CommandTimeout(errors.DeadlineExceeded, subprocess.TimeoutExpired):
    """
    A process on a host did not end in time, and was told to. Attributes are those of
    :class:`subprocess.TimeoutExpired`: `output` and `stderr` have what it had written by then.

    :ivar host: name of the host.
    """
    def __str__(self) -> str:
        return str(self.args[0])


def _shown(command: Command) -> str:
    import shlex
    return command if isinstance(command, str) else ' '.join(shlex.quote(word) for word in command)


def _last_line(text: Any) -> str:
    text = (text or '')[-TAIL:]
    if isinstance(text, bytes):
        text = text.decode('utf-8', 'replace')
    lines = text.strip().splitlines()
    return mitogen.core._printable(lines[-1]) if lines else ''


class Running(Stream[Any]):
    """
    Items of what runs on a host: (1, bytes) of stdout, (2, bytes) of stderr, and at last (0,
    value).

    :param names: module, class or None, and name of a function of the host.
    """
    _is_observed = False

    def __init__(self, host: Host, options: CallOptions, starter: Any, names: Any, args: Any, kwargs: Any) -> None:
        self._starter = starter  # type: ignore[method-assign]
        super().__init__(host, options, host._tasks.queue(host.tree.threads), names, args, kwargs)

    def _names(self, fn: Any) -> Any:
        return fn

    def follow(self, outputs: Mapping[int, Output]) -> Any:
        """
        Hand the output to functions, and return the value.

        :param outputs: number of the item -> function.
        :raises RemoteError: the function or script raised.
        :raises StreamError: the host sent something else than output.
        """
        value = None
        with self:
            for item in self:
                number, data = _checked(item, self._host)
                if number == END:
                    value = data
                elif number in outputs:
                    outputs[number](data)
        return value


def _checked(item: Any, host: Any) -> tuple[int, Any]:
    """
    Return an item from a host, which may send anything, if it is valid.
    """
    if isinstance(item, tuple) and len(item) == 2 and type(item[0]) is int:
        if item[0] == END or (
                item[0] in (STDOUT, STDERR) and isinstance(item[1], bytes) and len(item[1]) <= ITEM_MAX):
            return item
    raise errors.wrong_answer(host, 'is not the output of a process')


def _exit_status(value: Any, host: Any) -> int:
    """
    Return an exit status from a host, which may send anything, if it is valid.
    """
    if type(value) is not int or value not in STATUSES:
        raise errors.wrong_answer(host, 'is not an exit status')
    return value


_MODULE = 'mitogen._running'


def start_process(host: Host, command: Command, options: CallOptions = DEFAULT, **kwargs: Any) -> Running:
    """
    Start a process on a host, and return the stream of its output. The keywords are those of
    :func:`mitogen._running.process`.
    """
    command = command if isinstance(command, str) else [str(word) for word in command]
    return Running(host, options, mitogen._tasks.stream, (_MODULE, None, 'process'), (command,), kwargs)


def start_function(host: Host, names: Any, args: Any, options: CallOptions = DEFAULT, **kwargs: Any) -> Running:
    """
    Call a function on a host, and return the stream of its output and its result. The main thread
    of the host does.
    """
    return Running(host, options, mitogen._running.with_output, names, args, kwargs)


def start_script(
    host: Host, source: str, path: str, argv: Sequence[str], options: CallOptions = DEFAULT,
    package: Optional[str] = None, data: Optional[bytes] = None,
) -> Running:
    """
    Run the text of a script on a host, and return what it writes and its exit status. The
    parameters are those of :func:`mitogen._running.script`.
    """
    return start_function(host, (_MODULE, None, 'script'), (source, path, list(argv), package, data), options)


def start_module(host: Host, name: str, argv: Sequence[str], options: CallOptions = DEFAULT) -> Running:
    """
    Run a module that a host has as ``python -m`` does, and return what it writes and its exit
    status.
    """
    return start_function(host, (_MODULE, None, 'module_as_script'), (name, list(argv)), options)


class _Kept:
    """
    The output of one process of a host that its caller wants at once, up to a number of bytes
    (None: of any size).
    """
    def __init__(self, host: Host, limit: Optional[int]) -> None:
        self._host = host
        self._limit = limit
        self._size = 0
        #: One buffer for each number: many small objects would take more memory than their bytes.
        self._texts = {STDOUT: bytearray(), STDERR: bytearray()}

    def write(self, number: int, data: bytes) -> None:
        self._size += len(data)
        if self._limit is not None and self._size > self._limit:
            raise mitogen.core.StreamError(
                'the process on %s wrote more than %d bytes: hand its output to a function (stdout=, stderr=) as it '
                'comes, or set max_output=', self._host.name, self._limit)
        self._texts[number] += data

    def read(self, number: int) -> bytes:
        return bytes(self._texts[number])


def run(host: Host, args: Command, **options: Any) -> Completed:
    """
    See :meth:`Host.run`. Observers are told.
    """
    with observing.whole(host, 'run', 'run'):
        return _run(host, args, **options)


def _run(
    host: Host, args: Command, *, input: Union[bytes, str, None] = None, timeout: Optional[float] = None,
    check: bool = False, text: bool = True, env: Optional[Mapping[str, Optional[str]]] = None,
    cwd: Optional[str] = None, stdout: Optional[Output] = None, stderr: Union[Output, int, None] = None,
    terminal: bool = False, max_output: Optional[int] = KEPT_MAX, begun: Optional[Callable[[Running], object]] = None,
) -> Completed:
    """
    Run a process.

    :param begun: called with the stream of the process, which another thread may close.
    """
    if isinstance(input, str):
        input = input.encode('utf-8')
    merged = stderr == subprocess.STDOUT
    kept = _Kept(host, max_output)
    outputs: dict[int, Output] = {
        STDOUT: stdout or functools.partial(kept.write, STDOUT),
        STDERR: stderr if callable(stderr) else functools.partial(kept.write, STDERR),
    }

    def written(number: int, given: bool, missing: bool = False) -> Any:
        data = None if given or missing else kept.read(number)
        return data.decode('utf-8', 'replace') if text and data is not None else data

    def outcome() -> tuple[Any, Any]:
        return written(STDOUT, stdout is not None), written(STDERR, callable(stderr), merged or terminal)

    try:
        with start_process(
            host, args, DEFAULT.changed({'timeout': timeout}), data=input or b'',
            env=None if env is None else dict(env), cwd=None if cwd is None else str(cwd), merged=merged,
            terminal=terminal,
        ) as running:
            if begun is not None:
                begun(running)
            returncode = _exit_status(running.follow(outputs), host)
    except errors.DeadlineExceeded as e:
        late = CommandTimeout(*e.args)
        late.host, late.began, late.cmd, late.timeout = host.name, e.began, args, timeout
        late.output, late.stderr = outcome()
    else:
        done = Completed(args, returncode, *outcome(), host.name)
        if check:
            done.check_returncode()
        return done
    raise late
