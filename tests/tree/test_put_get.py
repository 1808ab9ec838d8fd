"""
Files and trees on their way to a host, and from it.
"""

import os
import signal
import socket
import stat

import pytest

import mitogen
import mitogen._files.new_entry
import mitogen._files.reader
from mitogen._files.items import DATA

import file_targets
import pythons
import testlib

MIB = 1 << 20
NOT_UTF8 = b'\xff\xfe name'


@pytest.fixture
def source(tmp_path):
    top = tmp_path / 'source'
    (top / 'sub' / 'deep').mkdir(parents=True)
    (top / 'empty').mkdir()
    (top / 'one').write_bytes(b'one')
    (top / 'nothing').write_bytes(b'')
    (top / 'sub' / 'run').write_bytes(b'#!/bin/sh\n')
    (top / 'sub' / 'run').chmod(0o755)
    (top / 'sub' / 'deep' / 'large').write_bytes(os.urandom(1000) * 700)
    (top / 'sub' / 'deep' / 'secret').write_bytes(b'x')
    (top / 'sub' / 'deep' / 'secret').chmod(0o400)
    (top / 'sub' / 'deep').chmod(0o550)
    (top / 'link').symlink_to('sub/run')
    (top / 'dangling').symlink_to('/no/such/file')
    (top / 'loop').symlink_to('loop')
    with open(os.path.join(os.fsencode(str(top)), NOT_UTF8), 'wb') as fp:
        fp.write(b'named')
    yield top
    (top / 'sub' / 'deep').chmod(0o750)


def listing(top):
    """
    Return path below a folder -> what is there.
    """
    found = {}
    top = os.fsencode(str(top))
    for folder, folders, names in os.walk(top):
        for name in folders + names:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            what = None
            if stat.S_ISLNK(info.st_mode):
                what = os.readlink(path)
            elif stat.S_ISREG(info.st_mode):
                with open(path, 'rb') as fp:
                    what = fp.read()
            mode = None if stat.S_ISLNK(info.st_mode) else info.st_mode
            found[os.path.relpath(path, top)] = mode, what
    return found


@pytest.fixture(params=['put', 'get'])
def copy(request, host):
    """
    The copy in either direction. Both ends are this machine, so the paths mean the same.
    """
    return getattr(host, request.param)


def test_a_tree_arrives_as_it_was(copy, source, tmp_path):
    told = []
    copied = copy(source, tmp_path / 'target', progress=lambda *args: told.append(args))
    assert listing(tmp_path / 'target') == listing(source)
    assert (copied.files, copied.folders, copied.links, copied.skipped) == (6, 4, 3, [])
    assert copied.bytes == 700000 + 3 + 10 + 1 + 5
    assert [entry for entry in told if entry[0] == 'nothing'] == [('nothing', 0, 0)]
    large = [entry[1:] for entry in told if entry[0] == 'sub/deep/large']
    assert len(large) > 4 and large == sorted(large) and large[-1] == (700000, 700000)
    assert {total for _, total in large} == {700000}


def test_a_slash_says_where_it_goes(copy, source, tmp_path):
    wanted = set(listing(source))
    copy(str(source) + '/', tmp_path / 'content')
    assert set(listing(tmp_path / 'content')) == wanted
    copy(source, str(tmp_path / 'into') + '/')
    assert set(listing(tmp_path / 'into' / 'source')) == wanted
    copy(source, tmp_path / 'into')
    assert set(os.listdir(str(tmp_path / 'into'))) == {'source'} | set(os.listdir(str(source)))
    copy(source / 'one', tmp_path / 'named')
    assert (tmp_path / 'named').read_bytes() == b'one'
    copy(source / 'one', tmp_path / 'into')
    assert (tmp_path / 'into' / 'one').read_bytes() == b'one'
    copy(source / 'one', str(tmp_path / 'other') + '/')
    assert (tmp_path / 'other' / 'one').read_bytes() == b'one'
    copy(source / 'link', tmp_path / 'followed')
    assert (tmp_path / 'followed').read_bytes() == b'#!/bin/sh\n'


def test_what_is_there_is_replaced_and_nothing_else_changes(copy, source, tmp_path):
    target = tmp_path / 'target'
    (target / 'sub').mkdir(parents=True)
    target.chmod(0o711)
    outside = tmp_path / 'outside'
    outside.write_bytes(b'untouched')
    (target / 'one').symlink_to(outside)
    (target / 'link').write_bytes(b'a file')
    (target / 'other').write_bytes(b'other')
    copy(source, target)
    assert outside.read_bytes() == b'untouched'
    assert (target / 'one').read_bytes() == b'one' and not (target / 'one').is_symlink()
    assert os.readlink(str(target / 'link')) == 'sub/run'
    assert (target / 'other').read_bytes() == b'other'
    assert stat.S_IMODE(target.stat().st_mode) == 0o711


