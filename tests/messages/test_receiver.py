"""
Receiver and Sender.
"""

import gc
import sys
import threading
import time
from unittest import mock

import pytest

import mitogen
import mitogen.core
from mitogen.core import CallError, ChannelError, Context, LatchError, Message, Receiver, Sender, TimeoutError

import targets
import testlib
import tree_targets


def test_a_receiver_gets_a_handle_of_its_own(router):
    first, second = Receiver(router), Receiver(router)
    assert first.handle >= 1000
    assert second.handle > first.handle
    assert first.handle in router._handle_map
    first.close()
    second.close()


def test_a_receiver_may_have_a_fixed_handle(router):
    with Receiver(router, handle=1234) as receiver:
        assert receiver.handle == 1234
        with pytest.raises(mitogen.core.Error) as caught:
            Receiver(router, handle=1234)
        assert caught.value.args[0] == router.duplicate_handle_msg


def test_a_receiver_may_take_a_handle_over(router):
    first = Receiver(router, handle=1234)
    second = Receiver(router, handle=1234, overwrite=True)
    router.myself().send(Message(handle=1234, data=b'x'))
    assert second.get(timeout=60).data == b'x'
    assert first.empty()
    second.close()


def test_what_is_sent_comes_out_in_order(router):
    with Receiver(router) as receiver:
        sender = receiver.to_sender()
        for i in range(100):
            sender.send(i)
        assert [receiver.get(timeout=60).unpickle() for _ in range(100)] == list(range(100))


def test_a_message_from_here_is_the_same_object(router):
    with Receiver(router) as receiver:
        msg = Message(dst_id=mitogen.context_id, handle=receiver.handle, data=b'x')
        router.route(msg)
        assert receiver.get(timeout=60) is msg


def test_get_times_out(router):
    with Receiver(router) as receiver:
        with pytest.raises(TimeoutError):
            receiver.get(timeout=0.01)
        with pytest.raises(TimeoutError):
            receiver.get(block=False)


def test_size_and_empty(router):
    with Receiver(router) as receiver:
        assert receiver.empty()
        receiver._on_receive(Message.pickled(1))
        assert receiver.size() == 1
        assert not receiver.empty()


def test_on_receive_queues_and_then_notifies(router):
    receiver = Receiver(router)
    seen = []
    receiver.notify = lambda source: seen.append((source, source.size()))
    receiver._on_receive(Message.pickled(1))
    assert seen == [(receiver, 1)]
    receiver.close()


def test_notify_is_called_whether_or_not_somebody_sleeps(router):
    receiver = Receiver(router)
    calls = []
    receiver.notify = calls.append
    thread = threading.Thread(target=receiver.get, kwargs={'timeout': 10})
    thread.start()
    receiver.to_sender().send(1)
    thread.join(60)
    testlib.wait_for(lambda: calls == [receiver])
    receiver.close()


def test_notify_may_be_the_put_of_a_latch(router):
    latch = mitogen.core.Latch()
    receiver = Receiver(router)
    receiver.notify = latch.put
    receiver.to_sender().send(u'x')
    assert latch.get(timeout=60) is receiver
    assert receiver.get(block=False).unpickle() == u'x'
    receiver.close()


def test_a_message_that_comes_just_when_the_receiver_is_closed_is_answered(router):
    with testlib.LogCapture() as logs:
        # The policy is asked when the message is as good as there.
        receiver = Receiver(router, policy=lambda msg, stream: receiver.close() or True)
        with pytest.raises(ChannelError, match='handle'):
            router.myself().send_await(Message.pickled(1, handle=receiver.handle))
        # A receiver that is told of a loss, and was closed by one that was told before.
        lost, told = router.local(), []
        router.add_handler(lambda msg: told.append(receiver.close()), respondent=lost)
        receiver = Receiver(router, respondent=lost)
        router.add_handler(lambda msg: told.append(receiver.close()), respondent=lost)
        lost.shutdown(wait=True)
        testlib.wait_for(lambda: len(told) == 2)
        assert receiver.handle is None
    assert not logs.find('crashed')


# ---- dead messages

def test_a_dead_message_raises_and_the_receiver_stays_open(router):
    with Receiver(router) as receiver:
        receiver._on_receive(Message.dead('over'))
        with pytest.raises(ChannelError) as caught:
            receiver.get(timeout=60)
        assert caught.value.args[0] == 'over'
        receiver._on_receive(Message.pickled(1))
        assert receiver.get(timeout=60).unpickle() == 1


def test_a_dead_message_is_handed_out_when_asked_for(router):
    with Receiver(router) as receiver:
        receiver._on_receive(Message.dead('over'))
        assert receiver.get(timeout=60, throw_dead=False).is_dead


