"""
The cores are alike where a message, a function or an object comes to its end just then: the order
of what the broker's thread runs, handlers that are taken away meanwhile, queues that nobody reads
any more, numbers out of range.
"""

import gc
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import weakref

import pytest

import mitogen.core
import mitogen.master
import mitogen.select
from mitogen.core import Broker, Latch, Message, Receiver, Router

import targets
import testlib


@pytest.fixture
def router():
    broker = Broker()
    yield Router(broker)
    broker.shutdown()
    broker.join()


class Held(object):
    """While in this context, the thread of the broker does nothing else."""
    def __init__(self, router):
        self.broker = router.broker
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __enter__(self):
        self.broker.defer(lambda: (self.reached.set(), self.go_on.wait(60)))
        assert self.reached.wait(60)

    def __exit__(self, *_):
        self.go_on.set()
        self.broker.defer_sync(lambda: None)


def send(router, handle, value=u'x', **fields):
    router.route(Message.pickled(value, dst_id=0, handle=handle, **fields))


#
# The order of things.
#

def test_the_broker_takes_messages_and_functions_in_their_order(router):
    order = []
    handle = router.add_handler(lambda msg: msg.is_dead or order.append(msg.unpickle()))
    with Held(router):
        for i in range(10):
            send(router, handle, i * 2)
            router.broker.defer(order.append, i * 2 + 1)
    assert order == list(range(20))


def test_a_handler_for_one_message_with_a_policy_gets_one(router):
    got, back = [], Receiver(router)
    handle = router.add_handler(got.append, persist=False, policy=lambda msg, stream: True)
    with Held(router):
        send(router, handle, 1)
        send(router, handle, 2, reply_to=back.handle)
    assert [msg.unpickle() for msg in got] == [1]
    assert back.get(throw_dead=False).is_dead


def test_a_handler_that_is_taken_away_gets_nothing_more(router):
    got, back = [], Receiver(router)
    handle = router.add_handler(got.append)
    with Held(router):
        send(router, handle, reply_to=back.handle)
        router.del_handler(handle)
    assert not got
    assert back.get(throw_dead=False).is_dead


def test_a_message_that_was_accepted_is_delivered_though_the_broker_ends():
    broker = Broker()
    router = Router(broker)
    got = []
    handle = router.add_handler(got.append, persist=False)
    reached, go_on = threading.Event(), threading.Event()

    def last_turn():
        broker._alive = False
        reached.set()
        go_on.wait(60)

    broker.defer(last_turn)
    assert reached.wait(60)
    send(router, handle)
    go_on.set()
    broker.join()
    assert len(got) == 1


@pytest.mark.parametrize('number', [-1, 0, 2 ** 31, 2 ** 40, u'x', None])
def test_no_handler_is_a_key_error(router, number):
    with pytest.raises(KeyError):
        router.del_handler(number)


#
# Queues.
#

def test_tokens_of_many_receivers_that_are_gone_are_passed_over(router):
    select = mitogen.select.Select(oneshot=False)
    for i in range(1500):
        receiver = Receiver(router)
        select.add(receiver)
        receiver._on_receive(Message.pickled(i))
        select.remove(receiver)
        receiver.close()
    del receiver
    gc.collect()
    live = Latch()
    select.add(live)
    live.put(u'hello')
    assert select.get(timeout=60.0) == u'hello'


class Thing(object):
    pass


def test_what_refers_to_the_queue_it_is_in_is_collected():
    latch, thing = Latch(), Thing()
    thing.latch = latch
    latch.put(thing)
    ref = weakref.ref(thing)
    del latch, thing
    gc.collect()
    assert ref() is None


def test_a_message_nobody_read_does_not_keep_its_router():
    broker = Broker()
    router = Router(broker)
    receiver = Receiver(router)
    receiver._on_receive(Message.pickled(u'x', dst_id=0, handle=receiver.handle, router=router, receiver=receiver))
    broker.shutdown()
    broker.join()
    refs = [weakref.ref(obj) for obj in (broker, router, receiver)]
    del broker, router, receiver

    def gone():
        gc.collect()
        return [ref() for ref in refs] == [None] * 3

    testlib.wait_for(gone)


