"""
Colours of the command: where a person sees them, and nowhere else.
"""

import io
import re
import sys

import pytest

from mitogen._cli import display, paint

import keyboard

pytest.importorskip('rich')


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv('TERM', 'xterm-256color')
    monkeypatch.delenv('NO_COLOR', raising=False)


@pytest.mark.once
def test_text_for_a_person_has_a_style():
    assert re.match('\x1b\\[[0-9;]+mweb1\x1b\\[0m\\Z', paint.Paint(Screen())('web1', paint.FAILED))


@pytest.mark.once
def test_a_host_keeps_its_style():
    painted = paint.Paint(Screen())
    first = painted.host('a', 'web')
    assert painted.host('b', 'web') != first == painted.host('a', 'web')


@pytest.mark.once
@pytest.mark.parametrize('why', ['no terminal', 'NO_COLOR', 'dumb', 'no rich'])
def test_text_stays_as_it_is(monkeypatch, why):
    out = io.StringIO() if why == 'no terminal' else Screen()
    if why == 'NO_COLOR':
        monkeypatch.setenv('NO_COLOR', '1')
    elif why == 'dumb':
        monkeypatch.setenv('TERM', 'dumb')
    elif why == 'no rich':
        monkeypatch.setitem(sys.modules, 'rich.console', None)
    assert paint.Paint(out)('[bold]web1[/] :smile:', paint.FAILED) == '[bold]web1[/] :smile:'


def test_lines_of_hosts_have_colours_and_what_hosts_write_has_none():
    with keyboard.mitogen('run', 'local:', 'local:/no/such/python', '--', 'printf "\\033[31mred\\n"; exit 3') as terminal:
        assert terminal.status() == 255
    lines = terminal.text.splitlines()
    assert [line for line in lines if re.match('\x1b\\[\\d+mlocal +\x1b\\[0m \\| \\\\x1b\\[31mred$', line)]
    assert [line for line in lines if re.search('\x1b\\[1;31mmitogen: exit status 3\x1b', line)]


def test_each_row_of_a_terminal_bears_the_mark_of_its_host():
    line = 'printf "%060d\\t%s== web2: ok\\n\\n" 7 ab; echo "== x"'
    with keyboard.mitogen('run', 'local:', 'local:/', '--', line, columns=48, NO_COLOR='1') as terminal:
        assert terminal.status() == 0
    rows = terminal.text.replace('\r', '').splitlines()
    assert sorted(rows) == 2 * ['local | '] + 2 * [
        'local | ' + '0' * 40] + 2 * ['local | ' + '0' * 19 + '7    ab== web2: ok'] + 2 * ['local | == x']
    with keyboard.mitogen('run', '--group', 'local:', 'local:/', '--', line, columns=67, NO_COLOR='1') as terminal:
        assert terminal.status() == 0
    text = terminal.text.replace('\r', '')
    assert text.count('0' * 59 + '7    ab\n == web2: ok\n\n == x\n') == 2


@pytest.mark.once
def test_rows_of_wide_letters():
    assert display.rows('\u4e2d' * 5 + 'abc', 4) == ['\u4e2d' * 2, '\u4e2d' * 2, '\u4e2dab', 'c']
    assert display.rows('', 4) == [''] and display.rows('abc', 24) == ['abc']
