# SPDX-License-Identifier: BSD-3-Clause
"""
``mitogen shell``: a prompt of Python on a host.
"""

from __future__ import annotations

import argparse
import codecs
import concurrent.futures
import os
import sys
from typing import Any, BinaryIO, Callable, Optional

import mitogen.core
from mitogen import _cli
from mitogen._cli import connecting, display, hosts, paint, values

EPILOG = '''
Lines are run over there, by the Python of the host. The name of the host stands before the prompt. Tab completes names
of over there, and the lines of earlier times are kept in ~/.local/state/mitogen/shell_history. Ctrl-C interrupts what
runs, with the processes that it has started; pressed three times, it ends the shell. Ctrl-D, or exit(), ends it, too.
There is no standard input for what runs. Where the input is no terminal, its lines are run without a prompt.

Control characters in what the host writes are escaped; with --raw they reach the terminal.

exit status: 0, or that of exit(); 255 if the host could not be reached or was lost, 2 for a wrong command line.
'''

#: Lines of the history that are kept.
HISTORY_MAX = 2000

#: Seconds that a completion may take, names that it may propose, and characters of each.
NAMES_TIMEOUT, NAMES_MAX, NAME_MAX = 10, 500, 1000

#: So many times Ctrl-C is pressed at something that does not react, and seconds until that is said.
PATIENCE, SOON = 3, 1


def add_commands(subparsers: Any) -> None:
    """
    Add ours to the parser of ``mitogen``.
    """
    parser = _cli.add_parser(
        subparsers, 'shell', epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('hosts', nargs=1, metavar='HOST', help=hosts.HELP)
    connecting.add_way(parser)
    parser.add_argument('--raw', action='store_true', help='show what the host writes as it is')
    parser.set_defaults(func=shell, parser=parser)


def shell(options: Any, rest: list[str]) -> int:
    """
    Obey the command line and return the exit status.
    """
    import mitogen
    from mitogen._tree import tree as trees
    work = connecting.Work(options)
    if len(work.names) != 1:
        options.parser.error('a shell is for one host, and there are %d' % (len(work.names),))
    name = work.names[0]
    try:
        with mitogen.Tree() as tree:
            host = work.connect(tree, trees._Shared(), name)
            session = Session(host, [Output(sys.stdout.buffer, options.raw), Output(sys.stderr.buffer, options.raw)])
            with Keyboard(display.label(name), session) as keyboard:
                return _talk(session, keyboard)
    except mitogen.core.Error as e:
        outcome = display.Outcome(name, error=e)
        text = 'mitogen: %s: %s' % (outcome.label, outcome.reason)
        print(paint.Paint(sys.stderr)(text, paint.FAILED), file=sys.stderr)
        return connecting.UNREACHED


def _talk(session: Session, keyboard: Keyboard) -> int:
    """
    Run what is typed, until the end of it. Return the exit status.
    """
    keyboard.tell(session.banner)
    lines: list[str] = []
    while True:
        try:
            lines.append(keyboard.read(bool(lines)))
        except EOFError:
            keyboard.tell('')
            # It ends a block that was begun, too.
            how, status = session.run('\n'.join(lines + [''])) if lines else (_EXIT, 0)
            return status
        except KeyboardInterrupt:
            keyboard.tell('\nKeyboardInterrupt')
            lines = []
            continue
        how, status = session.run('\n'.join(lines))
        if how == _EXIT:
            return status
        if how != _MORE:
            lines = []


_MORE, _EXIT = 'more', 'exit'


class Output:
    """
    Shows what a host writes, without its control characters.
    """
    def __init__(self, out: BinaryIO, raw: bool) -> None:
        self._out = out
        self._raw = raw
        self._decoder = codecs.getincrementaldecoder('utf-8')('replace')

    def write(self, data: bytes) -> None:
        """
        Show some bytes.
        """
        if not self._raw:
            lines = self._decoder.decode(data).replace('\r\n', '\n').split('\n')
            data = '\n'.join(map(mitogen.core._printable, lines)).encode('utf-8', 'replace')
        self._out.write(data)
        self._out.flush()


class Session:
    """
    A console on a host. One thread, which gets Ctrl-C.

    :ivar banner: a line about its Python.
    """
    def __init__(self, host: Any, outputs: list[Output]) -> None:
        import mitogen._console
        from mitogen._tree import tasks
        self._host = host
        self._outputs = {number: output.write for number, output in zip((display.STDOUT, display.STDERR), outputs)}
        told = host.call(mitogen._console.begin)
        if not (isinstance(told, tuple) and len(told) == 2 and isinstance(told[1], str)):
            raise mitogen.core.StreamError('the host sent what is no console')
        (self._handle,) = tasks.numbers(told[:1], 1)
        self.banner = values.text(told[1], 200)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, 'mitogen.shell')

    def run(self, text: str) -> tuple[Any, int]:
        """
        Run some text over there, show what it writes, and return how it came out, and an exit
        status.
        """
        from mitogen._tree import running
        started = running.start_function(self._host, ('mitogen._console', None, 'run'), (text,))
        # Another thread waits: an exception in the midst of it could lose a part of what comes.
        future = self._thread.submit(started.follow, self._outputs)
        pressed = told_of = 0
        while not future.done():
            try:
                # Not for ever: no wait ends for a signal that came just before it.
                concurrent.futures.wait([future], SOON)
                if pressed > told_of and not future.done():
                    told_of = pressed
                    print('mitogen: it does not react yet; the shell ends at the third Ctrl-C', file=sys.stderr)
            except KeyboardInterrupt:
                pressed += 1
                if pressed >= PATIENCE:
                    raise
                self._host.send(mitogen.core.Message.pickled(None, handle=self._handle))
        told = future.result()
        if isinstance(told, tuple) and len(told) == 2 and (told[1] is None or type(told[1]) is int):
            return told[0], (told[1] or 0) & 0xff
        raise mitogen.core.StreamError('the host sent what is no answer of a console')

    def names(self, text: str) -> list[str]:
        """
        Return the names over there that may continue a text; none where that takes too long, or
        fails.
        """
        import mitogen._console
        try:
            told = self._host.options(timeout=NAMES_TIMEOUT).call(mitogen._console.names, text)
        except mitogen.core.Error:
            return []
        # They get into the line that is typed.
        return [name for name in told[:NAMES_MAX] if isinstance(name, str) and len(name) <= NAME_MAX
                and name.startswith(text) and name.isprintable()] if isinstance(told, list) else []

    def close(self) -> None:
        """
        End our thread.
        """
        self._thread.shutdown(wait=False)


