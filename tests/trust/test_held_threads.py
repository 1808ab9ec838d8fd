"""
No peer can hold a thread: whatever a lying child asks for and does not read, the threads of the
pool serve its sibling, and in the end it is the liar that is cut off.
"""

import logging
import os
import socket
import threading

import pytest

import mitogen.core
import mitogen.service
from mitogen.core import Kwargs, Message, Sender

import hostile_services
import service_targets
import targets
import testlib
import tree_targets
from liar import CALL_SERVICE, GET_RESOURCE, Liar

MEBIBYTE = 1 << 20


def call(service, method, **kwargs):
    """
    Return the frame of a call of a service, for Liar.flood().
    """
    data = Message.pickled((service.name(), u'' + method, Kwargs(kwargs))).data
    return dict(dst=0, handle=CALL_SERVICE, reply_to=5, magic=0x4d4a, data=data.decode('latin-1'))


class Cast(object):
    """
    A liar, its sibling, a pool of two threads in the master, and what was logged.
    """
    def __init__(self, router, tmp_path, logs):
        self.router = router
        self.logs = logs
        self.files = mitogen.service.FileService(router)
        services = [self.files, hostile_services.Offers(router), hostile_services.InTurn(router),
                    hostile_services.Once(router)]
        self.pool = mitogen.service.Pool(router, services=services, size=2)
        self.sibling = router.local(name=u'sibling')
        self.liar = Liar(router, tmp_path)
        self.stream = router.stream_by_id(self.liar.id)

    def sibling_is_served(self, times=20):
        for _ in range(times):
            receiver = self.sibling.call_async(
                service_targets.call_service, self.router.myself(), hostile_services.Offers.name(), u'small')
            assert receiver.get(timeout=testlib.patience()).unpickle() == 'small'


@pytest.fixture
def cast(router, tmp_path):
    with testlib.LogCapture('', logging.WARNING) as logs:
        cast = Cast(router, tmp_path, logs)
        threads, memory = threading.active_count(), targets.resident()
        yield cast
        cast.sibling_is_served(1)
        assert threading.active_count() == threads
        assert targets.resident() - memory < 96 * MEBIBYTE
        assert not logs.find('broker crashed')
        cast.liar.close()
        cast.pool.stop()


@pytest.mark.parametrize('service', [hostile_services.Offers, hostile_services.InTurn, hostile_services.Once])
def test_answers_that_nobody_reads_hold_no_thread(cast, service):
    cast.liar.flood(frame=call(service, 'large'), count=200, reading=False, seconds=2)
    testlib.wait_for(lambda: cast.stream.protocol.pending_bytes() > MEBIBYTE)
    cast.sibling_is_served()
    # No more is begun once half of the high-water mark waits.
    assert cast.stream.protocol.pending_bytes() < cast.router.high_water // 2 + 3 * MEBIBYTE


def test_a_peer_that_reads_on_gets_all_answers(cast):
    cast.liar.flood(frame=call(hostile_services.Offers, 'large'), count=60, reading=False, seconds=2)
    testlib.wait_for(lambda: cast.stream.protocol.pending_bytes() > MEBIBYTE)
    answers = []
    testlib.wait_for(lambda: answers.extend(
        frame for frame in cast.liar.sync()['frames'] if frame[4] == 5) or len(answers) == 60)
    assert all(frame[6] > MEBIBYTE for frame in answers)


def test_a_peer_that_stops_reading_loses_its_stream(cast):
    cast.router.limits.stalled_seconds = 0.3
    lost = mitogen.core.Latch()
    mitogen.core.listen(cast.liar.context, 'disconnect', lost.put)
    cast.liar.flood(frame=call(hostile_services.Offers, 'large'), count=200, reading=False, seconds=2)
    lost.get(timeout=testlib.patience())
    (record,) = cast.logs.find('has read nothing')
    assert 'liar' in record.getMessage() and 'stalled_seconds' in record.getMessage()
    assert cast.router.stats()['refusals']['stalled_seconds'] == 1
    cast.sibling_is_served()


def test_a_child_that_does_not_read_what_is_forwarded_to_it_keeps_its_sibling_waiting_for_a_time_only(router, tmp_path):
    """
    Its parent stops reading the messages that come down for it, and with them those for the
    sibling.
    """
    middle = router.local(name=u'middle')
    sibling = router.local(via=middle)
    middle.call(tree_targets.set_limit, 'stalled_seconds', 0.5)
    liar = Liar(router, tmp_path, via=middle)
    lost = mitogen.core.Latch()
    mitogen.core.listen(liar.context, 'disconnect', lost.put)
    for _ in range(12):
        liar.context.send(Message(handle=1234, data=b'x' * MEBIBYTE))
    assert sibling.call(targets.context_id) == sibling.context_id
    lost.get(timeout=testlib.patience())
    liar.close()


