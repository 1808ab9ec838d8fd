"""
Router: handles, local delivery, contexts, dead messages.
"""

import os
import threading
from unittest import mock

import pytest

import mitogen.core
import mitogen.master
import mitogen.parent
from mitogen.core import ChannelError, Context, Latch, Message, Receiver

import targets
import testlib


def local_message(handle, **kwargs):
    return Message(dst_id=mitogen.context_id, handle=handle, **kwargs)


class Table(dict):
    """
    A table of contexts that frees an object while it is changed, as a garbage collection may.
    """

    def setdefault(self, key, value):
        self.__dict__.clear()
        return dict.setdefault(self, key, value)


class Finalizer(object):
    """
    Calls a function when it is freed.
    """

    def __init__(self, func):
        self._func = func

    def __del__(self):
        self._func()


# ---- handles

def test_handles_count_up_from_1000(router):
    handles = [router.add_handler(lambda msg: None) for _ in range(3)]
    assert handles[0] >= 1000
    assert handles == list(range(handles[0], handles[0] + 3))


def test_a_handler_runs_on_the_brokers_thread_with_the_message(router):
    latch = Latch()
    handle = router.add_handler(lambda msg: latch.put((threading.current_thread(), msg)))
    sent = local_message(handle, data=b'x')
    router.route(sent)
    thread, msg = latch.get(timeout=60)
    assert thread is router.broker._thread
    assert msg is sent


def test_a_taken_handle_is_refused_until_given_back(router):
    assert router.add_handler(lambda msg: None, handle=1234) == 1234
    with pytest.raises(mitogen.core.Error) as caught:
        router.add_handler(lambda msg: None, handle=1234)
    assert caught.value.args[0] == router.duplicate_handle_msg
    router.del_handler(1234)
    assert router.add_handler(lambda msg: None, handle=1234) == 1234


def test_a_handler_may_be_overwritten_on_demand(router):
    latch = Latch()
    router.add_handler(lambda msg: latch.put('first'), handle=1234)
    router.add_handler(lambda msg: latch.put('second'), handle=1234, overwrite=True)
    router.route(local_message(1234))
    assert latch.get(timeout=60) == 'second'


def test_deleting_an_absent_handler_raises(router):
    with pytest.raises(KeyError):
        router.del_handler(4321)


def test_the_handle_table_can_be_looked_at(router):
    before = len(router._handle_map)
    handle = router.add_handler(lambda msg: None)
    assert handle in router._handle_map
    assert len(router._handle_map) == before + 1
    router.del_handler(handle)
    assert handle not in router._handle_map
    assert len(router._handle_map) == before


def test_a_master_has_these_handlers(router):
    for handle in (100, 102, 103, 104, 105, 109, 112):
        assert handle in router._handle_map


def test_a_handler_for_one_message_gets_one(router):
    latch = Latch()
    handle = router.add_handler(latch.put, persist=False)
    with Receiver(router) as answer:
        first = local_message(handle)
        router.route(first)
        assert latch.get(timeout=60) is first
        router.route(local_message(handle, reply_to=answer.handle))
        with pytest.raises(ChannelError) as caught:
            answer.get(timeout=60)
        assert caught.value.args[0] == router.invalid_handle_msg
    assert latch.empty()


def test_a_handler_for_one_message_is_gone_before_it_is_called(router):
    latch = Latch()
    handle = router.add_handler(lambda msg: latch.put(handle in router._handle_map), persist=False)
    router.route(local_message(handle))
    assert latch.get(timeout=60) is False


def test_an_exception_of_a_handler_is_logged_and_swallowed(router):
    def handler(msg):
        if not msg.is_dead:
            raise ValueError('deliberate')

    latch = Latch()
    handle = router.add_handler(handler)
    with testlib.LogCapture('mitogen') as logs:
        router.route(local_message(handle))
        router.route(local_message(router.add_handler(latch.put)))
        latch.get(timeout=60)
    errors = [r for r in logs.records if r.levelname == 'ERROR']
    assert errors
    assert [r for r in errors if r.exc_info or 'deliberate' in r.getMessage()]


def test_a_false_policy_refuses(router):
    called = []
    handle = router.add_handler(called.append, policy=lambda msg, stream: False)
    with testlib.LogCapture('mitogen') as logs, Receiver(router) as answer:
        router.route(local_message(handle, reply_to=answer.handle))
        with pytest.raises(ChannelError) as caught:
            answer.get(timeout=60)
    assert caught.value.args[0] == router.refused_msg
    assert called == []
    assert logs.find(router.refused_msg)


