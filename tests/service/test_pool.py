"""
Pools: their threads, their start and end, and the pool of a process.
"""

import os
import threading

import pytest
import service_targets
import testlib
from gated_services import gated, Gated, PLAIN, receiver_of_call, result_of

import mitogen.core
import mitogen.fork
import mitogen.select
import mitogen.service
from mitogen.core import ChannelError, Latch, Message, Receiver
from mitogen.service import Pool
from service_targets import Named, Plain


# ---- pools

def test_two_services_of_one_name(router, make_pool, plain):
    with pytest.raises(mitogen.service.Error):
        make_pool(plain, Plain(router))
    # The failed attempt left nothing behind.
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
        # A handle of another function must not be taken over.
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
    # The shutdown has waited for the pool.
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
