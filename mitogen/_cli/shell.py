# SPDX-License-Identifier: BSD-3-Clause
"""
``mitogen shell``: a prompt of Python on a host.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, Callable, Optional

from mitogen import _cli
from mitogen._cli import connecting, display, hosts, paint
from mitogen._cli.session import EXIT, MORE, Output, Session

EPILOG = '''
Lines are run over there, by the Python of the host. The name of the host stands before the prompt. Tab completes names
of over there, and the lines of earlier times are kept in ~/.local/state/mitogen. Ctrl-C interrupts what runs, with the
processes that it has started; pressed three times, it ends the shell. Ctrl-D, or exit(), ends it, too. There is no
standard input for what runs. Where the input is no terminal, its lines are run without a prompt.

At a terminal the prompt is that of IPython, where IPython is installed on this machine. The host need not have it.

Control characters in what the host writes are escaped; with --raw they reach the terminal.

exit status: 0, or that of exit(); 255 if the host could not be reached or was lost, 2 for a wrong command line.
'''

#: Lines of the history that are kept.
HISTORY_MAX = 2000


def add_commands(subparsers: Any) -> None:
    """
    Add ours to the parser of ``mitogen``.
    """
    parser = _cli.add_parser(
        subparsers, 'shell', epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('hosts', nargs=1, metavar='HOST', help=hosts.HELP)
    connecting.add_way(parser)
    parser.add_argument('--raw', action='store_true', help='show what the host writes as it is')
    parser.add_argument('--plain', action='store_true', help='the plain prompt, not that of IPython')
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
        with mitogen.Tree(output=None) as tree:
            host = work.connect(tree, trees._Shared(), name)
            outputs = [Output(sys.stdout.buffer, options.raw), Output(sys.stderr.buffer, options.raw)]
            label = display.label(name)
            if not options.plain and _is_terminal():
                from mitogen._cli import cells
                if cells.is_here():
                    try:
                        session = cells.Cells(host, outputs, options.raw)
                    except mitogen.core.CallError as e:
                        _tell_error(name, e, 'no IPython there, so this is the plain prompt: ')
                    else:
                        return cells.talk(session, label, state_file('ipython_history'))
            session = Session(host, outputs)
            with Keyboard(label, session) as keyboard:
                return _talk(session, keyboard)
    except mitogen.core.Error as e:
        _tell_error(name, e)
        return connecting.UNREACHED


def _tell_error(name: str, error: BaseException, why: str = '') -> None:
    outcome = display.Outcome(name, error=error)
    text = 'mitogen: %s: %s%s' % (outcome.label, why, outcome.reason.removeprefix('mitogen.core.Error: '))
    print(paint.Paint(sys.stderr)(text, paint.FAILED), file=sys.stderr)


def _is_terminal() -> bool:
    """
    Tell whether a person sits at a terminal that can do more than show lines.
    """
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get('TERM', 'dumb') != 'dumb'


def state_file(name: str) -> str:
    """
    Return the path of a file that is kept between sessions. Its folder is made, where that is
    possible.
    """
    base = os.environ.get('XDG_STATE_HOME') or os.path.expanduser('~/.local/state')
    folder = os.path.join(base, 'mitogen')
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError:
        # There is no place for it.
        pass
    return os.path.join(folder, name)


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
            how, status = session.run('\n'.join(lines + [''])) if lines else (EXIT, 0)
            return status & 0xff
        except KeyboardInterrupt:
            keyboard.tell('\nKeyboardInterrupt')
            lines = []
            continue
        how, status = session.run('\n'.join(lines))
        if how == EXIT:
            return status & 0xff
        if how != MORE:
            lines = []


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
        try:
            func(state_file('shell_history'))
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