def test_a_policy_that_raises_refuses_and_the_broker_lives_on(router):
    def policy(msg, stream):
        raise AttributeError('no stream')

    called = []
    handle = router.add_handler(called.append, policy=policy)
    with Receiver(router) as answer:
        router.route(local_message(handle, reply_to=answer.handle))
        with pytest.raises(ChannelError) as caught:
            answer.get(timeout=60)
    assert caught.value.args[0] == router.refused_msg
    assert called == []
    testlib.sync(router.broker)


def test_the_immediate_child_policy_refuses_a_local_message(router):
    called = []
    handle = router.add_handler(called.append, policy=mitogen.parent.is_immediate_child)
    with Receiver(router) as answer:
        router.route(local_message(handle, reply_to=answer.handle))
        with pytest.raises(ChannelError):
            answer.get(timeout=60)
    testlib.sync(router.broker)
    assert called == []


def test_has_parent_authority_reads_the_globals_when_called(monkeypatch):
    msg = Message(auth_id=77)
    assert not mitogen.core.has_parent_authority(msg)
    monkeypatch.setattr(mitogen, 'parent_ids', [5, 77])
    assert mitogen.core.has_parent_authority(msg, None)
    assert mitogen.core._has_parent_authority(5)
    assert not mitogen.core._has_parent_authority(6)
    monkeypatch.setattr(mitogen, 'context_id', 6)
    assert mitogen.core._has_parent_authority(6)


def test_handlers_are_called_with_a_dead_message_when_the_broker_ends(make_router):
    router = make_router()
    latch = Latch()
    router.add_handler(latch.put)
    router.broker.shutdown()
    msg = latch.get(timeout=60)
    assert msg.is_dead
    assert msg.data.decode() == router.broker_exit_msg
    router.broker.join()
    assert len(router._handle_map) == 0


def test_handlers_are_called_with_a_dead_message_when_the_broker_crashes(make_router):
    router = make_router()
    latch = Latch()
    router.add_handler(latch.put)

    def crash(*args, **kwargs):
        raise ValueError('deliberate')

    with testlib.LogCapture('mitogen') as logs:
        router.broker._loop_once = crash
        router.broker.defer(lambda: None)
        msg = latch.get(timeout=60)
        router.broker.join()
    assert msg.is_dead
    assert msg.data.decode() == router.broker_exit_msg
    assert logs.find('broker crashed')


def test_routing_after_the_brokers_exit_raises_in_the_caller(make_router):
    router = make_router()
    router.broker.shutdown()
    router.broker.join()
    with pytest.raises(mitogen.core.Error) as caught:
        router.route(local_message(1000))
    assert caught.value.args[0] == mitogen.core.Waker.broker_shutdown_msg


# ---- dead letters

def test_an_unknown_handle_gives_a_dead_answer(router):
    with Receiver(router) as answer:
        router.route(local_message(31337, reply_to=answer.handle))
        msg = answer.get(timeout=60, throw_dead=False)
    assert msg.is_dead
    assert msg.data.decode() == router.invalid_handle_msg


def test_handle_999_of_a_child_gives_a_dead_answer_from_that_child(router):
    child = router.local()
    with Receiver(router) as answer:
        router.route(Message(dst_id=child.context_id, handle=999, reply_to=answer.handle))
        msg = answer.get(timeout=60, throw_dead=False)
    assert msg.is_dead
    assert msg.src_id == child.context_id
    assert msg.data == router.invalid_handle_msg.encode()


def test_an_unknown_context_gives_a_dead_answer(router):
    with Receiver(router) as answer:
        router.route(Message(dst_id=1234, handle=1234, reply_to=answer.handle))
        with pytest.raises(ChannelError) as caught:
            answer.get(timeout=60)
    assert caught.value.args[0] == router.no_route_msg % (1234, mitogen.context_id)


def test_a_dead_letter_is_never_answered_by_another(router):
    seen = []
    handle = router.add_handler(seen.append)
    router.route(Message.dead('x', dst_id=1234, handle=handle, src_id=0))
    router.route(Message.dead('x', dst_id=0, handle=31337))
    testlib.sync(router.broker)
    testlib.sync(router.broker)
    assert seen == []


def test_the_reason_is_logged(router):
    with testlib.LogCapture('mitogen') as logs:
        router.route(local_message(31337))
        testlib.sync(router.broker)
    assert logs.find(router.invalid_handle_msg)


