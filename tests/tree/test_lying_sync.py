"""
Hosts that do not keep to the protocol of a sync: they write nothing outside of the target, are told
nothing that is not in it, and have nothing read more often than once.
"""

import os
import tracemalloc
import zlib

import pytest

import mitogen
import mitogen._files.basis
import mitogen._files.blocks
import mitogen._files.opened
import mitogen._files.sync_opened
import mitogen._files.sync_source
import mitogen.core
from mitogen._files.items import CHUNK, DATA, DONE, FILE, FOLDER, LINK, SKIPPED, UP
from mitogen._files.sync_items import AS_IT_WAS, CHECK, COPY, HOLE, KEEP, PACKED, SUM, TIME, WANTED

import file_targets
import lying_host

TOP = (FOLDER, b'top', 0o755)
X = (FILE, b'x', 0o644, 3)
OFFERED = (FILE, b'x', 0o644, 3, 0)


def names(top):
    return sorted(os.path.join(folder, name) for folder, folders, files in os.walk(str(top)) for name in folders + files)


@pytest.fixture
def lies(host, monkeypatch):
    """
    A function that has the host send offers and items, whatever it is asked for.
    """
    for name, lie in (('start_sending', file_targets.start_to_lie), ('offer_on', file_targets.lie),
                      ('answer_on', file_targets.note_answers), ('send_on', file_targets.lie_with_items),
                      ('compare_on', file_targets.lie_with_answers)):
        monkeypatch.setattr(mitogen._files.sync_opened, name, lie)

    def set_lies(offers=(), items=()):
        host.call_async(file_targets.set_sync_lies, list(offers), list(items)).get().unpickle()
    yield set_lies
    set_lies()


def offered(name, size=1, time=0):
    return FILE, name, 0o644, size, time


@pytest.mark.parametrize('offers', [
    [TOP, offered(b'../x'), (UP,)],
    [TOP, offered(b'..'), (UP,)],
    [TOP, offered(b''), (UP,)],
    [TOP, offered(b'a/b'), (UP,)],
    [TOP, offered(u'x'), (UP,)],
    [TOP, offered(b'x'), offered(b'x'), (UP,)],
    [TOP, offered(b'y'), offered(b'x'), (UP,)],
    [TOP, (FOLDER, b'x', 0o755), (UP,), (FOLDER, b'x', 0o755), (UP,), (UP,)],
    [TOP, (FOLDER, b'..', 0o755), (UP,), (UP,)],
    [TOP, (LINK, b'../x', b'y'), (UP,)],
    [TOP, (SKIPPED, b'../x', 'why'), (UP,)],
    [TOP, offered(b'x', -1), (UP,)],
    [TOP, offered(b'x', 1 << 62), (UP,)],
    [TOP, offered(b'x', u'1'), (UP,)],
    [TOP, offered(b'x', 1, 1 << 70), (UP,)],
    [TOP, offered(b'x', 1, 0.5), (UP,)],
    [TOP, (FILE, b'x', None, 1, 0), (UP,)],
    [TOP, (FILE, b'x', 0o644, 1), (UP,)],
    [TOP, (DATA, b'x'), (UP,)],
    [TOP, (UP,), (UP,)],
    [TOP, (UP,), TOP],
    [offered(b'x'), offered(b'y')],
    [(UP,)],
    [(LINK, b'x', b'y')],
    [TOP] + [(FOLDER, b'd', 0o755)] * 300,
    [None],
    7])
@pytest.mark.parametrize('checksum', [False, True])
def test_offers_that_are_no_tree_are_not_looked_up(host, tmp_path, lies, offers, checksum):
    (tmp_path / 'target').mkdir()
    (tmp_path / 'x').write_bytes(b'x')
    lies([offers])
    with pytest.raises(mitogen.FileError, match='what is offered is no tree of files'):
        host.sync_from('/any', tmp_path / 'target', checksum=checksum)
    assert names(tmp_path) == [str(tmp_path / 'target'), str(tmp_path / 'x')]
    assert host.call_async(file_targets.answers).get().unpickle() == []