def test_special_files_are_told_of_and_do_not_travel(copy, tmp_path, caplog):
    source = tmp_path / 'source'
    source.mkdir()
    os.mkfifo(str(source / 'pi\npe'))
    with socket.socket(socket.AF_UNIX) as sock:
        folder = os.open(str(source), os.O_RDONLY)
        sock.bind('/proc/self/fd/%d/sock' % (folder,))
        os.close(folder)
    (source / 'file').write_bytes(b'x')
    copied = copy(source, tmp_path / 'target')
    assert copied.skipped == ['pi\\npe: it is a fifo', 'sock: it is a socket'] and copied.files == 1
    assert os.listdir(str(tmp_path / 'target')) == ['file']
    assert 'not copied: sock: it is a socket' in caplog.text
    for path, kind in (source / 'pi\npe', 'a fifo'), (source / 'sock', 'a socket'), ('/dev/null', 'a device'):
        with pytest.raises(mitogen.FileError, match=kind + ', which cannot be copied'):
            copy(path, tmp_path / 'other')
    assert not (tmp_path / 'other').exists()


@pytest.mark.parametrize('source, target, text', [
    ('missing', 'new', 'missing: No such file'),
    ('tree', 'file', 'file: it is a file where a folder is to be'),
    ('tree/', 'file/', 'file/: it is a file where a folder is to be'),
    ('tree', 'with-file', 'with-file/sub: it is a file where a folder is to be'),
    ('tree', 'with-link', 'with-link/sub: it is a link where a folder is to be'),
    ('tree', 'with-folder', 'with-folder/x: it is a folder where a file is to be'),
    ('tree/x', 'with-fifo/x', 'with-fifo/x: it is a fifo where a file is to be'),
    ('tree/x', 'missing/x', 'missing: No such file'),
    ('tree', 'missing/x', 'missing/x: No such file'),
    ('tree/x', 'file/x', 'file: it is a file where a folder is to be'),
    ('loop', 'new', 'loop: Too many'),
    ('tree/x/', 'new', 'tree/x/: Not a directory')])
def test_an_error_says_which_file_and_why(copy, host, tmp_path, source, target, text):
    (tmp_path / 'tree' / 'sub').mkdir(parents=True)
    (tmp_path / 'tree' / 'x').write_bytes(b'x')
    (tmp_path / 'file').write_bytes(b'stays')
    (tmp_path / 'loop').symlink_to('loop')
    for name in 'with-file', 'with-link', 'with-folder', 'with-fifo':
        (tmp_path / name).mkdir()
    (tmp_path / 'with-file' / 'sub').write_bytes(b'stays')
    (tmp_path / 'with-link' / 'sub').symlink_to(tmp_path)
    (tmp_path / 'with-folder' / 'x').mkdir()
    os.mkfifo(str(tmp_path / 'with-fifo' / 'x'))
    before = listing(tmp_path / 'file')
    with pytest.raises(mitogen.FileError) as caught:
        copy(str(tmp_path) + '/' + source, str(tmp_path) + '/' + target)
    assert text in str(caught.value) and '\n' not in caught.value.reason and caught.value.host == 'shared'
    assert isinstance(caught.value, OSError)
    assert (tmp_path / 'file').read_bytes() == b'stays' and listing(tmp_path / 'file') == before
    assert not any(name.startswith(b'.mitogen') for name in map(os.path.basename, listing(tmp_path)))
    assert host.call(int) == 0


def test_a_full_disk_leaves_what_was_there(host, tree, tmp_path):
    (tmp_path / 'large').write_bytes(bytes(MIB))
    (tmp_path / 'target').write_bytes(b'old')
    other = tree.connect('local:')
    other.call(file_targets.limit_size, 300000)
    with pytest.raises(mitogen.FileError, match='target: File too large'):
        other.put(tmp_path / 'large', tmp_path / 'target')
    other.call(int)
    assert (tmp_path / 'target').read_bytes() == b'old'
    assert sorted(os.listdir(str(tmp_path))) == ['large', 'target']