def test_items_are_still_there_after_a_collection():
    latch = Latch()
    for i in range(100):
        thing = Thing()
        thing.number = i
        latch.put(thing)
    del thing
    gc.collect()
    assert [latch.get().number for _ in range(100)] == list(range(100))


def test_a_receiver_that_only_a_latch_refers_to_comes_out_of_it(router):
    latch, gone = Latch(), []
    receiver = Receiver(router)
    handle = receiver.handle
    receiver.notify = latch.put
    receiver._on_receive(Message.pickled(1))
    ref = weakref.ref(receiver, gone.append)
    router.del_handler(handle)
    del receiver
    gc.collect()
    assert not gone
    receiver = latch.get(block=False)
    assert receiver is ref()
    assert receiver.get(block=False).unpickle() == 1


@pytest.mark.native
def test_a_receiver_that_is_about_to_go_is_not_handed_out(router):
    latch, got = Latch(), []

    def take(_ref):
        try:
            got.append(latch.get(block=False))
        except mitogen.core.TimeoutError:
            got.append(None)

    receiver = Receiver(router)
    handle = receiver.handle
    receiver.notify = latch.put
    receiver._on_receive(Message.pickled(1))
    router.del_handler(handle)
    del receiver
    receiver = latch.get(block=False)
    # Python calls a finalizer only once, so this time the latch does not keep it.
    receiver._on_receive(Message.pickled(2))
    ref = weakref.ref(receiver, take)
    del receiver
    testlib.wait_for(lambda: gc.collect() is not None and ref() is None)
    assert got == [None]


def test_a_circle_of_latches_is_an_error():
    one, other = Latch(), Latch()
    one.notify = other.put
    with pytest.raises((ValueError, RuntimeError)):
        other.notify = one.put
        one.put(1)


def test_a_latch_may_replace_the_function_it_notifies_meanwhile():
    latch, told = Latch(), []

    def notify(which):
        which.notify = None
        gc.collect()
        told.append(which)

    latch.notify = notify
    del notify
    latch.put(1)
    latch.put(2)
    assert told == [latch]


#
# Failures that others cause, and those that we cause ourselves.
#

def test_two_threads_that_ask_for_one_thing_at_once_both_get_it():
    """The parent is asked once, by whoever was first."""
    class Asked(mitogen.core._Fetcher):
        def _install_handler(self, router):
            pass

    class Parent(object):
        sent = 0

        def send(self, msg):
            self.sent += 1

    class Interrupting(object):
        """A lock behind which the other thread runs whenever it is released."""
        def __init__(self):
            self.lock, self.then = threading.Lock(), None

        def __enter__(self):
            self.lock.acquire()

        def __exit__(self, *_):
            self.lock.release()
            then, self.then = self.then, None
            if then:
                then()

    parent, told = Parent(), []
    fetcher = Asked(None, parent)
    fetcher._lock = lock = Interrupting()
    lock.then = lambda: fetcher._request('key', lambda: told.append(2), lambda: None)
    fetcher._request('key', lambda: told.append(1), lambda: None)
    assert parent.sent == 1
    fetcher._answer('key', 'value')
    assert told == [1, 2]
    fetcher._request('other', lambda: told.append(3), lambda: None)
    fetcher._abandon()
    fetcher._request('third', lambda: told.append(4), lambda: None)
    assert told == [1, 2, 3, 4]
    assert parent.sent == 2


def test_a_message_that_a_hook_refuses_ends_nobody_else(router):
    """A dead message in our own name would be an order to the recipient."""
    sender, victim = testlib.Peer(router, 101), testlib.Peer(router, 102)

    def refuse(stream, msg):
        raise ValueError('not this one')

    sender.stream.protocol.on_message = refuse
    sender.send(102, handle=mitogen.core.CALL_FUNCTION, data=b'x')
    fields = testlib.unframe(victim.sock.recv(65536))[0][0]
    magic, dst, src, auth, handle, reply_to = fields[:6]
    assert (dst, handle, reply_to) == (102, mitogen.core.CALL_FUNCTION, mitogen.core.IS_DEAD)
    assert (src, auth) == (101, 101)


