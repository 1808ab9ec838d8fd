# SPDX-License-Identifier: BSD-3-Clause
"""
Displays: how the outputs of many hosts come to one terminal, or to one file.
"""

from __future__ import annotations

import os
import sys
import textwrap
import threading
import unicodedata
from typing import Any, BinaryIO, Callable, Optional

import mitogen.core
from mitogen._cli import paint, values

STDOUT, STDERR = 1, 2

#: Bytes that are kept of the output of one host, where it is shown at its end, and of one line.
KEPT_MAX = 64 * 1048576
LINE_MAX = 65536

#: Columns of a tab, and the fewest that the lines of a host get in a terminal.
TAB, NARROW = 8, 20


#: Options of the library in a hint -> the same advice for a command line.
ADVICE = {
    'put its key into the known_hosts file; see the option check_host_keys.': 'connect once by ssh, which keeps its key.',
    'See the options username, identity_file and password.': 'See User and IdentityFile in ssh_config, and ssh-add -l.',
    'see the option hostname, and the configuration of the ssh client.': 'see HostName in ssh_config.',
    'see the option username.': 'see --sudo-user, and User in ssh_config.',
    'see the option password.': 'see the option -K.',
    'larger connect_timeout': 'larger --connect-timeout',
    'the option connect_timeout': 'the option --connect-timeout',
    'is python_path an interpreter': 'is --python an interpreter',
    'option python_path.': 'option --python.',
}


#: Stands before the name of a usual exception that a host has raised.
_BUILTINS = 'builtins.'


def advice(text: str) -> str:
    """
    Return a hint as it helps a person at a command line.
    """
    for old, new in ADVICE.items():
        text = text.replace(old, new)
    return text


class OutputError(OSError):
    """
    Our own output cannot be written.
    """


class Outcome:
    """
    The outcome on one host.

    :ivar host: the target.
    :ivar status: exit status; None if it is not known.
    :ivar value: what a function returned, if it can be shown: see
        :func:`mitogen._cli.values.checked`.
    :ivar error: why there is no status.
    :ivar seconds: how long it took, with the connection.
    :ivar started: when it began, by the monotonic clock.
    """
    def __init__(self, host: str, status: Optional[int] = None, error: Optional[BaseException] = None) -> None:
        self.host = host
        self.status = status
        self.value: Any = None
        self.error = error
        self.seconds = 0.0
        self.started = 0.0

    @property
    def label(self) -> str:
        """
        The name of the host for people.
        """
        return label(self.host)

    @property
    def ok(self) -> bool:
        """
        Whether all went well.
        """
        return self.error is None and not self.status

    @property
    def reason(self) -> str:
        """
        The error, in one line.
        """
        if self.error is not None:
            # The detail says more: how the connection was lost.
            how = self.error.detail if isinstance(self.error, mitogen.core.ChannelError) else None
            text = how or getattr(self.error, 'reason', None) or str(self.error) or type(self.error).__name__
            text = advice(text)
            text = text[len(_BUILTINS):] if text.startswith(_BUILTINS) else text
            return mitogen.core._printable(text.strip().partition('\n')[0])
        return 'signal %d' % -self.status if (self.status or 0) < 0 else 'exit status %s' % (self.status,)


def label(host: str) -> str:
    """
    Return the name of a host for people: `local:` is just `local`.
    """
    return host.rstrip(':/') or host


