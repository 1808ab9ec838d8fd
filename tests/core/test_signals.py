"""
Signals of objects, and where the library fires them.
"""

import threading

import pytest

import mitogen.core
from mitogen.core import Latch, fire, listen, unlisten

import targets
import testlib


class Thing(object):
    pass


def test_every_listener_runs_with_the_arguments_in_order():
    thing = Thing()
    seen = []
    listen(thing, 'event', lambda *a, **k: seen.append(('first', a, k)))
    listen(thing, 'event', lambda *a, **k: seen.append(('second', a, k)))
    fire(thing, 'event', 1, b=2)
    assert seen == [('first', (1,), {'b': 2}), ('second', (1,), {'b': 2})]


def test_names_are_apart():
    thing = Thing()
    seen = []
    listen(thing, 'one', lambda: seen.append('one'))
    fire(thing, 'other')
    assert seen == []


def test_objects_are_apart():
    first, second = Thing(), Thing()
    seen = []
    listen(first, 'event', lambda: seen.append('first'))
    fire(second, 'event')
    assert seen == []


def test_listeners_are_kept_in_the_objects_dict():
    thing = Thing()
    listen(thing, 'event', len)
    assert '_signals' in thing.__dict__


def test_firing_with_no_listener_does_nothing():
    fire(Thing(), 'event')


def test_a_listener_runs_on_the_firing_thread():
    thing = Thing()
    seen = []
    listen(thing, 'event', lambda: seen.append(threading.current_thread()))
    thread = threading.Thread(target=fire, args=(thing, 'event'))
    thread.start()
    thread.join()
    assert seen == [thread]


def test_unlisten_removes_one():
    thing = Thing()
    seen = []
    listen(thing, 'event', seen.append)
    unlisten(thing, 'event', seen.append)
    fire(thing, 'event', 1)
    assert seen == []


def test_unlisten_of_an_absent_function_raises():
    thing = Thing()
    with pytest.raises(ValueError):
        unlisten(thing, 'event', len)
    listen(thing, 'event', len)
    with pytest.raises(ValueError):
        unlisten(thing, 'event', max)


def test_a_function_may_listen_twice():
    thing = Thing()
    seen = []
    listen(thing, 'event', seen.append)
    listen(thing, 'event', seen.append)
    fire(thing, 'event', 1)
    assert seen == [1, 1]


def test_an_exception_reaches_the_firer_and_skips_the_rest():
    thing = Thing()
    seen = []

    def bad():
        raise ValueError()

    listen(thing, 'event', bad)
    listen(thing, 'event', lambda: seen.append(1))
    with pytest.raises(ValueError):
        fire(thing, 'event')
    assert seen == []


def test_a_listener_may_remove_itself():
    thing = Thing()
    seen = []

    def once():
        seen.append('once')
        unlisten(thing, 'event', once)

    listen(thing, 'event', once)
    fire(thing, 'event')
    fire(thing, 'event')
    assert seen == ['once']


def test_signals_of_a_broker_come_in_order_on_its_thread(make_router):
    broker = make_router().broker
    seen = []
    for name in ('before_shutdown', 'shutdown', 'exit'):
        listen(broker, name, lambda name=name: seen.append((name, threading.current_thread() is broker._thread)))
    broker.shutdown()
    broker.join()
    assert seen == [('before_shutdown', True), ('shutdown', True), ('exit', True)]


def test_a_broker_that_crashes_fires_exit(make_router):
    broker = make_router().broker
    latch = Latch()
    listen(broker, 'exit', latch.put)

    def crash(*args, **kwargs):
        raise ValueError('deliberate')

    broker._loop_once = crash
    broker.defer(lambda: None)
    latch.get(timeout=60)
    broker.join()


def test_a_context_fires_disconnect_when_its_child_ends(router):
    child = router.local()
    latch = Latch()
    listen(child, 'disconnect', lambda: latch.put(threading.current_thread()))
    child.shutdown()
    assert latch.get(timeout=60) is router.broker._thread


def test_a_context_fires_disconnect_when_its_grandchild_is_lost(router):
    child = router.local()
    grandchild = router.local(via=child)
    latch = Latch()
    listen(grandchild, 'disconnect', latch.put)
    child.shutdown()
    latch.get(timeout=60)


def test_a_stream_fires_disconnect(router):
    child = router.local()
    latch = Latch()
    listen(router.stream_by_id(child.context_id), 'disconnect', latch.put)
    child.shutdown()
    latch.get(timeout=60)


def test_a_stream_fires_shutdown_when_the_broker_shuts_down(make_router):
    router = make_router()
    child = router.local()
    latch = Latch()
    listen(router.stream_by_id(child.context_id), 'shutdown', latch.put)
    router.broker.shutdown()
    latch.get(timeout=60)


def test_a_process_fires_exit_when_it_was_reaped(router):
    import os
    child = router.local()
    proc = router.stream_by_id(child.context_id).conn.proc
    latch = Latch()
    listen(proc, 'exit', latch.put)
    child.shutdown()
    latch.get(timeout=60)
    with pytest.raises(OSError):
        os.waitpid(proc.pid, 0)


def test_the_decorators_set_their_marks():
    def function():
        pass

    assert mitogen.core.takes_econtext(function) is function
    assert function.mitogen_takes_econtext is True
    assert mitogen.core.takes_router(function) is function
    assert function.mitogen_takes_router is True
    assert targets.Holder.class_method_with_econtext.mitogen_takes_econtext is True


def test_a_native_object_takes_listeners_too(router):
    latch = Latch()
    receiver = mitogen.core.Receiver(router)
    for obj in (latch, receiver, router, router.broker, router.myself(), mitogen.core.Message()):
        seen = []
        listen(obj, 'event', seen.append)
        fire(obj, 'event', 1)
        assert seen == [1]
    receiver.close()
    testlib.sync(router.broker)
