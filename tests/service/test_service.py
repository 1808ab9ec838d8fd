"""
Services, invokers and pools.
"""

import os
import threading

import pytest
import service_targets
import testlib

import mitogen
import mitogen.core
import mitogen.fork
import mitogen.master
import mitogen.select
import mitogen.service
from mitogen.core import CallError, ChannelError, Kwargs, Latch, Message, Receiver
from mitogen.service import (
    AllowAny, AllowParents, DeduplicatingInvoker, Invoker, Pool, SerializedInvoker, Service, expose, no_reply,
)
from service_targets import Named, Plain

PLAIN = u'service_targets.Plain'


@pytest.fixture
def make_pool(router):
    """
    A function that makes pools on the fixture ``router``; they are stopped after the test.
    """
    pools = []

    def make(*services, **kwargs):
        pool = Pool(router, services=services, **kwargs)
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.stop()


@pytest.fixture
def plain(router):
    return Plain(router)


def receiver_of_call(router, service_name, method_name, **kwargs):
    return router.myself().call_service_async(service_name, method_name, **kwargs)


def result_of(receiver):
    return receiver.get(timeout=60).unpickle()


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


# ---- the plain invoker

def test_what_is_not_exposed_cannot_be_called(router, make_pool, plain):
    make_pool(plain)
    for method in u'hidden', u'on_shutdown', u'no_such_method':
        with pytest.raises(CallError) as caught:
            result_of(receiver_of_call(router, PLAIN, method))
        assert method in str(caught.value)
    assert plain.shut_down == 0


def test_the_message_is_passed_to_who_has_a_parameter_for_it(router, make_pool, plain):
    make_pool(plain)
    child = router.local()
    assert child.call(service_targets.call_service, router.myself(), PLAIN, 'who') == (child.context_id,) * 2
    # Not to one that merely has a variable of that name.
    assert result_of(receiver_of_call(router, PLAIN, 'has_local_msg', value=7)) == 7
    # The caller has no say in it.
    assert result_of(receiver_of_call(router, PLAIN, 'who', msg='forged')) == (0, 0)


def test_exceptions_travel_to_the_caller(router, make_pool, plain):
    make_pool(plain)
    with testlib.LogCapture('mitogen') as log:
        with pytest.raises(CallError) as caught:
            result_of(receiver_of_call(router, PLAIN, 'raises', text='on purpose'))
        text = str(caught.value)
        assert 'ValueError: on purpose\n' in text
        assert 'in raises' in text
        log.wait('raises')
        with pytest.raises(CallError) as caught:
            result_of(receiver_of_call(router, PLAIN, 'refuses'))
        assert str(caught.value) == 'refused on purpose'
        assert log.find('refused on purpose', name='mitogen.service')


def test_neither_exit_nor_what_cannot_be_sent_costs_a_thread(router, make_pool, plain):
    make_pool(plain)
    for method in 'exits', 'unsendable':
        with pytest.raises(CallError):
            result_of(receiver_of_call(router, PLAIN, method))
    assert result_of(receiver_of_call(router, PLAIN, 'unprivileged')) == 'unprivileged'


def test_a_silent_method_sends_nothing(router, make_pool, plain):
    make_pool(plain)
    with testlib.LogCapture('mitogen') as log:
        for value in 'fine', 'fail':
            receiver = receiver_of_call(router, PLAIN, 'silent', value=value)
            # One thread, one after the other: were there a reply it would be here.
            assert result_of(receiver_of_call(router, PLAIN, 'seen_so_far'))[-1] == value
            with pytest.raises(mitogen.core.TimeoutError):
                receiver.get(block=False)
            receiver.close()
        record, = log.find('silent')
        assert record.exc_info or 'silent failure' in record.getMessage()


class Gate(object):
    """
    Lets the test see how many calls are inside a method at once, and hold them there.
    """
    def __init__(self):
        self.entered = Latch()
        self.leave = Latch()
        self.lock = threading.Lock()
        self.inside = self.most = self.runs = 0

    def pass_through(self):
        with self.lock:
            self.inside += 1
            self.runs += 1
            self.most = max(self.most, self.inside)
        self.entered.put(None)
        try:
            return self.leave.get(timeout=60)
        finally:
            with self.lock:
                self.inside -= 1


