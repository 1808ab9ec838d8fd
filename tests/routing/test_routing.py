"""
Routing and trust between contexts: which messages a context may send, and which contexts learn of a
loss.
"""

import logging
import os

import pytest

import mitogen.core
from mitogen.core import CallError, ChannelError, Latch, Message, Receiver

import targets
import testlib


@pytest.fixture
def peers(router):
    """
    Two scripted neighbours, contexts 101 and 102.
    """
    first, second = testlib.Peer(router, 101, child=True), testlib.Peer(router, 102, child=True)
    first.grant(500, 600)
    yield first, second
    first.close()
    second.close()


# ---- trust

def test_a_message_with_an_authority_of_elsewhere_is_dropped(router, peers):
    first, second = peers
    seen = []
    handle = router.add_handler(seen.append)
    with testlib.LogCapture('mitogen') as logs:
        first.send(dst=0, src=102, auth=102, handle=handle, data=b'lie')
        records = logs.wait('bad auth_id: got 102 via')
    assert records[0].levelname == 'ERROR'
    assert first.stream.name in records[0].getMessage() or repr(first.stream) in records[0].getMessage()
    first.send(dst=0, handle=handle, data=b'truth')
    testlib.wait_for(lambda: [m.data for m in seen] == [b'truth'])


def test_a_message_with_a_source_of_elsewhere_is_dropped(router, peers):
    first, second = peers
    seen = []
    handle = router.add_handler(seen.append)
    with testlib.LogCapture('mitogen') as logs:
        second.send(dst=0, src=101, auth=102, handle=handle, data=b'lie')
        records = logs.wait('bad src_id: got 101 via')
    assert records[0].levelname == 'ERROR'
    second.send(dst=0, handle=handle, data=b'truth')
    testlib.wait_for(lambda: [m.data for m in seen] == [b'truth'])


def test_a_child_may_not_speak_with_the_masters_authority(router, peers):
    first, _ = peers
    seen = []
    handle = router.add_handler(seen.append)
    with testlib.LogCapture('mitogen') as logs:
        first.send(dst=0, src=101, auth=0, handle=handle)
        logs.wait('bad auth_id: got 0 via')
    testlib.sync(router.broker)
    assert seen == []


def test_a_lie_is_not_answered_and_not_forwarded(router, peers):
    first, second = peers
    with testlib.LogCapture('mitogen') as logs:
        first.send(dst=102, src=102, auth=102, handle=5, reply_to=6)
        logs.wait('bad auth_id')
    first.send(dst=102, handle=7, data=b'next')
    assert second.receive()[4:] == (7, 0, b'next')
    first.send(dst=0, handle=31337, reply_to=9)
    assert first.receive()[4] == 9


def test_a_lying_child_is_refused_and_its_stream_lives_on(router):
    liar, victim = router.local(), router.local()
    with testlib.LogCapture('mitogen') as logs:
        liar.call(targets.send_raw, victim.context_id, 31337, b'x', src_id=victim.context_id,
                  auth_id=victim.context_id)
        logs.wait('bad auth_id: got %d via' % victim.context_id)
        liar.call(targets.send_raw, 0, 31337, b'x', src_id=victim.context_id)
        logs.wait('bad src_id: got %d via' % victim.context_id)
    assert liar.call(targets.identity, 1) == 1
    assert victim.call(targets.identity, 2) == 2


def test_a_stamp_overwrites_the_authority(router, peers):
    first, second = peers
    router.broker.defer_sync(lambda: setattr(first.stream.protocol, 'auth_id', 77))
    latch = Latch()
    handle = router.add_handler(latch.put)
    first.send(dst=0, handle=handle)
    msg = latch.get(timeout=60)
    assert (msg.src_id, msg.auth_id) == (101, 77)
    first.send(dst=102, handle=5, data=b'x')
    _, dst, src, auth, handle, _, data = second.receive()
    assert (dst, src, auth, handle, data) == (102, 101, 77, 5, b'x')


def test_an_on_message_hook_sees_what_arrives(router, peers):
    first, _ = peers
    seen = []
    router.broker.defer_sync(
        lambda: setattr(first.stream.protocol, 'on_message', lambda stream, msg: seen.append((stream, msg.data))))
    latch = Latch()
    handle = router.add_handler(latch.put)
    first.send(dst=0, handle=handle, data=b'x')
    latch.get(timeout=60)
    assert seen == [(first.stream, b'x')]