class Display:
    """
    Takes what hosts write. Any thread. This one shows it as it is: for one host.

    :ivar before_output: called before anything is shown, to remove a line of progress.
    """
    before_output: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, out: Optional[BinaryIO] = None, err: Optional[BinaryIO] = None) -> None:
        self._files = {STDOUT: out or sys.stdout.buffer, STDERR: err or sys.stderr.buffer}
        self._paints = {STDOUT: paint.Paint(None if out else sys.stdout), STDERR: paint.Paint(None if err else sys.stderr)}
        self._lock = threading.Lock()

    def write(self, host: str, number: int, data: bytes) -> None:
        """
        Show what a host wrote to its stdout or its stderr.
        """
        with self._lock:
            self._put(number, data)

    def done(self, outcome: Outcome) -> None:
        """
        Show how it ended.
        """
        with self._lock:
            self._tell(outcome)

    def _put(self, number: int, data: bytes) -> None:
        self.before_output()
        try:
            self._files[number].write(data)
            self._files[number].flush()
        except BrokenPipeError:
            raise
        except OSError as e:
            raise OutputError(e.errno, 'the output cannot be written: %s' % (e.strerror,)) from None

    def _columns(self, number: int) -> int:
        """
        Return how wide the terminal is; 0 if there is none.
        """
        try:
            return os.get_terminal_size(self._files[number].fileno()).columns
        except (OSError, AttributeError, ValueError):
            return 0

    def _painted(self, number: int, text: bytes, style: str) -> bytes:
        if not style:
            return text
        return self._paints[number](text.decode('utf-8', 'replace'), style).encode('utf-8', 'replace')

    def _tell(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            line = ('mitogen: %s: %s' % (outcome.label, outcome.reason)).encode('utf-8', 'replace')
            self._put(STDERR, self._painted(STDERR, line, paint.FAILED) + b'\n')
        elif outcome.value is not None:
            self._put(STDOUT, (_shown(outcome.value) + '\n').encode('utf-8', 'replace'))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else values.described(value)


def cut(text: str, width: int) -> str:
    """
    Return as much of a text as a terminal shows in so many columns. More would go on at the
    beginning of the next row, and might pass for a row of its own.
    """
    for i, letter in enumerate(text):
        width -= 2 if unicodedata.east_asian_width(letter) in 'WF' else 1
        if width < 0:
            return text[:i]
    return text


def rows(text: str, width: int) -> list[str]:
    """
    Return a text in pieces that a terminal shows in a row of so many columns each.
    """
    if len(text) * TAB <= width:
        return [text]
    text = text.expandtabs(TAB)
    found = []
    while text:
        found.append(cut(text, width))
        text = text[len(found[-1]):]
    return found


def clean(line: bytes) -> bytes:
    """
    Return a line without control characters, so that no host can write in the name of another.
    """
    return mitogen.core._printable(line.rstrip(b'\r')).encode('utf-8', 'replace')


class Prefixed(Display):
    """
    Each line begins with the name of its host. Lines come as hosts write them. On a terminal, so
    does each row of a line, which could pass for the line of another host.
    """
    def __init__(self, width: int, **files: Any) -> None:
        super().__init__(**files)
        self._width = width
        self._rest: dict[tuple[str, int], bytes] = {}

    def write(self, host: str, number: int, data: bytes) -> None:
        with self._lock:
            *lines, rest = (self._rest.pop((host, number), b'') + data).split(b'\n')
            while len(rest) > LINE_MAX:
                lines.append(rest[:LINE_MAX])
                rest = rest[LINE_MAX:]
            if rest:
                self._rest[host, number] = rest
            self._lines(host, number, lines)

    def _lines(self, host: str, number: int, lines: list[bytes], style: str = '') -> None:
        mark = self._paints[number].host(host, label(host).ljust(self._width)).encode('utf-8', 'replace') + b' | '
        columns = self._columns(number)
        if columns:
            width = max(columns - self._width - len(' | '), NARROW)
            # Our own words are broken at blanks.
            texts = [clean(line).decode() for line in lines]
            texts = [part for text in texts for part in textwrap.wrap(text, width)] if style else texts
            lines = [row.encode('utf-8', 'replace') for text in texts for row in rows(text, width)]
        if lines:
            self._put(number, b''.join(mark + self._painted(number, clean(line), style) + b'\n' for line in lines))

    def _tell(self, outcome: Outcome) -> None:
        for number in STDOUT, STDERR:
            rest = self._rest.pop((outcome.host, number), b'')
            if rest:
                self._lines(outcome.host, number, [rest])
        if outcome.value is not None:
            self._lines(outcome.host, STDOUT, _shown(outcome.value).encode('utf-8', 'replace').split(b'\n'))
        if not outcome.ok:
            line = ('mitogen: ' + outcome.reason).encode('utf-8', 'replace')
            self._lines(outcome.host, STDERR, [line], paint.FAILED)


class _Kept(Display):
    """
    Keeps the output of a host until its end.
    """
    def __init__(self, **files: Any) -> None:
        super().__init__(**files)
        #: Host -> one buffer for each number: many small objects would take more memory than their
        #: bytes.
        self._texts: dict[str, dict[int, bytearray]] = {}

    def write(self, host: str, number: int, data: bytes) -> None:
        with self._lock:
            texts = self._texts.setdefault(host, {STDOUT: bytearray(), STDERR: bytearray()})
            if sum(map(len, texts.values())) + len(data) > KEPT_MAX:
                raise ValueError('it wrote more than %d bytes, which are too many to show together' % (KEPT_MAX,))
            texts[number] += data

    def _take(self, host: str) -> tuple[bytes, bytes]:
        texts = self._texts.pop(host, {STDOUT: bytearray(), STDERR: bytearray()})
        return bytes(texts[STDOUT]), bytes(texts[STDERR])


class Grouped(_Kept):
    """
    The whole output of a host together, below its name.
    """
    def _tell(self, outcome: Outcome) -> None:
        out, err = self._take(outcome.host)
        how = 'ok' if outcome.ok else outcome.reason
        heading = ('== %s: %s' % (outcome.label, how)).encode('utf-8', 'replace')
        self._put(STDOUT, self._painted(STDOUT, heading, paint.TITLE if outcome.ok else paint.FAILED) + b'\n')
        for number, text in (STDOUT, out), (STDERR, err):
            if text:
                self._lines(number, text[:-1] if text.endswith(b'\n') else text)
        if outcome.value is not None:
            self._lines(STDOUT, _shown(outcome.value).encode('utf-8', 'replace'))

    def _lines(self, number: int, text: bytes) -> None:
        # Neither a line of a host, nor a row of it, passes for the heading of another one.
        lines = [clean(line) for line in text.split(b'\n')]
        columns = self._columns(number)
        if columns:
            lines = [b'\n '.join(row.encode('utf-8', 'replace') for row in rows(line.decode(), max(columns - 1, NARROW)))
                     for line in lines]
        self._put(number, b''.join((b' ' if line.startswith(b'== ') else b'') + line + b'\n' for line in lines))


class Json(_Kept):
    """
    One JSON object for each host, in a line: host, ok, status, stdout, stderr, value, error, stage,
    hint, seconds.
    """
    def _tell(self, outcome: Outcome) -> None:
        out, err = self._take(outcome.host)
        try:
            line = self._line(outcome, outcome.value, out, err)
        except (TypeError, ValueError, RecursionError):
            # The value has no form in JSON, such as a dict with tuples as keys, or one that holds
            # itself.
            line = self._line(outcome, values.described(outcome.value), out, err)
        self._put(STDOUT, line.encode('ascii') + b'\n')

    def _line(self, outcome: Outcome, value: Any, out: bytes, err: bytes) -> str:
        import json
        return json.dumps({
            'host': outcome.host, 'ok': outcome.ok, 'status': outcome.status,
            'stdout': out.decode('utf-8', 'replace'), 'stderr': err.decode('utf-8', 'replace'),
            'value': value, 'error': None if outcome.error is None else outcome.reason,
            'stage': getattr(outcome.error, 'stage', None), 'hint': advice(getattr(outcome.error, 'hint', None) or '') or None,
            'seconds': round(outcome.seconds, 3),
        }, default=repr)
