"""
Processes and scripts on a host, and what they write.
"""

import os
import subprocess
import tempfile

import pytest

import mitogen
from mitogen._tree import running

import pythons
import task_targets
import testlib

SCRIPT = u'''
import os, subprocess, sys
import named_targets
print(__name__, __file__, sys.argv[1:], named_targets.__name__)
sys.stderr.write(u'\\u00e9rr\\n')
sys.stderr.flush()
os.write(1, b'raw\\n')
subprocess.call(['echo', 'of a process'])
'''


def follow(what):
    found = {1: b'', 2: b''}

    def take(number):
        def more(data):
            found[number] += data
        return more
    value = what.follow({1: take(1), 2: take(2)})
    return value, found[1], found[2]


def test_words_and_lines_for_the_shell(host):
    done = host.run(['printf', '%s|', 'a b', '$HOME', '*'])
    assert (done.returncode, done.stdout, done.stderr, done.host) == (0, 'a b|$HOME|*|', '', 'shared')
    done = host.run('echo out; echo err >&2; exit 3')
    assert (done.returncode, done.stdout, done.stderr) == (3, 'out\n', 'err\n')
    assert host.run('kill -9 $$').returncode == -9
    assert host.run('echo out; echo err >&2', stderr=subprocess.STDOUT, text=False).stdout == b'out\nerr\n'


def test_a_process_with_pipes_alone_is_started_without_subprocess_and_inherits_no_descriptor(tree):
    other = tree.connect('local:')
    fd = other.call(os.dup, 1)
    other.call(os.set_inheritable, fd, True)
    assert other.run(['cat', '/proc/self/fd/%d' % fd], input='x').returncode == 1
    assert other.run('cat; echo err >&2', input='in ').stdout == 'in '
    with pytest.raises(mitogen.RemoteError, match='No such file or directory'):
        other.run(['/missing'])
    assert follow(running.start_script(other, 'import sys; print("subprocess" in sys.modules)', 's.py', []))[1] == b'False\n'


def test_a_process_starts_where_proc_is_not_mounted(tree):
    other = tree.connect('local:')
    other.call(task_targets.lose_proc)
    assert other.run('cat', input='in').stdout == 'in'
    assert follow(running.start_script(other, 'import sys; print("subprocess" in sys.modules)', 's.py', []))[1] == b'True\n'


def test_an_old_python_is_told_what_it_lacks(tree):
    other = tree.connect('local:' + pythons.find_python('python2.7'))
    with pytest.raises(mitogen.RemoteError, match='Tasks need Python 3.6, and this is 2.7. Plain calls work.'):
        other.run(['true'])


def test_a_status_that_is_checked(host):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        host.run('echo out; echo bad disk >&2; exit 3', check=True)
    error = caught.value
    assert isinstance(error, mitogen.CommandError)
    assert (error.returncode, error.stdout, error.stderr, error.host) == (3, 'out\n', 'bad disk\n', 'shared')
    assert str(error) == 'echo out; echo bad disk >&2; exit 3 on shared ended with exit status 3: bad disk'
    with pytest.raises(mitogen.CommandError, match='signal 9'):
        host.run('kill -9 $$', check=True)
    assert host.run(['true'], check=True).returncode == 0


def test_input_of_any_size_also_if_nobody_reads_it(host):
    assert host.run(['cat'], input=u'\u00e9\n').stdout == u'\u00e9\n'
    assert host.run(['wc', '-c'], input=b'x' * 3000000).stdout.strip() == '3000000'
    assert host.run(['true'], input=b'x' * 300000).returncode == 0
    assert host.run(['cat']).stdout == ''


def test_a_folder_and_variables(host, tmp_path, monkeypatch):
    done = host.run('pwd; echo "$ONE"; echo "${HOME-none}"', cwd=tmp_path, env={'ONE': '1', 'HOME': None})
    assert done.stdout.split() == [os.path.realpath(str(tmp_path)), '1', 'none']


def test_output_comes_as_it_is_written(host):
    chunks, errors = [], []
    done = host.run('echo one; echo two >&2; head -c 300000 /dev/zero', stdout=chunks.append, stderr=errors.append)
    assert (done.stdout, done.stderr) == (None, None)
    assert b''.join(chunks) == b'one\n' + bytes(300000)
    assert b''.join(errors) == b'two\n'


def test_a_reader_that_is_slow_holds_the_process_up(host):
    """
    The memory of the host is not filled either: the window bounds it.
    """
    options = running.DEFAULT.changed({'window_bytes': 1 << 18})
    with running.start_process(host, 'echo $$; exec yes', options) as stream:
        number, data = next(stream)
        pid = int(data.split()[0])
        received = stream._items

        def stands_still():
            before = received.size()
            testlib.sync(host.router.broker)
            return before == received.size() and before > 0
        testlib.wait_for(stands_still)
        assert received.size() <= 64
        assert testlib.is_running(pid)
    testlib.wait_for(lambda: not testlib.is_running(pid))


def test_a_terminal(host):
    done = host.run('tty >/dev/null && echo yes; echo err >&2; cat', terminal=True, input='typed\n')
    assert done.stderr is None and done.returncode == 0
    assert [line for line in done.stdout.splitlines() if line in ('yes', 'err', 'typed')].count('typed') == 2


