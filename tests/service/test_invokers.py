"""
Invokers: calls at the same time, one at a time, or once for all.
"""

import pytest
import service_targets
import testlib
from gated_services import DeduplicatedGated, gated, Gated, PLAIN, receiver_of_call, result_of, SerializedGated

import mitogen.core
from mitogen.core import CallError, ChannelError, Kwargs, Latch
from mitogen.service import AllowAny, DeduplicatingInvoker, Invoker, Pool, SerializedInvoker, Service, expose
from service_targets import Plain


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
    # The message is not passed to a method that merely has a variable of that name.
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


def test_arguments_that_hold_one_thing_many_times_are_not_compared(router):
    invoker = DeduplicatingInvoker(Plain(router))
    endless = ()
    for _ in range(60):
        endless = (endless, endless)
    for value in endless, [endless], [u'x' * 100000] * 10000:
        with pytest.raises(mitogen.core.CallError, match='too large to be compared'):
            invoker.key_from_request(u'x', Kwargs({'a': value}))


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