@pytest.mark.parametrize('items', [
    [TOP, (FILE, b'../escaped', 0o644, 0), (TIME, 0), (SUM, b''), (DONE,)],
    [TOP, (AS_IT_WAS, b'../escaped', 1)],
    [TOP, (AS_IT_WAS, b'x', 1 << 70)],
    [TOP, (AS_IT_WAS, u'x', 1)],
    [TOP, (TIME, 0)],
    [TOP, (HOLE, 1)],
    [TOP, (COPY, 1)],
    [TOP, (KEEP,)],
    [TOP, (SUM, b'x')],
    [TOP, (PACKED, zlib.compress(b'x'), 1)],
    [TOP, X, (TIME, u'0')],
    [TOP, X, (TIME, 1 << 70)],
    [TOP, X, (HOLE, 4)],
    [TOP, X, (HOLE, 0)],
    [TOP, X, (HOLE, -1)],
    [TOP, X, (HOLE, 1 << 70)],
    [TOP, X, (COPY, 4)],
    [TOP, X, (COPY, -1)],
    [TOP, X, (COPY, 3), (COPY, 3)],
    [TOP, (FILE, b'new', 0o644, 3), (COPY, 3)],
    [TOP, (FILE, b'new', 0o644, 3), (KEEP,)],
    [TOP, (FILE, b'way', 0o644, 6), (COPY, 6)],
    [TOP, (FILE, b'way', 0o644, 6), (KEEP,)],
    [TOP, (FILE, b'x', 0o644, 4), (KEEP,)],
    [TOP, X, (DATA, b'x'), (KEEP,)],
    [TOP, X, (PACKED, zlib.compress(b'xxxx'), 3)],
    [TOP, X, (PACKED, zlib.compress(b'xx'), 3)],
    [TOP, X, (PACKED, zlib.compress(b'xxxx'), 4)],
    [TOP, X, (PACKED, b'xxx', 3)],
    [TOP, X, (PACKED, zlib.compress(b'xxx'), 1 << 30)],
    [TOP, X, (DATA, b'xxx'), (DONE,)],
    [TOP, X, (DATA, b'xxx'), (SUM, b'x' * 32), (DONE,)],
    [TOP, X, (DATA, b'xxx'), (SUM, u'x'), (DONE,)],
    [TOP, (FILE, b'x', 0o644, -1)],
    [TOP, (FILE, b'x', None, 1)],
    [TOP, (FILE, b'x', 0o644, 1 << 70)],
    [TOP, (FILE, b'x', 0o644, (1 << 62) - 1), (HOLE, (1 << 62) - 1), (SUM, b'x'), (DONE,)],
    [TOP, (LINK, b'../y', b'z')],
    [TOP, (99,)],
    7, None])
@pytest.mark.parametrize('resume', [False, True])
def test_items_that_are_none_write_nothing(host, tmp_path, lies, items, resume):
    (tmp_path / 'target').mkdir()
    (tmp_path / 'secret').write_bytes(b'secret')
    (tmp_path / 'target' / 'x').write_bytes(b'old')
    (tmp_path / 'target' / 'way').symlink_to(tmp_path / 'secret')
    before = names(tmp_path)
    lies([[TOP, OFFERED, (UP,)]], [(items, True)])
    with pytest.raises(mitogen.FileError):
        host.sync_from('/any', tmp_path / 'target', resume=resume)
    parts = [name for name in names(tmp_path) if os.path.basename(name).startswith('.mitogen-part-')]
    assert [name for name in names(tmp_path) if name not in parts] == before and len(parts) <= resume
    assert (tmp_path / 'target' / 'x').read_bytes() == b'old' and (tmp_path / 'secret').read_bytes() == b'secret'
    assert (tmp_path / 'target' / 'way').is_symlink()


@pytest.mark.parametrize('items', [
    [TOP, (UP,), (UP,)],
    [TOP, (FOLDER, b'out', 0o755), (UP,), (FOLDER, b'..', 0o755), (UP,), (UP,)],
    [TOP, X, (UP,)],
    [(UP,)]])
def test_a_host_has_nothing_removed_outside_of_the_target(host, tmp_path, lies, items):
    (tmp_path / 'target').mkdir()
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside' / 'secret').write_bytes(b'secret')
    (tmp_path / 'target' / 'out').symlink_to(tmp_path / 'outside')
    (tmp_path / 'target' / 'x').write_bytes(b'old')
    lies([[TOP, OFFERED, (UP,)]], [(items, True)])
    with pytest.raises(mitogen.FileError):
        host.sync_from('/any', tmp_path / 'target', delete=True)
    assert os.listdir(str(tmp_path / 'outside')) == ['secret']


def test_a_host_that_tells_no_number_of_what_it_removed_is_an_error(host, tmp_path, monkeypatch):
    (tmp_path / 'file').write_bytes(b'x')
    monkeypatch.setattr(mitogen._files.opened, 'finish_writing', lying_host.a_long_text)
    with pytest.raises(mitogen.core.StreamError, match='is not a number'):
        host.sync(tmp_path / 'file', tmp_path / 'target')


