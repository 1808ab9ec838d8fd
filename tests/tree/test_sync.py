"""
Trees of which only what differs is sent, to a host and from it.
"""

import dataclasses
import os
import signal
import stat

import pytest

import mitogen
import mitogen._files.blocks
import mitogen._files.comparison
import mitogen._files.sync_source
import mitogen._files.sync_writer
from mitogen._files.basis import part_of
from mitogen._files.items import CHUNK
from mitogen._tree.shared_blocks import SharedBlocks

import pythons
import testlib

MIB = 1 << 20


class Way:
    """
    A sync to a host, or from it: both ends are this machine.
    """
    def __init__(self, host, name):
        self.is_put = name == 'sync'
        self._sync = getattr(host, name)

    def __call__(self, source, target, **options):
        return self._sync(source, target, **options)

    def told(self, source, target):
        """
        Do it so that the end which sends knows what the other one has.
        """
        return self._sync(source, target, checksum=not self.is_put)


@pytest.fixture(params=['sync', 'sync_from'])
def sync(request, host):
    return Way(host, request.param)


@pytest.fixture
def source(tmp_path):
    top = tmp_path / 'source'
    (top / 'sub').mkdir(parents=True)
    (top / 'sub' / 'large').write_bytes(os.urandom(1000) * 700)
    (top / 'sub' / 'run').write_bytes(b'#!/bin/sh\n')
    (top / 'sub' / 'run').chmod(0o755)
    (top / 'empty').write_bytes(b'')
    (top / 'link').symlink_to('sub/run')
    os.utime(str(top / 'sub' / 'run'), ns=(10 ** 18, 10 ** 18 + 123456789))
    return top


def overwrite(path, position, data):
    with open(str(path), 'r+b') as fp:
        fp.seek(position)
        fp.write(data)


def status(path):
    info = os.stat(str(path))
    return info.st_size, info.st_mtime_ns, stat.S_IMODE(info.st_mode)


def names(folder):
    return sorted(os.listdir(str(folder)))


def test_a_tree_is_sent_once_and_what_is_the_same_stays_as_it_was(sync, source, tmp_path):
    told = []
    copied = sync(source, tmp_path / 'target', progress=lambda *args: told.append(args))
    assert (copied.files, copied.folders, copied.links, copied.same) == (3, 2, 1, 0)
    assert copied.sent == copied.bytes == 700010 and ('sub/large', 700000, 700000) in told
    for name in 'sub/large', 'sub/run', 'empty':
        assert (tmp_path / 'target' / name).read_bytes() == (source / name).read_bytes()
        assert status(tmp_path / 'target' / name) == status(source / name)
    before = {name: os.lstat(str(tmp_path / 'target' / name)).st_ino for name in ('sub/large', 'empty', 'link')}
    del told[:]
    copied = sync(source, tmp_path / 'target', progress=lambda *args: told.append(args))
    assert (copied.files, copied.links, copied.same, copied.sent, told) == (0, 0, 4, 0, [])
    copied = sync(source, tmp_path / 'target', checksum=True)
    assert (copied.files, copied.links, copied.same, copied.sent) == (0, 0, 4, 0)
    assert before == {name: os.lstat(str(tmp_path / 'target' / name)).st_ino for name in before}


def test_a_slash_says_where_it_goes(sync, source, tmp_path):
    for _ in range(2):
        sync(str(source) + '/', tmp_path / 'content')
        sync(source, str(tmp_path / 'into') + '/')
        copied = sync(source / 'sub' / 'run', tmp_path / 'into')
        copied_too = sync(source / 'sub' / 'run', tmp_path / 'named')
    assert names(tmp_path / 'content') == names(source) == names(tmp_path / 'into' / 'source')
    assert names(tmp_path / 'into') == ['run', 'source'] and copied.same == copied_too.same == 1
    assert (tmp_path / 'named').read_bytes() == b'#!/bin/sh\n'


def test_only_the_blocks_that_differ_are_sent(sync, source, tmp_path):
    sync(source, tmp_path / 'target')
    overwrite(source / 'sub' / 'large', CHUNK + 5, b'other')
    with open(str(source / 'sub' / 'large'), 'ab') as fp:
        fp.write(b'the end')
    copied = sync.told(source, tmp_path / 'target')
    last = 700007 - 700000 // CHUNK * CHUNK
    assert (copied.files, copied.same, copied.sent, copied.bytes) == (1, 3, CHUNK + last, 700007)
    assert (tmp_path / 'target' / 'sub' / 'large').read_bytes() == (source / 'sub' / 'large').read_bytes()
    os.truncate(str(source / 'sub' / 'large'), 300000)
    assert sync.told(source, tmp_path / 'target').sent == 0
    assert (tmp_path / 'target' / 'sub' / 'large').read_bytes() == (source / 'sub' / 'large').read_bytes()


