"""
Files fetched from anywhere in the tree.
"""

import grp
import hashlib
import io
import os
import pwd
import stat
import threading

import pytest
import service_targets
import targets
import testlib

import mitogen.core
import mitogen.service
from mitogen.core import CallError, Message
from mitogen.service import FileService, Pool

NAME = u'mitogen.service.FileService'
MOST_UNACKED = 1179414


class Watched(mitogen.service.FileStreamState):
    """
    Remembers the most that ever was on its way.
    """
    most = 0

    def __setattr__(self, name, value):
        object.__setattr__(self, name, value)
        if name == 'unacked' and value > Watched.most:
            Watched.most = value


@pytest.fixture
def service(router):
    service = FileService(router)
    pool = Pool(router, services=[service], size=4)
    yield service
    pool.stop()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'content')
    return str(path)


@pytest.fixture
def large(tmp_path):
    """
    Path, size and digest of a file of 5 MB.
    """
    data = os.urandom(1 << 16) * 77 + b'end'
    path = tmp_path / 'large'
    path.write_bytes(data)
    return str(path), len(data), hashlib.sha256(data).hexdigest()


def is_open(path):
    return path in targets.descriptors()


def test_figures():
    assert FileService.IO_SIZE == 131046
    assert FileService.window_size_bytes == 1048576


def test_a_large_file_in_windows(router, service, large, monkeypatch):
    monkeypatch.setattr(mitogen.service, 'FileStreamState', Watched)
    monkeypatch.setattr(Watched, 'most', 0)
    path, size, digest = large
    service.register(path)
    child = router.local()
    ok, metadata, got, got_digest = child.call(service_targets.fetch, router.myself(), path)
    assert (ok, got, got_digest, metadata['size']) == (True, size, digest, size)
    # How much of a window is used depends on how quickly the child acknowledges; the next test has
    # one that does not.
    assert 0 < Watched.most <= MOST_UNACKED
    state, = service._state_by_stream.values()
    testlib.wait_for(lambda: state.unacked == 0)
    assert set(state.unacked_by_id.values()) == set([0])
    assert not is_open(path)


def test_the_window_is_kept_when_nobody_acknowledges(router, service, large):
    path = large[0]
    service.register(path)
    child = router.local()
    child.call(service_targets.start_fetch_and_stall, router.myself(), path)
    state, = service._state_by_stream.values()
    testlib.wait_for(lambda: state.unacked == MOST_UNACKED)
    assert len(state.jobs) == 1
    # Another one waits behind it.
    child.call(service_targets.start_fetch_and_stall, router.myself(), path)
    assert state.unacked == MOST_UNACKED
    testlib.wait_for(lambda: len(state.jobs) == 2)


def test_transfers_at_the_same_time(router, service, large):
    path, size, digest = large
    service.register(path)
    interm = router.local()
    children = [interm, router.local(via=interm), router.local()]
    calls = [child.call_async(service_targets.fetch, router.myself(), path) for child in children]
    for call in calls:
        ok, _, got, got_digest = call.get(timeout=60).unpickle()
        assert (ok, got, got_digest) == (True, size, digest)
    assert len(service._state_by_stream) == 2


def test_an_empty_file(router, service, tmp_path):
    path = tmp_path / 'empty'
    path.write_bytes(b'')
    service.register(str(path))
    ok, metadata, size, _ = router.local().call(service_targets.fetch, router.myself(), str(path))
    assert (ok, metadata['size'], size) == (True, 0, 0)


def test_metadata(router, service, path):
    os.chmod(path, 0o640)
    os.utime(path, (1000000000.5, 1200000000.25))
    service.register(path)
    _, metadata, _, _ = router.local().call(service_targets.fetch, router.myself(), path)
    assert metadata == {
        'size': 7,
        'mode': stat.S_IFREG | 0o640,
        'owner': pwd.getpwuid(os.getuid()).pw_name,
        'group': grp.getgrgid(os.stat(path).st_gid).gr_name,
        'mtime': 1200000000.25,
        'atime': metadata['atime'],
    }
    assert isinstance(metadata['atime'], float)


