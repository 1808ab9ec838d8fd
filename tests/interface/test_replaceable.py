"""
Programs and tests pass objects of their own, subclass ours, and replace attributes of both.
docs/differences.rst lists the steps that the compiled core takes without Python, which cannot be
replaced.
"""

import gc
import logging
import socket
import weakref
from unittest import mock

import pytest

import mitogen
import mitogen.core
import mitogen.master
import mitogen.parent
import mitogen.select
import mitogen.service
from mitogen.core import Context, Message, Receiver, Sender
from testlib import Peer, attribute, frame, sync, wait_for


# ---- objects of other kinds

def test_a_context_sends_through_whatever_routes():
    router = mock.Mock()
    msg = Message(handle=5)
    for cls in Context, mitogen.parent.Context:
        cls(router, 7).send(msg)
    assert router.mock_calls == [mock.call.route(msg)] * 2
    assert msg.dst_id == 7


def test_a_context_awaits_through_whatever_routes():
    router = mock.Mock()
    router.add_handler.return_value = 123
    msg = Message(handle=5)
    receiver = Context(router, 7).send_async(msg)
    assert isinstance(receiver, Receiver)
    assert receiver.handle == msg.reply_to == 123
    # It also looks whether the respondent was lost before.
    assert [name for name, _, _ in router.mock_calls if not name.startswith('_lost_ids.')] == ['add_handler', 'route']


def test_a_receiver_listens_by_whatever_routes():
    router = mock.Mock()
    router.add_handler.return_value = 55
    receiver = Receiver(router, persist=False, policy=len)
    (name, args, kwargs), = router.mock_calls
    assert name == 'add_handler'
    assert receiver.handle == 55
    receiver._on_receive(Message(data=b'x'))
    assert receiver.get().data == b'x'
    receiver.close()
    assert router.mock_calls[1:] == [mock.call.del_handler(55)]


def test_a_sender_sends_by_whatever_context():
    context = mock.Mock()
    sender = Sender(context, 9)
    sender.send('text')
    sender.close()
    (_, (first,), _), (_, (last,), _) = context.mock_calls
    assert (first.handle, first.unpickle()) == (9, 'text')
    assert (last.handle, last.is_dead) == (9, True)


def test_a_reply_goes_by_whatever_routes():
    router = mock.Mock()
    answer = Message()
    Message(src_id=1, reply_to=123).reply(answer, router=router)
    assert router.mock_calls == [mock.call.route(answer)]
    assert (answer.dst_id, answer.handle) == (1, 123)


@pytest.mark.parametrize('cls', [mitogen.core.Router, mitogen.parent.Router, mitogen.master.Router])
def test_a_router_takes_whatever_broker(cls):
    broker = mock.Mock()
    router = cls(broker)
    assert router.broker is broker
    assert router.add_handler(len, 1234) == 1234
    router.del_handler(1234)
    # Handlers refer to the router until its broker ends, which this one never does by itself.
    mitogen.core.fire(broker, 'exit')
    ref = weakref.ref(router)
    del router, broker

    def is_collected():
        # While another thread is at it, this call does nothing.
        gc.collect()
        return ref() is None

    wait_for(is_collected)


def test_a_protocol_takes_whatever_router():
    router = mock.Mock(max_message_size=1000)
    stream = mitogen.core.MitogenProtocol.build_stream(router, 123)
    assert isinstance(stream, mitogen.core.Stream)
    assert stream.protocol.remote_id == 123
    stream.protocol.on_receive(router.broker, frame(dst=1, src=2, handle=3, data=b'x'))
    (_, (msg, source), _), = [c for c in router.mock_calls if c[0] == '_async_route']
    assert (msg.dst_id, msg.src_id, msg.handle, msg.data, source) == (1, 2, 3, b'x', stream)


def test_a_log_handler_sends_by_whatever_context():
    context = mock.Mock()
    handler = mitogen.core.LogHandler(context)
    record = logging.LogRecord('name', 99, 'path', 1, 'msg', (), None)
    handler.emit(record)
    assert not context.send.mock_calls
    handler.uncork()
    (_, (msg,), _), = context.send.mock_calls
    assert (msg.handle, msg.data) == (mitogen.core.FORWARD_LOG, b'name\x0099\x00msg')


def test_an_importer_registers_with_whatever_routes():
    router, context = mock.Mock(), mock.Mock()
    importer = mitogen.core.Importer(router, context, '', mitogen.core.ImportPolicy())
    handles = [args[1] if len(args) > 1 else kwargs.get('handle') for _, args, kwargs in router.mock_calls]
    assert mitogen.core.LOAD_MODULE in handles
    assert importer._context is context


# ---- attributes that are set