@pytest.mark.parametrize('told', [7, (1,), ([], True, 1), u'xx'])
def test_what_is_no_list_of_items_is_an_error(host, tmp_path, lies, told):
    lies([[TOP, OFFERED, (UP,)]], [told])
    with pytest.raises(mitogen.FileError):
        host.sync_from('/any', tmp_path / 'target')


@pytest.mark.parametrize('told', [None, ([], False)])
def test_a_host_that_sends_nothing_without_end_is_an_error(host, tmp_path, lies, told):
    lies([[TOP, OFFERED, (UP,)]], [told] * 1000)
    with pytest.raises(mitogen.FileError, match='the host does not send the files that were asked for'):
        host.sync_from('/any', tmp_path / 'target')


@pytest.mark.once
def test_data_that_becomes_large_takes_no_more_memory_than_was_announced():
    data = zlib.compress(bytes(64 << 20))
    tracemalloc.start()
    try:
        assert mitogen._files.blocks.unpacked(data, CHUNK) is None
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_host_that_is_told_what_is_here_is_told_of_the_target_only(host, tmp_path, lies):
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside' / 'x').write_bytes(b'secret')
    (tmp_path / 'target').mkdir()
    (tmp_path / 'target' / 'file').symlink_to(tmp_path / 'outside' / 'x')
    (tmp_path / 'target' / 'folder').symlink_to(tmp_path / 'outside')
    (tmp_path / 'target' / 'pipe').write_bytes(b'')
    os.unlink(str(tmp_path / 'target' / 'pipe'))
    os.mkfifo(str(tmp_path / 'target' / 'pipe'))
    lies([[TOP, offered(b'file', 6), (FOLDER, b'folder', 0o755), offered(b'x', 6), (UP,), offered(b'pipe', 6), (UP,)]], [7])
    with pytest.raises(mitogen.FileError):
        host.sync_from('/any', tmp_path / 'target', checksum=True)
    assert host.call_async(file_targets.answers).get().unpickle() == [[WANTED] * 3]


def test_a_size_that_is_a_lie_takes_no_memory(host, tmp_path, lies, monkeypatch):
    (tmp_path / 'target').mkdir()
    (tmp_path / 'target' / 'x').write_bytes(bytes(8 * CHUNK))
    counts = []
    read_at = mitogen._files.basis.read_at
    monkeypatch.setattr(mitogen._files.basis, 'read_at', lambda *args: counts.append(args[2]) or read_at(*args))
    # Its blocks would be as large as the file.
    lies([[TOP, offered(b'x', 8 * CHUNK * 65536), (UP,)]], [7])
    with pytest.raises(mitogen.FileError):
        host.sync_from('/any', tmp_path / 'target', checksum=True)
    assert counts == [CHUNK] * 8


@pytest.mark.parametrize('answers', [
    None, [], 7, [3, 1], [1], [1, 1, 1], [-1, 1], [None, 1], [u'x', 1], [b'x', 1], [b'x' * 64, 1], [1, b'x' * 32],
    [[CHECK, b'x'], 1], [[CHECK], 1], [[CHECK, 1], 1], [1, [CHECK, b'']], [[1, b''], 1], [1.0, [[]]]])
def test_answers_that_are_none_have_nothing_read(host, tmp_path, lies, monkeypatch, answers):
    (tmp_path / 'source').mkdir()
    (tmp_path / 'source' / 'x').write_bytes(b'x')
    (tmp_path / 'source' / 'y').symlink_to('x')
    read = []
    monkeypatch.setattr(mitogen._files.sync_source, 'read_at', lambda *args: read.append(args))
    lies([answers])
    with pytest.raises(mitogen.FileError, match='do not match the files'):
        host.sync(tmp_path / 'source', tmp_path / 'target')
    assert read == [] and not (tmp_path / 'target').exists()


def test_the_number_of_what_is_opened_is_no_long_text(host, tmp_path, monkeypatch):
    (tmp_path / 'file').write_bytes(b'x')
    for name in 'start_sending', 'start_receiving':
        monkeypatch.setattr(mitogen._files.sync_opened, name, lying_host.a_long_text)
    for use in lambda: host.sync(tmp_path / 'file', '/any'), lambda: host.sync_from('/any', tmp_path / 'target'):
        with pytest.raises(mitogen.core.StreamError, match='is not a number'):
            use()
    assert os.listdir(str(tmp_path)) == ['file']
