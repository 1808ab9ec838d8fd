"""
The program `mitogen`: its commands, on this machine. See tests/cli/test_hosts.py for how hosts are
written.
"""

import json
import re
import signal
import subprocess
import sys

import pytest

import mitogen.command
from mitogen._cli import display

import testlib

HERE = 'local:'
OTHER = 'local:' + sys.executable


@pytest.fixture
def command(capfdbinary):
    def run(*args):
        try:
            status = mitogen.command.main(list(args))
        except SystemExit as e:
            status = e.code
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()
    path = list(sys.path)
    yield run
    sys.path[:] = path


def test_the_output_of_one_host_is_as_it_is(command):
    assert command('run', HERE, '--', 'printf "a\\033\\0b"; echo err >&2; exit 7') == (7, 'a\033\0b', 'err\n')
    assert command('run', HERE, '--', 'printf', '%s', '$HOME *') == (0, '$HOME *', '')
    assert command('run', HERE, '--', 'kill -9 $$')[0] == 137


def test_lines_of_several_hosts_bear_their_names(command):
    status, out, err = command('run', HERE, OTHER, '--', 'printf "a\\r\\nb\\033[31m\\nc"; echo err >&2; exit 3')
    width = len(OTHER)
    assert status == 1
    expected = [name.ljust(width) + ' | ' + line for name in ('local', OTHER) for line in ('a', 'b\\x1b[31m', 'c')]
    assert sorted(out.splitlines()) == sorted(expected)
    lines = 'err', 'mitogen: exit status 3'
    expected = [name.ljust(width) + ' | ' + line for name in ('local', OTHER) for line in lines]
    assert sorted(err.splitlines()[:-1]) == sorted(expected)
    assert err.splitlines()[-1] == 'mitogen: 2 of 2 hosts failed: local %s' % (OTHER,)


def test_the_output_of_each_host_together(command):
    status, out, err = command('run', '--group', HERE, OTHER, '--', 'echo one; echo two')
    assert status == 0 and err == ''
    assert sorted(re.findall(r'== (\S+): ok\none\ntwo\n', out)) == ['local', OTHER]


def test_output_that_is_kept_has_a_bound(command, monkeypatch):
    monkeypatch.setattr(display, 'KEPT_MAX', 1000)
    monkeypatch.setattr(display, 'LINE_MAX', 100)
    status, out, err = command('run', '--json', HERE, '--', 'yes')
    assert status == 1 and 'more than 1000 bytes' in json.loads(out)['error']
    status, out, err = command('run', HERE, OTHER, '--', 'printf %0250d 1')
    assert sorted(len(line.partition(' | ')[2]) for line in out.splitlines()) == [50, 50, 100, 100, 100, 100]


def test_a_host_that_is_down_delays_and_changes_nothing(command):
    status, out, err = command('run', '--json', HERE, 'local:/no/such/python', '--', 'echo fine')
    assert status == 255
    good, bad = sorted(map(json.loads, out.splitlines()), key=lambda entry: not entry['ok'])
    assert (good['host'], good['status'], good['stdout']) == (HERE, 0, 'fine\n')
    assert (bad['host'], bad['ok'], bad['status']) == ('local:/no/such/python', False, None)
    assert '--python' in bad['hint'] and bad['stage']
    status, out, err = command('run', 'local:/no/such/python', '--', 'true')
    assert status == 255 and out == '' and err.startswith('mitogen: local:/no/such/python: ')
    assert len(err.splitlines()) == 1


def test_a_script_that_no_host_has(command, tmp_path):
    (tmp_path / 'beside.py').write_text('NAME = "beside"\n')
    script = tmp_path / 'script.py'
    script.write_text('import sys, beside\nprint(beside.NAME, sys.argv[1:], __name__)\nsys.exit(4)\n')
    assert command('run', HERE, '--', str(script), '--flag', 'x') == (4, "beside ['--flag', 'x'] __main__\n", '')