@pytest.mark.parametrize('name', [
    'invalid_handle_msg', 'refused_msg', 'too_large_msg', 'no_route_msg', 'unidirectional_msg',
    'respondent_disconnect_msg', 'broker_exit_msg', 'duplicate_handle_msg'])
def test_texts_exist(name):
    assert isinstance(getattr(mitogen.core.Router, name), str)


def test_texts_that_other_programs_match():
    assert mitogen.core.Router.too_large_msg % (4096,) == 'message too large (max 4096 bytes)'
    assert mitogen.core.Router.unidirectional_msg.startswith('routing mode prevents forward of ')
    assert mitogen.core.Router.no_route_msg % (1, 2)


# ---- sizes

def test_the_default_limit_is_128_mib():
    assert mitogen.core.Router.max_message_size == 128 * 1048576


def test_a_message_at_the_limit_passes_and_one_over_it_wakes_the_receiver(make_router):
    router = make_router(max_message_size=4096)
    with Receiver(router) as receiver:
        sender = receiver.to_sender()
        sender.send(b'x' * 4096, enc=Message.ENC_BIN)
        assert len(receiver.get(timeout=60).data) == 4096
        sender.send(b'x' * 4097, enc=Message.ENC_BIN)
        with pytest.raises(ChannelError) as caught:
            receiver.get(timeout=60)
    assert caught.value.args[0] == router.too_large_msg % (4096,)


def test_an_oversize_message_without_destination_is_dropped(make_router):
    router = make_router(max_message_size=4096)
    router.route(Message(data=b'x' * 8192))
    testlib.sync(router.broker)
    testlib.sync(router.broker)


def test_a_message_without_destination_is_dropped(router):
    router.route(Message(data=b'x'))
    router.route(Message(dst_id=mitogen.context_id, data=b'x'))
    router.route(Message(handle=5, data=b'x'))
    testlib.sync(router.broker)
    testlib.sync(router.broker)


def test_an_oversize_message_to_a_child_wakes_the_caller(make_router):
    router = make_router(max_message_size=65536)
    child = router.local()
    with pytest.raises(ChannelError) as caught:
        child.call(targets.identity, b'x' * 65536)
    assert caught.value.args[0] == router.too_large_msg % (65536,)
    assert child.call(targets.identity, 1) == 1


def test_an_oversize_result_of_a_child_wakes_the_caller(make_router):
    router = make_router(max_message_size=65536)
    child = router.local()
    with pytest.raises(ChannelError) as caught:
        child.call(targets.return_bytes, 65536)
    assert caught.value.args[0] == router.too_large_msg % (65536,)
    assert child.call(targets.identity, 1) == 1


def test_the_limit_is_handed_down(make_router):
    router = make_router(max_message_size=65536)
    child = router.local()
    grandchild = router.local(via=child)
    assert child.call(targets.router_size_limit) == 65536
    assert grandchild.call(targets.router_size_limit) == 65536


@pytest.mark.parametrize('size', [4096 * 1048576, 2 ** 40])
def test_the_limit_may_be_larger_than_a_frame(make_router, size):
    router = make_router(max_message_size=size)
    assert router.local().call(targets.router_size_limit) == size


# ---- contexts

def test_myself(router):
    myself = router.myself()
    assert myself.name == 'self'
    assert myself.context_id == mitogen.context_id
    assert isinstance(myself, Context)


def test_context_by_id_makes_one_canonical_object(router):
    context = router.context_by_id(1234, name=u'somebody')
    assert (context.context_id, context.name) == (1234, u'somebody')
    assert router.context_by_id(1234, name=u'other') is context
    assert context.name == u'somebody'
    assert isinstance(context, router.context_class)


def test_context_by_id_without_create_looks_only(router):
    assert router.context_by_id(1234, create=False) is None
    context = router.context_by_id(1234)
    assert router.context_by_id(1234, create=False) is context


def test_context_by_id_is_atomic(router):
    contexts = testlib.in_threads([lambda: router.context_by_id(4321)] * 8)
    assert len(set(map(id, contexts))) == 1


def test_context_by_id_takes_its_via(router):
    context = router.context_by_id(1234, via_id=12)
    assert context.via is router.context_by_id(12)


def test_contexts_of_a_parent_compare_by_router_and_id(router):
    first = mitogen.parent.Context(router, 123, u'a')
    second = mitogen.parent.Context(router, 123, u'b')
    assert first == second
    assert hash(first) == hash(second)
    assert first != mitogen.parent.Context(router, 124)
    assert first == Context(router, 123)


