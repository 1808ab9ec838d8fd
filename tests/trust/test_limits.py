"""
The limits of a router, each with a peer that goes beyond it.
"""

import logging
import sys
import threading

import pytest

import mitogen.core
import mitogen.limits
import mitogen.master
import mitogen.parent
import mitogen.service
from mitogen.core import CallError, Kwargs, Message

import hostile_services
import service_targets
import targets
import testlib
from liar import CALL_SERVICE, GET_MODULE, HAVE_MODULES, IS_DEAD, Liar, NOBODY

MEBIBYTE = 1 << 20
OFFERS = u'hostile_services.Offers'


# ---- the object

def test_limits_are_those_of_the_router(make_router):
    one, two = make_router(), make_router()
    one.limits.stalled_seconds = 5
    assert one.limits is one.limits is mitogen.limits.of(one)
    assert (one.limits.stalled_seconds, two.limits.stalled_seconds) == (5, mitogen.limits.Limits.stalled_seconds)


def test_a_limit_is_set_by_its_name():
    limits = mitogen.limits.Limits()
    assert limits.stalled_seconds == 60
    for value in 1, 2.5, float('inf'), 0:
        limits.stalled_seconds = value
        assert limits.stalled_seconds == value
    for value in -1, '5', None, float('nan'):
        with pytest.raises(ValueError):
            limits.stalled_seconds = value
    for name in 'no_such_limit', '__class__', '_own':
        with pytest.raises(AttributeError):
            setattr(limits, name, 1)


def test_a_refusal_is_counted_and_logged(router):
    with testlib.Peer(router, 55) as peer, testlib.LogCapture('mitogen.limits', logging.INFO) as logs:
        router.refuse(peer.stream, 'stalled_seconds', '%d things are too many', 7)
        router.refuse(None, 'stalled_seconds', 'all of them')
        texts = [record.getMessage() for record in logs.records]
        assert router.stats()['refusals'] == {'stalled_seconds': 2}
    assert 'peer.55' in texts[0] and '7 things are too many (limits.stalled_seconds is 60.0)' in texts[0]
    assert 'Router' in texts[1] and 'all of them' in texts[1]


def test_many_refusals_are_one_line_a_second(router, monkeypatch):
    with testlib.Peer(router, 55) as one, testlib.Peer(router, 56) as two, \
            testlib.LogCapture('mitogen.limits', logging.INFO) as logs:
        for peer in (one, two) * 50:
            router.refuse(peer.stream, 'stalled_seconds', 'too much')
        assert len(logs.records) == 2
        monkeypatch.setattr(mitogen.core, '_LOG_INTERVAL', 0)
        router.refuse(one.stream, 'stalled_seconds', 'too much')
        assert 'and 49 more times' in logs.records[-1].getMessage()
        assert router.stats()['refusals'] == {'stalled_seconds': 101}


# ---- calls of services

def call(method, padding='', service=OFFERS, **kwargs):
    """
    Return the frame of a call of a service, with arguments of a size, for Liar.flood().
    """
    if padding:
        kwargs['padding'] = padding
    data = Message.pickled((service, u'' + method, Kwargs(kwargs))).data
    return dict(dst=0, handle=CALL_SERVICE, reply_to=5, magic=0x4d4a, data=data.decode('latin-1'))


class Cast(object):
    """
    A liar, its sibling, and a pool whose only thread waits until the gate of the service is opened.
    """
    def __init__(self, router, tmp_path):
        self.router = router
        self.offers = hostile_services.Offers(router)
        self.pool = mitogen.service.Pool(router, services=[self.offers], size=1)
        self.sibling = router.local(name=u'sibling')
        self.liar = Liar(router, tmp_path)
        self.stream = router.stream_by_id(self.liar.id)
        self.blocking = router.myself().call_service_async(OFFERS, 'wait')
        testlib.wait_for(lambda: self.offers.entered)

    def sibling_calls(self, method=u'small'):
        return self.sibling.call_async(service_targets.call_service, self.router.myself(), OFFERS, method)

    def open(self):
        self.offers.gate.set()
        self.blocking.get(timeout=testlib.patience())

    def answers(self, count):
        """
        Return what the liar's calls were answered.
        """
        frames = []
        testlib.wait_for(lambda: frames.extend(
            frame for frame in self.liar.sync()['frames'] if frame[4] == 5) or len(frames) >= count)
        return [frame[7] for frame in frames]


@pytest.fixture
def cast(router, tmp_path):
    cast = Cast(router, tmp_path)
    threads, memory = threading.active_count(), targets.resident()
    yield cast
    cast.offers.gate.set()
    assert cast.sibling_calls().get(timeout=testlib.patience()).unpickle() == 'small'
    assert threading.active_count() == threads
    assert targets.resident() - memory < 64 * MEBIBYTE
    cast.liar.close()
    cast.pool.stop()


