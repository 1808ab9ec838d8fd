"""
Trees that change while they are read or written. Nothing leads out of them.
"""

import os

import pytest

from mitogen._files import FileError
from mitogen._files.items import DATA, DONE, FILE, FOLDER, LINK, SKIPPED, UP
from mitogen._files.open_folder import OpenFolder
from mitogen._files.reader import items_of
from mitogen._files.writer import Writer

#: No core takes part.
pytestmark = pytest.mark.once


@pytest.fixture
def top(tmp_path):
    top = tmp_path / 'top'
    (top / 'b').mkdir(parents=True)
    (top / 'b' / 'x').write_bytes(b'inside')
    (top / 'a').write_bytes(b'inside')
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside' / 'x').write_bytes(b'outside')
    return top


def read(path):
    return list(items_of(os.fsencode(str(path))))


def after_stat(monkeypatch, name, change):
    """
    Have something change when a name has been looked at, and not been opened.
    """
    stat = OpenFolder.stat

    def changed(self, found):
        info = stat(self, found)
        if found == name:
            change()
        return info
    monkeypatch.setattr(OpenFolder, 'stat', changed)


@pytest.mark.parametrize('change', [
    lambda path: path.write_bytes(b'shorter'),
    lambda path: path.write_bytes(b'x' * 400000),
    lambda path: os.utime(str(path), (1, 1)),
    lambda path: os.truncate(str(path), 0)])
def test_a_file_that_becomes_another_is_an_error(tmp_path, change):
    path = tmp_path / 'file'
    path.write_bytes(b'x' * 300000)
    items = items_of(os.fsencode(str(path)))
    assert next(items)[0] == FILE and next(items)[0] == DATA
    change(path)
    with pytest.raises(FileError, match='file: it changed while it was read'):
        list(items)


def test_a_file_that_goes_while_it_is_read_arrives(tmp_path):
    (tmp_path / 'file').write_bytes(b'x' * 300000)
    items = items_of(os.fsencode(str(tmp_path / 'file')))
    next(items)
    (tmp_path / 'file').unlink()
    assert sum(len(item[1]) for item in items if item[0] == DATA) == 300000


def test_what_goes_before_it_is_read_is_told(top, tmp_path, monkeypatch):
    items = items_of(os.fsencode(str(top)))
    assert next(items)[0] == FOLDER
    (top / 'a').unlink()
    after_stat(monkeypatch, b'b', lambda: (top / 'b').rename(tmp_path / 'moved'))
    assert list(items) == [(SKIPPED, b'a', 'it went away meanwhile'), (SKIPPED, b'b', 'it went away meanwhile'), (UP,)]


@pytest.mark.parametrize('make, text', [
    (lambda path, outside: os.mkfifo(str(path)), 'a: it became a fifo'),
    (lambda path, outside: path.mkdir(), 'a: it became a folder'),
    (lambda path, outside: path.symlink_to(outside / 'x'), 'a: Too many levels')])
def test_what_takes_the_place_of_a_file_is_not_read(top, tmp_path, monkeypatch, make, text):
    def change():
        (top / 'a').unlink()
        make(top / 'a', tmp_path / 'outside')
    after_stat(monkeypatch, b'a', change)
    with pytest.raises(FileError, match=text):
        read(top)


def test_a_link_that_takes_the_place_of_a_folder_is_not_followed(top, tmp_path, monkeypatch):
    def change():
        (top / 'b').rename(tmp_path / 'moved')
        (top / 'b').symlink_to(tmp_path / 'outside')
    after_stat(monkeypatch, b'b', change)
    with pytest.raises(FileError, match='b: (Not a directory|Too many levels)'):
        read(top)


def test_a_folder_that_is_moved_while_it_is_read_is_read_on(top, tmp_path):
    items = items_of(os.fsencode(str(top)))
    for item in items:
        if item[:2] == (FOLDER, b'b'):
            break
    (top / 'b').rename(tmp_path / 'moved')
    (top / 'b').symlink_to(tmp_path / 'outside')
    assert [item[1] for item in items if item[0] == DATA] == [b'inside']