def test_a_file_of_the_same_size_and_time_is_looked_at_only_if_asked(sync, source, tmp_path):
    sync(source, tmp_path / 'target')
    large, time = source / 'sub' / 'large', os.stat(str(source / 'sub' / 'large')).st_mtime_ns
    overwrite(large, 4 * CHUNK, b'other')
    os.utime(str(large), ns=(time, time))
    assert sync(source, tmp_path / 'target').same == 4
    copied = sync(source, tmp_path / 'target', checksum=True)
    assert (copied.files, copied.same, copied.sent) == (1, 3, CHUNK)
    assert (tmp_path / 'target' / 'sub' / 'large').read_bytes() == large.read_bytes()


def test_a_mode_that_differs_is_set_and_nothing_is_sent(sync, source, tmp_path):
    sync(source, tmp_path / 'target')
    (source / 'sub' / 'large').chmod(0o640)
    copied = sync(source, tmp_path / 'target')
    assert (copied.files, copied.same, copied.sent, copied.bytes) == (1, 3, 0, 700000)
    assert status(tmp_path / 'target' / 'sub' / 'large') == status(source / 'sub' / 'large')
    assert (tmp_path / 'target' / 'sub' / 'large').read_bytes() == (source / 'sub' / 'large').read_bytes()


def test_a_host_is_not_told_what_is_here_unless_it_is_asked_for(host, source, tmp_path, monkeypatch):
    host.sync_from(source, tmp_path / 'target')
    answers = []
    take = mitogen._files.comparison.Comparison.take
    monkeypatch.setattr(
        mitogen._files.comparison.Comparison, 'take', lambda *args: answers.append(take(*args)) or answers[-1])
    os.utime(str(source / 'sub' / 'large'))
    assert host.sync_from(source, tmp_path / 'target').sent == 700000
    assert [isinstance(answer, int) for answer in answers[0]] == [True] * 4


def test_holes_stay_holes(sync, tmp_path):
    source, target = tmp_path / 'source', tmp_path / 'target'
    source.write_bytes(b'')
    os.truncate(str(source), 64 * MIB)
    overwrite(source, 10 * MIB, b'data')
    if os.stat(str(source)).st_blocks * 512 > MIB:
        pytest.skip('the file system has no holes')
    copied = sync(source, target)
    assert copied.sent == CHUNK and copied.bytes == 64 * MIB
    assert os.stat(str(target)).st_blocks * 512 <= MIB and target.read_bytes() == source.read_bytes()
    overwrite(target, 20 * MIB, b'x' * MIB)
    copied = sync.told(source, target)
    assert copied.sent == 0 and copied.files == 1
    assert os.stat(str(target)).st_blocks * 512 <= MIB and target.read_bytes() == source.read_bytes()


def test_what_was_broken_off_goes_on_if_asked(sync, tmp_path):
    source, target, part = tmp_path / 'source', tmp_path / 'target', os.fsdecode(part_of(b'target'))
    source.write_bytes(os.urandom(1000) * 8000)
    target.write_bytes(b'old')

    def stop(path, done, total):
        raise KeyError('stop')
    with pytest.raises(KeyError):
        sync(source, target, progress=stop)
    assert names(tmp_path) == ['source', 'target'] and target.read_bytes() == b'old'
    with pytest.raises(KeyError):
        sync(source, target, resume=True, progress=stop)
    size = os.stat(str(tmp_path / part)).st_size
    assert size >= CHUNK and target.read_bytes() == b'old'
    assert stat.S_IMODE(os.stat(str(tmp_path / part)).st_mode) == 0o600
    # A block of it is not as it should be. A letter could be the one that is there by chance.
    overwrite(tmp_path / part, 0, bytes([source.read_bytes()[0] ^ 1]))
    copied = sync(source, target, resume=True)
    assert copied.sent == 8000000 - size // CHUNK * CHUNK + CHUNK
    assert target.read_bytes() == source.read_bytes() and names(tmp_path) == ['source', 'target']


