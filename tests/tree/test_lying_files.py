"""
Hosts that do not keep to the protocol of files: they write nothing outside of the target, and are
told of in plain words.
"""

import logging
import os
import stat

import pytest

import mitogen
import mitogen._files.folders
import mitogen._files.opened
import mitogen.core
from mitogen._files.items import DATA, DONE, FILE, FOLDER, LINK, SKIPPED, UP
from mitogen._files.new_entry import NewFile

import file_targets
import lying_host

TOP = (FOLDER, b'top', 0o755)
ONE = [(FILE, b'x', 0o644, 1), (DATA, b'x'), (DONE,)]


def file_of(name):
    return [(FILE, name, 0o644, 1), (DATA, b'x'), (DONE,)]


def listing(top):
    """
    Return the paths of all that lies in a folder.
    """
    return [os.path.join(folder, name) for folder, folders, names in os.walk(str(top)) for name in folders + names]


@pytest.fixture
def lies(host, monkeypatch):
    """
    A function that has the host send lists of items, whatever it is asked for.
    """
    monkeypatch.setattr(mitogen._files.opened, 'start_reading', file_targets.start_to_lie)
    monkeypatch.setattr(mitogen._files.opened, 'read_on', file_targets.lie)
    def set_lies(*lists):
        # By the thread that sends them: it does the calls that an earlier test left before.
        host.call_async(file_targets.set_lies, list(lists)).get().unpickle()
    yield set_lies
    set_lies()


@pytest.mark.parametrize('items', [
    [TOP] + file_of(b'../escaped') + [(UP,)],
    [TOP] + file_of(b'..') + [(UP,)],
    [TOP] + file_of(b'.') + [(UP,)],
    [TOP] + file_of(b'') + [(UP,)],
    [TOP] + file_of(b'a/b') + [(UP,)],
    [TOP] + file_of(b'a\0b') + [(UP,)],
    [TOP] + file_of(u'text') + [(UP,)],
    [TOP] + file_of(7) + [(UP,)],
    [TOP, (FOLDER, b'..', 0o755)] + file_of(b'escaped') + [(UP,), (UP,)],
    [TOP, (FOLDER, b'../x', 0o755), (UP,), (UP,)],
    [TOP, (LINK, b'way', b'..'), (FOLDER, b'way', 0o755)] + file_of(b'escaped') + [(UP,), (UP,)],
    [TOP, (LINK, b'../way', b'x'), (UP,)],
    [TOP, (SKIPPED, b'../x', 'why'), (UP,)],
    [TOP, (UP,), (UP,)] + file_of(b'escaped'),
    [TOP, (UP,)] + file_of(b'escaped'),
    [TOP, (UP,), TOP] + file_of(b'escaped'),
    ONE + file_of(b'escaped'),
    [(LINK, b'target', b'/tmp')],
    [(SKIPPED, b'target', 'why')],
    [(UP,)],
    [(DATA, b'x')],
    [(DONE,)],
    [TOP, (FILE, b'x', 0o644, 1), (FILE, b'y', 0o644, 1)],
    [TOP, (FILE, b'x', 0o644, 1), (DATA, b'xx'), (DONE,), (UP,)],
    [TOP, (FILE, b'x', 0o644, 1), (DONE,), (UP,)],
    [TOP, (FILE, b'x', 0o644, 1), (UP,)],
    [TOP, (FILE, b'x', 0o644, 1), (DATA, u'x')],
    [TOP, (FILE, b'x', 0o644, 'one')],
    [TOP, (FILE, b'x', 'mode', 1)],
    [TOP, (FILE, b'x')],
    [TOP, (FILE, b'x', None, 1), (FOLDER, b'y', 0o755)],
    [TOP, (FOLDER, b'd', None)],
    [TOP, (LINK, b'way', u'text'), (UP,)],
    [TOP, (LINK, b'way', b'a\0b'), (UP,)],
    [TOP, (LINK, b'way', b''), (UP,)],
    [TOP, (LINK, b'way', b'x' * 9999), (UP,)],
    [TOP, (LINK, b'x', b'y')] + ONE + [(FOLDER, b'x', 0o755)],
    [TOP] + ONE + [(FOLDER, b'x', 0o755)],
    [TOP, (FOLDER, b'x', 0o755), (UP,)] + ONE,
    [TOP] + file_of(b'x' * 9999),
    [TOP, (SKIPPED, b'x' * 9999, 'why'), (UP,)],
    [TOP, (SKIPPED, b'x', 7), (UP,)],
    [TOP, (SKIPPED, b'x', 'why' * 100), (UP,)],
    [TOP, (UP, 1)],
    [TOP, [UP], (DONE,)],
    [TOP] + [(FOLDER, b'd', 0o755)] * 300,
    [TOP],
    [TOP, (FILE, b'x', 0o644, 1)],
    [(99,)],
    [()],
    [None],
    [([],)],
    None,
    []])
def test_a_host_that_lies_writes_nothing_outside_of_the_target(host, tmp_path, lies, items):
    place = tmp_path / 'place'
    place.mkdir()
    lies(items)
    with pytest.raises(mitogen.FileError):
        host.get('/any/name', place / 'target')
    assert [name for name in os.listdir(str(tmp_path))] == ['place']
    assert set(os.listdir(str(place))) <= {'target'}
    assert not [path for path in listing(tmp_path) if os.path.basename(path).startswith('.mitogen')]


def test_a_host_that_gives_a_whole_path_for_a_name_writes_nothing_there(host, tmp_path, lies):
    name = mitogen.core.Blob(os.fsencode(str(tmp_path / 'escaped')))
    lies([TOP] + file_of(name) + [(UP,)])
    with pytest.raises(mitogen.FileError, match='no tree of files'):
        host.get('/any/name', tmp_path / 'target')
    assert os.listdir(str(tmp_path)) == ['target']