def test_core_contexts_compare_by_identity(router):
    first = Context(router, 123)
    assert first == first
    assert first != Context(router, 123)


def test_context_repr():
    assert repr(Context(None, 5, u'name')) == "Context(5, 'name')"
    assert repr(Context(None, 5)) == 'Context(5, None)'


def test_context_attributes():
    context = Context(None, 5, u'name')
    assert (context.router, context.context_id, context.name, context.remote_name) == (None, 5, u'name', None)
    assert mitogen.parent.Context(None, 5).via is None
    context.note = 1
    assert context.note == 1


def test_context_name_becomes_text():
    assert type(Context(None, 5, b'name').name) is mitogen.core.UnicodeType


def test_context_send_fills_the_destination_in():
    router = mock.Mock()
    msg = Message(handle=5)
    Context(router, 123).send(msg)
    assert msg.dst_id == 123
    router.route.assert_called_once_with(msg)


def test_send_async_and_send_await(router):
    def echo(msg):
        if not msg.is_dead:
            msg.reply(msg.unpickle(), router=router)

    handle = router.add_handler(echo)
    receiver = router.myself().send_async(Message.pickled(u'x', handle=handle))
    assert receiver.get(timeout=60).unpickle() == u'x'
    assert router.myself().send_await(Message.pickled(u'y', handle=handle), deadline=10) == u'y'


def test_send_await_times_out(router):
    handle = router.add_handler(lambda msg: None)
    with pytest.raises(mitogen.core.TimeoutError):
        router.myself().send_await(Message(handle=handle), deadline=0.01)


def test_send_async_leaves_no_handler_after_the_answer(router):
    child = router.local()
    child.call(targets.identity, 1)
    before = len(router._handle_map)
    for i in range(20):
        child.call(targets.identity, i)
    assert len(router._handle_map) == before


# ---- streams

def test_stream_by_id_of_an_unknown_id_is_none_in_a_master(router):
    assert router.stream_by_id(1234) is None


def test_stream_by_id_of_an_unknown_id_is_the_parents_in_a_child(router):
    assert router.local().call(targets.stream_neighbour, 1234) == mitogen.context_id


def test_stream_by_id_of_a_child(router):
    child = router.local()
    stream = router.stream_by_id(child.context_id)
    assert isinstance(stream, mitogen.core.Stream)
    assert stream.protocol.remote_id == child.context_id
    assert stream.conn.proc.pid == child.call(os.getpid)
    assert stream in router.get_streams()
    assert stream in list(router._streams())


def test_a_message_given_to_the_router_as_if_it_had_come_in_is_passed_on(router):
    here, there = router.local(), router.local()
    there.call(os.getpid)
    msg = Message(src_id=here.context_id, auth_id=here.context_id, dst_id=there.context_id, handle=12345)
    router.broker.defer_sync(lambda: router._async_route(msg, router.stream_by_id(here.context_id)))
    protocol = router.stream_by_id(there.context_id).protocol
    testlib.wait_for(lambda: protocol.pending_bytes() == 0, what='a queue that nothing else empties')


def test_streams_of_grandchildren_lead_through_their_parent(router):
    child = router.local()
    grandchild = router.local(via=child)
    assert router.stream_by_id(grandchild.context_id) is router.stream_by_id(child.context_id)
    assert len(list(router._streams())) == 1


def test_get_streams_is_a_snapshot(router):
    streams = router.get_streams()
    router.local()
    assert len(list(streams)) == 0
    assert len(list(router.get_streams())) == 1


def test_routes_can_be_added_and_deleted(router):
    child = router.local()
    stream = router.stream_by_id(child.context_id)
    router.add_route(4321, stream)
    assert router.stream_by_id(4321) is stream
    router.del_route(4321)
    assert router.stream_by_id(4321) is None
    router.del_route(4321)


def test_register_adds_context_and_stream(router):
    with testlib.Peer(router, 123) as peer:
        assert router.stream_by_id(123) is peer.stream
        assert router.context_by_id(123, create=False) is peer.context
        peer.send(dst=0, handle=31337, reply_to=55)
        assert peer.receive()[5] == mitogen.core.IS_DEAD


def test_disconnect_of_a_direct_context(router):
    child = router.local()
    pid = child.call(os.getpid)
    router.disconnect(child)
    with pytest.raises(ChannelError):
        child.call(os.getpid)
    testlib.wait_for(lambda: not testlib.is_running(pid))