def test_calls_that_wait_are_counted_for_each_peer(cast):
    cast.router.limits.service_calls = 50
    cast.liar.send(frames=[call('note')] * 500)
    # In the compiled core, some wait uncounted.
    answers = cast.answers(500 - 50 - 32)
    assert len(answers) <= 450
    assert all(mitogen.service._Tally.full_msg in answer for answer in answers)
    result = cast.sibling_calls()
    cast.open()
    assert result.get(timeout=testlib.patience()).unpickle() == 'small'
    testlib.wait_for(lambda: len(cast.offers.callers) == 500 - len(answers))
    assert cast.router.stats()['refusals'] == {'service_calls': len(answers)}


def test_bytes_of_calls_that_wait_are_counted_for_each_peer(cast):
    cast.router.limits.service_bytes = MEBIBYTE
    cast.liar.send(frames=[call('small', padding=u'x' * 65536)] * 200)
    answers = cast.answers(200 - 16 - 32)
    assert all(mitogen.service._Tally.full_msg in answer for answer in answers)
    assert cast.router.stats()['refusals']['service_bytes'] >= len(answers)


def test_one_call_may_be_larger_than_what_may_wait(cast):
    cast.router.limits.service_bytes = 100
    cast.open()
    with pytest.raises(CallError) as caught:
        cast.sibling.call(service_targets.call_service, cast.router.myself(), OFFERS, u'small', padding=u'x' * MEBIBYTE)
    assert 'padding' in str(caught.value)


def test_a_flood_of_calls_costs_no_memory(cast):
    before = targets.resident()
    cast.liar.flood(frame=call('note'), count=16000)
    assert cast.liar.sync()['alive']
    assert targets.resident() - before < 64 * MEBIBYTE
    assert cast.router.stats()['refusals']['service_calls'] > 5000
    assert cast.sibling.call(targets.identity, 1) == 1


def test_peers_take_turns(cast):
    cast.liar.send(frames=[call('note')] * 1000)
    assert cast.liar.sync()['alive']
    result = cast.sibling_calls(u'note')
    testlib.wait_for(lambda: cast.pool._receiver.size() == 1001)
    cast.open()
    result.get(timeout=testlib.patience())
    testlib.wait_for(lambda: len(cast.offers.callers) == 1001)
    # Calls that came earlier may be obeyed earlier, and one of the liar's in between.
    assert cast.offers.callers.index(cast.sibling.context_id) <= 2


def test_a_call_that_another_thread_is_about_to_queue_is_obeyed(cast, monkeypatch):
    """
    One thread takes two calls from the receiver. The thread that the second one woke comes before
    both are queued.
    """
    pool = cast.pool
    queue, add = pool._calls, type(pool._calls).add
    late = threading.Thread(target=lambda: pool._on_call(pool._receiver))

    def add_slowly(*args, **kwargs):
        if late.ident is None:
            late.start()
            late.join(0.5)
        add(queue, *args, **kwargs)

    cast.open()
    first, second = [mitogen.core.Message.pickled(
        (hostile_services.Offers.name(), u'note', Kwargs({})), handle=CALL_SERVICE, src_id=0, auth_id=0) for _ in range(2)]
    monkeypatch.setattr(queue, 'add', add_slowly)
    taken = [second, first]
    monkeypatch.setattr(pool, '_next_of', lambda receiver: pool._usable(taken.pop()) if taken else None)
    pool._on_call(pool._receiver)
    late.join()
    assert len(cast.offers.callers) == 2
    assert not queue._calls


def test_a_call_that_nobody_may_make_does_not_wait(cast):
    cast.liar.send(frames=[call('order')] * 200)
    answers = cast.answers(200 - 32)
    assert all('may not use' in answer for answer in answers)
    # The thread of the pool has not seen them.
    assert not cast.offers.gate.is_set()


def test_a_service_that_is_not_there_is_not_waited_for(cast):
    cast.liar.send(frames=[call('order', service=u'os.path')] * 200)
    answers = cast.answers(200 - 32)
    assert all('not active' in answer for answer in answers)


def test_dead_messages_do_not_wait(cast):
    cast.liar.flood(frame=dict(dst=0, handle=CALL_SERVICE, reply_to=IS_DEAD), count=1000)
    assert cast.liar.sync()['alive']
    assert cast.pool._receiver.size() <= 32


def test_what_a_service_computes_is_not_computed_for_a_stranger(cast):
    hostile_services.Offers.evaluated = 0
    cast.open()
    for method in 'secret', 'no_such_thing', '__class__', 'router':
        with pytest.raises(CallError):
            cast.sibling.call(service_targets.call_service, cast.router.myself(), OFFERS, u'' + method)
    assert hostile_services.Offers.evaluated == 0