def test_who_waits_at_a_full_receiver_hears_of_the_end():
    broker = Broker()
    router = Router(broker)
    receiver = Receiver(router, max_bytes=60)
    for i in range(3):
        send(router, receiver.handle, u'x' * 10)
    broker.defer_sync(lambda: None)
    broker.shutdown()
    broker.join()
    ends = 0
    for _ in range(3):
        try:
            receiver.get(timeout=60)
        except mitogen.core.ChannelError:
            ends += 1
    # One tells that the receiver was full, the other that nothing more comes.
    assert ends == 2


def test_a_handle_that_was_taken_over_outlives_its_first_respondent(router):
    peer = testlib.Peer(router, 101)
    known = router.context_by_id(101)
    Receiver(router, handle=5555, respondent=known)
    second = Receiver(router, handle=5555, overwrite=True)
    peer.sock.close()
    testlib.wait_for(lambda: router.stream_by_id(101) is None)
    testlib.sync(router.broker)
    send(router, 5555)
    assert second.get(timeout=60).unpickle() == u'x'


@pytest.mark.parametrize('error', [SystemExit, KeyboardInterrupt])
def test_a_handler_cannot_end_the_broker(router, error):
    def handler(msg):
        raise error()

    got = []
    handle = router.add_handler(handler)
    send(router, handle)
    send(router, router.add_handler(got.append))
    testlib.sync(router.broker)
    assert len(got) == 1


def test_a_broker_that_a_function_ends_shuts_its_streams_down(router):
    peer = testlib.Peer(router, 101)
    router.broker.defer(sys.exit, 3)
    router.broker.join()
    assert peer.sock.recv(65536) == b''


#
# Numbers out of range, and what comes in part.
#

def test_a_timeout_is_a_number(router):
    for waiting in Latch(), Receiver(router):
        with pytest.raises(ValueError):
            waiting.get(timeout=float('nan'))


def test_numbers_beyond_all_bounds_are_no_dead_message():
    assert not Message(reply_to=2 ** 70).is_dead
    assert Message(reply_to=2 ** 70, data=Message.pickled(1).data).unpickle() == 1


def test_a_limit_is_any_number(router):
    router.high_water = float('inf')
    router.max_message_size = 1e6
    got = []
    handle = router.add_handler(got.append)
    send(router, handle)
    router.broker.defer_sync(lambda: None)
    assert [msg.unpickle() for msg in got] == [u'x']


def test_a_receiver_cannot_hold_less_than_nothing(router):
    for limit in 0, -1:
        with pytest.raises(ValueError):
            Receiver(router, max_bytes=limit)


def test_what_is_good_of_a_payload_comes_before_what_is_bad():
    objects = Message(data=Message.pickled(1, u'two').data + b'junk').unpickle_iter()
    assert next(objects) == 1
    assert next(objects) == u'two'
    with pytest.raises(pickle.UnpicklingError):
        next(objects)


def test_a_protocol_needs_a_router_that_is_one():
    with pytest.raises((TypeError, AttributeError)):
        mitogen.core.MitogenProtocol(Router.__new__(Router), 1)


if mitogen.core.CORE == 'native':
    def test_a_watch_is_not_made_by_hand():
        import _mitogen_core
        with pytest.raises(TypeError):
            _mitogen_core.Watch()

    def test_a_pair_of_sockets_passes_bytes_until_an_end_is_shut_down():
        import _mitogen_core
        ours, theirs = _mitogen_core.socketpair()
        assert not os.get_inheritable(ours.fileno())
        os.write(ours.fileno(), b'text')
        ours.shutdown(1)
        assert os.read(theirs.fileno(), 100) == b'text'
        assert os.read(theirs.fileno(), 100) == b''
        ours.close()
        ours.close()
        assert ours.fileno() == -1
        with pytest.raises(OSError):
            ours.shutdown(1)

    def test_a_socket_that_nobody_has_any_more_is_closed():
        import _mitogen_core
        ours, theirs = _mitogen_core.socketpair()
        del theirs
        assert os.read(ours.fileno(), 100) == b''

    def test_a_socket_made_by_hand_is_a_closed_one():
        import _mitogen_core
        assert _mitogen_core.Socket().fileno() == -1


