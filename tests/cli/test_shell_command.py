"""
``mitogen shell``: a prompt over there.
"""

import os
import subprocess
import sys

import pytest

import mitogen._console
import mitogen.command
import mitogen.core
from mitogen._cli import session as sessions

import keyboard
import lying_host
import sshd
import testlib

account = sshd.account
running_server = sshd.running_server
server = sshd.server

PROMPT = 'local >>> '


@pytest.fixture
def command(capfdbinary, monkeypatch, tmp_path):
    def run(text, *args):
        path = tmp_path / 'typed'
        path.write_text(text)
        with path.open() as fp:
            monkeypatch.setattr(sys, 'stdin', fp)
            try:
                status = mitogen.command.main(['shell'] + list(args))
            except SystemExit as e:
                status = e.code
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()
    return run


def test_lines_of_a_file_run_over_there(command):
    text = 'import os\nos.getppid() == %d\nfor i in range(2):\n    print(i)\n\nx = """a\n\nb"""\nlen(x)\ndef f():\n  print("f")\n' % (
        os.getpid(),)
    assert command(text + '\nf()', 'local:') == (0, 'True\n0\n1\n4\nf\n', '')


def test_a_block_at_the_end_of_the_input_runs(command):
    assert command('if 1:\n  print("yes")', 'local:') == (0, 'yes\n', '')


def test_exceptions_are_shown_and_the_shell_goes_on(command):
    status, out, err = command('def f():\n    1 / 0\n\nf()\nprint(')
    assert status == 2
    status, out, err = command('def f():\n    1 / 0\n\nf()\n1 +\n"on"\n', 'local:')
    assert (status, out) == (0, "'on'\n")
    assert 'Traceback' in err and ', in f' in err and 'ZeroDivisionError: division by zero' in err and 'SyntaxError' in err
    assert '_console' not in err and 'runsource' not in err


@pytest.mark.parametrize('line, status, told', [
    ('exit()', 0, ''), ('raise SystemExit(7)', 7, ''), ('import sys; sys.exit("enough")', 1, 'enough\n')])
def test_the_way_out(command, line, status, told):
    assert command('%s\nprint("not here")\n' % (line,), 'local:') == (status, '', told)


def test_what_the_host_writes_is_escaped_unless_it_is_wanted(command):
    text = 'print("\\x1b[31mred\\ttab\\x9b\\u202e")\n'
    assert command(text, 'local:') == (0, '\\x1b[31mred\ttab\\x9b\\u202e\n', '')
    assert command(text, '--raw', 'local:')[1] == '\x1b[31mred\ttab\x9b\u202e\n'


def test_a_host_that_is_lost_or_was_never_there(command):
    status, out, err = command('import os\nos._exit(3)\n', 'local:')
    assert status == 255 and ' was lost at ' in err and len(err.splitlines()) == 1
    status, out, err = command('1\n', 'local:/no/such/python')
    assert status == 255 and err.startswith('mitogen: local:/no/such/python: ') and len(err.splitlines()) == 1


@pytest.mark.once
def test_a_shell_is_for_one_host(command):
    status, out, err = command('', 'web[1-2]')
    assert status == 2 and 'a shell is for one host' in err


def test_a_host_that_answers_something_else(command, monkeypatch):
    monkeypatch.setattr(mitogen._console, 'begin', lying_host.facts)
    status, out, err = command('1\n', 'local:')
    assert status == 255 and 'does not start a console' in err and '\x1b' not in out + err


@pytest.mark.once
def test_answers_that_are_none_are_refused():
    class Liar(object):
        name = 'liar'

        def call(self, *args):
            return lying_host.facts()

        def options(self, **options):
            return self
    with pytest.raises(mitogen.core.StreamError, match='does not start a console'):
        sessions.Session(Liar(), [])
    session = object.__new__(sessions.Session)
    session._host = Liar()
    assert session.names('x') == []
    session._host.call = lambda *args: ['good', 'ga\x1b[2Jd', 7, 'ga\nd', 'bad', 'g' * (sessions.NAME_MAX + 1)]
    assert session.names('g') == ['good']
    session._host.call = lambda *args: ['good'] * 100000
    assert len(session.names('g')) == sessions.NAMES_MAX


