"""
``mitogen cp``: how paths and hosts are written, and what comes of it on this machine.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

import mitogen._files.sync_source
import mitogen.command
from mitogen._cli import cp, hosts, progress

import accounts
import keyboard
import testlib


@pytest.fixture
def command(capfdbinary):
    def run(*args):
        try:
            status = mitogen.command.main([str(arg) for arg in args])
        except SystemExit as e:
            status = e.code
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()
    return run


@pytest.fixture
def build(tmp_path):
    folder = tmp_path / 'build'
    (folder / 'sub').mkdir(parents=True)
    (folder / 'sub' / 'x').write_bytes(b'x')
    (folder / 'y').write_bytes(b'y')
    return folder


@pytest.mark.once
@pytest.mark.parametrize('word, places', [
    ('a', [(None, 'a')]),
    ('./a:b', [(None, './a:b')]),
    ('/srv/a:b', [(None, '/srv/a:b')]),
    ('web1:/srv', [('web1', '/srv')]),
    ('web1:~/a:b', [('web1', '~/a:b')]),
    ('web1:/srv/a:b', [('web1', '/srv/a:b')]),
    ('web1:/srv/a:/b', [('web1', '/srv/a:/b')]),
    ('web1:data', [('web1', 'data')]),
    ('web1:', [('web1', '.')]),
    ('me@web1:2222:/srv', [('me@web1:2222', '/srv')]),
    ('web[1-2]:/srv', [('web1', '/srv'), ('web2', '/srv')]),
    ('[::1]:/srv', [('[::1]', '/srv')]),
    ('docker:web:/srv', [('docker:web', '/srv')]),
    ('docker:web:data', [('docker:web', 'data')]),
    ('k8s:prod/api-0:/srv', [('k8s:prod/api-0', '/srv')]),
    ('local:/srv', [('local:', '/srv')]),
    ('slurm:17/n1:/srv', [('slurm:17/n1', '/srv')]),
    ('slurm:17/n[1-2]:/srv', [('slurm:17/n1', '/srv'), ('slurm:17/n2', '/srv')]),
    ('slurm:/n1:/srv', [('slurm:/n1', '/srv')]),
    ('slurm::/srv', [('slurm:', '/srv')]),
    ('ssh://me@web1:22:/srv', [('ssh://me@web1:22', '/srv')]),
    ('ssh://bastion/ssh://web1/sudo:/srv', [('ssh://bastion/ssh://web1/sudo:', '/srv')])])
def test_how_a_path_of_a_host_is_written(word, places):
    assert cp.parse(word) == places


@pytest.mark.once
@pytest.mark.parametrize('word, text', [
    ('docker:web', 'write docker:web:PATH'), (':/srv', 'no host before'), ('web[2-1]:/srv', 'is no range')])
def test_a_path_whose_host_is_none(word, text):
    with pytest.raises(hosts.HostError, match=text):
        cp.parse(word)


@pytest.mark.once
def test_hosts_whose_names_are_no_names_of_folders():
    assert [cp.folder_of(name) for name in ('web1', 'local:', 'ssh://a/ssh://b', '..')] == [
        'web1', 'local', 'ssh:__a_ssh:__b', '_..']


def test_a_tree_to_a_host_and_from_it(command, build, tmp_path):
    assert command('cp', build, 'local:%s/there' % (tmp_path,)) == (0, '', '')
    assert (tmp_path / 'there' / 'sub' / 'x').read_bytes() == b'x'
    assert command('cp', 'local:%s/there/' % (tmp_path,), tmp_path / 'back') == (0, '', '')
    assert (tmp_path / 'back' / 'sub' / 'x').read_bytes() == b'x'
    target = 'local:%s/several' % (tmp_path,)
    assert command('cp', build, build / 'y', target) == (0, '', '')
    assert sorted(os.listdir(str(tmp_path / 'several'))) == ['build', 'y']


def test_several_targets_of_a_host(command, build, tmp_path):
    status, out, err = command(
        'cp', '--json', str(build) + '/', 'local:%s/one' % (tmp_path,), 'local:%s/two' % (tmp_path,))
    value = json.loads(out)['value']
    assert status == 0 and value == {'files': 4, 'folders': 4, 'links': 0, 'bytes': 4, 'skipped': []}
    assert os.listdir(str(tmp_path / 'one')) == os.listdir(str(tmp_path / 'two'))


def test_several_hosts_at_once(command, build, tmp_path):
    (tmp_path / 'hosts').write_text('local:\nlocal:%s\n' % (sys.executable,))
    there = '@%s:%s/there' % (tmp_path / 'hosts', tmp_path)
    assert command('cp', build, there) == (0, '', '')
    assert (tmp_path / 'there' / 'sub' / 'x').read_bytes() == b'x'
    assert command('cp', there, tmp_path / 'back') == (0, '', '')
    names = ['local', 'local:' + sys.executable.replace('/', '_')]
    assert sorted(os.listdir(str(tmp_path / 'back'))) == names
    for name in names:
        assert (tmp_path / 'back' / name / 'there' / 'sub' / 'x').read_bytes() == b'x'


def test_a_tree_of_which_only_what_differs_is_sent(command, build, tmp_path):
    there = 'local:%s/there' % (tmp_path,)

    def counts(*words):
        status, out, err = command('cp', '--json', *words)
        value = json.loads(out)['value']
        assert status == 0 and (tmp_path / 'there' / 'sub' / 'x').read_bytes() == (build / 'sub' / 'x').read_bytes()
        return value['files'], value['same'], value['sent']
    assert counts('--sync', build, there) == (2, 0, 2)
    assert counts('--sync', '-C', build, there) == (0, 2, 0)
    (build / 'sub' / 'x').write_bytes(b'X' * 100000)
    assert counts('-C', '--resume', build, there)[:2] == (1, 1)
    time = os.stat(str(build / 'sub' / 'x')).st_mtime_ns
    (build / 'sub' / 'x').write_bytes(b'Y' * 100000)
    os.utime(str(build / 'sub' / 'x'), ns=(time, time))
    assert counts('--checksum', build, there) == (1, 1, 100000)
    (tmp_path / 'there' / 'old').write_bytes(b'x')
    assert counts('--delete', build, there) == (0, 2, 0)
    assert sorted(os.listdir(str(tmp_path / 'there'))) == sorted(os.listdir(str(build)))
    assert command('cp', '--sync', '--json', there + '/', tmp_path / 'back')[0] == 0
    assert (tmp_path / 'back' / 'sub' / 'x').read_bytes() == b'Y' * 100000


def test_what_goes_to_several_hosts_is_read_once(command, build, tmp_path, monkeypatch):
    (tmp_path / 'hosts').write_text('local:\nlocal:%s\n' % (sys.executable,))
    read = []
    monkeypatch.setattr(mitogen._files.sync_source, 'read_at', lambda fd, position, count: read.append(
        count) or os.pread(fd, count, position))
    (build / 'large').write_bytes(bytes(100000))
    assert command('cp', '--sync', str(build) + '/', '@%s:%s/there' % (tmp_path / 'hosts', tmp_path)) == (0, '', '')
    assert (tmp_path / 'there' / 'large').read_bytes() == bytes(100000) and read.count(100000) == 1


def test_what_does_not_travel_is_told_once(command, build, tmp_path, caplog):
    os.mkfifo(str(build / 'pi\x1bpe'))
    status, out, err = command('cp', build, 'local:%s/there' % (tmp_path,))
    assert (status, out, err) == (0, '', 'mitogen: not copied: pi\\x1bpe: it is a fifo\n')
    # The log, which goes to stderr if no handler takes it, does not tell it again.
    assert caplog.records == []


def test_a_terminal_shows_how_far_it_is(command, build, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
    (build / 'sub' / '\x1b[2J').write_bytes(bytes(200000))
    os.mkfifo(str(build / 'y-pipe'))
    words = build, 'local:%s/there' % (tmp_path,)
    status, out, err = command('cp', *words)
    *lines, told = err.split('\r')
    assert status == 0 and out == ''
    # The line is gone before another one is written, and no name writes on the terminal.
    assert told == '\x1b[Kmitogen: not copied: y-pipe: it is a fifo\n' and lines[0] == ''
    assert lines[1].startswith('1 files  ') and lines[1].endswith('/s  local: sub/\\x1b[2J 65 %\x1b[K'), lines
    assert command('cp', '--quiet', *words)[2] == command('cp', '--json', *words)[2] + told[3:]


@pytest.mark.once
def test_the_line_of_a_terminal_counts_files_and_bytes_of_all_hosts(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(progress, 'INTERVAL', -1)
    monkeypatch.setenv('COLUMNS', '70')
    line = progress.Progress(out)
    one, two = line.of('local:'), line.of('ssh://web1')
    one('a', 0, 4)
    one('a', 4, 4)
    two('a', 3 << 20, 9 << 20)
    one('a', 1, 4)
    two('x' * 100 + '\udcff', 4 << 20, -1)
    lines = [text.replace('\x1b[K', '') for text in out.getvalue().split('\r')[1:]]
    rates = [text.split('  ') for text in lines]
    assert [rate[0] for rate in rates] == ['1 files', '1 files', '2 files', '3 files', '4 files']
    assert [rate[1] for rate in rates] == ['0 B', '4 B', '3.0 MiB', '3.0 MiB', '7.0 MiB']
    assert [rate[3] for rate in rates[:4]] == ['local: a', 'local: a', 'ssh://web1: a 33 %', 'local: a 25 %']
    assert len(lines[4]) == 69
    line.clear()
    line.clear()
    assert out.getvalue().endswith('\r\x1b[K') and out.getvalue().count('\r') == 6


def test_what_fails_is_a_line_and_a_status(command, build, tmp_path):
    (tmp_path / 'fi\nle').write_bytes(b'')
    status, out, err = command('cp', build, 'local:%s/fi\nle' % (tmp_path,))
    assert status == 1 and out == '' and len(err.splitlines()) == 1
    assert err.startswith('mitogen: local: ') and 'fi\\nle: it is a file where a folder is to be' in err
    status, out, err = command('cp', 'local:%s/missing' % (tmp_path,), tmp_path / 'new')
    assert status == 1 and 'missing: No such file' in err and not (tmp_path / 'new').exists()
    status, out, err = command('cp', '--python', '/no/such/python', build, 'local:%s/there' % (tmp_path,))
    assert status == 255 and len(err.splitlines()) == 1 and not (tmp_path / 'there').exists()


@pytest.mark.parametrize('number, status, way', [
    (signal.SIGINT, 130, 'there'), (signal.SIGTERM, 143, 'back'), (signal.SIGHUP, 129, 'there')])
def test_a_signal_leaves_nothing_half_written(tmp_path, number, status, way):
    (tmp_path / 'target').mkdir()
    with open(str(tmp_path / 'large'), 'wb') as fp:
        # More than is copied before anybody could end it, and nothing on the disk.
        fp.truncate(1 << 40)
    words = [str(tmp_path / 'large'), str(tmp_path / 'target') + '/']
    words[way == 'there'] = 'local:' + words[way == 'there']
    # Signals may be ignored where the tests were started in the background.
    proc = subprocess.Popen(
        [sys.executable, '-m', 'mitogen.command', 'cp'] + words, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))
    with proc:
        testlib.wait_for(lambda: os.listdir(str(tmp_path / 'target')))
        proc.send_signal(number)
        assert proc.communicate()[1] == 'mitogen: local: interrupted\n'
    assert proc.returncode == status
    # The host ends on its own.
    testlib.wait_for(lambda: os.listdir(str(tmp_path / 'target')) == [])


#: A disk of 256 KiB, which only this shell and its processes can see: so it goes with them, however
#: they end. Copies that are too large for the disk are made to it, and its content is told.
FULL = '''
disk=$1 large=$2
shift 2
mount -t tmpfs -o size=256k none "$disk" || exit 1
echo old >"$disk/file"
for way in "" --sync --delete; do
    "$@" $way "$large" "local:$disk/file"; echo status $? "$(ls -A "$disk")" "$(cat "$disk/file")"
    "$@" $way "local:$large" "$disk/file"; echo status $? "$(ls -A "$disk")" "$(cat "$disk/file")"
done
'''


@pytest.mark.once
def test_a_disk_that_is_full_keeps_what_it_had(tmp_path):
    unshare = accounts.need_namespaces()
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'large').write_bytes(os.urandom(1 << 20))
    done = subprocess.run(
        [unshare, '--mount', 'sh', '-c', FULL, 'sh', str(tmp_path / 'disk'), str(tmp_path / 'large'),
         sys.executable, '-m', 'mitogen.command', 'cp'],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.stdout.splitlines() == ['status 1 file old'] * 6, (done.stdout, done.stderr)
    here = 'mitogen: local: %s/disk/file: No space left on device' % (tmp_path,)
    assert done.stderr.splitlines() == [here + ' (on local:)', here] * 3
    assert os.listdir(str(tmp_path / 'disk')) == []


@pytest.mark.once
@pytest.mark.parametrize('args, text', [
    (['/', 'web1:/srv', '-j', '0'], 'at least 1'),
    (['/'], 'a source and a destination'),
    (['/', '/tmp'], 'write HOST:PATH'),
    (['web1:/a', 'web2:/a'], 'copy to a local folder first'),
    (['web1:/a', '/', 'web1:/b'], 'sources come first'),
    (['/no/such/file', 'web1:/b'], 'no such file here'),
    (['/dev/null/x', 'web1:/b'], '/dev/null/x: Not a directory'),
    (['/', 'nosuch:x:/b'], 'is none of'),
    ([], 'usage')])
def test_a_wrong_command_line(command, args, text):
    status, out, err = command('cp', *args)
    assert status == 2 and text in err


def test_a_person_is_told_what_was_copied(tmp_path):
    (tmp_path / 'source').mkdir()
    for name in 'ab':
        (tmp_path / 'source' / name).write_text(name * 2000)
    target = '%s:%s/target' % ('local', tmp_path)
    for words, told in [([], '2 files copied, 3.9 KiB'), (['--sync'], '2 files copied, 3.9 KiB sent, 0 the same'),
                        (['--sync'], '0 files copied, 0 B sent, 2 the same'),
                        (['--delete'], '0 files copied, 0 B sent, 2 the same, 1 removed'), (['--quiet'], '')]:
        if words == ['--delete']:
            (tmp_path / 'target' / 'old').write_text('x')
        with keyboard.mitogen('cp', *(words + [str(tmp_path / 'source') + '/', target])) as terminal:
            assert terminal.status() == 0
        assert terminal.text.replace('\r', '').rpartition('\x1b[K')[2].strip() == told
        if not words:
            shutil.rmtree(str(tmp_path / 'target'))
