"""
Programs that start ssh.
"""

import os
import shutil
import subprocess
import tempfile

import pytest
import targets
import testlib

import mitogen.core
import mitogen.fakessh
import mitogen.parent
from mitogen.fakessh import Error, _parse_args, run

needs_rsync = pytest.mark.skipif(not shutil.which('rsync'), reason='there is no rsync')


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """
    A home directory, and a directory for temporary files which is empty afterwards.
    """
    home = tmp_path / 'home'
    home.mkdir()
    monkeypatch.setenv('HOME', str(home))
    temp = tmp_path / 'temp dir'
    temp.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(temp))
    monkeypatch.setenv('TMPDIR', str(temp))
    yield home
    assert os.listdir(str(temp)) == []


@pytest.fixture
def tree(tmp_path):
    """
    A directory with something in it.
    """
    root = tmp_path / 'tree'
    (root / 'sub' / 'empty').mkdir(parents=True)
    (root / 'small').write_bytes(b'small')
    (root / 'sub' / 'large').write_bytes(os.urandom(1 << 16) * 50)
    (root / 'sub' / 'name with blanks \xe9').write_bytes(b'')
    os.symlink('small', str(root / 'link'))
    os.chmod(str(root / 'small'), 0o751)
    os.utime(str(root / 'small'), (1000000000, 1000000000))
    return str(root)


def contents(root):
    found = {}
    for base, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(base, name)
            st = os.lstat(path)
            content = None
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, 'rb') as fp:
                    content = fp.read()
            found[os.path.relpath(path, root)] = st.st_mode, int(st.st_mtime), content
    return found


def ssh(dest, router, command):
    """
    Run a command by our ssh; return (exit status, output).
    """
    output = os.path.join(os.environ['HOME'], 'output')
    status = run(dest, router, ['/bin/sh', '-c', 'ssh host "$1" >"$2"', 'sh', command, output])
    with open(output, 'rb') as fp:
        return status, fp.read()


# ---- arguments

@pytest.mark.parametrize('line, host, options, words', [
    ('host', 'host', [], []),
    ('host ls -l', 'host', [], ['ls', '-l']),
    ('-l me host rsync --server . x', 'host', [('l', 'me')], ['rsync', '--server', '.', 'x']),
    ('-lme -oA=b host x', 'host', [('l', 'me'), ('o', 'A=b')], ['x']),
    ('-4xTp22 host x', 'host', [('4', None), ('x', None), ('T', None), ('p', '22')], ['x']),
    ('host -p 22 -q ls -a', 'host', [('p', '22'), ('q', None)], ['ls', '-a']),
    ('-q -- host -l ls', 'host', [('q', None)], ['-l', 'ls']),
    ('host -- -x', 'host', [], ['-x']),
    ('-J jump -B if host', 'host', [('J', 'jump'), ('B', 'if')], []),
    ('-s host sftp', 'host', [('s', None)], ['sftp']),
])
def test_arguments_of_openssh(line, host, options, words):
    assert _parse_args(line.split()) == (host, options, words)


@pytest.mark.parametrize('line', ['', '-q', '-p', 'host -l', '-Z host', '-q --'])
def test_bad_arguments(line):
    with pytest.raises(Error):
        _parse_args(line.split())


def test_every_letter_is_known_once():
    assert not mitogen.fakessh.OPTIONS_ALONE & mitogen.fakessh.OPTIONS_WITH_ARGUMENT
    assert set('bceilmopDEFILOQRSWw') < mitogen.fakessh.OPTIONS_WITH_ARGUMENT
    assert set('1246afgknqstvxACKMNTVXYy') < mitogen.fakessh.OPTIONS_ALONE


# ---- rsync

@needs_rsync
def test_rsync_to_a_child(router, tree, tmp_path):
    dst = str(tmp_path / 'dst')
    assert run(router.local(), router, ['rsync', '-a', tree + '/', 'host:' + dst]) == 0
    assert contents(dst) == contents(tree)


