"""
``mitogen shell`` with the prompt of IPython: a real one from PyPI, on a real terminal, and a host
that does not have it.
"""

import os
import sys

import pytest

import mitogen
import mitogen._console.cells
import mitogen.core
from mitogen._cli import cells

import jupyter as packages
import keyboard
import lying_host

jupyter = packages.jupyter


@pytest.fixture
def bare_python(tmp_path):
    """
    An interpreter that does not see the packages of this one.
    """
    path = tmp_path / 'python'
    path.write_text('#!/bin/sh\nunset PYTHONPATH\nexec %s "$@"\n' % (sys.executable,))
    path.chmod(0o755)
    return str(path)


def shell(jupyter, tmp_path, *words):
    # The terminal here does not tell where its cursor is.
    return keyboard.mitogen('shell', *words, PYTHONPATH=jupyter, XDG_STATE_HOME=str(tmp_path), NO_COLOR='1',
                            PROMPT_TOOLKIT_NO_CPR='1', HOME=str(tmp_path))


# The first time the packages are installed, and PyPI may be slow.
@pytest.mark.seconds(900)
def test_cells_run_over_there_and_a_person_types_them(jupyter, tmp_path, bare_python):
    with shell(jupyter, tmp_path, '--python', bare_python, 'local:') as terminal:
        def run(cell, wanted):
            terminal.type(cell + '\r')
            shown = terminal.wait_for(wanted) + wanted
            terminal.wait_for(']: ')
            return shown

        terminal.wait_for(']: ')
        assert 'IPython ' in terminal.text
        run('import os, time; kept_value = os.getppid()', '\n')
        run('kept_value', 'Out[2]: %d' % terminal.proc.pid)
        # Its magics, its help and its commands are those of the host, whose words are escaped.
        run('%pwd', "Out[3]: '/'")
        run('os.getpid?', 'Docstring: Return the current process id.')
        run('!echo $PPID; printf "a\\033[31mb\\n"', 'a\\x1b[31mb\r\n')
        run('x = !echo of a shell\rx', "['of a shell']")
        # A cell of several lines.
        terminal.type('for i in "ab":\r')
        terminal.wait_for('...:')
        terminal.type('print(i * 3)\r')
        terminal.wait_for('...:')
        assert 'aaa\r\nbbb\r\n' in run('', 'bbb\r\n')
        # A name is completed, and Ctrl-C interrupts what runs and what is typed.
        terminal.type('kept_va\t')
        terminal.wait_for('lue')
        run(' - kept_value', 'Out[9]: 0')
        terminal.type('print("be" "gun", flush=True); time.sleep(600)\r')
        terminal.wait_for('begun')
        terminal.type('\x03')
        terminal.wait_for('KeyboardInterrupt')
        terminal.wait_for(']: ')
        terminal.type('half a li')
        terminal.wait_for('half a li')
        terminal.type('\x03')
        terminal.wait_for('KeyboardInterrupt')
        terminal.wait_for(']: ')
        run('1/0', 'ZeroDivisionError: division by zero\r\n')
        terminal.type('exit(7)\r')
        assert terminal.status() == 7
    history = (tmp_path / 'mitogen' / 'ipython_history').read_text().splitlines()
    assert '+for i in "ab":' in history and '+    print(i * 3)' in history
    # The host has kept nothing.
    assert not (tmp_path / '.ipython').exists()


@pytest.mark.seconds(900)
def test_a_host_where_ipython_does_not_work_has_the_plain_prompt(jupyter, tmp_path, bare_python):
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'broken' / 'traitlets.py').write_text('raise ImportError("too \\x1b[31mold")\n')
    with open(bare_python) as fp:
        text = fp.read()
    with open(bare_python, 'w') as fp:
        fp.write(text.replace('unset PYTHONPATH', 'export PYTHONPATH=%s' % (tmp_path / 'broken',)))
    with shell(jupyter, tmp_path, '--python', bare_python, 'local:') as terminal:
        told = terminal.wait_for('local >>> ')
        assert 'mitogen: local: no IPython there, so this is the plain prompt: ' in told and 'too \\x1b[31mold' in told
        terminal.type('6 * 7\n')
        terminal.wait_for('\r\n42\r\nlocal >>> ')
        terminal.type('\x04')
        assert terminal.status() == 0


@pytest.mark.seconds(900)
def test_a_person_who_wants_the_plain_prompt(jupyter, tmp_path):
    with shell(jupyter, tmp_path, '--plain', 'local:') as terminal:
        assert 'IPython' not in terminal.wait_for('local >>> ')
        terminal.type('\x04')
        assert terminal.status() == 0


def test_a_python_that_is_too_old_is_named():
    with mitogen.connect() as host:
        with pytest.raises(mitogen.core.CallError, match=r'it needs Python 9\.5, and this is %d\.%d' % sys.version_info[:2]):
            host.call(mitogen._console.cells.begin, 'nocolor', (9, 5))
        with pytest.raises(mitogen.core.CallError, match='ModuleNotFoundError: '):
            host.call(mitogen._console.cells.begin, 'nocolor', (0, 0))


@pytest.mark.once
def test_answers_of_a_host_that_is_no_ipython():
    class Liar(object):
        def call(self, *args):
            return self.told

        def options(self, **options):
            return self
    session = object.__new__(cells.Cells)
    session._host = Liar()
    for told in lying_host.facts(), None, [lying_host.LIE, (lying_host.LIE,), (0, lying_host.LIE), (0, 5), (5, u'x'),
                                           (-1, u'x'), (True, u'x'), (0, u'a\nb'), (0, u'x' * 100000)]:
        session._host.told = told
        assert session.completions('os.g', 4) == []
    session._host.told = [(3, u'getpid')] * 100000
    assert len(session.completions('os.g', 4)) == cells.NAMES_MAX


@pytest.mark.once
def test_the_end_of_a_long_history_is_kept(jupyter, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(jupyter)
    monkeypatch.setattr(cells, 'HISTORY_MAX', 1000)
    path = tmp_path / 'history'
    path.write_text(''.join('\n# 2026-01-01 00:00:00.0\n+line %d\n' % number for number in range(100)))
    found = list(cells._history(str(path)).load_history_strings())
    assert found[0] == 'line 99' and 5 < len(found) < 20 and found[-1] == 'line %d' % (100 - len(found))
    assert os.path.getsize(str(path)) < 600
    assert list(cells._history('/proc/none').load_history_strings()) == []