def test_a_host_that_was_killed_leaves_a_part_to_go_on_from(tree, host, tmp_path):
    source, part = tmp_path / 'source', tmp_path / os.fsdecode(part_of(b'target'))
    source.write_bytes(os.urandom(MIB) * 40)
    other = tree.connect('local:')
    pid = other.call(os.getpid)

    def kill(path, done, total):
        if done > MIB:
            testlib.send_signal(pid, signal.SIGKILL)
    with pytest.raises(mitogen.ConnectionLost):
        other.sync(source, tmp_path / 'target', resume=True, progress=kill)
    # Its lock went with it.
    size = os.stat(str(part)).st_size
    copied = host.sync(source, tmp_path / 'target', resume=True)
    assert size > MIB and copied.sent == 40 * MIB - size // CHUNK * CHUNK
    assert (tmp_path / 'target').read_bytes() == source.read_bytes() and not part.exists()


@pytest.mark.parametrize('kind', ['link', 'hard link', 'fifo'])
def test_what_is_no_part_of_ours_is_not_written_to(sync, tmp_path, kind):
    (tmp_path / 'there').mkdir()
    outside, part = tmp_path / 'outside', tmp_path / 'there' / os.fsdecode(part_of(b'target'))
    outside.write_bytes(b'untouched')
    make = {'link': os.symlink, 'hard link': os.link, 'fifo': lambda _, path: os.mkfifo(path)}
    make[kind](str(outside), str(part))
    (tmp_path / 'source').write_bytes(b'x')
    sync(tmp_path / 'source', tmp_path / 'there' / 'target', resume=True)
    assert outside.read_bytes() == b'untouched' and names(tmp_path / 'there') == ['target']
    assert (tmp_path / 'there' / 'target').read_bytes() == b'x'


def test_two_copies_do_not_write_to_the_same_part(sync, host, tmp_path):
    (tmp_path / 'source').write_bytes(bytes(8 * MIB))
    errors = []

    def other(path, done, total):
        if not errors:
            # By this process, since the host waits for our first copy.
            with pytest.raises(mitogen.FileError) as caught:
                _write_here(tmp_path / 'target')
            errors.append(caught.value)
    sync(tmp_path / 'source', tmp_path / 'target', resume=True, progress=other)
    assert 'another copy is at work on it' in str(errors[0])
    assert (tmp_path / 'target').read_bytes() == bytes(8 * MIB) and names(tmp_path) == ['source', 'target']


def _write_here(target):
    writer = mitogen._files.sync_writer.SyncWriter(os.fsencode(str(target)), None, True)
    try:
        writer.take([(mitogen._files.items.FILE, b'x', 0o644, 1)])
    except mitogen._files.FileError as e:
        raise mitogen.FileError(str(e))
    finally:
        writer.close()


def test_what_was_changed_on_its_way_is_not_kept(host, tmp_path, monkeypatch):
    class Wrong(mitogen._files.blocks.Tally):
        def digest(self):
            return b'x' * 32
    (tmp_path / 'source').write_bytes(bytes(MIB))
    (tmp_path / 'target').write_bytes(b'old')
    monkeypatch.setattr(mitogen._files.sync_source, 'Tally', Wrong)
    for resume in False, True:
        with pytest.raises(mitogen.FileError, match='target: its checksum is not that of the file that was sent'):
            host.sync(tmp_path / 'source', tmp_path / 'target', resume=resume)
        assert names(tmp_path) == ['source', 'target'] and (tmp_path / 'target').read_bytes() == b'old'


def test_a_file_that_changes_while_it_is_read_is_not_kept(sync, tmp_path):
    large = tmp_path / 'large'
    large.write_bytes(bytes(8 * MIB))
    (tmp_path / 'target').write_bytes(b'old')
    with pytest.raises(mitogen.FileError, match='large: it changed while it was read'):
        sync(large, tmp_path / 'target', progress=lambda *args: os.truncate(str(large), 7 * MIB))
    assert names(tmp_path) == ['large', 'target'] and (tmp_path / 'target').read_bytes() == b'old'


@pytest.mark.parametrize('source, target, text', [
    ('missing', 'new', 'missing: No such file'),
    ('tree', 'file', 'file: it is a file where a folder is to be'),
    ('tree', 'with-link', 'with-link/sub: it is a link where a folder is to be'),
    ('tree', 'with-folder', 'with-folder/x: it is a folder where a file is to be'),
    ('tree/x', 'missing/x', 'missing: No such file'),
    ('/proc/self/status', 'new', 'it has content, and says that it has none')])
