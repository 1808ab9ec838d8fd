"""
Services: how they are named, called, declared, guarded and loaded.
"""

import os
import threading

import pytest
import service_targets
import testlib
from gated_services import Gate, PLAIN, receiver_of_call, result_of

import mitogen
import mitogen.core
import mitogen.select
import mitogen.service
from mitogen.core import CallError, Kwargs, Latch, Message, Receiver
from mitogen.service import AllowAny, AllowParents, Invoker, Pool, Service, expose, no_reply
from service_targets import Named, Plain


# ---- names

def test_what_the_module_offers():
    from mitogen.service import (  # noqa: F401
        Activator, AllowAny, AllowParents, DeduplicatingInvoker, Error, FileService, FileStreamState, Invoker, Policy,
        Pool, PushFileService, SerializedInvoker, Service, arg_spec, call, expose, func_code, func_name,
        get_or_create_pool, get_thread_name, no_reply, validate_arg_spec,
    )
    assert not issubclass(Error, mitogen.core.Error)
    assert func_name(arg_spec) == 'arg_spec'
    assert func_code(Plain.who).co_argcount == 2
    assert get_thread_name() == threading.current_thread().name


def test_a_name_is_module_and_class(router):
    assert Plain.name() == PLAIN
    assert isinstance(Plain.name(), mitogen.core.UnicodeType)
    assert Named.name() == u'a fixed name'


# ---- calls

def test_a_hand_made_message_is_a_call(router):
    child = router.local()
    expected = child.call_service(PLAIN, 'pid')
    msg = Message.pickled((PLAIN, u'pid', Kwargs({})), handle=mitogen.core.CALL_SERVICE)
    assert child.send_await(msg, deadline=10) == expected == child.call(os.getpid)


@pytest.mark.parametrize('name', [PLAIN, PLAIN.encode(), Plain], ids=['text', 'bytes', 'class'])
def test_a_service_is_named_by_text_bytes_or_class(router, make_pool, plain, name):
    make_pool(plain)
    assert result_of(receiver_of_call(router, name, 'unprivileged')) == 'unprivileged'


def test_a_call_nobody_waits_for_is_obeyed(router, make_pool, plain):
    make_pool(plain)
    with testlib.LogCapture('mitogen') as log:
        router.myself().send(Message.pickled(
            (PLAIN, u'with_spec', Kwargs({'foo': 1})), handle=mitogen.core.CALL_SERVICE))
        testlib.wait_for(lambda: plain.seen == [1])
        log.wait('repl')
    assert result_of(receiver_of_call(router, PLAIN, 'unprivileged')) == 'unprivileged'


def test_a_process_may_call_its_own_pool(router, make_pool, plain):
    make_pool(plain)
    assert result_of(receiver_of_call(router, PLAIN, 'privileged')) == 'privileged'
    # A sender needs a router to be of use.
    with Receiver(router) as receiver:
        assert result_of(receiver_of_call(router, PLAIN, 'echo_sender', sender=receiver.to_sender())) is None
        assert result_of(receiver) == 'by sender'


@pytest.mark.parametrize('request_', [
    (PLAIN, u'pid'), (PLAIN, u'pid', []), (1, u'pid', {}), (PLAIN, None, {}), [PLAIN, u'pid', {}], None,
    CallError('not raised'),
], ids=repr)
def test_what_is_no_call_gets_an_error(router, make_pool, plain, request_):
    make_pool(plain)
    msg = Message.pickled(request_, handle=mitogen.core.CALL_SERVICE)
    with pytest.raises(CallError) as caught:
        router.myself().send_await(msg, deadline=10)
    assert 'not raised' not in str(caught.value)


def test_a_payload_that_is_no_pickle_gets_an_error(router, make_pool, plain):
    make_pool(plain)
    for msg in (Message(data=b'no pickle', enc=Message.ENC_PKL), Message(data=b'raw', enc=Message.ENC_BIN)):
        msg.handle = mitogen.core.CALL_SERVICE
        with pytest.raises(CallError):
            router.myself().send_await(msg, deadline=10)


# ---- decorators