class Gated(Service):
    def __init__(self, router):
        super(Gated, self).__init__(router)
        self.gate = Gate()
        self.order = []

    @expose(AllowAny())
    def run(self, value=None):
        self.order.append(value)
        return self.gate.pass_through()

    @expose(AllowAny())
    def fail(self, value=None):
        raise ValueError('failed on purpose')

    @expose(AllowAny())
    def refuse(self):
        self.order.append('refuse')
        raise CallError('refused on purpose')

    @expose(AllowAny())
    def quit(self):
        raise SystemExit(1)

    @expose(AllowParents())
    def privileged(self):
        return 'privileged'


class SerializedGated(Gated):
    invoker_class = SerializedInvoker


class DeduplicatedGated(Gated):
    invoker_class = DeduplicatingInvoker


def gated(router, make_pool, klass, size=3):
    service = klass(router)
    make_pool(service, size=size)
    return service, lambda method='run', **kw: receiver_of_call(router, klass, method, **kw)


def test_methods_run_in_parallel(router, make_pool):
    service, call = gated(router, make_pool, Gated)
    receivers = [call() for _ in range(3)]
    for _ in receivers:
        service.gate.entered.get(timeout=60)
    assert service.gate.inside == 3
    for i in range(3):
        service.gate.leave.put(i)
    assert sorted(result_of(receiver) for receiver in receivers) == [0, 1, 2]


# ---- one at a time

def test_serialized_calls_never_overlap(router, make_pool):
    service, call = gated(router, make_pool, SerializedGated)
    receivers = [call(value=i) for i in range(5)]
    for i in range(5):
        service.gate.entered.get(timeout=60)
        # The others do not occupy a thread meanwhile.
        latch = Latch()
        router._service_pool.defer(latch.put, i)
        assert latch.get(timeout=60) == i
        service.gate.leave.put(i)
    assert [result_of(receiver) for receiver in receivers] == list(range(5))
    assert service.order == list(range(5))
    assert service.gate.most == 1


class Ordered(Service):
    invoker_class = SerializedInvoker

    def __init__(self, router):
        super(Ordered, self).__init__(router)
        self.order = []

    @expose(AllowAny())
    def note(self, value):
        self.order.append(value)


class SlowToLook(Pool):
    """
    Its first call is not with its service until another thread is done with another call.
    """
    def __init__(self, *args, **kwargs):
        self.looks = iter([True])
        self.done = Latch()
        super(SlowToLook, self).__init__(*args, **kwargs)

    def get_invoker(self, name, msg):
        if next(self.looks, False):
            self.done.get(timeout=60)
        return super(SlowToLook, self).get_invoker(name, msg)

    def _on_service_call(self, msg):
        super(SlowToLook, self)._on_service_call(msg)
        self.done.put()


@pytest.mark.parametrize('first', ['note', 'no_such_method'])
def test_serialized_calls_keep_their_order_though_one_takes_longer_to_reach_the_service(router, first):
    service = Ordered(router)
    pool = SlowToLook(router, services=[service], size=2)
    try:
        late = receiver_of_call(router, Ordered, first, value=0)
        receivers = [receiver_of_call(router, Ordered, 'note', value=i) for i in (1, 2)]
        for receiver in receivers:
            result_of(receiver)
        late.get(timeout=60)
    finally:
        pool.stop()
    assert service.order == ([0] if first == 'note' else []) + [1, 2]
    assert pool._coming._calls == []


def test_errors_of_a_serialized_service(router, make_pool):
    service, call = gated(router, make_pool, SerializedGated)
    with testlib.LogCapture('mitogen.service') as log:
        with pytest.raises(CallError) as caught:
            result_of(call('refuse'))
        assert str(caught.value) == 'refused on purpose'
        assert log.find('refused on purpose')
        for method in 'fail', 'quit':
            with pytest.raises(ChannelError):
                result_of(call(method))
        with pytest.raises(CallError):
            result_of(call('no_such_method'))
        assert any(record.exc_info for record in log.find('fail'))
    service.gate.leave.put('works')
    assert result_of(call()) == 'works'


def test_a_serialized_invoker_takes_keywords_only(router):
    with pytest.raises(TypeError):
        SerializedInvoker(Plain(router))
    assert SerializedInvoker(service=Plain(router)).service.name() == PLAIN


# ---- once for all

def test_equal_calls_run_once(router, make_pool):
    service, call = gated(router, make_pool, DeduplicatedGated, size=2)
    receivers = [call(value=1) for _ in range(4)]
    service.gate.entered.get(timeout=60)
    # Those that wait occupy no thread.
    latch = Latch()
    router._service_pool.defer(latch.put, None)
    latch.get(timeout=60)
    service.gate.leave.put('once')
    assert [result_of(receiver) for receiver in receivers] == ['once'] * 4
    assert result_of(call(value=1)) == 'once'
    assert service.gate.runs == 1
    service.gate.leave.put('twice')
    assert result_of(call(value=2)) == 'twice'
    assert service.gate.runs == 2


