# SPDX-License-Identifier: BSD-3-Clause
"""
``mitogen top``: the processes of many hosts that use most, live.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
import time
from typing import Any, NamedTuple, Optional

from mitogen import _cli
from mitogen._cli import connecting, display, paint, progress, values

EPILOG = '''
For each host there is a line: load, processors, memory, and how many processes it has. Below are those of all hosts
that use most. On a terminal it is shown again and again, until Ctrl-C. Elsewhere, and with --once, it is printed once.
The hosts need Linux, and nothing else.

exit status: 0; 255 if a host could not be reached, 1 if one cannot tell, 2 for a wrong command line, 130 after Ctrl-C.
'''

#: Characters of a line where no terminal says how wide it is.
WIDTH = 120

#: Seconds beyond the delay that a host has for its only sample.
PATIENCE = 30

#: Seconds between two looks at a screen that may have changed.
REDRAW = 0.25


def add_commands(subparsers: Any) -> None:
    """
    Add ours to the parser of ``mitogen``.
    """
    parser = _cli.add_parser(
        subparsers, 'top', epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    connecting.add_options(parser)
    parser.add_argument('--once', action='store_true', help='print it once, and end')
    parser.add_argument('-d', '--delay', type=float, default=2, metavar='SECONDS', help='between two samples (2)')
    parser.add_argument('-n', '--rows', type=int, default=20, metavar='N', help='processes that are shown (20)')
    parser.add_argument('--sort', choices=('cpu', 'memory'), default='cpu', help='what they use most of (cpu)')
    parser.set_defaults(func=top, parser=parser)


class NoSample(ValueError):
    """
    A host sent something that is no sample.
    """


class Process(NamedTuple):
    """
    A process, as it is shown.
    """
    host: str
    pid: int
    user: str
    state: str
    cpu: float
    memory: int
    command: str


class Machine(NamedTuple):
    """
    A machine, as it is shown.
    """
    load: float
    cpus: int
    processes: int
    memory: int
    available: int
    top: list[Process]


def checked(host: str, told: Any) -> Machine:
    """
    Return a sample from a host, which may send anything, with its text escaped.

    :raises NoSample: it is none.
    """
    def number(value: Any) -> float:
        if type(value) not in (int, float) or not 0 <= value < 1 << 62:
            raise NoSample()
        return value  # type: ignore[no-any-return]

    try:
        rows = [
            Process(host, int(number(row['pid'])), values.text(row['user'], 32), values.text(row['state'], 1),
                    number(row['cpu']), int(number(row['memory'])), values.text(row['command'], 500)) for row in told['top'][:1000]]
        return Machine(number(told['load'][0]), *(
            int(number(told[name])) for name in ('cpus', 'processes', 'memory', 'available')), rows)
    except (KeyError, TypeError, IndexError, NoSample):
        raise NoSample('the answer of the host is not a list of its processes') from None


class Board(display.Display):
    """
    The last sample of each host, and how the hosts ended that send no more samples. Any thread.
    """
    def __init__(self, names: list[str], sort: str, rows: int) -> None:
        super().__init__()
        self._machines: dict[str, Optional[Machine]] = dict.fromkeys(names)
        self._ends: dict[str, str] = {}
        self._sort = sort
        self._rows = rows
        #: Set when there is something else to show.
        self.changed = threading.Event()

    def show(self, name: str, machine: Machine) -> None:
        """
        Take a sample.
        """
        with self._lock:
            self._machines[name] = machine
        self.changed.set()

    def _tell(self, outcome: display.Outcome) -> None:
        if outcome.error is not None and not isinstance(outcome.error, connecting.Interrupted):
            self._machines[outcome.host] = None
            self._ends[outcome.host] = outcome.reason
        self.changed.set()

    def lines(self, painted: paint.Paint, width: int) -> list[str]:
        """
        Return what is to be shown.
        """
        with self._lock:
            machines, ends = dict(self._machines), dict(self._ends)
        wide = max([4] + [len(display.label(name)) for name in machines])
        found = []
        for name, machine in machines.items():
            mark = painted.host(name, display.label(name).ljust(wide))
            found.append(mark + '  ' + self._line(painted, machine, ends.get(name), width - wide - 2))
        heading = '%s %7s %-10s %s %6s %10s  COMMAND' % ('HOST'.ljust(wide), 'PID', 'USER', 'S', 'CPU%', 'MEMORY')
        found += ['', painted(heading[:width], paint.TITLE)]
        rows = [row for machine in machines.values() if machine is not None for row in machine.top]
        rows.sort(key=lambda row: (row.memory, row.cpu) if self._sort == 'memory' else (row.cpu, row.memory), reverse=True)
        for row in rows[:self._rows]:
            rest = ' %7d %-10s %s %6.1f %10s  %s' % (
                row.pid, row.user[:10], row.state, row.cpu, progress.size(row.memory), row.command)
            found.append(painted.host(row.host, display.label(row.host).ljust(wide)) + display.cut(rest, width - wide))
        return found

    @staticmethod
    def _line(painted: paint.Paint, machine: Optional[Machine], end: Optional[str], width: int) -> str:
        if end is not None:
            return painted(display.cut(end, width), paint.FAILED)
        if machine is None:
            return painted('...', paint.QUIET)
        return ('load %.2f of %d, memory %s of %s, %d processes' % (
            machine.load, machine.cpus, progress.size(max(0, machine.memory - machine.available)),
            progress.size(machine.memory), machine.processes))[:width]

    def json_lines(self) -> list[str]:
        """
        Return an object for each host.
        """
        found = []
        for name, machine in self._machines.items():
            value = None
            if machine is not None:
                value = dict(machine._asdict(), top=[row._asdict() for row in machine.top])
            found.append(json.dumps({'host': name, 'ok': value is not None, 'error': self._ends.get(name), 'value': value}))
        return found


def top(options: Any, rest: list[str]) -> int:
    """
    Obey the command line and return the exit status.
    """
    if not 0.05 <= options.delay <= 86400:
        options.parser.error('--delay must be between 0.05 and 86400 seconds')
    if not 1 <= options.rows <= 1000:
        options.parser.error('--rows must be between 1 and 1000')
    once = options.once or options.json or not sys.stdout.isatty()
    work = connecting.Work(options)
    if not once and len(work.names) > options.jobs:
        # Each host stays for as long as it is looked at.
        options.jobs = len(work.names)
    board = Board(work.names, options.sort, options.rows)

    def job(host: Any, outcome: display.Outcome) -> None:
        import mitogen._processes
        # A host that tells nothing must not keep the others from being printed.
        timeout = options.delay + PATIENCE if once else None
        asked = host.options(timeout=timeout)
        with asked.stream(mitogen._processes.samples, options.delay, options.rows, options.sort) as samples:
            for told in samples:
                board.show(outcome.host, checked(outcome.host, told))
                if once:
                    break
                # It may send more than it was asked for.
                time.sleep(min(REDRAW, options.delay / 2))
        outcome.status = 0
    if once:
        outcomes = work.run(job, board)
        for line in board.json_lines() if options.json else board.lines(paint.Paint(), _width()):
            print(line)
        return connecting.status(outcomes)
    with Screen(board):
        return connecting.status(work.run(job, board))


def _width() -> int:
    return shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH


class Screen:
    """
    Shows a board on the terminal until the end of its block, on a thread of its own. Where rich is
    installed it keeps the place; elsewhere the screen is written anew.
    """
    def __init__(self, board: Board) -> None:
        self._board = board
        self._ended = self._left = False
        self._thread = threading.Thread(target=self._run, name='mitogen.screen', daemon=True)

    def __enter__(self) -> Screen:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        # After Ctrl-C there is nothing new to show.
        self._left = exc_info[0] is not None
        self._ended = True
        self._board.changed.set()
        self._thread.join()

    def _run(self) -> None:
        console = paint.console(sys.stdout)
        if console is None:
            self._follow(self._write)
            return
        from rich.live import Live
        with Live(console=console, auto_refresh=False, vertical_overflow='crop') as live:
            self._follow(lambda text: _update(live, text))

    def _follow(self, show: Any) -> None:
        painted = paint.Paint(sys.stdout)
        while True:
            ended = self._ended
            if self._left:
                return
            size = shutil.get_terminal_size()
            # The last line stays free, so that nothing scrolls.
            show('\n'.join(self._board.lines(painted, size.columns)[:size.lines - 1]))
            if ended:
                return
            self._board.changed.wait(10 * REDRAW)
            self._board.changed.clear()
            if not self._ended:
                time.sleep(REDRAW)

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write('\x1b[H\x1b[J' + text + '\n')
        sys.stdout.flush()


def _update(live: Any, text: str) -> None:
    from rich.text import Text
    # The styles of ours are in it already.
    live.update(Text.from_ansi(text, no_wrap=True), refresh=True)