def test_text_of_python_and_modules(command, tmp_path, monkeypatch):
    assert command('run', HERE, '-c', 'import sys; print(sys.argv)', '--', 'x') == (0, "['-c', 'x']\n", '')
    status, out, err = command('run', HERE, '-c', '1/0')
    assert status == 1 and out == '' and err.splitlines()[-1] == 'ZeroDivisionError: division by zero'
    (tmp_path / 'own_module.py').write_text(
        'import sys\n\ndef add(a, b):\n    print("adding")\n    return [a, b]\n\n'
        'if __name__ == "__main__":\n    print("main", sys.argv[1:])\n')
    monkeypatch.chdir(tmp_path)
    assert command('run', HERE, '-m', 'own_module', '--', 'x') == (0, "main ['x']\n", '')
    (tmp_path / 'own_pkg').mkdir()
    (tmp_path / 'own_pkg' / '__init__.py').write_text('')
    (tmp_path / 'own_pkg' / 'other.py').write_text('NAME = "other"\n')
    (tmp_path / 'own_pkg' / '__main__.py').write_text('from . import other\nprint(other.NAME)\n')
    assert command('run', HERE, '-m', 'own_pkg') == (0, 'other\n', '')
    assert 'usage' in command('run', HERE, '-m', 'json.tool', '--', '--help')[1]
    assert command('run', HERE, '-m', 'own_module:add', '--', '1', 'two') == (0, "adding\n[1, 'two']\n", '')
    status, out, err = command('run', '--json', HERE, '-m', 'own_module:add', '--', '1', '{"x": null}')
    assert json.loads(out)['value'] == [1, {'x': None}]
    status, out, err = command('run', HERE, '-m', 'own_module:missing')
    assert status == 1 and 'missing' in err and len(err.splitlines()) == 1


def test_input_folder_variables_and_terminal(command, tmp_path, monkeypatch):
    with open(str(tmp_path / 'input'), 'w+') as fp:
        fp.write('typed\n')
        fp.seek(0)
        monkeypatch.setattr(sys, 'stdin', fp)
        line = 'cat; pwd; echo "$A"; tty >/dev/null || echo no terminal'
        status, out, err = command('run', HERE, '--stdin', '--chdir', '/', '-e', 'A=b=c', '--', line)
    assert (status, out) == (0, 'typed\n/\nb=c\nno terminal\n')
    assert 'no terminal' not in command('run', HERE, '-t', '--', 'tty || echo no terminal')[1]


def test_input_of_a_script(command, tmp_path, monkeypatch):
    with open(str(tmp_path / 'input'), 'w+') as fp:
        for args in ['-c', 'print(input(), input())'], ['--', str(tmp_path / 'asks.py')]:
            (tmp_path / 'asks.py').write_text('import sys\nprint(*sys.stdin.read().split())\n')
            fp.seek(0)
            fp.write('one\ntwo\n')
            fp.seek(0)
            monkeypatch.setattr(sys, 'stdin', fp)
            assert command('run', HERE, '--stdin', *args) == (0, 'one two\n', '')
    status, out, err = command('run', HERE, '-c', 'input()')
    assert status == 1 and err.endswith('EOFError: EOF when reading a line\n')


def test_a_host_that_is_lost_says_how(command):
    status, out, err = command('run', HERE, '-c', 'import os; os._exit(5)')
    assert status == 255 and ' was lost at ' in err and len(err.splitlines()) == 1


def test_a_command_over_its_time(command):
    for seconds in '1', '10', '50':
        status, out, err = command('run', HERE, '--timeout', seconds, '--', 'echo $$; exec sleep 600')
        assert status == 1 and 'not done within %s seconds' % seconds in err
        if out:
            break
    # Where nothing was written, the time was over before the shell ran.
    testlib.wait_for(lambda: not testlib.is_running(int(out)))


@pytest.mark.parametrize('args, text', [
    (['run', HERE], 'there is nothing to run'),
    (['run', HERE, '-c', 'x', '-m', 'y'], 'cannot be used together'),
    (['run', HERE, '--', 'missing.py'], 'No such file'),
    (['run', HERE, '-m', 'x', '--stdin'], 'is for commands'),
    (['run', HERE, '-c', 'x', '-t'], 'is for commands'),
    (['run', HERE, '--chdir', '/', '--', __file__], 'is for commands'),
    (['run', HERE, '-e', 'x', '--', 'true'], 'write NAME=VALUE'),
    (['run', 'web[3-1]', '--', 'true'], 'is no range'),
    (['run', 'nosuch:web', '--', 'true'], 'is none of'),
    (['run', HERE, '-j', '0', '--', 'true'], 'at least 1'),
    (['run', HERE, '--timeout', '-1', '--', 'true'], 'argument --timeout: -1 is no time to wait'),
    (['ping', HERE, '--connect-timeout', 'nan'], 'must be more than 0'),
    (['nosuch'], 'invalid choice'),
    ([], 'usage'),
    (['--help'], 'run a command, a script')])