@pytest.mark.once
def test_a_console_has_a_handle_and_a_short_banner():
    class Liar(object):
        name = 'liar'

        def call(self, *args):
            return self.told
    liar = Liar()
    for handle in -1, 1 << 32, 10 ** 5000, True, u'5', None:
        liar.told = handle, u'Python'
        with pytest.raises(mitogen.core.StreamError, match='is not a number'):
            sessions.Session(liar, [])
    liar.told = 5, lying_host.LIE * 100000
    banner = sessions.Session(liar, []).banner
    assert len(banner) < 2000 and not set(banner) & set('\x1b\x9b\u202e\n')


def test_a_person_types(tmp_path):
    with keyboard.mitogen('shell', 'local:', XDG_STATE_HOME=str(tmp_path), TERM='dumb') as terminal:
        terminal.wait_for(PROMPT)
        assert 'Python 3' in terminal.text
        terminal.type('value_of_mine = 6 * 7\n')
        terminal.wait_for(PROMPT)
        terminal.type('value_of_m\t\n')
        assert '\n42' in terminal.wait_for(PROMPT).replace('\r', '')
        terminal.type('for i in range(2):\n')
        terminal.wait_for('... ')
        terminal.type('    i\n')
        terminal.wait_for('... ')
        terminal.type('\n')
        assert terminal.wait_for(PROMPT).replace('\r', '').endswith('\n0\n1\n')
        terminal.type('half a li')
        terminal.wait_for('half a li')
        terminal.type('\x03')
        terminal.wait_for('KeyboardInterrupt')
        terminal.wait_for(PROMPT)
        terminal.type('\x04')
        assert terminal.status() == 0
    history = tmp_path / 'mitogen' / 'shell_history'
    assert 'value_of_mine = 6 * 7' in history.read_text().splitlines()
    assert (tmp_path / 'mitogen').stat().st_mode & 0o77 == 0


@pytest.mark.parametrize('line', [
    'print("pid", os.getpid()); time.sleep(600)', 'print("pid", os.getpid()) or exec("while True: pass")',
    'os.system("echo pid $$; sleep 600; true")'])
def test_control_c_interrupts_what_runs_over_there(line):
    with keyboard.mitogen('shell', 'local:', TERM='dumb', XDG_STATE_HOME='/proc/none') as terminal:
        terminal.wait_for(PROMPT)
        terminal.type('import os, time; kept = "kept"\n')
        terminal.wait_for(PROMPT)
        terminal.type(line + '\n')
        terminal.wait_for('\r\npid ')
        pid = int(terminal.wait_for('\r\n'))
        terminal.type('\x03')
        terminal.wait_for(PROMPT)
        if 'system' in line:
            testlib.wait_for(lambda: not testlib.is_running(pid))
        terminal.type('kept\n')
        terminal.wait_for("'kept'")
        terminal.wait_for(PROMPT)
        terminal.type('\x04')
        assert terminal.status() == 0


def test_control_c_ends_a_shell_whose_host_does_not_react():
    with keyboard.mitogen('shell', 'local:', TERM='dumb', XDG_STATE_HOME='/proc/none') as terminal:
        terminal.wait_for(PROMPT)
        terminal.type('import os, signal; print("pid", os.getpid())\n')
        terminal.wait_for('\r\npid ')
        pid = int(terminal.wait_for('\r\n'))
        terminal.wait_for(PROMPT)
        terminal.type('signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); "dea" "f"\n')
        terminal.wait_for("'deaf'")
        terminal.wait_for(PROMPT)
        terminal.type('import time; print("now", flush=True); time.sleep(600)\n')
        terminal.wait_for('\r\nnow')
        for _ in range(2):
            terminal.type('\x03')
            terminal.wait_for('it does not react yet')
        terminal.type('\x03')
        assert terminal.status() == 130
    testlib.wait_for(lambda: not testlib.is_running(pid))


def test_over_ssh(server, tmp_path):
    options = server.options()
    program = tmp_path / 'ssh'
    program.write_text('#!/bin/sh\nexec %s %s -i %s "$@"\n' % (
        subprocess.check_output(['which', 'ssh'], text=True).strip(), ' '.join(options['ssh_args']), options['identity_file']))
    program.chmod(0o755)
    target = 'ssh://%s@%s:%d' % (server.account.name, server.address, server.port)
    done = subprocess.run(
        [sys.executable, '-m', 'mitogen.command', 'shell', '--python', server.account.python, target],
        input='import getpass\ngetpass.getuser()\n', stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd='/',
        env=dict(os.environ, PATH='%s:%s' % (tmp_path, os.environ['PATH'])))
    assert (done.returncode, done.stdout) == (0, '%r\n' % (server.account.name,))