def test_secrets_of_the_same_length_are_not_the_same_call(router, make_pool):
    service, call = gated(router, make_pool, DeduplicatedGated)
    for result, secret in enumerate([mitogen.core.Secret(u'aaa'), mitogen.core.Secret(u'bbb'),
                                     mitogen.core.Blob(b'aaa'), mitogen.core.Blob(b'bbb')]):
        service.gate.leave.put(result)
        assert result_of(call(value=[{'nested': secret}])) == result
    assert service.gate.runs == 4


def test_the_order_of_arguments_does_not_matter(router):
    invoker = DeduplicatingInvoker(Plain(router))
    first, second = Kwargs({}), Kwargs({})
    first['a'], first['b'] = 1, 2
    second['b'], second['a'] = 2, 1
    assert invoker.key_from_request(u'x', first) == invoker.key_from_request(u'x', second)
    assert invoker.key_from_request(u'x', first) != invoker.key_from_request(u'y', first)
    with pytest.raises(NotImplementedError):
        invoker.get_response(())


def test_errors_are_kept_too(router, make_pool):
    service, call = gated(router, make_pool, DeduplicatedGated)
    for _ in range(2):
        with pytest.raises(CallError) as caught:
            result_of(call('refuse'))
        assert str(caught.value) == 'refused on purpose'
    assert service.order == ['refuse']
    for method in 'fail', 'quit', 'no_such_method':
        with pytest.raises(CallError):
            result_of(call(method))


def test_a_kept_result_is_not_for_everybody(router, make_pool):
    service, call = gated(router, make_pool, DeduplicatedGated)
    assert result_of(call('privileged')) == 'privileged'
    child = router.local()
    kind, text = child.call(service_targets.refusal, router.myself(), service.name(), 'privileged')
    assert kind == 'CallError'
    assert Invoker.unauthorized_msg % (u'privileged', service.name()) in text
    assert result_of(call('privileged')) == 'privileged'


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


# ---- pools

def test_two_services_of_one_name(router, make_pool, plain):
    with pytest.raises(mitogen.service.Error):
        make_pool(plain, Plain(router))
    # That left nothing behind.
    pool = make_pool(plain)
    with pytest.raises(mitogen.service.Error):
        pool.add(Plain(router))
    assert pool.get_service(PLAIN) is plain


def test_one_pool_per_router(router, make_pool, plain):
    first = make_pool(plain)
    with pytest.raises(mitogen.core.Error) as caught:
        Pool(router)
    assert str(caught.value) == router.duplicate_handle_msg
    second = make_pool(Plain(router), overwrite=True)
    # The handle stays with the one that took it.
    first.stop()
    assert result_of(receiver_of_call(router, PLAIN, 'unprivileged')) == 'unprivileged'
    second.stop()
    with pytest.raises(ChannelError):
        result_of(receiver_of_call(router, PLAIN, 'unprivileged'))


@pytest.mark.parametrize('overwrite', [False, True])
def test_a_service_in_two_pools(make_router, overwrite):
    router = make_router()
    other = router if overwrite else make_router()
    service = Plain(router)
    latch = Latch()
    service.select = mitogen.select.Select([latch], oneshot=False)
    first = Pool(router, [service])
    second = Pool(other, [service], overwrite=overwrite)
    third = Pool(make_router(), [service])
    try:
        for each in router, other:
            assert result_of(receiver_of_call(each, PLAIN, 'unprivileged')) == 'unprivileged'
        # Each event is seen once, as long as one of them is there.
        for number, pool in enumerate([None, first, second]):
            if pool:
                pool.stop()
            latch.put(number)
            assert service.events.get(timeout=60)[0].data == number
        third.stop()
        assert service.select.notify is None
        # That of somebody else is none to be taken.
        with mitogen.select.Select([service.select]):
            with pytest.raises(mitogen.select.Error):
                Pool(make_router(), [service])
        assert mitogen.service._pools_by_select == {}
        with pytest.raises(mitogen.core.TimeoutError):
            service.events.get(block=False)
    finally:
        for pool in first, second, third:
            pool.stop()