def test_an_error_says_which_file_and_why(sync, host, tmp_path, source, target, text):
    (tmp_path / 'tree' / 'sub').mkdir(parents=True)
    (tmp_path / 'tree' / 'x').write_bytes(b'x')
    (tmp_path / 'file').write_bytes(b'stays')
    for name in 'with-link', 'with-folder':
        (tmp_path / name).mkdir()
    (tmp_path / 'with-link' / 'sub').symlink_to(tmp_path)
    (tmp_path / 'with-folder' / 'x').mkdir()
    with pytest.raises(mitogen.FileError) as caught:
        sync(os.path.join(str(tmp_path), source), tmp_path / target)
    assert text in str(caught.value) and caught.value.host == 'shared'
    assert (tmp_path / 'file').read_bytes() == b'stays' and host.call(int) == 0


def test_special_files_do_not_travel(sync, source, tmp_path):
    os.mkfifo(str(source / 'pipe'))
    assert sync(source, tmp_path / 'target').skipped == ['pipe: it is a fifo']
    assert names(tmp_path / 'target') == ['empty', 'link', 'sub']


def test_what_the_source_has_not_is_removed_if_asked(sync, source, tmp_path):
    target, outside = tmp_path / 'target', tmp_path / 'outside'
    (outside / 'safe').mkdir(parents=True)
    sync(source, target)
    (target / 'sub' / 'old').write_bytes(b'x')
    (target / 'old' / 'deep' / 'deeper').mkdir(parents=True)
    (target / 'old' / 'deep' / 'x').write_bytes(b'x')
    (target / 'old' / 'out').symlink_to(outside)
    (target / 'out').symlink_to(outside)
    before = names(target)
    assert sync(source, target).removed == 0 and names(target) == before
    copied = sync(source, target, delete=True)
    # sub/old, old with four entries, and a link.
    assert (copied.removed, copied.same) == (7, 4)
    assert names(target) == names(source) and names(target / 'sub') == names(source / 'sub')
    assert names(outside) == ['safe'] and sync(source, target, delete=True).removed == 0
    # Entries are removed in copied folders only: the folder that a tree or a file was put into
    # keeps its others.
    (target / 'other').write_bytes(b'x')
    sync(source / 'sub', str(target) + '/', delete=True)
    sync(source / 'sub' / 'run', target, delete=True)
    assert names(target) == sorted(names(source) + ['other', 'run'])


def test_what_is_of_another_kind_is_replaced_if_asked(sync, source, tmp_path):
    target = tmp_path / 'target'
    for name in 'sub', 'link', 'empty':
        (source / name).rename(source / (name + '-'))
    (source / 'sub-').rename(source / 'empty')
    (source / 'empty-').rename(source / 'link')
    (source / 'link-').rename(source / 'sub')
    (target / 'sub' / 'x').mkdir(parents=True)
    (target / 'link').symlink_to(tmp_path)
    (target / 'empty').write_bytes(b'x')
    with pytest.raises(mitogen.FileError, match='empty: it is a file where a folder is to be'):
        sync(source, target)
    assert sync(source, target, delete=True).removed == 3
    assert names(target / 'empty') == ['large', 'run'] and os.readlink(str(target / 'sub')) == 'sub/run'
    assert (target / 'link').read_bytes() == b'' and not (target / 'link').is_symlink()
    (source / 'sub').unlink()
    (source / 'sub').write_bytes(b'now a file')
    (target / 'sub').unlink()
    (target / 'sub' / 'x').mkdir(parents=True)
    assert sync(source, target, delete=True).removed == 2 and (target / 'sub').read_bytes() == b'now a file'


def test_nothing_is_removed_from_a_folder_that_has_not_come_whole(sync, source, tmp_path):
    target = tmp_path / 'target'
    (target / 'sub').mkdir(parents=True)
    (target / 'sub' / 'old').write_bytes(b'x')
    (target / 'empty').mkdir()
    (target / 'empty' / 'old').write_bytes(b'x')
    # More than is on its way at a time.
    (source / 'sub' / 'large').write_bytes(os.urandom(1000) * 8000)
    with pytest.raises(KeyError):
        sync(source, target, delete=True, progress=lambda path, done, total: {}[0] if path == 'sub/large' else None)
    assert names(target / 'sub') == ['old']
    # A fifo does not travel, and keeps the file of its name.
    (source / 'empty').unlink()
    os.mkfifo(str(source / 'empty'))
    (target / 'empty').unlink()
    (target / 'empty').write_bytes(b'kept')
    copied = sync(source, target, delete=True, resume=True)
    assert (copied.removed, copied.skipped) == (1, ['empty: it is a fifo']) and (target / 'empty').read_bytes() == b'kept'
    assert names(target / 'sub') == ['large', 'run']


