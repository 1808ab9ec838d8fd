"""
``mitogen top``: the processes of hosts.
"""

import argparse
import contextlib
import json
import os
import sys
import unicodedata

import pytest

import mitogen._processes
import mitogen.command
from mitogen._cli import connecting, display, paint, top

import keyboard
import lying_host

HERE = 'local:'
OTHER = 'local:' + sys.executable
QUICK = '--delay', '0.05'


@pytest.fixture
def command(capfdbinary):
    def run(*args):
        try:
            status = mitogen.command.main(['top'] + list(args))
        except SystemExit as e:
            status = e.code
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()
    return run


def test_it_is_printed_once_where_no_person_looks(command):
    status, out, err = command(*QUICK + (HERE, OTHER, 'local:/no/such/python', '-n', '3'))
    lines = out.splitlines()
    assert status == 255 and err == '' and len(lines) == 8
    assert 'load ' in lines[0] and lines[0].startswith('local ') and ' processes' in lines[1]
    assert lines[2].startswith('local:/no/such/python  ') and 'load' not in lines[2]
    assert lines[4].split() == ['HOST', 'PID', 'USER', 'S', 'CPU%', 'MEMORY', 'COMMAND']
    for line in lines[5:]:
        host, pid, user, state, cpu, *rest = line.split()
        assert host in ('local', OTHER) and int(pid) and float(cpu) >= 0


def test_it_tells_programs(command):
    status, out, err = command(*QUICK + ('--json', '--sort', 'memory', '-n', '1000', HERE))
    found = json.loads(out)
    assert status == 0 and found['host'] == HERE and found['ok'] and found['error'] is None
    value = found['value']
    ours = [row for row in value['top'] if row['pid'] == os.getpid()]
    assert ours and ours[0]['memory'] > 1000000 and ours[0]['command'].startswith(sys.executable)
    sizes = [row['memory'] for row in value['top']]
    assert sizes == sorted(sizes, reverse=True) and value['memory'] >= value['available'] > 0


@pytest.mark.once
def test_the_share_of_a_process_is_that_of_the_time_between_two_samples():
    before, after = object.__new__(mitogen._processes._Sample), object.__new__(mitogen._processes._Sample)
    tick = os.sysconf('SC_CLK_TCK')
    before.at, after.at = 10.0, 12.0
    before.ticks = {(7, 1): (100, 7, 'S', 4096, b'idle'), (8, 1): (100, 8, 'R', 4096, b'busy'), (9, 1): (5, 9, 'R', 1, b'x')}
    # The third number was given to another process meanwhile.
    after.ticks = {(7, 1): (100, 7, 'S', 8192, b'idle'), (8, 1): (100 + tick, 8, 'R', 4096, b'busy'),
                   (9, 2): (5 * tick, 9, 'R', 1, b'x')}
    rows = mitogen._processes._told(before, after, 10, 'cpu')['top']
    assert [(row['pid'], row['cpu']) for row in rows] == [(8, 50.0), (7, 0.0), (9, 0.0)]
    rows = mitogen._processes._told(before, after, 2, 'memory')['top']
    assert [row['pid'] for row in rows] == [7, 8]


def test_a_host_that_sends_something_else(command, monkeypatch):
    monkeypatch.setattr(mitogen._processes, 'samples', lying_host.no_samples)
    status, out, err = command(*QUICK + (HERE,))
    assert status == 1 and 'is not a list of its processes' in out and '\x1b' not in out + err