def test_stop_waits_for_the_services(router, make_pool, plain):
    other = Named(router)
    order = []
    plain.on_shutdown = lambda: order.append('first')
    other.on_shutdown = lambda: order.append('second')
    pool = make_pool(plain, other, size=3)
    threads = list(pool._threads)
    assert pool.size == 3
    assert not pool.closed
    pool.stop()
    assert order == ['first', 'second']
    assert pool.closed
    assert not any(thread.is_alive() for thread in threads)
    assert pool._receiver.handle is None
    with pytest.raises(ChannelError) as caught:
        router.myself().call_service(PLAIN, 'unprivileged')
    assert str(caught.value) == router.invalid_handle_msg
    with pytest.raises(mitogen.core.Error):
        pool.defer(order.append, 'never')
    pool.join()
    assert order == ['first', 'second'] * 2
    assert 'never' not in order


def test_stop_may_be_told_not_to_wait(router, make_pool):
    service, call = gated(router, make_pool, Gated, size=1)
    receiver = call()
    service.gate.entered.get(timeout=60)
    pool = router._service_pool
    pool.stop(join=False)
    assert pool.closed
    # A call that runs is still answered.
    service.gate.leave.put('late')
    assert result_of(receiver) == 'late'
    pool.join()


def test_a_failing_hook_does_not_keep_others_from_theirs(router, make_pool, plain):
    other = Named(router)
    other.on_shutdown = lambda: 1 / 0
    make_pool(other, plain).stop()
    assert plain.shut_down == 1


def test_stop_from_one_of_its_threads(router, make_pool, plain):
    pool = make_pool(plain, size=2)
    latch = Latch()
    pool.defer(lambda: latch.put(pool.stop()))
    latch.get(timeout=60)
    pool.join()
    assert plain.shut_down == 2


def test_deferred_functions_run_in_the_pool(router, make_pool):
    pool = make_pool(size=1)
    latch = Latch()
    pool.defer(lambda: 1 / 0)
    pool.defer(lambda a, b: latch.put((a, b, threading.current_thread().name)), 1, b=2)
    a, b, name = latch.get(timeout=60)
    assert (a, b) == (1, 2)
    assert name == 'mitogen.Pool.%04x.0' % (id(pool) & 0xffff)
    assert not threading.current_thread().daemon and not pool._threads[0].daemon


def test_dead_messages_cost_no_thread(router, make_pool, plain):
    make_pool(plain, size=1)
    child = router.local()
    for _ in range(3):
        router.myself().send(Message.dead('on purpose', handle=mitogen.core.CALL_SERVICE))
    assert result_of(receiver_of_call(router, PLAIN, 'unprivileged')) == 'unprivileged'
    assert child.call(service_targets.call_service, router.myself(), PLAIN, 'unprivileged') == 'unprivileged'


def test_a_pool_inherits_a_receiver(router, make_pool, plain):
    noticed = []
    stub = Receiver(router, handle=mitogen.core.CALL_SERVICE)
    stub.notify = noticed.append
    early = [receiver_of_call(router, PLAIN, 'bump') for _ in range(3)]
    testlib.sync(router.broker)
    assert stub.size() == 3
    make_pool(plain, overwrite=True, recv=stub)
    late = receiver_of_call(router, PLAIN, 'bump')
    assert sorted(result_of(receiver)[0] for receiver in early + [late]) == [1, 2, 3, 4]
    testlib.wait_for(lambda: len(noticed) == 3)


def test_a_pool_ends_with_its_broker(make_router):
    router = make_router()
    pool = Pool(router, size=2)
    router.broker.shutdown()
    router.broker.join()
    testlib.wait_for(lambda: not any(thread.is_alive() for thread in pool._threads))
    assert pool.closed
    # One that comes too late never starts to wait.
    late = Pool(router)
    assert late.closed
    late.join()


def test_many_stops_at_once(router, make_pool):
    for _ in range(20):
        pool = make_pool(size=4)
        with testlib.LogCapture('mitogen.service') as log:
            testlib.in_threads([pool.stop] * 3)
        assert not [record for record in log.records if record.levelname != 'DEBUG']


def test_names_for_stop(make_pool):
    for name in 'close', 'shutdown':
        pool = make_pool()
        getattr(pool, name)()
        assert pool.closed


# ---- the pool of a process

def test_the_pool_of_this_process(make_router):
    router = make_router()
    pool = mitogen.service.get_or_create_pool(router=router)
    assert pool.size == 2
    assert mitogen.service.get_or_create_pool() is pool
    assert mitogen.service.get_or_create_pool(size=5, context=router.myself()) is pool
    pool.stop()
    again = mitogen.service.get_or_create_pool(size=3, context=router.myself())
    assert again is not pool
    assert again.size == 3
    assert not again.closed
    router.broker.shutdown()
    router.broker.join()
    # It was waited for.
    assert again.closed
    assert not any(thread.is_alive() for thread in again._threads)