@needs_rsync
def test_rsync_to_a_grandchild_and_back(router, tree, tmp_path):
    child = router.local(via=router.local())
    there, back = str(tmp_path / 'there'), str(tmp_path / 'back')
    assert run(child, router, ['rsync', '-a', tree + '/', 'host:' + there]) == 0
    assert contents(there) == contents(tree)
    assert run(child, router, ['rsync', '-a', 'me@host:' + there + '/', back]) == 0
    assert contents(back) == contents(tree)


@needs_rsync
def test_rsync_run_by_a_child(router, tree, tmp_path):
    child = router.local()
    dest = router.local(via=child)
    assert child.call(tempfile.gettempdir) == tempfile.gettempdir()
    dst = str(tmp_path / 'dst')
    assert child.call(run, dest, args=['rsync', '-a', tree + '/', 'host:' + dst]) == 0
    assert contents(dst) == contents(tree)


@needs_rsync
def test_rsync_tells_of_what_is_missing(router, tmp_path):
    assert run(router.local(), router, ['rsync', '-a', 'host:' + str(tmp_path / 'missing'), str(tmp_path)]) == 23


@pytest.mark.skipif(not shutil.which('scp'), reason='there is no scp')
def test_scp_to_a_grandchild_and_back(router, tree, tmp_path):
    child = router.local(via=router.local())
    there, back = str(tmp_path / 'there'), str(tmp_path / 'back')
    scp = ['scp', '-q', '-p', '-r']
    os.unlink(tree + '/link')
    assert run(child, router, scp + [tree, 'host:' + there]) == 0
    assert run(child, router, scp + ['me@host:' + there, back]) == 0
    for copy in there, back:
        assert contents(copy)['sub/large'] == contents(tree)['sub/large']
        assert contents(copy)['small'] == contents(tree)['small']


# ---- ssh itself

def test_the_command_runs_in_the_home_directory_of_the_destination(router, home):
    child = router.local()
    status, output = ssh(child, router, 'pwd; echo $PPID; exit 7')
    assert status == 7
    where, ppid = output.decode().splitlines()
    assert where == str(home)
    assert int(ppid) == child.call(os.getpid)


def test_the_regular_end_is_no_error(router, home):
    child = router.local()
    with testlib.LogCapture() as logs:
        for command, expected in ('exit 3', (3, b'')), ('cat', (0, b'')), ('echo x; cat', (0, b'x\n')):
            assert ssh(child, router, command + ' </dev/null') == expected
        # Behind the word of the end of our ssh.
        assert child.call(targets.identity, 5) == 5
        child.shutdown(wait=True)
    assert [record for record in logs.records if record.levelname in ('WARNING', 'ERROR')] == []


def test_a_command_that_is_killed(router):
    assert ssh(router.local(), router, 'kill -9 $$') == (mitogen.fakessh.SSH_FAILED, b'')


def test_input_comes_to_the_command(router, home):
    data = os.urandom(1 << 16) * 60
    (home / 'input').write_bytes(data)
    status = run(router.local(), router, [
        '/bin/sh', '-c', 'cat "$HOME/input" | ssh host "tee $HOME/copy" | cmp - "$HOME/input"'])
    assert status == 0
    assert (home / 'copy').read_bytes() == data


def test_the_end_of_the_output_is_seen_before_the_end_of_the_command(router, home):
    # The reader ends at the end of the output, and only then makes the command end.
    os.mkfifo(str(home / 'fifo'))
    status = run(router.local(), router, [
        '/bin/sh', '-c',
        'ssh host "echo x; exec >/dev/null; cat $HOME/fifo" | (cat; echo go >"$HOME/fifo") >"$HOME/seen"'])
    assert status == 0
    assert (home / 'seen').read_bytes() == b'x\n'


def test_a_reader_that_stops_does_not_stop_the_command(router, home):
    status = run(router.local(), router, [
        '/bin/sh', '-c', 'ssh host "head -c 4000000 /dev/zero; echo done >$HOME/done" | head -c 10 >/dev/null'])
    assert status == 0
    testlib.wait_for(lambda: (home / 'done').exists())