@pytest.mark.once
def test_a_wrong_command_line(command, args, text):
    status, out, err = command(*args)
    assert status == (0 if args == ['--help'] else 2) and text in out + err


def test_ping_and_info(command):
    status, out, err = command('ping', HERE, OTHER)
    assert status == 0 and len(re.findall(r'\| ready in [\d.]+ s, round trip [\d.]+ ms, Python 3', out)) == 2
    status, out, err = command('info', '--json', HERE)
    value = json.loads(out)['value']
    assert value['core'] == mitogen.core.CORE and value['executable']
    assert command('ping', 'local:/no/such/python')[0] == 255


def test_control_c_ends_the_commands_over_there():
    # SIGINT may be ignored where the tests were started in the background.
    proc = subprocess.Popen(
        [sys.executable, '-m', 'mitogen.command', 'run', HERE, OTHER, '--', 'echo $$; exec sleep 600'],
        stdout=subprocess.PIPE, text=True, cwd='/',
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    pids = [int(proc.stdout.readline().partition('|')[2]) for _ in range(2)]
    proc.send_signal(signal.SIGINT)
    assert proc.wait() == 130
    for pid in pids:
        testlib.wait_for(lambda: not testlib.is_running(pid))
    proc.stdout.close()


def test_nobody_reads_any_more():
    line = '"%s" -m mitogen.command run local: -- "yes | head -c 3000000"' % (sys.executable,)
    proc = subprocess.run(
        'exec 3>&1; { %s; echo $? >&3; } | head -c 10' % (line,), shell=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd='/')
    assert proc.stderr == ''
    assert '0' not in re.findall(r'^\d+$', proc.stdout, re.M)


def test_a_command_that_is_not_there_has_the_status_of_a_shell(command, tmp_path):
    (tmp_path / 'file').write_text('')
    status, out, err = command('run', HERE, '--', 'no-such-command', 'x')
    assert (status, out) == (127, '') and err == "mitogen: local: No such file or directory: 'no-such-command'\n"
    status, out, err = command('run', HERE, '--json', '--', str(tmp_path / 'file'), 'x')
    told = json.loads(out)
    assert status == told['status'] == 126 and told['error'].startswith('Permission denied') and not told['ok']
    assert command('run', HERE, OTHER, '--', 'no-such-command', 'x')[0] == 1


def run_in_shell(line):
    proc = subprocess.run(
        line.replace('mitogen', '"%s" -m mitogen.command' % (sys.executable,)), shell=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd='/')
    return proc.returncode, proc.stdout, proc.stderr


@pytest.mark.parametrize('words', [
    'run local: -- echo x', 'run --json local: -- echo x', 'ping local:', 'completion hosts; mitogen ping local:'])
def test_output_that_cannot_be_written_is_a_line(words):
    told = run_in_shell('{ mitogen %s; } >/dev/full' % (words,))
    assert told == (1, '', 'mitogen: the output cannot be written: No space left on device\n')


@pytest.mark.parametrize('line, told', [
    ('mitogen run local: -- echo x >&-', (0, '', '')),
    ('mitogen run --stdin local: -- "cat; echo y" <&-', (0, 'y\n', '')),
    ('mitogen run local: -- "echo x >&2; echo y" 2>&-', (0, 'y\n', ''))])
def test_standard_files_that_are_closed(line, told):
    assert run_in_shell(line) == told


@pytest.mark.once
def test_control_c_while_modules_are_imported():
    text = """
import sys, mitogen.command
def make_parser(used):
    raise KeyboardInterrupt
mitogen.command.make_parser = make_parser
sys.exit(mitogen.command.main())
"""
    proc = subprocess.run([sys.executable, '-c', text], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (proc.returncode, proc.stdout, proc.stderr) == (130, b'', b'')