def test_no_pool_without_a_router(monkeypatch):
    monkeypatch.setattr(mitogen.service, '_pool', None)
    with pytest.raises(ValueError):
        mitogen.service.get_or_create_pool()


def test_the_pool_of_a_child(router):
    child = router.local()
    size, ident, known = child.call(service_targets.pool_facts)
    assert (size, known) == (2, True)
    assert child.call(service_targets.pool_facts)[1] == ident


@pytest.mark.skipif(not mitogen.fork.FORK_SUPPORTED, reason='this platform cannot fork')
def test_a_forked_child_makes_a_pool_of_its_own(router):
    mitogen.service.get_or_create_pool(router=router)
    child = router.fork()
    assert child.call(service_targets.pool_after_fork) == (True, False, True)
    assert child.call_service(PLAIN, 'pid') == child.call(os.getpid)


def test_a_busy_service_does_not_hold_up_the_end_for_ever(make_router, monkeypatch):
    router = make_router()
    monkeypatch.setattr(router.broker, 'shutdown_timeout', 0.2)
    pool = mitogen.service.get_or_create_pool(router=router)
    leave, entered = Latch(), Latch()
    pool.defer(lambda: (entered.put(), leave.get(timeout=60)))
    entered.get(timeout=60)
    with testlib.LogCapture('mitogen.service') as log:
        router.broker.shutdown()
        router.broker.join()
        assert log.find('still busy')
    leave.put()
    pool.join()


# ---- call()

def test_a_direct_call_has_no_hop_and_no_policy(router):
    mitogen.service.get_or_create_pool(router=router)
    assert mitogen.service.call(Plain, 'privileged') == 'privileged'
    assert mitogen.service.call(PLAIN, 'hidden') == 'hidden'
    assert mitogen.service.call(PLAIN.encode(), 'bump')[2] == threading.current_thread().name
    with pytest.raises(ValueError):
        mitogen.service.call(Plain, 'raises', text='as it is')
    assert mitogen.service.call(service_name=Plain, method_name='with_spec', foo='unchecked') == 'unchecked'


def test_a_direct_call_works_when_the_pool_was_stopped(make_router):
    router = make_router()
    pool = mitogen.service.get_or_create_pool(router=router)
    assert mitogen.service.call(Plain, 'privileged') == 'privileged'
    pool.stop()
    assert mitogen.service.call(Plain, 'privileged') == 'privileged'
    router.broker.shutdown()
    router.broker.join()
    assert mitogen.service.call(Plain, 'privileged') == 'privileged'


def test_a_call_elsewhere(router):
    child = router.local()
    assert mitogen.service.call(Plain, 'pid', call_context=child) == child.call(os.getpid)
    assert mitogen.service.call(service_name=PLAIN, method_name='with_spec', call_context=child, foo=3) == 3


# ---- the pool of a child

def test_calls_to_a_fresh_child(router):
    child = router.local()
    receivers = [child.call_service_async(PLAIN, 'bump') for _ in range(2)]
    results = [result_of(receiver) for receiver in receivers]
    assert sorted(result[0] for result in results) == [1, 2]
    assert len(set(result[1] for result in results)) == 1
    assert len(child.call(service_targets.pool_thread_names)) == 2


def test_a_sibling_does_not_make_a_pool_appear(router):
    child, sibling = router.local(), router.local()
    kind, text = sibling.call(service_targets.refusal, child, PLAIN, 'unprivileged')
    assert (kind, text) == ('ChannelError', router.refused_msg)
    assert not child.call(service_targets.pool_exists)


def test_the_first_call_does_not_wait_for_the_main_thread(router):
    child = router.local()
    with Receiver(router) as ready:
        busy = child.call_async(service_targets.hold_main_thread, ready.to_sender())
        release = result_of(ready)
        call = child.call_service_async(PLAIN, 'unprivileged')
        # The main thread may wait for the service.
        assert result_of(call) == 'unprivileged'
        assert busy.empty()
        release.send('released')
        assert result_of(busy) == 'released'


def test_methods_run_on_threads_of_the_pool(router):
    child = router.local()
    name = child.call_service(PLAIN, 'bump')[2]
    assert name.startswith('mitogen.Pool.')
    assert name != child.call(service_targets.main_thread_name)


def test_a_service_of_the_master_is_called_from_a_grandchild(router, make_pool, plain):
    make_pool(plain)
    child = router.local(via=router.local())
    assert child.call(service_targets.call_service, router.myself(), PLAIN, 'who') == (child.context_id,) * 2