# ---- forwarding

def test_a_frame_is_forwarded_unchanged(router, peers):
    first, second = peers
    for magic in (0x4d49, 0x4d4a, 0x4d4b):
        first.send(dst=102, handle=2 ** 32 - 1, reply_to=2 ** 31, data=b'\0\xffpayload', magic=magic)
        assert second.receive() == (magic, 102, 101, 101, 2 ** 32 - 1, 2 ** 31, b'\0\xffpayload')


def test_frames_are_forwarded_in_order(router, peers):
    first, second = peers
    first.write(b''.join(testlib.frame(102, 101, handle=i, data=b'y' * (i % 50)) for i in range(1, 2001)))
    assert [second.receive()[4] for _ in range(2000)] == list(range(1, 2001))


def test_large_frames_are_forwarded_whole(router, peers):
    first, second = peers
    data = os.urandom(3000000)

    def give():
        first.send(dst=102, handle=5, data=data)

    def take():
        return second.receive()

    assert testlib.in_threads([give, take])[1][6] == data


def test_an_unknown_destination_is_answered_dead(router, peers):
    first, _ = peers
    first.send(dst=4321, handle=5, reply_to=6)
    _, dst, src, _, handle, reply_to, data = first.receive()
    assert (dst, src, handle, reply_to) == (101, 0, 6, mitogen.core.IS_DEAD)
    assert data.decode() == router.no_route_msg % (4321, 0)


def test_an_unknown_destination_behind_a_child_is_answered_by_that_child(router):
    child = router.local()
    stream = router.stream_by_id(child.context_id)
    router.add_route(1234, stream)
    with Receiver(router) as answer:
        router.route(Message(dst_id=1234, handle=1234, reply_to=answer.handle))
        with pytest.raises(ChannelError) as caught:
            answer.get(timeout=60)
    assert caught.value.args[0] == router.no_route_msg % (1234, child.context_id)


def test_egress_ids_are_the_destinations_that_were_seen(router):
    first, second = router.local(), router.local()
    grant_authority(router, first)
    assert tuple(first.call(targets.call_context, second.context_id, 'identity', 5)) == ('ok', 5)
    protocol = router.stream_by_id(first.context_id).protocol
    assert set(protocol.egress_ids) == set([mitogen.context_id, second.context_id])
    assert second.context_id in protocol.egress_ids
    assert 4321 not in protocol.egress_ids


def test_frames_wait_in_order_for_a_slow_reader(router, peers):
    first, second = peers
    sizes = [i * 997 % 50000 for i in range(200)]
    for i, size in enumerate(sizes):
        first.send(dst=102, handle=i + 1, data=b'%d' % (i % 10) * size)
        if i % 20 == 0:
            # A message of another sender, in between.
            router.route(Message(dst_id=102, handle=1000 + i, data=b'z' * 70000))
            testlib.sync(router.broker)
    got = [second.receive() for _ in range(210)]
    assert [f[4] for f in got if f[4] < 1000] == list(range(1, 201))
    assert sorted(f[4] for f in got if f[4] >= 1000) == list(range(1000, 1200, 20))
    assert all(f[6] == (b'z' * 70000 if f[4] >= 1000 else b'%d' % ((f[4] - 1) % 10) * sizes[f[4] - 1]) for f in got)


def test_a_payload_that_looks_like_a_frame_is_none(router, peers):
    first, second = peers
    inner = testlib.frame(102, 101, handle=6, data=b'inner')
    outer = testlib.frame(102, 101, handle=5, data=inner)
    cut = len(outer) - len(inner)
    for at in (cut, cut - 1, cut + 1, len(outer)):
        first.write(outer[:at])
        testlib.sync(router.broker)
        first.write(outer[at:])
        frame = second.receive()
        assert (frame[4], frame[6]) == (5, inner)


def test_a_frame_that_is_forwarded_is_counted(router, peers):
    first, second = peers
    before = router.stats()
    first.send(dst=102, handle=5, data=b'x')
    second.receive()
    testlib.sync(router.broker)
    after = router.stats()
    changed = dict((key, after[key] - before[key]) for key in after
                   if key.startswith(('messages', 'bytes', 'forwarded')) and after[key] != before[key])
    size = len(testlib.frame(102, 101, handle=5, data=b'x'))
    assert changed == dict(messages_in=1, messages_out=1, forwarded=1, bytes_in=size, bytes_out=size)