def test_decorators_return_the_same_function():
    def func(self):
        pass

    first, second = AllowAny(), AllowParents()
    assert expose(policy=first)(func) is func
    assert expose(second)(func) is func
    assert func.mitogen_service__policies == [second, first]
    assert mitogen.service.arg_spec(spec={'a': int})(func) is func
    assert func.mitogen_service__arg_spec == {'a': int}
    assert no_reply()(func) is func
    assert func.mitogen_service__no_reply is True


def test_arguments_of_the_wrong_type_are_refused(router, make_pool, plain):
    make_pool(plain)
    assert result_of(receiver_of_call(router, PLAIN, 'with_spec', foo=1, more='x')) == 1
    with pytest.raises(CallError) as caught:
        result_of(receiver_of_call(router, PLAIN, 'with_spec', foo='x'))
    for word in "'foo'", repr(str), repr(int):
        assert word in str(caught.value)
    with pytest.raises(CallError) as caught:
        result_of(receiver_of_call(router, PLAIN, 'with_spec', more=1))
    assert "'foo'" in str(caught.value)
    assert plain.seen == [1]


def test_arg_spec_takes_several_types():
    spec = {'a': (int, type(None))}
    mitogen.service.validate_arg_spec(spec, {'a': None, 'b': object()})
    mitogen.service.validate_arg_spec(spec, {'a': 5})
    with pytest.raises(CallError):
        mitogen.service.validate_arg_spec(spec, {'a': 'x'})


# ---- policies

def test_policies(plain):
    with pytest.raises(NotImplementedError):
        mitogen.service.Policy().is_authorized(plain, Message())
    msg = Message()
    msg.auth_id = msg.src_id = 4242
    assert AllowAny().is_authorized(plain, msg) is True
    assert not AllowParents().is_authorized(plain, msg)
    # Authority decides, not where it came from.
    msg.auth_id = mitogen.context_id
    assert AllowParents().is_authorized(plain, msg)


def test_a_sibling_may_call_what_is_open_to_all(router):
    child, sibling = router.local(), router.local()
    assert child.call_service(PLAIN, 'privileged') == 'privileged'
    assert sibling.call(service_targets.call_service, child, PLAIN, 'unprivileged') == 'unprivileged'
    for method in u'privileged', u'both':
        kind, text = sibling.call(service_targets.refusal, child, PLAIN, method)
        assert kind == 'CallError'
        assert Invoker.unauthorized_msg % (method, PLAIN) in text


def test_a_client_of_our_socket_has_our_authority(router, make_pool, plain, tmp_path):
    import subprocess
    import sys
    import mitogen.unix
    make_pool(plain)
    listener = mitogen.unix.Listener.build_stream(router, path=str(tmp_path / 'sock'))
    program = (
        'import sys, mitogen, mitogen.unix\n'
        'router, context = mitogen.unix.connect(sys.argv[1])\n'
        'print(context.call_service(u"service_targets.Plain", "privileged"))\n'
        'print(context.call_service(u"service_targets.Plain", "who") == (mitogen.context_id, 0))\n'
        'router.broker.shutdown(); router.broker.join()\n')
    env = dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(mitogen.__file__)))
    out = subprocess.check_output([sys.executable, '-c', program, listener.protocol.path], env=env, timeout=60)
    assert out.split() == [b'privileged', b'True']


# ---- services and their selects

def test_the_members_of_a_services_select_are_served(router, make_pool, plain):
    other = Named(router)
    make_pool(plain, other, size=2)
    latch = Latch()
    plain.select.add(latch)
    latch.put('item')
    event, thread_name = plain.events.get(timeout=60)
    assert event.source is latch
    assert event.data == 'item'
    assert thread_name.startswith('mitogen.Pool.')
    # Exactly once; and the select is a oneshot one.
    assert latch.notify is None
    latch.put('again')
    plain.select.add(latch)
    assert plain.events.get(timeout=60)[0].data == 'again'
    with pytest.raises(mitogen.core.TimeoutError):
        plain.events.get(timeout=0.1)