def test_a_link_of_an_earlier_copy_is_no_way_out(host, tmp_path, lies):
    outside = tmp_path / 'outside'
    outside.mkdir()
    (outside / 'x').write_bytes(b'untouched')
    way = mitogen.core.Blob(os.fsencode(str(outside)))
    lies([TOP, (LINK, b'way', way), (LINK, b'x', os.path.join(way, b'x')), (UP,)])
    host.get('/any', tmp_path / 'target')
    lies([TOP] + ONE + [(FOLDER, b'way', 0o755)] + ONE + [(UP,), (UP,)])
    with pytest.raises(mitogen.FileError, match='way: it is a link where a folder is to be'):
        host.get('/any', tmp_path / 'target')
    assert (outside / 'x').read_bytes() == b'untouched' and os.listdir(str(outside)) == ['x']
    assert (tmp_path / 'target' / 'x').read_bytes() == b'x' and not (tmp_path / 'target' / 'x').is_symlink()


def test_a_host_gives_no_file_the_power_of_its_owner(host, tmp_path, lies):
    lies([(FILE, b'other', 0o6755, 1), (DATA, b'x'), (DONE,)])
    host.get('/any', tmp_path / 'file')
    assert stat.S_IMODE((tmp_path / 'file').stat().st_mode) == 0o755
    assert os.listdir(str(tmp_path)) == ['file']


@pytest.mark.parametrize('lists, text', [
    ([[(FILE, b'x', 0o644, 1 << 40)]], 'it has more than'),
    ([[(FILE, b'x', 0o644, -1), (DATA, b'x' * 60)], [(DATA, b'x' * 60)]], 'it has more than'),
    ([[(FILE, b'x', 0o644, 3), (DATA, b'xxxx')]], 'more data arrived than was announced'),
    ([[(FILE, b'x', 0o644, 3), (DATA, b'xx'), (DONE,)]], 'the end of the file did not arrive'),
    ([[(FILE, b'x', 0o644, 3), (DATA, b'xxx')]], 'the end of the file did not arrive'),
    ([ONE + ONE], 'no file: more than one'),
    ([[(DATA, b'x')]], 'no file: data of no file'),
    ([[(FILE, b'x', 0o644, 3), (DATA, u'xxx')]], 'no file: an item of an unknown kind'),
    ([[TOP]], 'it is a folder'),
    ([[(LINK, b'x', b'y')]], 'no file: an item that is not part of a file'),
    ([7], 'no file: no list'),
    ([], 'the end of the file did not arrive')])
def test_what_is_no_small_file_is_not_taken_for_one(host, lies, lists, text):
    lies(*lists)
    with pytest.raises(mitogen.FileError, match=text):
        host.read_bytes('/any', limit=100)


def test_the_number_of_what_is_opened_is_no_long_text(host, tmp_path, monkeypatch):
    """
    It travels with each further call.
    """
    for name in 'start_reading', 'start_writing':
        monkeypatch.setattr(mitogen._files.opened, name, lying_host.a_long_text)
    (tmp_path / 'file').write_bytes(b'x')
    for use in (lambda: host.get('/any', tmp_path / 'target'), lambda: host.read_bytes('/any'),
                lambda: host.put(tmp_path / 'file', '/any'), lambda: host.write_bytes('/any', b'x')):
        with pytest.raises(mitogen.core.StreamError, match='is not a number'):
            use()
    assert os.listdir(str(tmp_path)) == ['file']


def test_names_that_are_told_of_have_a_limit(host, lies, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    lies([TOP], *[[(SKIPPED, b'%d\x1b' % number, '\x1b') for number in range(900)]] * 3, [(UP,)])
    copied = host.get('/any', tmp_path / 'target')
    assert len(copied.skipped) == 1000 and '\x1b' not in ''.join(copied.skipped)
    assert len([record for record in caplog.records if 'not copied' in record.getMessage()]) == 1000


def test_names_in_an_error_cannot_write_on_a_terminal(host, lies, tmp_path, monkeypatch):
    lies([TOP, (FILE, b'\x1b[2J\n', 0o644, 1), (DATA, b'xx')])
    with pytest.raises(mitogen.FileError, match='more data arrived') as caught:
        host.get('/any', tmp_path / 'target')
    assert not set(str(caught.value)) & set('\x1b\n')
    monkeypatch.setattr(mitogen._files.opened, 'start_reading', file_targets.fail_loudly)
    with pytest.raises(mitogen.FileError, match='2J') as caught:
        host.get('/any', tmp_path / 'target')
    assert not set(str(caught.value)) & set('\x1b\n')


@pytest.mark.parametrize('value', [None, u'text', 1 << 40])
def test_a_folder_that_has_no_path(host, monkeypatch, value):
    monkeypatch.setattr(mitogen._files.folders, 'make_own_folder', file_targets.give_back)
    monkeypatch.setattr(mitogen.core, 'Blob', lambda data: value)
    with pytest.raises(mitogen.FileError, match='the host sent something that is not a path'):
        with host.tempdir():
            pass


@pytest.mark.parametrize('kind', [TypeError, ValueError, KeyError, AttributeError])
def test_errors_of_our_own_are_not_laid_at_the_door_of_the_host(host, tmp_path, monkeypatch, kind):
    def fail(self, data):
        raise kind('ours')
    (tmp_path / 'file').write_bytes(b'x')
    monkeypatch.setattr(NewFile, 'write', fail)
    with pytest.raises(kind, match='ours'):
        host.get(tmp_path / 'file', tmp_path / 'target')
    assert os.listdir(str(tmp_path)) == ['file']
