"""
Files that a child may fetch: the file that is opened is the one that was checked, and the number of
open files is bounded for each peer.
"""

import os
import threading

import pytest

import mitogen.core
import mitogen.service
from mitogen.core import Kwargs, Message, Sender
from mitogen.service import FileService

import service_targets
import targets
import testlib
from liar import CALL_SERVICE, Liar

MEBIBYTE = 1 << 20


class Cast(object):
    """
    A liar, its sibling, and a file service in the master.
    """
    def __init__(self, router, tmp_path):
        self.router = router
        self.files = FileService(router)
        self.pool = mitogen.service.Pool(router, services=[self.files], size=2)
        self.sibling = router.local(name=u'sibling')
        self.liar = Liar(router, tmp_path)
        self.large = str(tmp_path / 'large')
        with open(self.large, 'wb') as fp:
            fp.write(b'x' * (3 * MEBIBYTE))
        self.files.register(self.large)

    def frame(self, method, reply_to=5, **kwargs):
        data = Message.pickled((FileService.name(), u'' + method, Kwargs(kwargs))).data
        return dict(dst=0, handle=CALL_SERVICE, reply_to=reply_to, magic=0x4d4a, data=data.decode('latin-1'))

    def fetch(self, path, handle=77):
        sender = Sender(self.router.context_by_id(self.liar.id), handle)
        return self.frame('fetch', path=u'' + path, sender=sender)

    def sibling_fetches(self, path=None):
        receiver = self.sibling.call_async(service_targets.fetch, self.router.myself(), path or self.large)
        return receiver.get(timeout=testlib.patience()).unpickle()

    def error_of(self, path):
        return self.sibling.call(service_targets.fetch_error, self.router.myself(), str(path))


def descriptors():
    return len(os.listdir('/proc/self/fd'))


@pytest.fixture
def cast(router, tmp_path):
    cast = Cast(router, tmp_path)
    cast.sibling_fetches()
    before = descriptors(), threading.active_count()
    memory = targets.resident()
    yield cast
    ok, _, size, _ = cast.sibling_fetches()
    assert ok and size == 3 * MEBIBYTE
    cast.liar.close()
    lost = mitogen.core.Latch()
    mitogen.core.listen(cast.liar.context, 'disconnect', lost.put)
    if router.stream_by_id(cast.liar.id):
        lost.get(timeout=testlib.patience())
    # Two descriptors of the liar's stream and its standard error have gone.
    testlib.wait_for(lambda: descriptors() <= before[0])
    assert threading.active_count() == before[1]
    assert targets.resident() - memory < 64 * MEBIBYTE
    cast.pool.stop()


# ---- how many

def test_fetches_without_end_leave_descriptors_to_others(cast):
    before = descriptors()
    cast.liar.send(frames=[cast.fetch(cast.large, handle=1000 + i) for i in range(900)])
    assert cast.liar.sync()['alive']
    testlib.wait_for(lambda: descriptors() >= before + 32)
    assert cast.sibling_fetches()[0]
    assert descriptors() <= before + 33


def test_fetches_beyond_the_limit_are_refused(cast):
    cast.router.limits.open_files = 2
    cast.router.limits.fetches = 10
    cast.liar.send(frames=[cast.fetch(cast.large, handle=1000 + i) for i in range(100)])
    testlib.wait_for(lambda: cast.router.stats()['refusals'].get('fetches', 0) >= 80)
    frames = cast.liar.sync()['frames']
    assert any(FileService.too_many_msg in frame[7] for frame in frames if frame[4] == 5)


def test_more_files_than_may_be_open_all_come(cast):
    cast.router.limits.open_files = 2
    middle = cast.router.local(name=u'middle')
    children = [cast.router.local(via=middle) for _ in range(5)]
    calls = [child.call_async(service_targets.fetch, cast.router.myself(), cast.large) for child in children]
    for receiver in calls:
        ok, _, size, _ = receiver.get(timeout=testlib.patience()).unpickle()
        assert ok and size == 3 * MEBIBYTE


def test_a_fetch_that_nobody_acknowledges_ends(cast):
    cast.router.limits.stalled_seconds = 0.3
    before = descriptors()
    cast.liar.send(frames=[cast.fetch(cast.large, handle=1000 + i) for i in range(10)])
    testlib.wait_for(lambda: cast.router.stats()['refusals'].get('stalled_seconds'))
    testlib.wait_for(lambda: descriptors() == before)
    # Its stream is as well as before.
    assert cast.liar.sync()['alive']