def test_disconnect_of_a_context_without_stream_returns(router):
    router.disconnect(router.context_by_id(4321))


def test_disconnect_all_ends_every_child(router):
    children = [router.local() for _ in range(2)]
    exits = Latch()
    for child in children:
        proc = router.stream_by_id(child.context_id).conn.proc
        mitogen.core.listen(proc, 'exit', lambda: exits.put(None))
    router.disconnect_all()
    for _ in children:
        exits.get(timeout=60)
    for child in children:
        with pytest.raises(ChannelError) as caught:
            child.call(os.getpid)
        assert caught.value.args[0] == router.no_route_msg % (child.context_id, mitogen.context_id)


@pytest.mark.parametrize('cut', [
    lambda router, child: child.shutdown(wait=True),
    lambda router, child: router.disconnect_stream(router.stream_by_id(child.context_id)),
    lambda router, child: router.disconnect_all(),
], ids=['shutdown', 'disconnect_stream', 'disconnect_all'])
def test_a_listener_that_raises_is_logged_and_the_broker_lives_on(router, cut):
    def fail():
        raise ValueError('deliberate')

    child = router.local()
    stream = router.stream_by_id(child.context_id)
    gone = Latch()
    mitogen.core.listen(stream, 'disconnect', fail)
    mitogen.core.listen(stream.conn.proc, 'exit', fail)
    mitogen.core.listen(stream.conn.proc, 'exit', gone.put)
    with testlib.LogCapture('mitogen') as logs:
        cut(router, child)
        gone.get(timeout=60)
        testlib.sync(router.broker)
    assert len([r for r in logs.records if r.exc_info and 'deliberate' in str(r.exc_info[1])]) >= 2
    assert not logs.find('broker crashed')
    assert router.local().call(os.getpid)


# ---- routers of applications

def test_a_router_can_be_subclassed():
    class Own(mitogen.master.Router):
        routed = 0

        def route(self, msg):
            self.routed += 1
            return super(Own, self).route(msg)

    with Own() as router:
        router.note = 'writable'
        child = router.local()
        assert child.call(targets.add, 1, 2) == 3
        assert router.routed >= 1


def test_a_context_class_of_an_application_is_used(router):
    class Own(mitogen.parent.Context):
        def twice(self, value):
            return self.call(targets.add, value, value)

    router.context_class = Own
    child = router.local()
    assert isinstance(child, Own)
    assert child.twice(4) == 8


def test_a_router_is_a_context_manager():
    with mitogen.master.Router() as router:
        thread = router.broker._thread
        assert router.local().call(targets.add, 1, 2) == 3
    assert not thread.is_alive()


def test_a_router_makes_its_own_broker_when_given_none():
    router = mitogen.master.Router()
    assert isinstance(router.broker, mitogen.master.Broker)
    router.broker.shutdown()
    router.broker.join()


def test_two_routers_live_side_by_side(make_router):
    first, second = make_router(), make_router()
    a, b = first.local(), second.local()
    assert a.call(targets.identity, 1) == 1
    assert b.call(targets.identity, 2) == 2
    first.broker.shutdown()
    first.broker.join()
    assert b.call(targets.identity, 3) == 3


def test_using_a_router_leaves_the_thread_list_as_it_was(make_router):
    before = set(threading.enumerate())
    router = make_router()
    router.local().call(targets.identity, 1)
    router.broker.shutdown()
    router.broker.join()
    rest = set(threading.enumerate()) - before
    assert [thread.name for thread in rest if thread.name != 'mitogen.master.join_thread_async'] == []


def test_a_messages_router_is_the_receiving_one(router):
    child = router.local()
    msg = child.call_async(targets.identity, 1).get(timeout=60)
    assert msg.router is router


def test_a_finalizer_may_use_the_router_while_its_thread_changes_the_tables_of_that(router):
    def use():
        handle = router.add_handler(lambda msg: None, respondent=router.context_by_id(1002))
        router.del_handler(handle)
        used.append(handle)

    used = []
    router._context_by_id = Table(router._context_by_id)
    router._context_by_id.last = Finalizer(use)
    # Another thread: one that waits for itself would be left behind.
    thread = threading.Thread(target=router.context_by_id, args=(1001,), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive() and len(used) == 1
    assert sorted(router._context_by_id)[-2:] == [1001, 1002]
