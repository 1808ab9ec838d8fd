"""
Hosts, commands and files that are not as they should be, over a real server of ssh: the command
says which host and what failed, and leaves nothing half-written.
"""

import json
import os
import re
import shutil

import pytest

import mitogen.command
import mitogen.parent
from mitogen._cli import display, progress

import accounts
import sshd
import testlib

account = sshd.account
running_server = sshd.running_server
server = sshd.server

pytestmark = pytest.mark.once

MIB = 1 << 20


@pytest.fixture
def command(server, capfdbinary, monkeypatch, tmp_path):
    """
    A function that runs `mitogen` with an ssh that uses the test's keys.
    """
    def run(*args, key='user_key', python=server.account.python):
        options = server.options()
        client = accounts.need_program('ssh', 'openssh-client')
        (tmp_path / 'bin' / 'ssh').write_text('#!/bin/sh\nexec %s %s -i %s -o IdentitiesOnly=yes "$@"\n' % (
            client, ' '.join(options['ssh_args']), server.path(key)))
        (tmp_path / 'bin' / 'ssh').chmod(0o755)
        status = mitogen.command.main([args[0], '--python', python] + list(args[1:]))
        out, err = capfdbinary.readouterr()
        return status, out, err.decode().splitlines()
    (tmp_path / 'bin').mkdir()
    monkeypatch.setenv('PATH', '%s:%s' % (tmp_path / 'bin', os.environ['PATH']))
    return run


@pytest.fixture
def host(server):
    return '%s@127.0.0.1:%d' % (server.account.name, server.port)


def test_a_host_that_cannot_be_used_is_named_with_its_stage_and_a_hint(command, server, host):
    (closed,) = sshd.free_ports(1)
    down = '%s@127.0.0.1:%d' % (server.account.name, closed)
    status, out, err = command('run', '--json', host, down, '--', 'echo fine')
    told = {entry['host']: entry for entry in map(json.loads, out.splitlines())}
    assert status == 255 and told[host]['stdout'] == 'fine\n'
    assert 'nothing answers' in told[down]['error'] and told[down]['stage'] and told[down]['hint']
    name = server.account.name
    status, out, err = command('run', '%s@127.0.0.1:%d' % (name, server.key_port), '--', 'true', key='other_key')
    assert status == 255 and len(err) == 1 and err[0].startswith('mitogen: %s@127.0.0.1:' % (name,))
    assert 'IdentityFile in ssh_config' in err[0]
    status, out, err = command('run', host, '--', 'true', python='/no/such/python')
    assert status == 255 and len(err) == 1 and err[0].startswith('mitogen: %s: ' % (host,)) and 'option --python' in err[0]


def test_commands_and_scripts_that_go_wrong(command, server, host, tmp_path):
    (tmp_path / 'raises.py').write_text('def f():\n    raise KeyError("mine")\n\nf()\n')
    status, out, err = command('run', host, '--', str(tmp_path / 'raises.py'))
    assert (status, out, err[-1]) == (1, b'', "KeyError: 'mine'") and 'raises.py", line 2, in f' in err[-3]
    # One that prints what is no text, to a person's terminal and to a program.
    assert command('run', host, '--', "printf '\\377\\0\\033['")[:2] == (0, b'\xff\0\x1b[')
    status, out, err = command('run', host, host + '/', '--', "printf '\\377\\0\\033[\\n'")
    assert sorted(line.partition(b' | ')[2] for line in out.splitlines()) == [b'\xef\xbf\xbd\\x00\\x1b['] * 2
    # One that never ends, and one that closes its output and goes on.
    status, out, err = command('run', '--timeout', '3', host, '--', 'echo begun; sleep 600')
    assert (status, len(err)) == (1, 1) and host in err[0] and 'not done within 3 seconds' in err[0]
    assert command('run', host, '--', 'exec >&- 2>&-; sleep 0.2; exit 4') == (4, b'', [])
    status, out, err = command('run', host, '-c', 'import os; os.close(1); os.close(2); os._exit(5)')
    assert status == 255 and len(err) == 1 and host in err[0] and ' was lost at ' in err[0]


@pytest.fixture
def there(server):
    path = os.path.join(server.account.home, 'bad-input')
    os.mkdir(path)
    os.chown(path, server.account.uid, -1)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize('way', [[], ['--sync']], ids=['all', 'sync'])
def test_files_that_go_wrong(command, server, host, there, tmp_path, monkeypatch, way):
    (tmp_path / 'tree').mkdir()
    (tmp_path / 'tree' / 'loop').symlink_to('loop')
    with open(os.fsencode(str(tmp_path / 'tree')) + b'/na\xffme\x1b[', 'wb') as fp:
        fp.write(b'x')

    def fails(text, *words, **options):
        before = sorted(os.listdir(there))
        status, out, err = command('cp', *way, *words, **options)
        assert (status, out) == (1, b'') and len(err) == 1 and err[0].startswith('mitogen: %s: ' % (host,)), err
        assert text in err[0]
        # A host that is told to stop removes what it has begun, and then ends.
        testlib.wait_for(lambda: sorted(os.listdir(there)) == before)

    # A name that is no UTF-8, and a link that leads to itself, are what they are.
    assert command('cp', *way, str(tmp_path / 'tree'), '%s:%s/' % (host, there)) == (0, b'', [])
    assert sorted(os.listdir(os.fsencode(there) + b'/tree')) == [b'loop', b'na\xffme\x1b[']
    assert command('cp', *way, '%s:%s/tree/' % (host, there), str(tmp_path / 'back')) == (0, b'', [])
    assert os.readlink(str(tmp_path / 'back' / 'loop')) == 'loop'
    fails('loop: Too many levels of symbolic links', '%s:%s/tree/loop' % (host, there), str(tmp_path / 'new'))
    assert not (tmp_path / 'new').exists()
    # A target that is a file, and one that cannot take all of it.
    with open(there + '/file', 'wb') as fp:
        fp.write(b'old')
    os.chown(there + '/file', server.account.uid, -1)
    fails('file: it is a file where a folder is to be', str(tmp_path / 'tree'), '%s:%s/file' % (host, there))
    (tmp_path / 'large').write_bytes(os.urandom(MIB))
    small = os.path.join(server.folder, 'small')
    with open(small, 'w') as fp:
        fp.write('#!/bin/sh\nulimit -f 300\nexec %s "$@"\n' % (server.account.python,))
    os.chmod(small, 0o755)
    fails('file: File too large', str(tmp_path / 'large'), '%s:%s/file' % (host, there), python=small)
    # A file that changes: the reader is at most a window ahead of what has arrived.
    large = str(tmp_path / 'large')
    (tmp_path / 'large').write_bytes(os.urandom(MIB) * 16)
    monkeypatch.setattr(progress.Progress, 'of', lambda bar, name: lambda path, done, total: os.truncate(large, 15 * MIB))
    fails('large: it changed while it was read', large, '%s:%s/file' % (host, there))
    with open(there + '/file', 'rb') as fp:
        assert fp.read() == b'old'


def test_advice_for_a_command_line_is_about_hints_that_there_are():
    parent = mitogen.parent
    hints = ' '.join([entry[1] for entry in parent._HINTS] + [
        parent._HINT_ENDED, parent._HINT_DIED, parent._HINT_SILENT, parent._HINT_SLOW])
    assert [old for old in display.ADVICE if old not in hints] == []
    assert not re.search(r'(?:options?|larger) [a-z_]+\b|python_path', display.advice(hints)), display.advice(hints)