def test_a_disk_here_that_is_full_leaves_what_was_there(host, tmp_path, monkeypatch):
    (tmp_path / 'large').write_bytes(bytes(MIB))
    (tmp_path / 'target').write_bytes(b'old')
    monkeypatch.setattr(mitogen._files.new_entry.NewFile, 'write', file_targets.no_space)
    with pytest.raises(mitogen.FileError, match='target: No space left'):
        host.get(tmp_path / 'large', tmp_path / 'target')
    assert (tmp_path / 'target').read_bytes() == b'old'
    assert sorted(os.listdir(str(tmp_path))) == ['large', 'target']


def test_a_file_that_changes_while_it_is_read_is_not_kept(host, tmp_path):
    large = tmp_path / 'large'
    large.write_bytes(bytes(8 * MIB))
    (tmp_path / 'target').write_bytes(b'old')

    def shrink(path, done, total):
        os.truncate(str(large), 7 * MIB)
    # The reader is at most a window ahead, and so has not read it all.
    for copy in host.put, host.get:
        large.write_bytes(bytes(8 * MIB))
        with pytest.raises(mitogen.FileError, match='large: it changed while it was read'):
            copy(large, tmp_path / 'target', progress=shrink)
        host.call(int)
        assert (tmp_path / 'target').read_bytes() == b'old'
        assert sorted(os.listdir(str(tmp_path))) == ['large', 'target']


@pytest.mark.parametrize('kind', [KeyError, KeyboardInterrupt])
def test_an_exception_or_an_interrupt_ends_the_copy(copy, host, tmp_path, kind):
    (tmp_path / 'large').write_bytes(bytes(8 * MIB))

    def fail(path, done, total):
        raise kind('progress')
    with pytest.raises(kind, match='progress'):
        copy(tmp_path / 'large', tmp_path / 'target', progress=fail)
    # The host does not keep an interrupted program waiting.
    testlib.wait_for(lambda: kind is KeyError or os.listdir(str(tmp_path)) == ['large'])
    assert os.listdir(str(tmp_path)) == ['large']
    copy(tmp_path / 'large', tmp_path / 'target')
    assert (tmp_path / 'target').stat().st_size == 8 * MIB


def test_a_put_is_no_further_ahead_than_its_window(host, tmp_path):
    (tmp_path / 'large').write_bytes(bytes(64 * MIB))
    read, most = [], []
    items_of = mitogen._files.reader.items_of

    def counted(path):
        for item in items_of(path):
            read.append(len(item[1]) if item[0] == DATA else 0)
            yield item
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mitogen._files.reader, 'items_of', counted)
        host.put(tmp_path / 'large', tmp_path / 'target',
                 progress=lambda path, done, total: most.append(sum(read) - done))
    assert len(most) > 100 and max(most) <= 2 * MIB
    assert (tmp_path / 'target').stat().st_size == 64 * MIB


def test_a_master_that_goes_leaves_nothing_half_written(tmp_path):
    (tmp_path / 'large').write_bytes(bytes(64 * MIB))
    with mitogen.Tree() as tree:
        host = tree.connect()

        def cut(path, done, total):
            tree.disconnect(host)
        with pytest.raises(mitogen.ConnectionLost):
            host.put(tmp_path / 'large', tmp_path / 'target', progress=cut)
    testlib.wait_for(lambda: os.listdir(str(tmp_path)) == ['large'])


@pytest.mark.parametrize('way', ['put', 'get'])
def test_a_host_that_is_killed_leaves_the_file_that_was_there(tree, tmp_path, way):
    (tmp_path / 'large').write_bytes(bytes(64 * MIB))
    (tmp_path / 'target').write_bytes(b'old')
    other = tree.connect('local:')
    pid = other.call(os.getpid)

    def kill(path, done, total):
        testlib.send_signal(pid, signal.SIGKILL)
    with pytest.raises(mitogen.ConnectionLost):
        getattr(other, way)(tmp_path / 'large', tmp_path / 'target', progress=kill)
    assert (tmp_path / 'target').read_bytes() == b'old'
    if way == 'get':
        assert sorted(os.listdir(str(tmp_path))) == ['large', 'target']


def test_a_file_that_takes_the_place_of_another_belongs_to_its_owner(copy, tmp_path):
    (tmp_path / 'new').write_bytes(b'new')
    (tmp_path / 'old').write_bytes(b'old')
    owner = (12345, 12346) if os.geteuid() == 0 else (os.geteuid(), os.getgroups()[-1])
    os.chown(str(tmp_path / 'old'), *owner)
    copy(tmp_path / 'new', tmp_path / 'old')
    info = (tmp_path / 'old').stat()
    assert (tmp_path / 'old').read_bytes() == b'new' and (info.st_uid, info.st_gid) == owner