def objects(router):
    context = router.context_by_id(5)
    stream = mitogen.core.MitogenProtocol.build_stream(router, 5)
    ours, theirs = socket.socketpair()
    theirs.close()
    side = mitogen.core.Side(stream, ours)
    side.close()
    for obj in (
        router, context, router.broker, router.broker.poller, router.broker.timers, router.broker._waker,
        router.broker._waker.protocol, router.responder, router.route_monitor, router.id_allocator,
        stream, stream.protocol, side, Context(router, 1), Message(), Sender(context, 1), Receiver(router),
        mitogen.core.Channel(router, context, 1), mitogen.core.Latch(), mitogen.core.Poller(),
        mitogen.core.ImportPolicy(), mitogen.core.Blob(b''), mitogen.core.Secret(u''), mitogen.core.CallError(u'x'),
        mitogen.core.Kwargs({}), mitogen.core.BufferedWriter(router.broker, stream.protocol),
        mitogen.parent.TimerList(), mitogen.parent.Timer(1, len), mitogen.parent.CallChain(context),
        mitogen.master.ModuleFinder(), mitogen.select.Select(), mitogen.select.Event(),
    ):
        yield obj


def test_every_object_takes_attributes_and_is_no_different_for_it(router):
    for obj in objects(router):
        obj.some_attribute = 1
        assert obj.__dict__['some_attribute'] == 1, type(obj)
        del obj.some_attribute
        assert 'some_attribute' not in obj.__dict__


def test_methods_of_objects_can_be_replaced(router):
    for obj, name in (
        (router, 'route'), (router, 'add_handler'), (router.broker, 'shutdown'), (router.broker, 'defer'),
        (router.context_by_id(5), 'send'), (Message(), 'reply'), (Receiver(router), 'get'),
        (Sender(router.myself(), 1), 'send'), (mitogen.core.Latch(), 'put'), (router.broker.poller, 'poll'),
        (mitogen.core.MitogenProtocol.build_stream(router, 5).protocol, 'pending_bytes'),
    ):
        with mock.patch.object(obj, name) as replaced:
            getattr(obj, name)(1, 2)
            assert replaced.mock_calls == [mock.call(1, 2)], (type(obj), name)
        assert getattr(obj, name) is not replaced


def test_a_replaced_route_is_what_everything_sends_by(router):
    with mock.patch.object(router, 'route') as route:
        context = router.context_by_id(7)
        context.send(Message(handle=5))
        context.call_no_reply(len, '')
        Sender(context, 8).send('x')
        Message(src_id=7, reply_to=9).reply('x', router=router)
        receiver = context.call_async(len, '')
        receiver.close()
    assert len(route.mock_calls) == 5


@pytest.mark.parametrize('how', ['a subclass', 'an object'])
def test_a_replaced_send_is_what_a_context_calls_by(router, how):
    seen = []

    class Looking(mitogen.parent.Context):
        def send(self, msg):
            seen.append(msg.handle)
            super(Looking, self).send(msg)

    context = router.local()
    if how == 'a subclass':
        context = Looking(router, context.context_id)
    else:
        plain = context.send
        context.send = lambda msg: (seen.append(msg.handle), plain(msg))
    assert context.call(len, 'abc') == 3
    context.call_no_reply(len, 'abc')
    with pytest.raises(mitogen.core.CallError):
        context.call_service(u'no.such.Service', u'method')
    Sender(context, 9).send('x')
    context.send_async(Message(handle=8)).close()
    assert seen == [mitogen.core.CALL_FUNCTION] * 2 + [mitogen.core.CALL_SERVICE, 9, 8]


def test_a_subclass_may_look_at_all_that_is_sent(broker):
    seen = []

    class Router(mitogen.master.Router):
        def route(self, msg):
            seen.append(msg.handle)
            return super(Router, self).route(msg)

    router = Router(broker)
    assert router.local().call(len, 'abc') == 3
    receiver = Receiver(router)
    receiver.to_sender().send('x')
    assert receiver.get().unpickle() == 'x'
    assert mitogen.core.CALL_FUNCTION in seen and receiver.handle in seen


def test_the_identity_of_the_process_is_read_when_it_is_needed(router):
    policy = mitogen.core._has_parent_authority
    with mock.patch.object(mitogen, 'context_id', 77), mock.patch.object(mitogen, 'parent_ids', [3]):
        assert Message().src_id == 77
        assert router.myself().context_id == 77
        assert [policy(n) for n in (77, 3, 0)] == [True, True, False]
    assert Message().src_id == 0
    assert [policy(n) for n in (77, 3, 0)] == [False, False, True]


def test_the_loop_may_be_wrapped():
    broker = mitogen.master.Broker()
    with mock.patch.object(broker, '_loop_once', side_effect=broker._loop_once) as loop_once, \
            mock.patch.object(broker.poller, 'close', side_effect=broker.poller.close) as close:
        # The turn that was under way may take whatever comes meanwhile.
        wait_for(lambda: sync(broker) or loop_once.mock_calls, what='a turn of the loop')
        broker.shutdown()
        broker.join()
    assert len(close.mock_calls) == 1