def test_a_folder_that_is_moved_while_it_is_written_is_written_on(top, tmp_path):
    writer = Writer(os.fsencode(str(top)), None)
    writer.take([(FOLDER, b'top', 0o755), (FOLDER, b'b', 0o755)])
    (top / 'b').rename(tmp_path / 'moved')
    (top / 'b').symlink_to(tmp_path / 'outside')
    writer.take([(FILE, b'x', 0o644, 3), (DATA, b'new'), (DONE,), (LINK, b'y', b'x'), (UP,), (UP,)])
    writer.finish()
    assert (tmp_path / 'outside' / 'x').read_bytes() == b'outside' and os.listdir(str(tmp_path / 'outside')) == ['x']
    assert (tmp_path / 'moved' / 'x').read_bytes() == b'new'


def test_a_folder_that_another_program_makes_first_is_written_to(tmp_path, monkeypatch):
    after_stat(monkeypatch, b'b', lambda: (tmp_path / 'top' / 'b').mkdir())
    lexists = os.path.lexists
    monkeypatch.setattr(os.path, 'lexists', lambda path: lexists(path) or os.mkdir(path) is not None)
    writer = Writer(os.fsencode(str(tmp_path / 'top')), None)
    writer.take([(FOLDER, b'top', 0o700), (FOLDER, b'b', 0o700), (FILE, b'x', 0o644, 0), (DONE,), (UP,), (UP,)])
    writer.finish()
    assert os.listdir(str(tmp_path / 'top' / 'b')) == ['x']


@pytest.mark.parametrize('items', [
    [(FILE, b'x', 0o644, 3), (DATA, b'new'), (DONE,)], [(FILE, b'x', 0o644, 0), (DONE,)], [(LINK, b'x', b'y')]])
def test_a_process_that_ends_leaves_nothing_half_written(tmp_path, items):
    """
    The thread that ends it may be ahead of the one that writes.
    """
    for before in range(len(items) + 1):
        writer = Writer(os.fsencode(str(tmp_path)), None)
        writer.take([(FOLDER, b'top', 0o755)] + items[:before])
        writer.give_up()
        found = os.listdir(str(tmp_path))
        if items[0][0] == FILE:
            try:
                writer.take(items[before:] + [(UP,)])
            except FileError:
                assert before < len(items)
        assert os.listdir(str(tmp_path)) == found and set(found) <= {'x'}
        writer.close()
        for name in found:
            (tmp_path / name).unlink()


def test_an_interrupt_at_any_time_leaves_nothing_half_written(tmp_path, monkeypatch):
    """
    Also one that comes as soon as something is there, before the writer knows.
    """
    def interrupted(method):
        def changed(self, *args):
            fd = method(self, *args)
            if fd is not None:
                os.close(fd)
            raise KeyboardInterrupt
        return changed
    for name, method in ('call', OpenFolder.call), ('link', OpenFolder.link):
        with monkeypatch.context() as patch:
            writer = Writer(os.fsencode(str(tmp_path)), None)
            writer.take([(FOLDER, b'top', 0o755)])
            patch.setattr(OpenFolder, 'stat', lambda self, name: None)
            patch.setattr(OpenFolder, name, interrupted(method))
            with pytest.raises(KeyboardInterrupt):
                writer.take([(FILE, b'x', 0o644, 0)] if name == 'call' else [(LINK, b'x', b'y')])
        assert len(os.listdir(str(tmp_path))) == 1
        writer.close()
        assert os.listdir(str(tmp_path)) == []


def test_a_tree_is_read_with_its_descriptors_closed(top):
    before = sorted(os.listdir('/proc/self/fd'))
    items = items_of(os.fsencode(str(top)))
    for item in items:
        if item[0] == DATA:
            break
    items.close()
    assert read(top)[-1] == (UP,)
    assert sorted(os.listdir('/proc/self/fd')) == before