@pytest.mark.skipif(os.getuid() != 0, reason='only root can give files away')
def test_owners_are_those_of_the_file(router, service, path):
    service.register(path)
    child = router.local()
    os.chown(path, pwd.getpwnam('nobody').pw_uid, grp.getgrnam('nogroup').gr_gid)
    metadata = child.call(service_targets.fetch, router.myself(), path)[1]
    assert (metadata['owner'], metadata['group']) == ('nobody', 'nogroup')
    os.chown(path, 54321, 54322)
    metadata = child.call(service_targets.fetch, router.myself(), path)[1]
    assert (metadata['owner'], metadata['group']) == (None, None)


# ---- who may

def test_an_unregistered_path(router, service, path):
    child = router.local()
    text = child.call(service_targets.fetch_error, router.myself(), path)
    assert FileService.unregistered_msg % (path,) in text
    service.register(path)
    assert child.call(service_targets.fetch, router.myself(), path)[0]


def test_only_parents_may_register(router, service, path):
    child = router.local()
    for method in u'register', u'register_prefix':
        kind, text = child.call(service_targets.refusal, router.myself(), NAME, method, path=path)
        assert kind == 'CallError'
        assert mitogen.service.Invoker.unauthorized_msg % (method, NAME) in text
    assert not service._paths and not service._prefixes


@pytest.mark.parametrize('prefix, path, allowed', [
    (u'/etc', u'/etc/passwd', True),
    (u'/etc/', u'/etc/passwd', True),
    (u'/etc', u'/etc', True),
    (u'/etc', u'/etc/../shadow', False),
    (u'/etc', u'/etc/../etc/passwd', True),
    (u'/etc', u'/etcetera/passwd', False),
    (u'/etc', u'/', False),
    (u'/', u'/anything/at/all', True),
    (u'/etc/ssl', u'/etc/passwd', False),
    (u'/etc', u'/etc/deep/below/it', True),
])
def test_prefixes(router, prefix, path, allowed):
    service = FileService(router)
    service.register_prefix(prefix)
    service.register_prefix(prefix)
    msg = Message(src_id=5, auth_id=5)
    assert service._is_permitted(path, msg) == allowed


def test_a_file_below_a_prefix(router, service, tmp_path):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'sub' / 'file').write_bytes(b'x')
    (tmp_path / 'beside').write_bytes(b'x')
    service.register_prefix(str(tmp_path / 'sub'))
    child = router.local()
    assert child.call(service_targets.fetch, router.myself(), str(tmp_path / 'sub' / 'file'))[0]
    text = child.call(service_targets.fetch_error, router.myself(), str(tmp_path / 'sub' / '..' / 'beside'))
    assert 'beside' in text


def test_a_parent_may_fetch_anything(router, path):
    child = router.local()
    out = io.BytesIO()
    ok, metadata = FileService.get(child, path, out)
    assert (ok, metadata['size'], out.getvalue()) == (True, 7, b'content')


def test_the_other_direction_for_a_sibling(router, path):
    child, sibling = router.local(), router.local()
    child.call_service(FileService, 'register', path=path)
    assert sibling.call(service_targets.fetch, child, path)[0]
    text = sibling.call(service_targets.fetch_error, child, path + '.not')
    assert FileService.unregistered_msg % (path + '.not',) in text


def test_only_for_oneself(router, service, path):
    child, victim = router.local(), router.local()
    service.register(path)
    text = child.call(service_targets.fetch_for_another, router.myself(), path, victim, 1234)
    assert FileService.context_mismatch_msg in text
    assert not is_open(path)


@pytest.mark.parametrize('kwargs', [{'path': 5}, {'path': u'/x'}, {'path': u'/x', 'sender': 5}, {}])
def test_types_of_arguments(router, service, kwargs):
    with pytest.raises(CallError):
        router.myself().call_service(NAME, 'fetch', **kwargs)
    with pytest.raises(CallError):
        router.myself().call_service(NAME, 'acknowledge', size='x')


