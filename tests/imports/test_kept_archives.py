"""
Distributions that travel whole may stay on a target for later runs, if the program asks for that.

They are made for the tests. They are on the path of this process, and on no child's.
"""

import hashlib
import os
import stat
import time

import pytest

import mitogen._kept_archives
import mitogen.master

import made_distributions

#: More than one piece, and nothing that can be compressed.
NOISE = hashlib.shake_256(b'noise').digest(600000)

MOST = 100 * 1048576


@pytest.fixture
def site(tmp_path, monkeypatch):
    """
    A folder that this process imports from. Children have another folder for what users keep.
    """
    folder = tmp_path / 'site'
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return folder


@pytest.fixture
def kept(tmp_path):
    return tmp_path / 'cache' / 'mitogen-archives'


@pytest.fixture
def pieces(monkeypatch):
    """
    The numbers of the pieces that masters have sent.
    """
    sent, get = [], mitogen.master._Freight._get_piece
    monkeypatch.setattr(mitogen.master._Freight, '_get_piece',
                        lambda freight, text: (sent.append(int(text.split(' ')[1])), get(freight, text))[1])
    return sent


def make(site, name, noise=NOISE):
    made_distributions.install(site, name, {
        name + '/__init__.py': 'import os\n'
                               'def read():\n    with open(os.path.join(os.path.dirname(__file__), "x"), "rb") as fp:\n'
                               '        return len(fp.read())\n',
        name + '/x': noise,
    })


@pytest.fixture
def run():
    """
    A function that has a child of a new master import a module, and returns the size of the data
    that it finds.
    """
    def run(name='kep_a', most=MOST, via=False):
        with mitogen.master.Router() as router:
            router.target_cache_bytes = most
            child = router.local(via=router.local()) if via else router.local()
            return child.call(eval, '__import__(%r).read()' % (name,))
    return run


@pytest.mark.parametrize('via', [False, True], ids=['child', 'grandchild'])
def test_a_second_run_sends_nothing(site, kept, pieces, run, via):
    make(site, 'kep_a')
    assert run(via=via) == len(NOISE)
    assert pieces == [0, 1, 2]
    assert run(via=via) == len(NOISE)
    assert pieces == [0, 1, 2]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    (path,) = kept.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_nothing_is_kept_unless_asked_for(site, kept, run):
    make(site, 'kep_a')
    assert run(most=0) == len(NOISE)
    assert not kept.exists()


def put_other(path):
    path.write_bytes(b'other' * 1000)


def put_less(path):
    path.write_bytes(path.read_bytes()[:-1000])


def put_more(path):
    path.write_bytes(path.read_bytes() + b'more')


def put_link(path):
    path.rename(path.parent / 'elsewhere')
    path.symlink_to('elsewhere')


def put_pipe(path):
    path.unlink()
    os.mkfifo(str(path))


def put_hole(path):
    with path.open('r+b') as fp:
        fp.truncate(1 << 40)


@pytest.mark.parametrize('spoil', [put_other, put_less, put_more, put_link, put_pipe, put_hole])
def test_content_with_another_hash_is_fetched_anew(site, kept, pieces, run, spoil):
    make(site, 'kep_a')
    run()
    (path,) = kept.iterdir()
    spoil(path)
    assert run() == len(NOISE)
    assert pieces == [0, 1, 2] * 2
    assert path.is_file() and not path.is_symlink()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert run() == len(NOISE)
    assert pieces == [0, 1, 2] * 2


@pytest.mark.parametrize('kind', ['open', 'link', 'file'])
def test_a_folder_that_is_not_private_is_not_used(site, kept, tmp_path, pieces, run, kind):
    make(site, 'kep_a')
    kept.parent.mkdir()
    other = tmp_path / 'other'
    other.mkdir(0o700)
    if kind == 'open':
        kept.mkdir()
        kept.chmod(0o755)
    elif kind == 'link':
        kept.symlink_to(other)
    else:
        kept.write_text('')
    assert run() == len(NOISE)
    assert run() == len(NOISE)
    assert pieces == [0, 1, 2] * 2
    assert kind == 'file' or not list(kept.iterdir())


def test_those_that_were_used_longest_ago_give_way(site, kept, run):
    for name in 'kep_a', 'kep_b', 'kep_c':
        make(site, name, NOISE + name.encode())
    run('kep_a', 1900000)
    (first,) = kept.iterdir()
    os.utime(str(first), (1, 1))
    run('kep_b', 1900000)
    (second,) = set(kept.iterdir()) - {first}
    os.utime(str(second), (2, 2))
    # It has the latest time now.
    run('kep_a', 1900000)
    run('kep_c', 1900000)
    assert first.exists() and not second.exists()
    assert sum(path.stat().st_size for path in kept.iterdir()) <= 1900000


def test_one_that_is_too_large_is_not_kept(site, kept, run):
    make(site, 'kep_a')
    assert run(most=100000) == len(NOISE)
    assert not list(kept.iterdir())


def test_what_a_killed_process_has_left_is_removed(site, kept, run):
    make(site, 'kep_a')
    kept.mkdir(0o700, parents=True)
    names = [kept / (mitogen._kept_archives._NEW + name) for name in ('old', 'young')]
    for path in names:
        path.write_text('half')
    os.utime(str(names[0]), (time.time() - 2 * mitogen._kept_archives.ABANDONED,) * 2)
    run()
    assert [path.exists() for path in names] == [False, True]


@pytest.fixture
def archives(tmp_path):
    fd = mitogen._kept_archives._open_folder(str(tmp_path / 'archives'))
    yield mitogen._kept_archives._Archives(fd, 1000)
    os.close(fd)


def test_a_disk_that_is_full_only_means_that_nothing_is_kept(archives, caplog):
    new = mitogen._kept_archives._NewArchive(archives, 'digest', 100)
    with open('/dev/full', 'wb') as full:
        os.dup2(full.fileno(), new._fp.fileno())
    assert list(new.tee([b'one', b'two'])) == [b'one', b'two']
    new.finish()
    new.close()
    assert os.listdir(archives.folder) == []
    (record,) = caplog.records
    assert record.levelname == 'WARNING' and 'No space left' in record.getMessage()


def test_an_archive_that_does_not_come_whole_leaves_nothing(archives):
    def unpack(_offer, pieces):
        next(pieces)
        raise ValueError('the link was cut')

    class Offer(object):
        digest, count = 'digest', 0
    with pytest.raises(ValueError):
        mitogen._kept_archives._unpack_new(archives, Offer, iter([b'one', b'two']), unpack)
    assert os.listdir(archives.folder) == []


def test_two_at_a_time_do_not_both_write(archives, tmp_path, caplog):
    other = mitogen._kept_archives._Archives(mitogen._kept_archives._open_folder(str(tmp_path / 'archives')), 1000)
    first = mitogen._kept_archives._NewArchive(archives, 'digest', 600)
    second = mitogen._kept_archives._NewArchive(other, 'other', 600)
    for new in second, first:
        list(new.tee([b'one']))
        new.finish()
        new.close()
    os.close(other.folder)
    assert os.listdir(archives.folder) == ['digest']
    # Nothing is wrong.
    assert not caplog.records


def test_a_tree_and_the_environment_say_how_much_is_kept(monkeypatch):
    import mitogen
    with mitogen.Tree() as tree:
        assert tree.target_cache_bytes == 0
    with mitogen.Tree(cache=1000) as tree:
        assert tree.target_cache_bytes == 1000
    for cache in -1, '1000':
        with pytest.raises(ValueError):
            mitogen.Tree(cache=cache)
