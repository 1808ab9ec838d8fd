"""
A client of a UNIX socket that lies. It has the authority of the process that listens, and may give
orders; but it is nobody else, takes nothing that is another's, and stops nobody.
"""

import logging
import pickle
import threading

import pytest

import mitogen.core
import mitogen.service
import mitogen.unix
from mitogen.core import ChannelError, Context, Kwargs, Latch, Message, Receiver, Sender

import hostile_services
import service_targets
import targets
import testlib
from liar import ADD_ROUTE, ALLOCATE_ID, CALL_SERVICE, DEL_ROUTE, FORWARD_LOG, GET_RESOURCE, IS_DEAD
from lying_client import LyingClient

MEBIBYTE = 1 << 20


class Club(object):
    """
    A master that listens, a child of it, and a client that lies.
    """
    def __init__(self, router, tmp_path, logs):
        self.router = router
        self.logs = logs
        self.offers = hostile_services.Offers(router)
        self.pool = mitogen.service.Pool(
            router, services=[self.offers, mitogen.service.FileService(router)], size=2)
        self.listener = mitogen.unix.Listener.build_stream(router, path=str(tmp_path / 'socket'))
        self.sibling = router.local(name=u'sibling')
        self.grandchild = router.local(via=self.sibling)
        self.client = LyingClient(router, tmp_path, self.listener.protocol.path)
        self.stream = router.stream_by_id(self.client.id)

    def all_are_served(self):
        for context in self.sibling, self.grandchild:
            receiver = context.call_async(
                service_targets.call_service, self.router.myself(), hostile_services.Offers.name(), u'small')
            assert receiver.get(timeout=testlib.patience()).unpickle() == 'small'
            receiver = context.call_async(targets.context_id)
            assert receiver.get(timeout=testlib.patience()).unpickle() == context.context_id


@pytest.fixture
def club(router, tmp_path):
    with testlib.LogCapture('', logging.INFO) as logs:
        club = Club(router, tmp_path, logs)
        ways = [(context, context.name, router.stream_by_id(context.context_id))
                for context in (club.sibling, club.grandchild)]
        club.all_are_served()
        threads, memory = threading.active_count(), targets.resident()
        yield club
        club.offers.gate.set()
        club.all_are_served()
        assert ways == [(context, context.name, router.stream_by_id(context.context_id)) for context, _, _ in ways]
        assert threading.active_count() <= threads
        assert targets.resident() - memory < 96 * MEBIBYTE
        assert not logs.find('broker crashed')
        club.client.close()
        club.pool.stop()


def call(service, method, **kwargs):
    data = Message.pickled((service.name(), u'' + method, Kwargs(kwargs))).data
    return dict(dst=0, handle=CALL_SERVICE, reply_to=5, magic=0x4d4a, data=data.decode('latin-1'))


# ---- it is nobody else

def test_a_client_speaks_in_its_own_name_only(club):
    for number in club.sibling.context_id, club.grandchild.context_id, 0, 77777:
        club.client.tell(dict(dst=0, src=number, handle=FORWARD_LOG, data='root\x0050\0I am another'),
                         dict(dst=0, auth=number, handle=FORWARD_LOG, data='root\x0050\0I am another'))
        assert 'unix_client' in club.logs.wait('got %d via' % number)[0].getMessage()
    # It may speak with less authority than the listener lends it, in its own name.
    assert {record.name for record in club.logs.find('I am another')} <= {'root.[context %d]' % club.client.id}


def test_a_client_announces_no_context_that_is_not_its_own(club):
    upcoming = club.router.id_allocator.allocate() + 1
    ids = [club.sibling.context_id, club.grandchild.context_id, 0, upcoming, 2 ** 32 - 1]
    club.client.tell(*[dict(dst=0, handle=ADD_ROUTE, data='%d:client' % number) for number in ids])
    club.client.tell(*[dict(dst=0, handle=DEL_ROUTE, data='%d' % number) for number in ids])
    child = club.router.local()
    assert child.context_id == upcoming
    assert child.call(targets.context_id) == upcoming


def test_a_client_announces_nothing_below_it_either(club):
    mine = club.client.take_ids(0)
    club.client.tell(dict(dst=0, handle=ADD_ROUTE, data='%d:below' % mine), dict(dst=0, src=mine, handle=5))
    club.logs.wait('may not add routes: it is no child of ours')
    club.logs.wait('bad auth_id: got %d via' % mine)