# ---- what cannot be sent

def test_what_is_no_regular_file(router, service, tmp_path):
    fifo = tmp_path / 'fifo'
    os.mkfifo(str(fifo))
    child = router.local()
    service.register_prefix(u'/')
    for path in str(fifo), str(tmp_path), '/dev/null':
        text = child.call_async(service_targets.fetch_error, router.myself(), path).get(timeout=60).unpickle()
        assert 'regular' in text
        assert path in text


def test_a_missing_file(router, service, tmp_path):
    path = str(tmp_path / 'missing')
    service.register(path)
    text = router.local().call(service_targets.fetch_error, router.myself(), path)
    assert 'missing' in text


def test_a_file_that_shrinks(router, service, large):
    path, size, _ = large
    service.register(path)

    class Shrink(io.BytesIO):
        def write(self, data):
            if not self.tell():
                os.truncate(path, 2000000)
            return io.BytesIO.write(self, data)

    out = Shrink()
    with testlib.LogCapture('mitogen') as log:
        ok, metadata = FileService.get(router.myself(), path, out)
    assert (ok, metadata['size'], len(out.getvalue())) == (False, size, 2000000)
    assert log.find('2000000')


def test_a_process_may_fetch_from_itself(router, service, large):
    path, size, digest = large
    sink = service_targets.Sink()
    ok, _ = FileService.get(router.myself(), path, sink)
    assert (ok, sink.size, sink.sha.hexdigest()) == (True, size, digest)


# ---- the end

def test_the_handle_of_the_receiver_is_given_up(router, service, path):
    service.register(path)
    FileService.get(router.myself(), path, io.BytesIO())
    before = len(router._handle_map)
    FileService.get(router.myself(), path, io.BytesIO())
    with pytest.raises(CallError):
        FileService.get(router.myself(), path + '.not', io.BytesIO())
    testlib.wait_for(lambda: len(router._handle_map) == before)


def test_shutdown_ends_transfers(router, service, large):
    path, size, _ = large
    child = router.local()
    service.register(path)
    entered, leave = mitogen.core.Latch(), mitogen.core.Latch()

    class Slow(object):
        size = 0

        def write(self, data):
            self.size += len(data)
            if self.size == len(data):
                entered.put()
                leave.get(timeout=60)

    # Nobody but the fetching thread acknowledges, so it cannot be done before.
    results = []
    slow = Slow()
    thread = threading.Thread(target=lambda: results.append(FileService.get(router.myself(), path, slow)))
    thread.start()
    entered.get(timeout=60)
    router._service_pool.stop()
    leave.put()
    thread.join(60)
    (ok, metadata), = results
    assert not ok
    assert metadata['size'] == size > slow.size
    assert not is_open(path)
    assert child.call(os.getpid)


def test_a_lost_stream_gives_up_its_files(router, service, large):
    path = large[0]
    service.register(path)
    child = router.local()
    child.call(service_targets.start_fetch_and_stall, router.myself(), path)
    testlib.wait_for(lambda: is_open(path))
    child.shutdown(wait=True)
    testlib.wait_for(lambda: not is_open(path))
    testlib.wait_for(lambda: not service._state_by_stream)


def test_a_lost_context_gives_back_its_part_of_the_window(router, service, large):
    path, size, digest = large
    service.register(path)
    interm = router.local()
    gone, other = router.local(via=interm), router.local(via=interm)
    gone.call(service_targets.start_fetch_and_stall, router.myself(), path)
    state, = service._state_by_stream.values()
    testlib.wait_for(lambda: state.unacked == MOST_UNACKED)
    waiting = other.call_async(service_targets.fetch, router.myself(), path)
    testlib.wait_for(lambda: len(state.jobs) == 2)
    gone.shutdown(wait=True)
    ok, _, got, got_digest = waiting.get(timeout=60).unpickle()
    assert (ok, got, got_digest) == (True, size, digest)
    testlib.wait_for(lambda: state.unacked == 0)