def test_data_is_compressed_where_that_makes_it_smaller(sync, tmp_path):
    (tmp_path / 'source').mkdir()
    (tmp_path / 'source' / 'text').write_bytes(b'the same again\n' * 100000)
    (tmp_path / 'source' / 'noise').write_bytes(os.urandom(300000))
    copied = sync(tmp_path / 'source', tmp_path / 'target', compress=True)
    assert 300000 < copied.sent < 330000 and copied.bytes == 1800000
    for name in 'text', 'noise':
        assert (tmp_path / 'target' / name).read_bytes() == (tmp_path / 'source' / name).read_bytes()


@pytest.mark.parametrize('name', ['python2.7', 'python3.6'])
def test_a_host_with_an_older_python(tree, source, tmp_path, name):
    other = tree.connect('local:' + pythons.find_python(name))
    for first, second in (other.sync, other.sync_from), (other.sync_from, other.sync):
        for sync, begin, end in (first, source, tmp_path / 'there'), (second, tmp_path / 'there', tmp_path / 'back'):
            overwrite(source / 'sub' / 'large', 5, os.urandom(8))
            sync(begin, end, compress=True)
            # Times that have the fraction of a second that its floats have are the same.
            (end / 'sub' / 'old' / 'older').mkdir(parents=True)
            (end / 'sub' / 'old' / 'link').symlink_to('/')
            copied = sync(begin, end, delete=True)
            assert (copied.same, copied.removed) == (4, 3)
            assert sync(begin, end, checksum=True).same == 4
            assert (end / 'sub' / 'large').read_bytes() == (begin / 'sub' / 'large').read_bytes()
    with pytest.raises(KeyError):
        other.sync(source / 'sub' / 'large', tmp_path / 'x', resume=True, progress=lambda *args: {}[0])
    assert other.sync(source / 'sub' / 'large', tmp_path / 'x', resume=True).sent < 700000


def test_what_goes_to_many_hosts_is_read_and_compressed_once(tree, source, tmp_path, monkeypatch):
    hosts = [tree.connect('local:') for _ in range(3)]
    group = mitogen.Group(hosts + [mitogen.DownHost('down', mitogen.ConnectError('no'))])
    read, packed = [], []
    monkeypatch.setattr(mitogen._files.sync_source, 'read_at', lambda fd, position, count: read.append(
        (position, count)) or os.pread(fd, count, position))
    pack = mitogen._files.blocks._packed
    monkeypatch.setattr(mitogen._files.blocks, '_packed', lambda piece: packed.append(1) or pack(piece))
    for host in hosts:
        host.call(os.chdir, host.call(_new_folder, str(tmp_path)))
    results = list(group.sync(source, 'there', compress=True))
    assert sorted(result.host for result in results if result.ok) == sorted(host.name for host in hosts)
    assert [str(result.error) for result in results if not result.ok] == ['no']
    assert {result.value.files for result in results if result.ok} == {3}
    blocks = -(-700000 // CHUNK) + 1
    assert len([count for _, count in read if count > 1]) == len(packed) == blocks
    assert len([folder for folder in names(tmp_path) if (tmp_path / folder / 'there' / 'link').is_symlink()]) == 3


def _new_folder(path):
    import tempfile
    return tempfile.mkdtemp(dir=path)


@pytest.mark.once
def test_blocks_that_are_shared_have_a_limit_and_an_error_is_not_kept():
    shared = SharedBlocks(most=10)
    calls = []

    def read(key, size=6):
        return shared.load(key, lambda: calls.append(key) or b'x' * size).data
    assert read('a') == read('a') == b'x' * 6 and calls == ['a']
    read('b')
    read('a')
    assert calls == ['a', 'b', 'a']
    read('large', 20)
    assert shared._size == 0 and not shared._blocks
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            shared.load('c', lambda: 1 // 0)
    assert read('c') == b'x' * 6


@pytest.mark.once
def test_a_result_is_a_dataclass_for_programs():
    done = mitogen.Synced(1, 2, skipped=['x'], sent=3)
    assert dataclasses.asdict(done) == vars(done) and done == dataclasses.replace(done)
    assert [field.name for field in dataclasses.fields(mitogen.Copied)] == [
        'files', 'folders', 'links', 'bytes', 'skipped']
    assert mitogen.Copied().skipped is not mitogen.Copied().skipped and mitogen.Copied() != mitogen.Synced()
