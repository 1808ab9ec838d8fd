"""
Files and trees to a host that a real server of ssh is in front of, and from it; also by `mitogen
cp`.
"""

import os
import shutil

import pytest

import mitogen
import mitogen.command

import accounts
import sshd
import testlib

#: Fixtures.
account = accounts.account
running_server, server = sshd.running_server, sshd.server

MIB = 1 << 20


@pytest.fixture
def remote(server):
    with mitogen.Tree() as tree:
        yield tree.ssh(name='remote', **server.options())


@pytest.fixture
def source(tmp_path):
    top = tmp_path / 'source'
    (top / 'sub').mkdir(parents=True)
    (top / 'sub' / 'large').write_bytes(os.urandom(1000) * 3000)
    (top / 'sub' / 'run').write_bytes(b'#!/bin/sh')
    (top / 'sub' / 'run').chmod(0o750)
    (top / 'link').symlink_to('sub/run')
    return top


@pytest.fixture
def there(server):
    """
    The path of a folder of the user over there that a test may make.
    """
    path = os.path.join(server.account.home, 'there')
    yield path
    shutil.rmtree(path, ignore_errors=True)


def content(path):
    with open(str(path), 'rb') as fp:
        return fp.read()


def test_a_tree_goes_there_and_comes_back(remote, server, source, there, tmp_path):
    told = []
    copied = remote.put(source, there, progress=lambda *args: told.append(args))
    assert (copied.files, copied.folders, copied.links) == (2, 2, 1) and len(told) > 10
    assert content(there + '/sub/large') == content(source / 'sub' / 'large')
    assert os.stat(there + '/sub/run').st_mode & 0o777 == 0o750 and os.readlink(there + '/link') == 'sub/run'
    assert os.stat(there + '/sub/run').st_uid == server.account.uid
    assert remote.get('~/there', tmp_path / 'back') == copied
    assert content(tmp_path / 'back' / 'sub' / 'large') == content(source / 'sub' / 'large')
    # A path that is not a whole one begins at the user's home.
    assert remote.get('there/sub/run', tmp_path / 'run').bytes == 9
    assert remote.read_bytes('there/sub/run') == b'#!/bin/sh'


def test_what_the_user_may_not_do_is_an_error_that_says_which_file(remote, server, source, there, tmp_path):
    (source / 'sub' / 'run').chmod(0o600)
    with pytest.raises(mitogen.FileError, match=r'/sub/run: Permission denied \(on remote\)'):
        tmp_path.chmod(0o755)
        shutil.copytree(str(source), os.path.join(server.account.folder, 'closed'), symlinks=True)
        remote.get(os.path.join(server.account.folder, 'closed'), tmp_path / 'back')
    with pytest.raises(mitogen.FileError, match='mitogen-test: Permission denied'):
        remote.put(source, '/mitogen-test')
    with pytest.raises(mitogen.FileError, match='Permission denied'):
        remote.write_text('/etc/hostname', '')
    assert not [name for name in os.listdir('/etc') if name.startswith('.mitogen')]


@pytest.mark.parametrize('way', ['put', 'get'])
def test_a_connection_that_is_cut_leaves_the_file_that_was_there(remote, server, there, tmp_path, way):
    remote.mkdir(there)
    source, target = (tmp_path, there) if way == 'put' else (there, str(tmp_path))
    with open(os.path.join(str(source), 'large'), 'wb') as fp:
        fp.truncate(32 * MIB)
    with open(os.path.join(target, 'target'), 'wb') as fp:
        fp.write(b'old')
    with pytest.raises(mitogen.ConnectionLost):
        getattr(remote, way)(os.path.join(str(source), 'large'), target + '/target',
                             progress=lambda *args: server.cut())
    testlib.wait_for(lambda: os.listdir(target) == ['target'])
    assert content(target + '/target') == b'old'


def test_the_command_copies_to_a_host_of_ssh_and_from_it(server, source, there, tmp_path, monkeypatch, capfd):
    client = accounts.need_program('ssh', 'openssh-client')
    options = server.options()
    words = ' '.join(options['ssh_args'] + ['-i', options['identity_file'], '-o', 'IdentitiesOnly=yes'])
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin' / 'ssh').write_text('#!/bin/sh\necho "$@" >> %s\nexec %s %s "$@"\n' % (
        tmp_path / 'calls', client, words))
    (tmp_path / 'bin' / 'ssh').chmod(0o755)
    monkeypatch.setenv('PATH', '%s:%s' % (tmp_path / 'bin', os.environ['PATH']))
    host = '%s@127.0.0.1:%d' % (server.account.name, server.port)

    def run(*args):
        status = mitogen.command.main(['cp', '--python', server.account.python] + list(args))
        return (status,) + tuple(capfd.readouterr())
    assert run(str(source), host + ':~/there') == (0, '', '')
    assert content(there + '/sub/large') == content(source / 'sub' / 'large')
    assert 'Compression' not in (tmp_path / 'calls').read_text()
    assert run('-C', host + ':there', str(tmp_path / 'back')) == (0, '', '')
    assert 'Compression yes' in (tmp_path / 'calls').read_text()
    assert content(tmp_path / 'back' / 'sub' / 'large') == content(source / 'sub' / 'large')
    status, out, err = run(str(source), host + ':/etc/mitogen-test')
    assert status == 1 and out == '' and err.splitlines() == [
        'mitogen: %s: /etc/mitogen-test: Permission denied (on %s)' % (host, host)]