def test_pending_bytes_is_zero_when_all_is_written(router):
    child = router.local()
    child.call(targets.identity, b'x' * 1000000)
    protocol = router.stream_by_id(child.context_id).protocol
    assert router.broker.defer_sync(protocol.pending_bytes) == 0


def test_pending_bytes_counts_what_a_slow_reader_left(router, peers):
    first, _ = peers
    protocol = first.stream.protocol
    for _ in range(8):
        router.route(Message(dst_id=101, handle=5, data=b'z' * 1000000))
    pending = router.broker.defer_sync(protocol.pending_bytes)
    assert pending > 1000000
    frames = [first.receive() for _ in range(8)]
    assert all(f[6] == b'z' * 1000000 for f in frames)
    testlib.wait_for(lambda: router.broker.defer_sync(protocol.pending_bytes) == 0)


# ---- siblings

def grant_authority(router, context):
    """
    Let a child act with the authority of this process.
    """
    protocol = router.stream_by_id(context.context_id).protocol

    def stamp():
        protocol.auth_id = mitogen.context_id
        protocol.is_privileged = True

    router.broker.defer_sync(stamp)


def test_a_sibling_has_no_authority(router):
    first, second = router.local(), router.local()
    kind, text = first.call(targets.call_context, second.context_id, 'identity', 5)
    assert kind == 'ChannelError'
    assert text == router.refused_msg


def test_a_sibling_with_authority_may_call(router):
    first, second = router.local(), router.local()
    grant_authority(router, first)
    assert tuple(first.call(targets.call_context, second.context_id, 'identity', 5)) == ('ok', 5)


def test_a_shutdown_message_of_a_sibling_is_refused(router):
    first, second = router.local(), router.local()
    first.call(targets.try_to_shut_down, second.context_id)
    for i in range(5):
        assert second.call(targets.identity, i) == i


def test_unidirectional_routing_keeps_siblings_apart(router):
    first, second = router.local(), router.local()
    router.unidirectional = True
    kind, text = first.call(targets.call_context, second.context_id, 'identity', 5)
    assert kind == 'ChannelError'
    assert text == router.unidirectional_msg % (first.context_id, second.context_id, mitogen.context_id)


def test_unidirectional_routing_lets_through_to_a_privileged_stream(router):
    first, second = router.local(), router.local()
    router.unidirectional = True
    protocol = router.stream_by_id(second.context_id).protocol

    def stamp():
        protocol.auth_id = mitogen.context_id
        protocol.is_privileged = True

    router.broker.defer_sync(stamp)
    kind, text = first.call(targets.call_context, second.context_id, 'identity', 5)
    assert (kind, text) == ('ChannelError', router.refused_msg)


def test_unidirectional_routing_still_lets_the_parent_call(router):
    router.unidirectional = True
    child = router.local()
    grandchild = router.local(via=child)
    assert child.call(targets.identity, 1) == 1
    assert grandchild.call(targets.identity, 2) == 2


def test_unidirectional_routing_is_handed_down(router):
    router.unidirectional = True
    child = router.local()
    first, second = router.local(via=child), router.local(via=child)
    kind, text = first.call(targets.call_context, second.context_id, 'identity', 5)
    assert kind == 'ChannelError'
    assert text == router.unidirectional_msg % (first.context_id, second.context_id, child.context_id)


# ---- losses

@pytest.mark.parametrize('victim', ['grandchild', 'intermediary'])
def test_a_call_into_a_lost_grandchild_ends(router, victim):
    child = router.local()
    grandchild = router.local(via=child)
    receiver = grandchild.call_async(targets.sleep, 60)
    (grandchild if victim == 'grandchild' else child).shutdown()
    with pytest.raises(ChannelError) as caught:
        receiver.get(timeout=60)
    assert caught.value.args[0] == router.respondent_disconnect_msg


def test_a_later_call_into_a_lost_context_finds_no_route(router):
    child = router.local()
    latch = Latch()
    mitogen.core.listen(router.stream_by_id(child.context_id).conn.proc, 'exit', latch.put)
    child.shutdown(wait=True)
    latch.get(timeout=60)
    with pytest.raises(ChannelError) as caught:
        child.call(targets.identity, 1)
    assert caught.value.args[0] == router.no_route_msg % (child.context_id, mitogen.context_id)


