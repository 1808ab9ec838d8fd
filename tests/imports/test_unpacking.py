"""
The files of a distribution, as a child writes them. Whatever the sender, nothing is written
elsewhere, and no incomplete file stays.
"""

import os
import zlib

import pytest

import mitogen._freight
import mitogen._private_folder


def packed(*files, **kwargs):
    text = b''.join(b'%s 0 %d %s\n%s' % (mode.encode(), len(content), path.encode(), content)
                    for mode, path, content in files)
    return zlib.compress(text + kwargs.get('end', b'\n'))


def unpack(folder, data, most=1000000, step=None):
    unpacker = mitogen._freight._Unpacker(str(folder), most)
    try:
        for start in range(0, len(data), step or len(data)):
            unpacker.feed(data[start:start + (step or len(data))])
    finally:
        unpacker.close()
    return unpacker.is_complete


def found_below(folder):
    return sorted(os.path.relpath(os.path.join(base, name), str(folder))
                  for base, _, files in os.walk(str(folder)) for name in files)


@pytest.mark.parametrize('step', [1, 7, None])
def test_files_are_written_whatever_pieces_they_come_in(tmp_path, step):
    large = os.urandom(700000)
    assert unpack(tmp_path, packed(('-', 'a/b/c.py', b'x'), ('-', 'a/empty', b''), ('x', 'a/run', large)),
                  step=step if step != 1 else 5000)
    assert found_below(tmp_path) == ['a/b/c.py', 'a/empty', 'a/run']
    assert (tmp_path / 'a' / 'run').read_bytes() == large
    assert os.stat(str(tmp_path / 'a' / 'run')).st_mode & 0o777 == 0o700
    assert os.stat(str(tmp_path / 'a' / 'empty')).st_mode & 0o777 == 0o600


@pytest.mark.parametrize('path', ['../out', '/out', 'a/../../out', 'a//b', './a', 'a/.', 'a/..', '', 'a\0b'])
def test_a_path_that_leads_elsewhere_is_refused(tmp_path, path):
    folder = tmp_path / 'in'
    folder.mkdir()
    with pytest.raises(ValueError):
        unpack(folder, packed(('-', path, b'x')))
    assert found_below(tmp_path) == []


def test_a_file_is_not_written_twice_nor_through_a_link(tmp_path):
    with pytest.raises(OSError):
        unpack(tmp_path, packed(('-', 'a', b'x'), ('-', 'a', b'y')))
    os.symlink('elsewhere', str(tmp_path / 'b'))
    with pytest.raises(OSError):
        unpack(tmp_path, packed(('-', 'b', b'x')))
    with pytest.raises(OSError):
        unpack(tmp_path, packed(('-', 'b/c', b'x')))
    assert not (tmp_path / 'elsewhere').exists()


@pytest.mark.parametrize('data', [
    packed(('-', 'a', b'x' * 2000)),
    zlib.compress(b'- 0 -5 a\n'), zlib.compress(b'x' * 10000), zlib.compress(b'- 0 a\n'), b'nonsense',
])
def test_nonsense_and_more_than_was_said_are_refused(tmp_path, data):
    with pytest.raises((ValueError, zlib.error)):
        unpack(tmp_path, data, most=1000)


def test_a_small_message_that_becomes_large_is_cut_off(tmp_path):
    with pytest.raises(ValueError):
        unpack(tmp_path, packed(('-', 'a', b'\0' * 50000000)), most=1000000)
    assert found_below(tmp_path) == []


def test_an_archive_without_its_end_is_not_whole(tmp_path):
    assert not unpack(tmp_path, packed(('-', 'a', b'x'), end=b''))
    assert not unpack(tmp_path, packed(('-', 'b', b'x' * 1000))[:-8])


class Requester(object):
    """
    Answers like a parent that sends what it is told to.
    """
    def __init__(self, *answers):
        self._answers = list(answers)
        self._cache = {}

    def _request_resource(self, fullname, resource, callback):
        self._cache[fullname, resource] = self._answers.pop(0) if self._answers else None
        callback()


class Importer(object):
    def __init__(self, *answers):
        self._resource_requester = Requester(*answers)


@pytest.fixture
def base(tmp_path, monkeypatch):
    """
    Where private folders are made.
    """
    monkeypatch.setattr(mitogen._private_folder, '_get_base', lambda size: str(tmp_path))
    return tmp_path


def test_nothing_stays_of_what_has_not_come_whole(base):
    data = packed(('-', 'a', os.urandom(1000)))
    for digest, pieces in (('0' * 64, [data[:500], data[500:]]), ('0' * 64, [data[:500]]), ('0' * 64, [data])):
        head = b'ok %s 1000 %d\n' % (digest.encode(), 2)
        importer = Importer(head + pieces[0], *pieces[1:])
        with pytest.raises(ImportError):
            mitogen._freight._receive(importer, 'some')
        assert os.listdir(str(base)) == []


def test_a_full_disk_is_told_and_nothing_stays(base, monkeypatch):
    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(mitogen._freight._Unpacker, '_write', full)
    data = packed(('-', 'a', b'x' * 1000))
    with pytest.raises(ImportError, match='No space left'):
        mitogen._freight._receive(Importer(b'ok %s 1000 1\n' % (b'0' * 64) + data), 'some')
    assert os.listdir(str(base)) == []


def test_a_place_without_room_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(mitogen._private_folder, 'places', lambda: [str(tmp_path), str(tmp_path / 'none')])
    assert mitogen._private_folder._choose(1) == str(tmp_path)
    with pytest.raises(OSError, match='bytes are free.*none: No such file'):
        mitogen._private_folder._choose(1 << 60)