@pytest.mark.parametrize('reply_to', [0, IS_DEAD])
def test_a_client_does_not_answer_the_calls_of_others(club, reply_to):
    receiver = club.sibling.call_async(targets.sleep, 1.0)
    lie = pickle.dumps(u'a lie', 2).decode('latin-1')
    for _ in range(5):
        club.client.tell(dict(dst=0, handle=receiver.handle, reply_to=reply_to, data=lie, magic=0x4d4a))
    assert receiver.get(timeout=testlib.patience()).unpickle() == 1.0


def test_a_record_of_a_client_bears_its_mark(club):
    club.client.tell(dict(dst=0, handle=FORWARD_LOG, data='mitogen\x0050\0I am the master'))
    (record,) = club.logs.wait('I am the master')
    assert record.name == 'mitogen.[context %d]' % club.client.id
    assert record.mitogen_context.context_id == club.client.id


# ---- it stops nobody

@pytest.mark.seconds(300)
def test_ids_are_not_handed_out_to_a_client_without_end(club):
    club.client.flood(frame=dict(dst=0, handle=ALLOCATE_ID, reply_to=5), count=3000)
    assert club.client.sync()['alive']
    club.logs.wait('asks for too many ids')
    assert club.router.local().call(targets.allocate_ids, 1)


def test_a_client_that_does_not_read_holds_no_thread(club):
    club.client.flood(frame=call(hostile_services.Offers, 'large'), count=200, reading=False, seconds=2)
    testlib.wait_for(lambda: club.stream.protocol.pending_bytes() > MEBIBYTE)
    club.all_are_served()
    assert club.stream.protocol.pending_bytes() < club.router.high_water // 2 + 3 * MEBIBYTE


def test_a_client_that_stops_reading_loses_its_stream(club):
    club.router.limits.stalled_seconds = 0.3
    lost = Latch()
    mitogen.core.listen(club.client.context, 'disconnect', lost.put)
    club.client.flood(frame=call(hostile_services.Offers, 'large'), count=200, reading=False, seconds=2)
    lost.get(timeout=testlib.patience())
    assert 'unix_client' in club.logs.find('has read nothing')[0].getMessage()


def test_requests_of_a_client_that_nobody_reads_cost_no_memory(club):
    data = Message.pickled((u'shipped_pkg', u'__init__.py')).data.decode('latin-1')
    club.router.limits.unread_bytes = MEBIBYTE
    club.client.flood(
        frame=dict(dst=0, handle=GET_RESOURCE, data=data, magic=0x4d4a), count=5000, reading=False, seconds=2)
    club.all_are_served()
    assert club.stream.protocol.pending_bytes() < 2 * MEBIBYTE


def test_contexts_that_a_client_mentions_are_not_kept(club):
    before = len(club.router._context_by_id)
    data = Message.pickled([Context(None, 10 ** 6 + i, u'x') for i in range(1000)]).data.decode('latin-1')
    for handle in GET_RESOURCE, CALL_SERVICE:
        club.client.tell(dict(dst=0, handle=handle, data=data, magic=0x4d4a, reply_to=5))
    testlib.sync(club.router.broker)
    assert len(club.router._context_by_id) <= before + 2


@pytest.mark.parametrize('frame', [dict(handle=5, magic=0x7fff), dict(handle=5, length=2 ** 32 - 1)],
                         ids=['rubbish', 'too large'])
def test_what_is_no_frame_costs_a_client_its_own_stream(club, frame):
    lost = Latch()
    mitogen.core.listen(club.client.context, 'disconnect', lost.put)
    club.client.send(frames=[dict(dst=0, **frame)])
    lost.get(timeout=testlib.patience())
    receiver = club.client.context.call_async(targets.identity, 1)
    with pytest.raises(ChannelError):
        receiver.get(timeout=testlib.patience())


def test_a_client_that_leaves_takes_only_its_own_with_it(club, tmp_path):
    pending = Receiver(club.router, respondent=club.client.context)
    club.client.close()
    with pytest.raises(ChannelError):
        pending.get(timeout=testlib.patience())
    club.all_are_served()
    folder = tmp_path / 'another'
    folder.mkdir()
    club.client = LyingClient(club.router, folder, club.listener.protocol.path)
    assert club.client.sync()['alive']


def test_files_that_a_client_asks_for_go_to_nobody_else(club, tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'x' * 100)
    sender = Sender(Context(None, club.sibling.context_id), 1000)
    frames = club.client.tell(call(mitogen.service.FileService, 'fetch', path=u'' + str(path), sender=sender))
    testlib.wait_for(lambda: any(frame[4] == 5 for frame in frames) or frames.extend(club.client.sync()['frames']))
    assert not any(frame[4] == 5 and frame[5] == 0 and 'x' * 100 in frame[7] for frame in frames)