def test_a_receiver_in_a_services_select(router, make_pool, plain):
    make_pool(plain)
    plain.select = None
    with Receiver(router) as receiver:
        service = Plain(router)
        make_second = mitogen.select.Select([receiver], oneshot=False)
        service.select = make_second
        service.name = lambda: u'second'
        service.router._service_pool.add(service)
        receiver.to_sender().send(5)
        event, _ = service.events.get(timeout=60)
        assert event.source is receiver
        assert event.data.unpickle() == 5
        # A dead message is no event, and costs no thread.
        receiver.to_sender().close()
        receiver.to_sender().send(6)
        assert service.events.get(timeout=60)[0].data.unpickle() == 6
        make_second.close()


def test_the_base_hooks_do_nothing(router):
    service = Service(router)
    assert service.on_message(None) is None
    assert service.on_shutdown() is None
    assert not service.select
    assert service.router is router


# ---- activation

def test_a_parent_has_a_service_loaded_once(router):
    child = router.local()
    first = child.call_service(Plain, 'bump')
    second = child.call_service(Plain, 'bump')
    assert (first[0], second[0]) == (1, 2)
    assert first[1] == second[1]


def test_a_sibling_cannot_have_a_service_loaded(router):
    child, sibling = router.local(), router.local()
    assert child.call_service(Plain, 'unprivileged')
    kind, text = sibling.call(service_targets.refusal, child, u'service_targets.Named', 'ping')
    assert kind == 'CallError'
    assert mitogen.service.Activator.not_active_msg % (u'service_targets.Named',) in text


@pytest.mark.parametrize('name, word', [
    (u'service_targets.Missing', 'Missing'), (u'no_such_module_anywhere.X', 'no_such_module_anywhere'),
    (u'service_targets.Broken', 'broken on purpose'), (u'undotted', 'undotted'), (u'', ''), (u'.', ''),
])
def test_failures_to_load_reach_the_caller(router, make_pool, name, word):
    make_pool()
    with pytest.raises(CallError) as caught:
        result_of(receiver_of_call(router, name, 'x'))
    assert word in str(caught.value)


def test_a_service_that_goes_by_another_name_is_loaded_once(router, make_pool):
    pool = make_pool()
    first = result_of(receiver_of_call(router, u'service_targets.Named', 'ping'))
    assert result_of(receiver_of_call(router, u'service_targets.Named', 'ping')) == first
    assert result_of(receiver_of_call(router, u'a fixed name', 'ping')) == first
    assert pool.get_invoker(u'a fixed name', None) is pool.get_invoker(u'service_targets.Named', None)


def test_one_activation_at_a_time(router, make_pool, monkeypatch):
    pool = make_pool(size=4)
    gate = Gate()

    class Slow(Plain):
        def __init__(self, router):
            gate.pass_through()
            super(Slow, self).__init__(router)

        @classmethod
        def name(cls):
            return u'service_targets.Slow'

    monkeypatch.setattr(service_targets, 'Slow', Slow, raising=False)
    receivers = [receiver_of_call(router, u'service_targets.Slow', 'bump') for _ in range(3)]
    gate.entered.get(timeout=60)
    gate.leave.put(None)
    results = [result_of(receiver) for receiver in receivers]
    assert gate.runs == 1
    assert len(set(result[1] for result in results)) == 1
    assert sorted(result[0] for result in results) == [1, 2, 3]
    assert pool.get_service(u'service_targets.Slow').count == 3


def test_another_activator(router):
    class Nobody(mitogen.service.Activator):
        def is_permitted(self, mod_name, class_name, msg):
            asked.append((mod_name, class_name))
            return False

    class Closed(Pool):
        activator_class = Nobody

    asked = []
    pool = Closed(router)
    try:
        with pytest.raises(CallError) as caught:
            result_of(receiver_of_call(router, PLAIN, 'unprivileged'))
        assert str(caught.value) == Nobody.not_active_msg % (PLAIN,)
        assert asked == [(u'service_targets', u'Plain')]
        # Without a message, nobody is asked.
        assert isinstance(pool.get_service(PLAIN), Plain)
    finally:
        pool.stop()