@pytest.mark.parametrize('levels', [1, 2])
def test_a_context_gives_up_a_child_that_does_not_read_before_it_is_given_up_itself(router, tmp_path, levels):
    router.limits.stalled_seconds = 4.0
    pool = mitogen.service.Pool(router, services=[hostile_services.Offers(router)], size=2)
    above = [router.local()]
    for _ in range(levels - 1):
        above.append(router.local(via=above[-1]))
    sibling = router.local(via=above[-1])
    liar = Liar(router, tmp_path, via=above[-1])
    lost = mitogen.core.Latch()
    mitogen.core.listen(liar.context, 'disconnect', lost.put)
    liar.flood(frame=call(hostile_services.Offers, 'large'), count=200, reading=False, seconds=1)
    for context in above + [sibling]:
        assert context.call_async(targets.identity, 1).get(timeout=testlib.patience()).unpickle() == 1
    lost.get(timeout=testlib.patience())
    assert all(router.stream_by_id(context.context_id) for context in above)
    liar.close()
    pool.stop()


def test_a_peer_that_reads_a_byte_now_and_then_loses_its_stream(cast):
    cast.router.limits.stalled_seconds = 1
    lost = mitogen.core.Latch()
    mitogen.core.listen(cast.liar.context, 'disconnect', lost.put)
    # Then the system takes a little more whenever a little was read.
    with socket.socket(fileno=os.dup(cast.stream.transmit_side.fd)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    cast.liar.flood(frame=call(hostile_services.Offers, 'large'), count=60, reading=False, seconds=0.1)

    def is_lost():
        try:
            cast.liar.nap(size=2000, seconds=0.1)
        except (ValueError, OSError):
            # Its process is ended with its stream, be it in the middle of an answer.
            testlib.wait_for(lambda: lost.size())
        return lost.size()

    testlib.wait_for(is_lost)
    assert cast.logs.find('it is cut off')
    cast.sibling_is_served()


def test_a_peer_that_is_slow_keeps_its_stream(cast):
    cast.router.limits.stalled_seconds = 3
    cast.liar.flood(frame=call(hostile_services.Offers, 'large'), count=60, reading=False, seconds=2)
    for _ in range(10):
        # The liar reads the bytes that the system keeps for it, and sleeps.
        cast.liar.nap(size=MEBIBYTE, seconds=0.4)
    assert cast.liar.sync()['alive']
    assert not cast.logs.find('has read nothing')


def test_forged_acknowledgements_hold_no_thread(cast, tmp_path):
    large = tmp_path / 'large'
    large.write_bytes(b'x' * (40 * MEBIBYTE))
    cast.files.register(str(large))
    sender = Sender(cast.router.context_by_id(cast.liar.id), 77)
    cast.liar.send(frames=[call(mitogen.service.FileService, 'fetch', path=u'' + str(large), sender=sender)])
    cast.liar.flood(frame=dict(call(mitogen.service.FileService, 'acknowledge', size=131046), reply_to=0), count=2000,
                    reading=False, seconds=2)
    testlib.wait_for(lambda: cast.stream.protocol.pending_bytes() > MEBIBYTE)
    ok, metadata, size, _ = cast.sibling.call_async(
        service_targets.fetch, cast.router.myself(), str(large)).get(timeout=testlib.patience()).unpickle()
    assert ok and size == 40 * MEBIBYTE
    cast.sibling_is_served()
    assert cast.stream.protocol.pending_bytes() < cast.router.high_water // 2 + MEBIBYTE


def test_files_pushed_to_one_that_does_not_read_hold_no_thread_on_the_way(router, tmp_path):
    service = mitogen.service.PushFileService(router=router)
    pool = mitogen.service.Pool(router, services=[service], size=2)
    middle = router.local(name=u'middle')
    sibling = router.local(via=middle)
    liar = Liar(router, tmp_path, via=middle)
    for i in range(30):
        service.propagate_to(liar.context, u'/made/up/%d' % (i,), overridden_source=b'x' * MEBIBYTE)
    for _ in range(20):
        assert middle.call_async(targets.identity, 1).get(timeout=testlib.patience()).unpickle() == 1
        receiver = middle.call_service_async(service_targets.Plain, 'pid')
        assert receiver.get(timeout=testlib.patience()).unpickle()
    service.propagate_to(sibling, u'/made/up/1')
    receiver = sibling.call_async(service_targets.pushed_file, u'/made/up/1')
    assert receiver.get(timeout=testlib.patience()).unpickle() == b'x' * MEBIBYTE
    # It reads on, and gets everything.
    received = []
    testlib.wait_for(lambda: received.extend(
        frame for frame in liar.sync()['frames'] if frame[4] == CALL_SERVICE) or len(received) == 30)
    liar.close()
    pool.stop()


def test_resources_that_nobody_reads_keep_nobody_waiting(cast):
    data = Message.pickled((u'shipped_pkg', u'__init__.py')).data.decode('latin-1')
    cast.router.limits.unread_bytes = MEBIBYTE
    cast.liar.flood(frame=dict(dst=0, handle=GET_RESOURCE, data=data, magic=0x4d4a), count=5000, reading=False, seconds=2)
    cast.sibling_is_served()
    assert cast.stream.protocol.pending_bytes() < 2 * MEBIBYTE