@pytest.mark.once
def test_the_words_of_a_host_are_escaped():
    row = {'pid': 1, 'user': lying_host.LIE, 'state': '\x1b', 'cpu': 1.0, 'memory': 1, 'command': lying_host.LIE}
    told = {'load': [0.5], 'cpus': 1, 'processes': 1, 'memory': 1, 'available': 1, 'top': [row]}
    board = top.Board([HERE], 'cpu', 10)
    board.show(HERE, top.checked(HERE, told))
    text = '\n'.join(board.lines(paint.Paint(), 200))
    assert not set(text) & set('\x1b\x9b\u202e') and len(text.splitlines()) == 4
    for bad in float('nan'), float('inf'), -1, True, '1', None, 1 << 70:
        with pytest.raises(top.NoSample):
            top.checked(HERE, dict(told, memory=bad))
    for endless in lying_host.many_times(), lying_host.deep(), 10 ** 5000:
        odd = dict(row, user=endless, state=endless, command=endless)
        board.show(HERE, top.checked(HERE, dict(told, top=[odd])))
        assert u'(a value that is' in '\n'.join(board.lines(paint.Paint(), 200))
    for worse in None, 'x', [], {}, dict(told, top=[None]), dict(told, top=7), dict(told, load=[]):
        with pytest.raises(top.NoSample):
            top.checked(HERE, worse)


@pytest.mark.once
@pytest.mark.parametrize('letter', ['x', '\t', '\u4e16', '\uff57'])
def test_no_line_of_a_host_goes_on_in_the_next_row(letter):
    row = {'pid': 10 ** 18, 'user': letter * 32, 'state': letter, 'cpu': 1e18, 'memory': 1 << 61, 'command': letter * 500}
    told = {'load': [1e18], 'cpus': 1 << 61, 'processes': 1 << 61, 'memory': 1, 'available': 1 << 61, 'top': [row] * 3}
    board = top.Board([HERE], 'cpu', 10)
    board.show(HERE, top.checked(HERE, told))
    for width in 40, 120:
        lines = board.lines(paint.Paint(), width)
        assert len(lines) == 6
        for line in lines:
            assert '\t' not in line
            assert sum(2 if unicodedata.east_asian_width(one) in 'WF' else 1 for one in line) <= width


class Asked(object):
    """
    A host that tells more often than it was asked to.
    """
    def options(self, **options):
        self.given = options
        return self

    def stream(self, *args):
        return contextlib.nullcontext([lying_host.sample()] * 5)


@pytest.mark.once
@pytest.mark.parametrize('once', [True, False], ids=['once', 'until the end'])
def test_a_host_that_tells_nothing_or_too_much_keeps_nobody_waiting(monkeypatch, once):
    """
    One whose only sample does not come is given up, or the others would not be printed.
    """
    host, naps = Asked(), []
    monkeypatch.setattr(top.time, 'sleep', naps.append)
    monkeypatch.setattr(connecting.Work, 'run', lambda self, job, shown: job(host, display.Outcome(HERE)) or [])
    monkeypatch.setattr(top, 'Screen', lambda board: contextlib.nullcontext())
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
    top.top(argparse.Namespace(
        delay=2, rows=5, once=once, json=False, jobs=1, hosts=[HERE], sort='cpu', sudo=False, sudo_user=None,
        ask_sudo_password=False), [])
    assert host.given == {'timeout': 2 + top.PATIENCE if once else None}
    assert naps == ([] if once else [top.REDRAW] * 5)


@pytest.mark.once
@pytest.mark.parametrize('args', [['--delay', '0'], ['--delay', 'nan'], ['--rows', '0'], ['-j', '0'], ['--sort', 'x']])
def test_a_wrong_command_line(command, args):
    status, out, err = command(HERE, *args)
    assert status == 2 and 'usage' in err


@pytest.mark.parametrize('term', ['xterm-256color', 'dumb'])
def test_a_person_sees_it_until_control_c(term):
    if term != 'dumb':
        pytest.importorskip('rich')
    with keyboard.mitogen('top', HERE, *QUICK, TERM=term) as terminal:
        for _ in range(3):
            terminal.wait_for('load ')
        terminal.type('\x03')
        assert terminal.status() == 130
    assert 'Traceback' not in terminal.text and 'interrupted' not in terminal.text