#
# The end of the interpreter.
#

def test_threads_that_wait_when_the_interpreter_ends():
    """A daemon thread ends where it asks for the GIL, and is in the queue still."""
    program = textwrap.dedent(u'''
        import os, threading, time
        import mitogen.core

        latch = mitogen.core.Latch()

        class Late(object):
            def __init__(self):
                self.latch, self.sleep, self.write = latch, time.sleep, os.write

            def __del__(self):
                self.sleep(.6)
                self.latch.close()
                self.write(1, b'closed')

        late = Late()
        for i in range(12):
            thread = threading.Thread(target=latch.get, kwargs={'timeout': .2 + i / 100.})
            thread.daemon = True
            thread.start()
        time.sleep(.05)
    ''')
    proc = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=dict(os.environ))
    out, err = proc.communicate()
    assert (proc.returncode, out) == (0, b'closed'), err


def test_a_bad_log_call_in_a_child_is_no_error_of_the_program():
    router = mitogen.master.Router()
    try:
        context = router.local()
        context.call(targets.log, 'prog', 40, '%d', 'abc')
        assert context.call(targets.add, 1, 2) == 3
    finally:
        router.broker.shutdown()
        router.broker.join()


@pytest.mark.parametrize('name, package, is_package', [
    ('plain_module', '', False), ('whole_package', 'whole_package', True)])
def test_a_module_from_the_parent_is_loaded_anew(tmp_path, monkeypatch, name, package, is_package):
    (tmp_path / 'plain_module.py').write_text(u'value = 1')
    (tmp_path / 'whole_package').mkdir()
    (tmp_path / 'whole_package' / '__init__.py').write_text(u'value = 2')
    monkeypatch.syspath_prepend(str(tmp_path))
    router = mitogen.master.Router()
    try:
        context = router.local()
        context.call(targets.module_file, name)
        assert context.call(targets.reload_module, name) == (name, package, is_package)
    finally:
        router.broker.shutdown()
        router.broker.join()


#
# Timers.
#

@pytest.mark.parametrize('seconds', [30 * 86400, 1e12, float('inf')])
def test_a_time_limit_as_long_as_you_like(seconds):
    broker = mitogen.master.Broker()
    try:
        context = mitogen.master.Router(broker).local(connect_timeout=seconds)
        assert context.call(os.getpid)
    finally:
        broker.shutdown()
        broker.join()


def in_a_subinterpreter(text):
    """
    Return what the text writes to the descriptor ``out`` in an interpreter of its own.
    """
    interpreters = None
    for name in ('_interpreters', '_xxsubinterpreters'):
        try:
            interpreters = interpreters or __import__(name)
        except ImportError:
            pass
    if interpreters is None:
        pytest.skip('this Python offers no subinterpreters')
    read, write = os.pipe()
    identity = interpreters.create()
    try:
        interpreters.run_string(identity, (
            'import os, sys\n'
            'os.environ = {}\n'
            'sys.path[:] = %r\n'
            'out = %d\n' % (sys.path, write) + text))
        os.close(write)
        return os.read(read, 1000).decode()
    finally:
        os.close(read)
        interpreters.destroy(identity)


def test_a_subinterpreter_has_the_pure_core():
    assert in_a_subinterpreter(
        'import mitogen.core\n'
        'latch = mitogen.core.Latch()\n'
        'latch.put("x")\n'
        'os.write(out, (mitogen.core.CORE + latch.get()).encode())\n') == 'purex'


@pytest.mark.skipif(sys.version_info < (3, 12), reason='before 3.12 it has no threads at all, and Python says so')
def test_a_subinterpreter_is_told_that_it_can_have_no_broker():
    assert in_a_subinterpreter(
        'import mitogen.master, threading\n'
        'try:\n'
        '    mitogen.master.Router()\n'
        'except mitogen.core.Error as e:\n'
        '    os.write(out, str(e).encode())\n').startswith('a broker can be had in the main interpreter only')