def test_a_tilde_is_a_home_of_the_host(tree, tmp_path):
    (tmp_path / 'home').mkdir()
    (tmp_path / 'x').write_bytes(b'x')
    other = tree.connect('local:')
    other.call(file_targets.set_home, str(tmp_path / 'home'))
    other.put(tmp_path / 'x', '~')
    other.mkdir('~/a/b', parents=True)
    other.write_text('~/a/b/y', 'y')
    assert other.read_text('~/a/b/y') == 'y' and other.read_text('~/x') == 'x'
    assert other.get('~', tmp_path / 'back').files == 2
    assert (tmp_path / 'back' / 'a' / 'b' / 'y').read_bytes() == b'y'
    for call in other.read_text, other.mkdir, lambda path: other.put(tmp_path / 'x', path):
        with pytest.raises(mitogen.FileError, match='~no-such-user/x: there is no such home'):
            call('~no-such-user/x')


def test_files_that_have_content_but_no_size(host, tmp_path):
    host.get('/proc/self/status', tmp_path / 'status')
    assert b'Pid:' in (tmp_path / 'status').read_bytes()
    assert 'Pid:\t%d' % (host.call(os.getpid),) in host.read_text('/proc/self/status')


def test_small_files_are_read_and_written_in_a_line(host, tmp_path):
    path = tmp_path / 'file'
    host.write_text(path, u'\u00e9\n')
    assert host.read_text(path) == u'\u00e9\n' and host.read_bytes(path) == b'\xc3\xa9\n'
    path.chmod(0o604)
    host.write_bytes(path, b'')
    assert host.read_bytes(path) == b'' and stat.S_IMODE(path.stat().st_mode) == 0o604
    host.write_bytes(path, bytes(MIB), mode=0o600)
    assert host.read_bytes(path) == bytes(MIB) and stat.S_IMODE(path.stat().st_mode) == 0o600
    for call, args in (host.read_bytes, ()), (host.write_bytes, (b'',)):
        with pytest.raises(mitogen.FileError, match='a folder'):
            call(tmp_path, *args)
    with pytest.raises(mitogen.FileError, match='No such file'):
        host.read_text(tmp_path / 'missing')
    with pytest.raises(ValueError, match='no path'):
        host.read_text('')
    with pytest.raises(mitogen.FileError, match='more than 1048575 bytes: use get'):
        host.read_bytes(path, limit=MIB - 1)


def test_folders_are_made_as_by_pathlib(host, tmp_path):
    host.mkdir(tmp_path / 'one', 0o700)
    assert stat.S_IMODE((tmp_path / 'one').stat().st_mode) == 0o700
    with pytest.raises(mitogen.FileError, match='one: File exists'):
        host.mkdir(tmp_path / 'one')
    host.mkdir(tmp_path / 'one', exist_ok=True)
    with pytest.raises(mitogen.FileError, match='No such file'):
        host.mkdir(tmp_path / 'two' / 'three')
    host.mkdir(tmp_path / 'two' / 'three' / 'four', parents=True)
    assert (tmp_path / 'two' / 'three' / 'four').is_dir()
    (tmp_path / 'file').write_bytes(b'')
    with pytest.raises(mitogen.FileError, match='file: File exists'):
        host.mkdir(tmp_path / 'file', exist_ok=True)


def test_a_folder_for_a_while(host):
    with pytest.raises(KeyError):
        with host.tempdir() as path:
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
            host.write_text(path + '/file', 'x')
            raise KeyError
    assert not os.path.exists(path)


@pytest.mark.parametrize('name', ['python2.7', 'python3.6'])
def test_a_host_with_an_older_python(tree, source, tmp_path, name):
    other = tree.connect('local:' + pythons.find_python(name))
    other.put(source, tmp_path / 'there')
    assert listing(tmp_path / 'there') == listing(source)
    copied = other.get(tmp_path / 'there', tmp_path / 'back')
    assert listing(tmp_path / 'back') == listing(source) and copied.files == 6
    other.write_text(tmp_path / 'file', u'\u00e9')
    assert other.read_text(tmp_path / 'file') == u'\u00e9'
    with pytest.raises(mitogen.FileError, match='No such file'):
        other.get(tmp_path / 'missing', tmp_path / 'new')
    with pytest.raises(mitogen.FileError, match='sub: it is a link where a folder is to be'):
        (tmp_path / 'with-link').mkdir()
        (tmp_path / 'with-link' / 'sub').symlink_to(tmp_path)
        other.put(source, tmp_path / 'with-link')
    with other.tempdir() as path:
        other.mkdir(path + '/a/b', parents=True)
    assert not os.path.exists(path)