@pytest.mark.parametrize('threads', [1, 2])
def test_a_process_that_is_late_ends_with_its_group(threads):
    with mitogen.Tree(threads=threads) as tree:
        host = tree.connect()
        with pytest.raises(subprocess.TimeoutExpired) as caught:
            host.run('sleep 600 & echo $!; wait', timeout=2)
        error = caught.value
        assert isinstance(error, mitogen.CommandTimeout) and isinstance(error, mitogen.DeadlineExceeded)
        assert (error.timeout, error.host) == (2, host.name)
        pid = int(error.stdout)
        testlib.wait_for(lambda: not testlib.is_running(pid))
        assert host.run(['echo', 'next']).stdout == 'next\n'


def test_a_process_that_ignores_sigterm_is_killed(host):
    with running.start_process(host, 'trap "" TERM; echo $$; while :; do sleep 0.1; done') as stream:
        pid = int(next(stream)[1])
    testlib.wait_for(lambda: not testlib.is_running(pid))
    assert host.run(['echo', 'next']).stdout == 'next\n'


def test_a_process_ends_with_its_host(tree):
    host = tree.connect()
    # The process is gone before its host is: the reader is not told of a signal that came from
    # there.
    host.call(task_targets.take_long_to_end)
    stream = running.start_process(host, 'echo $$; sleep 600')
    pid = int(next(stream)[1])
    assert testlib.is_running(pid)
    host.close()
    testlib.wait_for(lambda: not testlib.is_running(pid))
    with pytest.raises(mitogen.ConnectionLost) as caught:
        next(stream)
    assert 'was lost at' in caught.value.detail


def test_a_program_that_is_not_there(host):
    with pytest.raises(mitogen.RemoteError) as caught:
        host.run(['/no/such/program'])
    assert caught.value.errno == 2 and '/no/such/program' in caught.value.reason
    with pytest.raises(mitogen.RemoteError, match='no/such/folder'):
        host.run(['true'], cwd='/no/such/folder')
    assert host.run(['echo', 'next']).stdout == 'next\n'


def test_descriptors_are_given_back(host):
    count = 'ls /proc/$PPID/fd | wc -l'
    before = int(host.run(count).stdout)
    for _ in range(10):
        host.run('echo x')
        host.run('echo x', terminal=True)
        with running.start_process(host, 'echo x; sleep 600') as stream:
            next(stream)
    # A core may keep some for threads that wait. One for each process would be ten.
    assert int(host.run(count).stdout) < before + 10


# ---- scripts

def test_a_script_sees_what_a_program_sees(host):
    status, out, err = follow(running.start_script(host, SCRIPT, 'a/script.py', ['x', 'y z']))
    assert (status, err.decode('utf-8')) == (0, u'\u00e9rr\n')
    lines = out.decode().splitlines()
    assert lines[0] == "__main__ a/script.py ['x', 'y z'] named_targets"
    assert sorted(lines[1:]) == ['of a process', 'raw']


@pytest.mark.parametrize('text, status, words', [
    ('raise SystemExit(7)', 7, ''), ('raise SystemExit', 0, ''), ('raise SystemExit("no disk")', 1, 'no disk\n'),
    ('raise SystemExit(-1)', 255, ''), ('pass', 0, '')])
def test_the_status_of_a_script(host, text, status, words):
    assert follow(running.start_script(host, text, 'script.py', [])) == (status, b'', words.encode())


def test_a_script_that_raises_shows_its_own_lines_only(host):
    text = 'def f():\n    return 1 / 0\n\n\nf()\n'
    status, out, err = follow(running.start_script(host, text, '/x/script.py', []))
    lines = err.decode().splitlines()
    assert status == 1
    assert lines[:3] == ['Traceback (most recent call last):', '  File "/x/script.py", line 5, in <module>', '    f()']
    assert '    return 1 / 0' in lines
    assert lines[-1] == 'ZeroDivisionError: division by zero'
    status, out, err = follow(running.start_script(host, 'a b', 'script.py', []))
    assert status == 1 and b'SyntaxError' in err and b'_running' not in err


def test_a_module_as_a_program(host):
    status, out, err = follow(running.start_module(host, 'json.tool', ['--help']))
    assert status == 0 and b'usage' in out


def test_a_function_with_its_output(host):
    names = 'task_targets', None, 'prints'
    assert follow(running.start_function(host, names, (u'words',))) == (u'WORDS', b'words\n', b'')


def test_the_output_is_given_back_after_a_script(tree):
    with testlib.LogCapture() as log:
        host = tree.connect('local:')
        assert follow(running.start_script(host, 'print(1)', 's.py', []))[1] == b'1\n'
        host.call(os.system, 'echo after')
        log.wait('after')


def test_a_script_that_is_let_go_ends(host):
    text = 'import time\nprint("begun", flush=True)\ntry:\n    time.sleep(600)\nfinally:\n    open(%r, "w").close()\n'
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'over')
        with running.start_script(host, text % (path,), 's.py', []) as stream:
            assert next(stream) == (1, b'begun\n')
        assert host.run(['ls', path]).stdout == path + '\n'


@pytest.mark.parametrize('pipes', [0, 1, 2])
def test_output_that_cannot_be_captured_stays_where_it_was(host, pipes):
    assert host.call(task_targets.capture_without_descriptors, pipes)


def test_a_process_that_a_script_leaves_behind_holds_nothing_up(host):
    text = 'import subprocess\np = subprocess.Popen(["sleep", "600"])\nprint(p.pid)\n'
    status, out, err = follow(running.start_script(host, text, 's.py', []))
    assert status == 0
    testlib.send_signal(int(out), 9)