def test_losing_an_intermediary_deletes_every_route_through_it(router):
    first = router.local()
    second = router.local(via=first)
    third = router.local(via=second)
    fired = Latch()
    for context in (second, third):
        mitogen.core.listen(context, 'disconnect', lambda context=context: fired.put(context.context_id))
    second.shutdown()
    lost = set()
    while lost != set([second.context_id, third.context_id]):
        lost.add(fired.get(timeout=60))
    testlib.wait_for(lambda: router.stream_by_id(second.context_id) is None)
    testlib.wait_for(lambda: router.stream_by_id(third.context_id) is None)
    assert router.stream_by_id(first.context_id) is not None
    assert first.call(targets.identity, 1) == 1


@pytest.mark.parametrize('depth', [1, 2])
def test_a_context_that_waits_on_a_lost_sibling_learns_it(router, depth):
    if depth == 1:
        waiter, victim = router.local(), router.local()
        grant_authority(router, waiter)
    else:
        left, right = router.local(), router.local()
        waiter, victim = router.local(via=left), router.local(via=right)
        grant_authority(router, left)
    with Receiver(router) as started:
        receiver = waiter.call_async(targets.wait_on_context, victim.context_id, started.to_sender())
        started.get(timeout=60)
        # Ordered behind the call on its way down, so the victim is at work.
        victim.shutdown()
        assert receiver.get(timeout=60).unpickle().startswith(router.respondent_disconnect_msg)


def test_a_corrupt_child_costs_only_its_own_calls(router, peers):
    first, _ = peers
    child = router.local()
    receiver = first.context.call_async(targets.identity, 1)
    first.receive()
    first.write(b'x' * 26)
    with pytest.raises(ChannelError) as caught:
        receiver.get(timeout=60)
    assert caught.value.args[0] == router.respondent_disconnect_msg
    assert child.call(targets.identity, 2) == 2


# ---- routes by message

def test_a_child_announces_a_route_and_takes_it_back(router, peers):
    first, _ = peers
    first.send(dst=0, handle=mitogen.core.ADD_ROUTE, data=b'555:below')
    testlib.wait_for(lambda: router.stream_by_id(555) is first.stream)
    assert router.context_by_id(555).name == u'below'
    lost = Latch()
    mitogen.core.listen(router.context_by_id(555), 'disconnect', lost.put)
    first.send(dst=0, handle=mitogen.core.DEL_ROUTE, data=b'555')
    lost.get(timeout=60)
    testlib.wait_for(lambda: router.stream_by_id(555) is None)


def test_a_route_may_be_announced_without_a_name(router, peers):
    first, _ = peers
    first.send(dst=0, handle=mitogen.core.ADD_ROUTE, data=b'555')
    testlib.wait_for(lambda: router.stream_by_id(555) is first.stream)


def test_a_route_announced_comes_before_the_frame_that_follows_it(router, peers):
    first, second = peers
    first.write(testlib.frame(0, 101, handle=mitogen.core.ADD_ROUTE, data=b'555:below')
                + testlib.frame(102, 555, handle=5, data=b'from below'))
    assert second.receive()[2] == 555


def test_a_second_route_to_the_same_context_is_refused(router, peers):
    first, second = peers
    first.send(dst=0, handle=mitogen.core.ADD_ROUTE, data=b'555:below')
    testlib.wait_for(lambda: router.stream_by_id(555) is first.stream)
    with testlib.LogCapture('mitogen.route_monitor') as logs:
        second.send(dst=0, handle=mitogen.core.ADD_ROUTE, data=b'555:below')
        testlib.wait_for(lambda: [r for r in logs.records if r.levelname == 'ERROR'])
    assert router.stream_by_id(555) is first.stream


def test_a_route_can_only_be_taken_back_by_the_one_it_leads_through(router, peers):
    first, second = peers
    first.send(dst=0, handle=mitogen.core.ADD_ROUTE, data=b'555:below')
    testlib.wait_for(lambda: router.stream_by_id(555) is first.stream)
    with testlib.LogCapture('mitogen.route_monitor') as logs:
        second.send(dst=0, handle=mitogen.core.DEL_ROUTE, data=b'555')
        testlib.wait_for(lambda: [r for r in logs.records if r.levelname == 'ERROR'])
    assert router.stream_by_id(555) is first.stream