@pytest.mark.parametrize('kind', ['InTurn', 'Once'])
def test_calls_that_wait_in_a_service_are_counted(router, tmp_path, kind):
    service = getattr(hostile_services, kind)(router)
    pool = mitogen.service.Pool(router, services=[service], size=2)
    router.limits.service_calls = 50
    liar = Liar(router, tmp_path)
    method = 'wait' if kind == 'InTurn' else 'wait_for_gate'
    liar.send(frames=[call(method, service=service.name())] * 500)
    frames = []
    testlib.wait_for(lambda: frames.extend(
        frame for frame in liar.sync()['frames'] if frame[4] == 5) or len(frames) >= 300)
    assert all(mitogen.service._Tally.full_msg in frame[7] for frame in frames)
    service.gate.set()
    testlib.wait_for(lambda: frames.extend(
        frame for frame in liar.sync()['frames'] if frame[4] == 5) or len(frames) == 500)
    liar.close()
    pool.stop()


def test_failed_calls_are_logged_at_a_bounded_rate(cast):
    with testlib.LogCapture('mitogen.service', logging.WARNING) as logs:
        cast.open()
        cast.liar.flood(frame=call('no_such_method', padding=u'x' * 5000), count=1000)
        assert cast.liar.sync()['alive']
        assert cast.sibling_calls().get(timeout=testlib.patience()).unpickle() == 'small'
        testlib.wait_for(lambda: logs.find('no_such_method'))
        assert len(logs.find('no_such_method')) < 500


# ---- what nobody receives, and modules

@pytest.mark.parametrize('reading', [True, False])
def test_a_flood_of_refused_frames_keeps_nobody_waiting(cast, reading):
    """
    The sibling's calls go on meanwhile. That took a minute each when what waits for a peer was
    counted anew for each frame.
    """
    calls = []

    def keep_calling():
        while not cast.offers.gate.is_set():
            calls.append(cast.sibling.call_async(targets.identity, 1).get(timeout=testlib.patience()).unpickle())

    thread = threading.Thread(target=keep_calling)
    thread.start()
    for count in [50000] + [10000] * 20:
        cast.liar.flood(frame=dict(dst=0, handle=NOBODY, reply_to=6), count=count, reading=reading, seconds=2)
        # A busy machine may have been done with so much before the sibling had its turn as often.
        if len(calls) > 5:
            break
    cast.open()
    thread.join(testlib.patience())
    assert not thread.is_alive()
    assert len(calls) > 5


def test_requests_for_modules_beyond_the_limit_are_refused(cast, monkeypatch):
    cast.router.limits.requests = 10
    # Else a slow machine is slower than the liar may be.
    monkeypatch.setattr(mitogen.parent.Throttle, 'burst', 1)
    cast.liar.flood(frame=dict(dst=0, handle=GET_MODULE, data='no_such_module_%d'), count=1000)
    testlib.wait_for(lambda: cast.router.stats()['refusals'].get('requests'))
    cast.liar.send(frames=[dict(dst=0, handle=GET_MODULE, data='x' * 20000)])
    testlib.wait_for(lambda: cast.router.stats()['refusals'].get('request_bytes'))
    assert cast.sibling.call(targets.identity, 1) == 1


def announcement(names):
    return dict(dst=0, handle=HAVE_MODULES, data=repr([sys.version] + names))


def test_requests_that_wait_for_their_turn_to_be_answered_are_limited(cast, monkeypatch):
    cast.sibling.call(targets.identity, 1)
    cast.router.limits.requests = 10
    # They come faster than answers are made. Those to the sibling may still be on their way.
    go_on = mitogen.master._Push._go_on
    monkeypatch.setattr(mitogen.master._Push, '_go_on',
                        lambda push: None if push._stream is cast.stream else go_on(push))
    monkeypatch.setattr(mitogen.parent.Throttle, 'burst', 1000)
    cast.liar.send(frames=[announcement([])])
    cast.liar.flood(frame=dict(dst=0, handle=GET_MODULE, data='no_such_module_%d'), count=100)
    assert cast.liar.sync()['alive']
    push = cast.router.stream_by_id(cast.liar.id).protocol._push
    assert len(push._roots) == 10
    assert cast.router.stats()['refusals'] == {'requests': 90}
    assert cast.sibling.call(targets.identity, 1) == 1


def test_names_that_a_child_says_it_has_are_not_kept_without_end(cast):
    names = ['%x' % i for i in range(30000)]
    shipments = cast.router.responder._shipments
    cast.liar.send(frames=[announcement(names)])
    cast.liar.flood(frame=dict(dst=0, handle=GET_MODULE, data='no_such_module_%d'), count=30)
    testlib.wait_for(lambda: cast.router.responder.get_module_count >= 30 and
                     not cast.router.stream_by_id(cast.liar.id).protocol._push._roots)
    kept = list(shipments._kept)
    assert kept
    # Each name is an object of its own, and has a place in a set.
    assert 100 * sum(len(key[2]) + len(key[3]) for key in kept) < shipments.most_bytes