class Keyboard:
    """
    The lines that are typed, with their history and completion.

    :param label: what stands before the prompt.
    """
    def __init__(self, label: str, session: Session) -> None:
        self._is_terminal = sys.stdin.isatty()
        self._label = label
        self._session = session
        self._readline: Any = None
        self._names: list[str] = []

    def __enter__(self) -> Keyboard:
        if self._is_terminal:
            try:
                import readline
            except ImportError:
                return self
            self._readline = readline
            readline.set_completer(self._complete)
            libedit = 'libedit' in (readline.__doc__ or '')
            readline.parse_and_bind('bind ^I rl_complete' if libedit else 'tab: complete')
            readline.set_history_length(HISTORY_MAX)
            self._with_history(readline.read_history_file)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._session.close()
        if self._readline is not None:
            self._readline.set_completer(None)
            self._with_history(self._readline.write_history_file)

    def _with_history(self, func: Callable[[str], None]) -> None:
        base = os.environ.get('XDG_STATE_HOME') or os.path.expanduser('~/.local/state')
        path = os.path.join(base, 'mitogen', 'shell_history')
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            func(path)
        except OSError:
            # There is none yet, or no place for it.
            pass

    def _complete(self, text: str, number: int) -> Optional[str]:
        if number == 0:
            # At the beginning of a line the key indents.
            self._names = self._session.names(text) if text.strip() else ['    ']
        return self._names[number] if number < len(self._names) else None

    def tell(self, text: str) -> None:
        """
        Show a line to the person who types.
        """
        if self._is_terminal:
            print(text)

    def read(self, is_more: bool) -> str:
        """
        Return the next line.

        :raises EOFError: there is none.
        """
        if self._is_terminal:
            mark = '%s >>> ' % (self._label,)
            return input('... '.rjust(len(mark)) if is_more else mark)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip('\n')