def test_who_cannot_write_gives_up(router, service, large):
    path, size, digest = large
    service.register(path)
    child = router.local()
    assert child.call(service_targets.fetch_into_full, router.myself(), path) == 'no space left on purpose'
    state, = service._state_by_stream.values()
    testlib.wait_for(lambda: not state.jobs and state.unacked == 0)
    # A thread of the service first forgets the transfer, and closes the file after that.
    testlib.wait_for(lambda: not is_open(path))
    ok, _, got, got_digest = child.call(service_targets.fetch, router.myself(), path)
    assert (ok, got, got_digest) == (True, size, digest)


def test_a_context_that_goes_away_while_it_sends(router, large):
    path = large[0]
    child = router.local()
    pid = child.call(os.getpid)

    class Kill(object):
        written = 0

        def write(self, data):
            if not self.written:
                os.kill(pid, 9)
                child.shutdown(wait=True)
            self.written += len(data)

    kill = Kill()
    ok, metadata = FileService.get(child, path, kill)
    assert not ok
    # The chunks on their way still arrived, and they were not all.
    assert 0 < kill.written < metadata['size']


def test_strange_acknowledgements(router, service, path, large):
    myself = router.myself()
    with testlib.LogCapture('mitogen.service') as log:
        # Of a stream that nothing was sent on.
        myself.call_service_async(NAME, 'acknowledge', size=5).close()
        myself.call_service_async(NAME, 'abandon', handle=5).close()
        log.wait('nothing')
    assert FileService.get(myself, large[0], io.BytesIO())[0]
    state, = service._state_by_stream.values()
    testlib.wait_for(lambda: state.unacked == 0)
    with testlib.LogCapture('mitogen.service') as log:
        myself.call_service_async(NAME, 'acknowledge', size=5).close()
        log.wait('acknowledged 5 bytes', level=40)
        myself.call_service_async(NAME, 'acknowledge', size=-5).close()
        assert FileService.get(myself, path, io.BytesIO())[0]
    testlib.wait_for(lambda: state.unacked == 0)


@pytest.mark.parametrize('deep', [False, True])
def test_a_question_of_a_context_that_has_left_meanwhile(router, service, large, deep):
    """
    It is lost between its question and the moment that a thread of the pool takes that up.
    """
    path, size, digest = large
    service.register(path)
    child = router.local(via=router.local() if deep else None)
    gone = mitogen.core.Latch()
    mitogen.core.listen(child, 'disconnect', gone.put)
    child.shutdown(wait=True)
    gone.get(timeout=60)
    testlib.sync(router.broker)
    msg = Message(src_id=child.context_id, reply_to=5, router=router)
    service.fetch(path=path, sender=mitogen.core.Sender(child, 6), msg=msg)
    testlib.wait_for(lambda: not is_open(path), what='the file is closed')
    # The lost request does not stand in the way of others.
    ok, _ = FileService.get(router.myself(), path, io.BytesIO())
    assert ok


def test_a_context_that_leaves_after_the_pool_is_closed(router):
    """
    The loss is no error, and the listeners after the service's are called as well.
    """
    service = FileService(router)
    pool = Pool(router, services=[service], size=1)
    child = router.local()
    heard = mitogen.core.Latch()
    with testlib.LogCapture() as log:
        service._get_state(child)
        stream = router.stream_by_id(child.context_id)
        mitogen.core.listen(stream, 'disconnect', heard.put)
        # As a broker thread has it that was about to tell the pool when this was closed.
        notify = service.select.notify
        pool._select.close()
        service.select.notify = notify
        child.shutdown(wait=True)
        heard.get(timeout=testlib.patience())
        pool.stop()
    assert not [record for record in log.records if record.levelno >= 30]