def test_a_receiver_may_look_at_what_arrives(router):
    seen = []

    class Looking(Receiver):
        def _on_receive(self, msg):
            seen.append(msg.data)
            super(Looking, self)._on_receive(msg)

    receiver = Looking(router)
    receiver.to_sender().send(b'x', enc=Message.ENC_BIN)
    assert receiver.get().data == b'x'
    with Peer(router, 5) as peer:
        peer.send(dst=0, handle=receiver.handle, data=b'y')
        assert receiver.get(timeout=60).data == b'y'
    assert seen == [b'x', b'y']


@pytest.mark.parametrize('how', ['a method of a subclass', 'an attribute of the class', 'an attribute of the object'])
def test_a_hook_sees_what_arrives_wherever_it_is_set(router, how):
    seen = []

    def hook(stream, msg):
        seen.append((stream, msg.handle))

    cls = mitogen.parent.MitogenProtocol
    if how == 'a method of a subclass':
        class Hooked(cls):
            def on_message(self, stream, msg):
                hook(stream, msg)
        build = Hooked.build_stream
    else:
        build = cls.build_stream
    if how == 'an attribute of the class':
        with attribute(mitogen.core.MitogenProtocol, 'on_message', staticmethod(hook)):
            hear(router, build, None, seen)
    else:
        hear(router, build, hook if how == 'an attribute of the object' else None, seen)


def test_whoever_waits_for_a_message_that_a_hook_fails_for_is_told(router):
    def fail(stream, msg):
        raise ValueError('on purpose')

    child = router.local()
    protocol = router.stream_by_id(child.context_id).protocol
    protocol.on_message = fail
    with pytest.raises(mitogen.core.ChannelError) as caught:
        child.call_async(len, 'abc').get(timeout=60)
    assert caught.value.args[0] == router.refused_msg
    protocol.on_message = None
    assert child.call(len, 'abc') == 3


def hear(router, build, hook, seen):
    """
    Send a message by a stream and wait until `seen` has it.
    """
    with Peer(router, 5, build=build) as peer:
        if hook:
            peer.stream.protocol.on_message = hook
        peer.send(dst=0, handle=4321)
        wait_for(lambda: seen, what='the hook has seen the message')
    assert seen == [(peer.stream, 4321)]


@pytest.mark.parametrize('attr, value', [('shutdown_timeout', 0.25), ('max_message_size', 4096)])
def test_class_attributes_of_subclasses_count(attr, value):
    class Broker(mitogen.master.Broker):
        shutdown_timeout = 0.25

    class Router(mitogen.master.Router):
        max_message_size = 4096
        broker_class = Broker

    with Router() as router:
        assert getattr(router if attr == 'max_message_size' else router.broker, attr) == value
        assert type(router.broker) is Broker
        receiver = Receiver(router)
        receiver.to_sender().send(b'x' * 4097, enc=Message.ENC_BIN)
        with pytest.raises(mitogen.core.ChannelError) as caught:
            receiver.get()
        assert caught.value.args[0] == router.too_large_msg % 4096


def test_a_context_class_is_used_for_what_the_router_makes(broker):
    class Marked(mitogen.parent.Context):
        pass

    class Router(mitogen.master.Router):
        context_class = Marked

    router = Router(broker)
    assert type(router.context_by_id(5)) is type(router.myself()) is type(router.local()) is Marked


@pytest.mark.parametrize('how', ['a subclass', 'an object'])
def test_a_receiver_registers_by_a_replaced_add_handler(broker, how):
    seen = []

    class Router(mitogen.master.Router):
        def add_handler(self, fn, handle=None, **kwargs):
            seen.append(handle)
            return super(Router, self).add_handler(fn, handle, **kwargs)

    router = (Router if how == 'a subclass' else mitogen.master.Router)(broker)
    if how == 'an object':
        def add_handler(fn, handle=None, **kwargs):
            seen.append(handle)
            return plain(fn, handle, **kwargs)

        plain = router.add_handler
        router.add_handler = add_handler
    del seen[:]
    with Receiver(router, handle=1234) as receiver:
        receiver.to_sender().send('x')
        assert receiver.get(timeout=60).unpickle() == 'x'
    assert router.local().call(len, 'abc') == 3
    assert seen == [1234, None]


def test_a_select_lets_its_members_go_by_a_replaced_remove(router):
    seen = []

    class Logging(mitogen.select.Select):
        def remove(self, recv):
            seen.append(recv)
            super(Logging, self).remove(recv)

    latches = [mitogen.core.Latch(), mitogen.core.Latch()]
    with Logging(latches) as select:
        latches[1].put(3)
        assert select.get(timeout=60) == 3
        assert seen == latches[1:]
    assert seen == latches[::-1]
    assert [latch.notify for latch in latches] == [None, None]