def test_deleting_an_unknown_route_is_ignored(router, peers):
    first, _ = peers
    first.send(dst=0, handle=mitogen.core.DEL_ROUTE, data=b'777')
    first.send(dst=0, handle=31337, reply_to=9)
    assert first.receive()[4] == 9


@pytest.mark.parametrize('handle', [mitogen.core.ADD_ROUTE, mitogen.core.DEL_ROUTE])
@pytest.mark.parametrize('data', [b'', b'x', b'\xff', b'1' * 50, b'-5', b':', b'999999999999:x'])
def test_a_nonsense_route_costs_nobody_else(router, peers, handle, data):
    first, second = peers
    first.send(dst=0, handle=handle, data=data)
    second.send(dst=0, handle=31337, reply_to=9)
    assert second.receive()[4] == 9


def test_losing_a_stream_tells_those_who_wrote_to_contexts_behind_it(router, peers):
    first, second = peers
    first.send(dst=102, handle=5, data=b'hello')
    assert second.receive()[6] == b'hello'
    second.close()
    _, dst, src, _, handle, _, data = first.receive()
    assert (dst, src, handle, data) == (101, 0, mitogen.core.DEL_ROUTE, b'102')


# ---- a detaching neighbour

def test_detaching_is_answered_once(router):
    child = router.local()
    stream = router.stream_by_id(child.context_id)
    assert stream.conn.detached is False
    with Receiver(router) as receiver:
        child.call(targets.ask_to_detach, receiver.to_sender())
        testlib.wait_for(lambda: stream.conn.detached)
        assert receiver.get(timeout=60).unpickle() is None
        with testlib.LogCapture('mitogen') as logs:
            child.call(targets.ask_to_detach, receiver.to_sender())
            assert [r for r in logs.wait('DETACHING') if r.levelname == 'WARNING']
        with pytest.raises(mitogen.core.TimeoutError):
            receiver.get(block=False)
    # It is the parent's own again, so that the end of this test is an orderly one.
    stream.conn.detached = False


def test_the_error_of_a_sibling_call_names_the_refusal_as_a_call_error(router):
    first, second = router.local(), router.local()
    with pytest.raises(CallError) as caught:
        first.call(targets.call_context_and_raise, second.context_id, 'identity', 5)
    assert router.refused_msg in str(caught.value)


# ---- a child that cannot have children

def test_the_loss_of_another_context_is_an_error_to_who_waits_for_it_unless_all_ends():
    broker = mitogen.core.Broker()
    router = mitogen.core.Router(broker)
    context = router.context_by_id(5, name='other')
    lost = []
    mitogen.core.listen(context, 'disconnect', lambda: lost.append(5))
    try:
        with testlib.LogCapture('mitogen') as logs:
            router._on_del_route(Message(data=b'5'))
            # The broker's thread tells a waiter of one that is lost already, perhaps before the
            # next line runs.
            waited_for, another = router.context_by_id(7, name='other'), router.context_by_id(8, name='other')
            receiver = Receiver(router, respondent=waited_for)
            router._on_del_route(Message(data=b'7'))
            with pytest.raises(ChannelError) as caught:
                receiver.get(timeout=60)
            assert caught.value.args[0] == router.respondent_disconnect_msg
            receiver = Receiver(router, respondent=another)
            broker.shutdown()
            broker.join()
            router._on_del_route(Message(data=b'8'))
            # A context that was never heard of.
            router._on_del_route(Message(data=b'6'))
    finally:
        broker.shutdown()
    records = logs.find('deleting route to')
    assert [record.levelname for record in records] == ['DEBUG', 'ERROR', 'DEBUG', 'DEBUG']
    for known, record in zip((context, waited_for, another), records):
        assert repr(known) in record.getMessage()
    assert lost == [5]


def test_a_child_that_wrote_to_another_says_nothing_of_its_end(router):
    first, second = router.local(), router.local()
    with testlib.LogCapture('mitogen') as logs:
        first.call(targets.send_raw, second.context_id, 31337, b'x')
        assert second.context_id in router.stream_by_id(first.context_id).protocol.egress_ids
        second.shutdown(wait=True)
        testlib.sync(router.broker)
        # Behind the word of it, on the same stream.
        assert first.call(targets.identity, 5) == 5
        first.shutdown(wait=True)
        assert logs.find('deleting route to', level=logging.ERROR) == []