@pytest.mark.parametrize('src_id,text', [(0, ChannelError.local_msg), (1234, ChannelError.remote_msg)])
def test_a_dead_message_without_reason_raises_the_text_of_its_origin(router, src_id, text):
    with Receiver(router) as receiver:
        receiver._on_receive(Message.dead(src_id=src_id))
        with pytest.raises(ChannelError) as caught:
            receiver.get(timeout=60)
        assert caught.value.args[0] == text


# ---- iteration

def test_iteration_ends_with_a_dead_message(router):
    with Receiver(router) as receiver:
        sender = receiver.to_sender()
        for i in range(3):
            sender.send(i)
        sender.close()
        assert [msg.unpickle() for msg in receiver] == [0, 1, 2]


def test_iteration_ends_when_the_receiver_is_closed(router):
    receiver = Receiver(router)
    receiver.to_sender().send(1)
    seen = []
    first = threading.Event()

    def run():
        for msg in receiver:
            seen.append(msg.unpickle())
            first.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert first.wait(60)
    receiver.close()
    thread.join(60)
    assert not thread.is_alive()
    assert seen == [1]


# ---- close

def test_a_closed_receiver_refuses_everything(router):
    receiver = Receiver(router)
    receiver.close()
    assert receiver.handle is None
    with pytest.raises(ChannelError) as caught:
        receiver.get()
    assert caught.value.args[0] == receiver.closed_msg
    for call in (receiver.size, receiver.empty):
        with pytest.raises(LatchError):
            call()


def test_close_can_be_repeated(router):
    receiver = Receiver(router)
    receiver.close()
    receiver.close()


def test_close_gives_the_handle_back(router):
    receiver = Receiver(router)
    handle = receiver.handle
    receiver.close()
    assert handle not in router._handle_map


def test_leaving_a_with_block_closes(router):
    with Receiver(router) as receiver:
        pass
    assert receiver.handle is None


def test_close_wakes_every_waiting_thread_with_the_closed_text(router):
    receiver = Receiver(router)
    started = [threading.Event() for _ in range(4)]

    def wait(event):
        def run():
            event.set()
            return receiver.get(timeout=60)
        return run

    def close():
        for event in started:
            event.wait(60)
        receiver.close()

    errors = testlib.in_threads([wait(event) for event in started] + [close])[:4]
    assert [type(error) for error in errors] == [ChannelError] * 4
    assert set(error.args[0] for error in errors) == set([Receiver.closed_msg])