def test_a_command_that_does_not_read(router):
    assert ssh(router.local(), router, 'exec <&-; echo out') == (0, b'out\n')


def test_ssh_that_is_killed_takes_the_command_with_it(router, home):
    child = router.local()
    script = (
        'ssh host "echo \\$\\$ >$HOME/pid; exec sleep 600" &'
        ' while [ ! -s "$HOME/pid" ]; do sleep 0.05; done; kill $!')
    assert run(child, router, ['/bin/sh', '-c', script]) == 0
    pid = int((home / 'pid').read_text())
    testlib.wait_for(lambda: not testlib.is_running(pid))
    # Nothing stays registered there.
    assert child.call(targets.add, 1, 2) == 3
    assert ssh(child, router, 'echo again') == (0, b'again\n')


def test_a_destination_that_goes_away(router, home):
    child = router.local()
    child.call(os.getpid)
    assert ssh(child, router, 'kill -9 $PPID')[0] == mitogen.fakessh.SSH_FAILED


def test_a_destination_that_is_gone(router):
    child = router.local()
    child.shutdown(wait=True)
    assert ssh(child, router, 'echo')[0] == mitogen.fakessh.SSH_FAILED


def test_nobody_else_may_send_to_the_command(router, home):
    child = router.local()
    control, _ = child.call(mitogen.fakessh._start_slave, 4242, u'touch $HOME/forged')
    msg = mitogen.core.Message.pickled(('start', (1, 2)), handle=control)
    with pytest.raises(mitogen.core.ChannelError) as caught:
        child.send_await(msg, deadline=10)
    assert str(caught.value) == router.unexpected_msg
    assert not (home / 'forged').exists()


# ---- the program

def test_a_program_that_starts_no_ssh(router):
    assert run(router.local(), router, ['true']) == 0
    assert run(router.local(), router, ['false']) == 1


def test_a_program_that_does_not_exist(router):
    before = len(router._handle_map)
    with pytest.raises(OSError):
        run(router.local(), router, ['/no/such/program'])
    testlib.sync(router.broker)
    testlib.wait_for(lambda: len(router._handle_map) <= before)


def test_what_ssh_cannot_do(router, capfd):
    child = router.local()
    for args, word in (['host'], 'command'), (['-s', 'host', 'sftp'], 'subsystem'), ([], 'host'), (['-Z'], '-Z'):
        assert run(child, router, ['ssh'] + args) == mitogen.fakessh.SSH_FAILED
        assert word in capfd.readouterr().err


def test_the_environment_of_the_program(router, home):
    script = 'echo "$ARGV0"; echo "$SSH_PATH"; command -v ssh; echo "${PATH#*:}"; head -n 1 "$SSH_PATH"'
    assert run(router.local(), router, ['/bin/sh', '-c', '(%s) >"$HOME/seen"' % script]) == 0
    argv0, ssh_path, found, path, first = (home / 'seen').read_text().splitlines()
    assert argv0 == mitogen.parent.get_sys_executable()
    assert ssh_path == found
    assert os.path.basename(os.path.dirname(found)).startswith('mitogen_fakessh')
    assert path == os.environ['PATH']
    assert first.startswith('#!')


def test_a_program_that_is_interrupted(router, monkeypatch):
    def interrupt(self, *args, **kwargs):
        monkeypatch.undo()
        raise KeyboardInterrupt()

    monkeypatch.setattr(subprocess.Popen, 'wait', interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(router.local(), router, ['sleep', '600'])


def test_an_import_that_fails_does_not_hang(make_router):
    router = make_router()
    router.responder.policy.blocks.add('mitogen.fakessh')
    child = router.local()
    with testlib.LogCapture('mitogen.fakessh') as log:
        assert run(child, router, ['ssh', 'host', 'true']) != 0
        assert log.find('fakessh', level=40)