def test_what_is_on_its_way_to_another_is_not_acknowledged(router, tmp_path):
    """
    Below one intermediary, whose stream all share.
    """
    middle = router.local(name=u'middle')
    files = FileService(router)
    pool = mitogen.service.Pool(router, services=[files], size=2)
    large = tmp_path / 'large'
    large.write_bytes(b'x' * (5 * MEBIBYTE))
    files.register(str(large))
    other = router.local(via=middle)
    other.call(service_targets.start_fetch_and_stall, router.myself(), str(large))
    state, = files._state_by_stream.values()
    testlib.wait_for(lambda: state.unacked > MEBIBYTE)
    liar = Liar(router, tmp_path, via=middle)
    data = Message.pickled((FileService.name(), u'acknowledge', Kwargs({'size': 131046}))).data.decode('latin-1')
    liar.send(frames=[dict(dst=0, handle=CALL_SERVICE, reply_to=0, magic=0x4d4a, data=data)] * 5)
    assert liar.sync()['alive']
    router.myself().call_service(FileService, 'register', path=u'/after/those')
    unacked = state.unacked
    assert unacked > MEBIBYTE and state.unacked_by_id == {other.context_id: unacked}
    liar.close()
    pool.stop()


# ---- which

def test_a_path_of_many_parts_costs_nothing(cast):
    for path in '/x' * 100000, '/' * 100000, cast.large + '/..' * 5000, '/x' * 300:
        assert FileService.unregistered_msg[:8] in cast.error_of(path)
    stats = cast.router.stats()['refusals']
    assert (stats['path_bytes'], stats['path_parts']) == (3, 1)


@pytest.fixture
def tree(tmp_path):
    """
    A directory to fetch from, and one beside it.
    """
    (tmp_path / 'open' / 'deep').mkdir(parents=True)
    (tmp_path / 'closed').mkdir()
    (tmp_path / 'open' / 'deep' / 'file').write_bytes(b'open')
    (tmp_path / 'closed' / 'secret').write_bytes(b'secret')
    (tmp_path / 'open' / 'out').symlink_to(tmp_path / 'closed')
    (tmp_path / 'open' / 'secret').symlink_to(tmp_path / 'closed' / 'secret')
    (tmp_path / 'open' / 'in').symlink_to('deep')
    (tmp_path / 'open' / 'short').symlink_to('in/file')
    (tmp_path / 'open' / 'round').symlink_to('round')
    (tmp_path / 'link').symlink_to('open')
    return tmp_path


SERVED = ['open/deep/file', 'open/in/file', 'open/short', 'open/out/../deep/file', 'open/../open/deep/./file',
          'closed/../open//deep/file']

NOT_SERVED = ['open/out/secret', 'open/secret', 'open/out/../closed/secret', 'closed/secret', 'open/../closed/secret',
              'open/in/../../closed/secret', 'open/round', 'open/deep', 'open/in', 'open', 'open/missing',
              'link/deep/file', 'open/deep/file/more', 'open\0']


def test_a_file_below_a_prefix_is_served(cast, tree):
    cast.files.register_prefix(str(tree / 'open'))
    for path in SERVED:
        ok, _, size, _ = cast.sibling_fetches(str(tree) + '/' + path)
        assert (ok, size) == (True, 4), path


def test_what_a_link_or_a_name_leads_out_to_is_not_served(cast, tree):
    cast.files.register_prefix(str(tree / 'open'))
    for path in NOT_SERVED:
        assert cast.error_of(str(tree) + '/' + path), path


def test_a_prefix_may_be_a_link_itself(cast, tree):
    cast.files.register_prefix(str(tree / 'link'))
    assert cast.sibling_fetches(str(tree / 'link' / 'deep' / 'file'))[:1] == (True,)
    assert cast.error_of(tree / 'link' / 'secret')


def test_a_registered_file_may_be_a_link(cast, tree):
    cast.files.register(str(tree / 'open' / 'secret'))
    ok, _, size, _ = cast.sibling_fetches(str(tree / 'open' / 'secret'))
    assert (ok, size) == (True, 6)


def test_a_directory_that_becomes_a_link_is_not_followed(cast, tree, monkeypatch):
    """
    Between the look at a path and its opening.
    """
    if not mitogen.service._CAN_WALK:
        return
    cast.files.register_prefix(str(tree / 'open'))
    original = os.path.realpath

    def realpath(path, *args, **kwargs):
        found = original(path, *args, **kwargs)
        if path.endswith('deep/secret'):
            (tree / 'open' / 'deep').rename(tree / 'gone')
            (tree / 'open' / 'deep').symlink_to(tree / 'closed')
        return found

    (tree / 'open' / 'deep' / 'secret').write_bytes(b'x')
    monkeypatch.setattr(os.path, 'realpath', realpath)
    text = cast.error_of(tree / 'open' / 'deep' / 'secret')
    assert (tree / 'open' / 'deep').is_symlink()
    assert 'rror' in text


def test_what_is_opened_is_a_file_and_is_closed_at_once_if_not(cast, tree):
    os.mkfifo(str(tree / 'open' / 'fifo'))
    cast.files.register_prefix(str(tree / 'open'))
    before = descriptors()
    assert 'regular' in cast.error_of(tree / 'open' / 'fifo')
    assert descriptors() == before