def test_a_senders_close_wakes_one_waiting_thread(router):
    receiver = Receiver(router)
    results = mitogen.core.Latch()

    def run():
        try:
            results.put(receiver.get(timeout=60))
        except ChannelError as error:
            results.put(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    receiver.to_sender().close()
    error = results.get(timeout=60)
    assert error.args[0] == Sender.explicit_close_msg
    with pytest.raises(TimeoutError):
        results.get(timeout=0.05)
    receiver.close()
    assert results.get(timeout=60).args[0] == receiver.closed_msg
    for thread in threads:
        thread.join(60)


def test_a_message_after_close_finds_no_handle(router):
    receiver = Receiver(router)
    sender = receiver.to_sender()
    receiver.close()
    with Receiver(router) as answer:
        sender.context.send(Message(handle=sender.dst_handle, reply_to=answer.handle))
        with pytest.raises(ChannelError) as caught:
            answer.get(timeout=60)
    assert caught.value.args[0] == router.invalid_handle_msg


def test_a_receiver_for_one_message_gives_its_handle_back_after_it(router):
    receiver = Receiver(router, persist=False)
    handle = receiver.handle
    sender = receiver.to_sender()
    sender.send(1)
    assert receiver.get(timeout=60).unpickle() == 1
    assert handle not in router._handle_map


def test_broker_exit_reaches_a_waiting_receiver(make_router):
    router = make_router()
    receiver = Receiver(router)
    started = threading.Event()

    def wait():
        started.set()
        return receiver.get(timeout=60)

    def shut_down():
        started.wait(60)
        router.broker.shutdown()

    error = testlib.in_threads([wait, shut_down])[0]
    assert type(error) is ChannelError
    assert error.args[0] == router.broker_exit_msg


# ---- policy and respondent

def test_a_policy_is_asked_with_the_message_and_no_stream_for_a_local_one(router):
    policy = mock.Mock(return_value=True)
    with Receiver(router, policy=policy) as receiver:
        receiver.to_sender().send(1)
        msg = receiver.get(timeout=60)
    policy.assert_called_once_with(msg, None)


def test_a_refused_message_is_not_queued_and_its_sender_learns_why(router):
    with testlib.LogCapture('mitogen') as logs:
        with Receiver(router, policy=lambda msg, stream: False) as receiver, Receiver(router) as answer:
            router.route(Message(dst_id=mitogen.context_id, handle=receiver.handle, reply_to=answer.handle))
            with pytest.raises(ChannelError) as caught:
                answer.get(timeout=60)
            assert caught.value.args[0] == router.refused_msg
            assert receiver.empty()
    assert logs.find(router.refused_msg)


def test_only_the_respondent_may_answer(router):
    first, second = router.local(), router.local()
    with testlib.LogCapture('mitogen') as logs:
        with Receiver(router, respondent=first) as receiver:
            second.call(targets.send_raw, 0, receiver.handle, b'wrong')
            logs.wait('unexpected')
            first.call(targets.send_raw, 0, receiver.handle, b'right')
            assert receiver.get(timeout=60).data == b'right'


# ---- senders

def test_to_sender_leads_here(router):
    with Receiver(router) as receiver:
        sender = receiver.to_sender()
    assert isinstance(sender, Sender)
    assert sender.context.context_id == mitogen.context_id


def test_a_sender_sends_pickles_by_default_and_raw_bytes_on_demand(router):
    with Receiver(router) as receiver:
        sender = receiver.to_sender()
        sender.send({u'a': 1})
        sender.send(b'\0\xff', enc=Message.ENC_BIN)
        first, second = receiver.get(timeout=60), receiver.get(timeout=60)
    assert (first.enc, first.unpickle()) == (Message.ENC_PKL, {u'a': 1})
    assert (second.enc, second.data) == (Message.ENC_BIN, b'\0\xff')
    assert second.decode() == b'\0\xff'


def test_a_sender_of_a_context_addresses_that_context():
    context = mock.Mock()
    Sender(context, 1234).send(u'x')
    (msg,), _ = context.send.call_args
    assert msg.handle == 1234
    assert msg.unpickle() == u'x'


def test_a_senders_close_is_a_dead_message():
    context = mock.Mock()
    Sender(context, 1234).close()
    (msg,), _ = context.send.call_args
    assert msg.is_dead
    assert msg.handle == 1234
    assert msg.data.decode() == Sender.explicit_close_msg


def test_a_child_sends_five_messages_closes_and_returns(router):
    child = router.local()
    with Receiver(router) as receiver:
        result = child.call_async(targets.send_numbers, receiver.to_sender(), 5, 10)
        assert [msg.unpickle() for msg in receiver] == [0, 1, 2, 3, 4]
        assert result.get(timeout=60).unpickle() == 10


def test_the_parent_sends_to_a_receiver_in_a_child(router):
    child = router.local()
    with Receiver(router) as ready:
        result = child.call_async(targets.receive_until_closed, ready.to_sender())
        sender = ready.get(timeout=60).unpickle()
        assert sender.context.context_id == child.context_id
        for i in range(100):
            sender.send(i)
        sender.close()
        assert result.get(timeout=60).unpickle() == list(range(100))


@pytest.mark.parametrize('size,count', [(64, 2000), (1 << 20, 20)])
def test_a_stream_of_binary_messages_arrives_whole(router, size, count):
    child = router.local()
    with Receiver(router) as receiver:
        result = child.call_async(targets.send_bytes, receiver.to_sender(), size, count)
        wanted = b'z' * size
        seen = 0
        for msg in receiver:
            assert msg.enc == Message.ENC_BIN
            assert msg.data == wanted
            seen += 1
        assert seen == count
        assert result.get(timeout=60).unpickle() is None


def test_a_receiver_can_be_subclassed(router):
    class Loud(Receiver):
        def _on_receive(self, msg):
            seen.append(msg.unpickle())
            super(Loud, self)._on_receive(msg)

    seen = []
    with Loud(router) as receiver:
        receiver.to_sender().send(u'x')
        assert receiver.get(timeout=60).unpickle() == u'x'
    assert seen == [u'x']


def test_unpickling_an_answer_raises_the_remote_error(router):
    receiver = router.local().call_async(targets.fail, u'far away')
    with pytest.raises(CallError) as caught:
        receiver.get(timeout=60).unpickle()
    assert 'far away' in str(caught.value)


def test_a_receiver_whose_respondent_is_lost_learns_it(router):
    child = router.local()
    receiver = Receiver(router, respondent=child)
    child.shutdown(wait=True)
    with pytest.raises(ChannelError) as caught:
        receiver.get(timeout=60)
    assert caught.value.args[0] == router.respondent_disconnect_msg


def lose(router, context):
    """
    Have a child end, and wait until the router knows that it is lost.
    """
    lost = mitogen.core.Latch()
    mitogen.core.listen(context, 'disconnect', lost.put)
    context.shutdown()
    lost.get(timeout=60)
    testlib.sync(router.broker)


def is_told(receiver, router):
    with pytest.raises(ChannelError) as caught:
        receiver.get(timeout=60)
    return caught.value.args[0] == router.respondent_disconnect_msg


def test_a_receiver_made_after_its_respondent_was_lost_learns_it(router):
    child = router.local()
    # One respondent that is waited for already, and another object of the same id.
    with Receiver(router, respondent=child), Receiver(router, respondent=Context(router, child.context_id)):
        lose(router, child)
    for respondent in child, Context(router, child.context_id), router.context_by_id(child.context_id):
        for _ in range(2):
            assert is_told(Receiver(router, respondent=respondent), router)
    assert [entry[3] for entry in router._handle_map.values() if entry[3] == child] == []


def test_a_receiver_made_in_a_child_after_its_respondent_was_lost_learns_it(router):
    one, other = router.local(), router.local()
    # A child is told only of contexts to which it has sent something.
    one.call(tree_targets.call_context, other.context_id, 'identity', 5)
    other.shutdown(wait=True)
    testlib.wait_for(lambda: one.call(tree_targets.is_lost, other.context_id))
    assert one.call(tree_targets.wait_for_loss, other.context_id) == router.respondent_disconnect_msg


def test_a_receiver_for_a_grandchild_that_was_lost_learns_it(router):
    middle = router.local()
    child = router.local(via=middle)
    lose(router, child)
    assert is_told(Receiver(router, respondent=child), router)


def test_a_receiver_for_a_context_that_has_another_way_by_now_waits(router):
    with testlib.Peer(router, 501, child=True) as peer:
        Receiver(router, respondent=peer.context).close()
    testlib.wait_for(lambda: router.stream_by_id(501) is None)
    testlib.sync(router.broker)
    assert is_told(Receiver(router, respondent=router.context_by_id(501)), router)
    with testlib.Peer(router, 501, child=True) as peer:
        with Receiver(router, respondent=router.context_by_id(501)) as receiver:
            testlib.sync(router.broker)
            testlib.sync(router.broker)
            assert not receiver.size()
            peer.send(handle=receiver.handle, data=b'here')
            assert receiver.get(timeout=60).data == b'here'


def test_who_waits_for_a_context_as_it_is_lost_is_told(router):
    """
    Each receiver is made just before, or just after, the loss is told.
    """
    for _ in range(10):
        with testlib.Peer(router, 501, child=True) as peer:
            context = router.context_by_id(501)
            peer.close()
            receivers = []
            while router.stream_by_id(501):
                receivers.append(Receiver(router, respondent=context))
            receivers.append(Receiver(router, respondent=context))
        for receiver in receivers:
            assert is_told(receiver, router)


def test_very_many_lost_take_little_memory():
    lost = mitogen.core._LostIds()
    for context_id in range(0, 300000, 3):
        lost.add(context_id)
    lost.discard(3000)
    assert 2997 in lost and 2999 not in lost and 3000 not in lost and 2 ** 32 - 1 not in lost
    assert len(lost._pages) < 300 and sys.getsizeof(lost._pages[5]) < 300


def test_a_receiver_with_a_private_respondent_object_still_works(router):
    child = router.local()
    private = Context(router, child.context_id)
    with Receiver(router, respondent=private) as receiver:
        child.call(targets.send_raw, 0, receiver.handle, b'x')
        assert receiver.get(timeout=60).data == b'x'


# ---- receivers that nobody refers to

def test_notify_of_a_receiver_is_called_though_nobody_refers_to_the_receiver(router):
    told = mitogen.core.Latch()
    context = router.local()
    for i in range(5):
        context.call_async(time.sleep, 0.02).notify = lambda receiver, i=i: told.put((i, receiver.get(block=False).unpickle()))
    gc.collect()
    assert sorted(told.get(timeout=60) for _ in range(5)) == [(i, None) for i in range(5)]


def call_and_notify(router, context, latch):
    """
    Call a function, and return the receiver, which is put into the latch with the answer, however
    soon that comes.
    """
    receiver = Receiver(router, persist=False, respondent=context)
    receiver.notify = latch.put
    msg = context.default_call_chain.make_msg(time.sleep, 0)
    msg.reply_to = receiver.handle
    context.send(msg)
    return receiver


def test_a_receiver_comes_out_of_the_latch_it_was_put_in_though_its_notify_has_changed(router):
    latch = mitogen.core.Latch()
    context = router.local()
    for i in range(5):
        receiver = call_and_notify(router, context, latch)
        while receiver.size() == 0 or latch.size() == i:
            time.sleep(0.001)
        receiver.notify = None
        del receiver
    gc.collect()
    for _ in range(5):
        assert latch.get(timeout=60).get(block=False).unpickle() is None
    assert latch.empty()


def test_a_receiver_comes_out_of_the_latch_it_was_put_in_though_nobody_refers_to_it(router):
    latch = mitogen.core.Latch()
    context = router.local()
    for _ in range(5):
        call_and_notify(router, context, latch)
    for _ in range(5):
        receiver = latch.get(timeout=60)
        assert receiver.get(block=False).unpickle() is None
    assert latch.empty()
