"""
Signals in every wait: a handler in Python runs while the thread waits, an exception of it ends the
wait at once and harms nothing, and KeyboardInterrupt is but one of them.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import fork_targets
import mitogen.core
import mitogen.debug
import mitogen.master
import mitogen.parent
import mitogen.select
import mitogen.service
import mitogen.utils
import targets
import testlib
from mitogen.core import Latch, Receiver

#: Safety net: nothing here takes more than a second or two on an idle machine.
SECONDS = testlib.patience()


class Interrupt(BaseException):
    """The exception that the handler raises, where it is not KeyboardInterrupt."""


class Signals(object):
    """
    Sends a signal to this process soon after `ready` is set; or, where its handler raises nothing,
    one after another.
    """

    def __init__(self, raises):
        self.raises = raises
        self.count = 0

    def handler(self, *_args):
        self.count += 1
        if self.raises:
            raise self.raises

    def __enter__(self):
        self.old = signal.signal(signal.SIGUSR1, self.handler)
        self.ready = threading.Event()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def run(self):
        self.ready.wait()
        # Many where they do not raise: each finds the wait in another place.
        while not self.stopped.wait(0.05 if self.raises else 0.003):
            os.kill(os.getpid(), signal.SIGUSR1)
            if self.raises:
                return

    def __exit__(self, *_exc):
        self.ready.set()
        self.stopped.set()
        self.thread.join()
        # The last signal may not have been handled yet.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, self.old)


def stopped_child(router):
    """
    Return a context that reads nothing, and its pid.
    """
    child = router.local()
    pid = child.call(os.getpid)
    testlib.stop_process(pid)
    return child, pid


# ---- waits that a signal interrupts: (how to wait for ever, given a router; how to end what it
# left)

def wait_call(router):
    child = router.local()
    return lambda: child.call(targets.sleep, 600)


def wait_latch(router):
    return Latch().get


def wait_latch_with_timeout(router):
    return lambda: Latch().get(timeout=600)


def wait_receiver(router):
    return Receiver(router).get


def wait_select(router):
    return mitogen.select.Select([Receiver(router), Receiver(router)]).get


def wait_iterated_receiver(router):
    return lambda: list(Receiver(router))


def wait_room(router):
    router.high_water = 1 << 16
    child, pid = stopped_child(router)
    return lambda: [child.call_async(targets.identity, b'x' * 200000) for _ in range(100)]


def wait_connect(router):
    return lambda: router.local(python_path=['sh', '-c', 'exec cat >&2'], connect_timeout=600)


def wait_connect_via(router):
    child = router.local()
    return lambda: router.local(via=child, python_path=['sh', '-c', 'exec cat >&2'], connect_timeout=600)


def wait_service(router):
    pool = mitogen.service.Pool(router, [Sleeper(router)], size=1)
    router.pool = pool
    return lambda: router.myself().call_service(Sleeper, 'nap')


def wait_defer_sync(router):
    return lambda: router.broker.defer_sync(lambda: time.sleep(0.5))


def wait_shutdown(router):
    child, pid = stopped_child(router)
    return lambda: child.shutdown(wait=True)


def wait_broker_join(router):
    return router.broker.join


def wait_pool_join(router):
    pool = mitogen.service.Pool(router, [Sleeper(router)], size=1)
    router.pool = pool
    router.myself().call_service_async(Sleeper, 'nap')
    return pool.join


class Sleeper(mitogen.service.Service):
    event = threading.Event()

    @mitogen.service.expose(mitogen.service.AllowAny())
    def nap(self):
        self.event.wait(600)


WAITS = dict((name[5:], func) for name, func in list(globals().items()) if name.startswith('wait_'))


@pytest.fixture
def own(make_router):
    """
    A router whose children may be stopped or asleep: they are killed at the end.
    """
    router = make_router()
    Sleeper.event.clear()
    yield router
    Sleeper.event.set()
    for stream in router.get_streams():
        proc = stream.conn and stream.conn.proc
        if proc:
            testlib.send_signal(proc.pid, signal.SIGKILL)
    pool = getattr(router, 'pool', None)
    if pool:
        pool.stop(join=True)


@pytest.mark.parametrize('raises', [KeyboardInterrupt, Interrupt])
@pytest.mark.parametrize('name', sorted(WAITS))
def test_an_exception_of_a_handler_ends_the_wait(own, name, raises):
    wait = WAITS[name](own)
    with Signals(raises) as signals:
        with pytest.raises(raises):
            signals.ready.set()
            wait()
            # Then the function did not wait. The signal comes all the same.
            time.sleep(SECONDS)
    assert signals.count == 1
    # All goes on as before.
    assert own.local().call(targets.add, 1, 2) == 3


def test_handlers_run_while_a_thread_calls(own):
    """
    A handler that raises nothing costs no answer.
    """
    child = own.local()
    with Signals(None) as signals:
        signals.ready.set()
        deadline = time.time() + SECONDS
        while signals.count < 100 and time.time() < deadline:
            assert child.call(targets.identity, b'x' * 100000) == b'x' * 100000
            assert child.call(targets.sleep, 0.01) == 0.01
    assert signals.count >= 100


def test_a_handler_may_call(own):
    """
    A wait inside a wait of the same thread.
    """
    child = own.local()
    other = own.local()
    got = []

    def on_signal(*_args):
        got.append(other.call(targets.add, 1, 2))

    old = signal.signal(signal.SIGUSR1, on_signal)
    try:
        assert child.call(fork_targets.signal_parent_and_answer, os.getpid(), int(signal.SIGUSR1), 3) == 'answer'
        # Two that come before the first is handled are one.
        testlib.wait_for(lambda: got)
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert set(got) == {3}


def test_answers_are_not_lost_to_an_interrupted_wait(own):
    """
    Interrupts at any moment: a message that has come is there for the next thread that asks.
    """
    child = own.local()
    receiver = Receiver(own)
    done = child.call_async(fork_targets.send_numbers, receiver.to_sender(), 300)
    got = []
    interrupted = []
    # Not empty: the handler may raise, which it then does once.
    armed = []
    stop = threading.Event()

    def handler(*_args):
        if armed:
            interrupted.append(armed.pop())
            raise Interrupt

    def interrupt():
        while not stop.wait(0.002):
            os.kill(os.getpid(), signal.SIGUSR1)

    old = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        take = mitogen.core.Receiver.get
        deadline = time.time() + SECONDS
        while len(got) < 300 and time.time() < deadline:
            try:
                armed.append(True)
                # One call of C code appends: nothing can come between.
                got.extend(map(take, [receiver]))
                del armed[:]
            except Interrupt:
                pass
    finally:
        stop.set()
        thread.join()
        signal.signal(signal.SIGUSR1, old)
    if mitogen.core.CORE == 'native':
        assert [msg.unpickle() for msg in got] == list(range(300))
    else:
        # It takes what has come by steps of Python.
        numbers = [msg.unpickle() for msg in got]
        assert numbers == sorted(set(numbers))
    assert interrupted
    receiver.close()
    done.get().unpickle()


# ---- in a child

def test_an_interrupt_during_a_call_in_a_child(router):
    """
    SIGINT ends a child as it ends a program; its caller is told.
    """
    child = router.local()
    pid = child.call(os.getpid)
    with Receiver(router) as started:
        call = child.call_async(fork_targets.say_and_sleep, started.to_sender())
        started.get(timeout=SECONDS)
        os.kill(pid, signal.SIGINT)
        with pytest.raises(mitogen.core.Error):
            call.get(timeout=SECONDS).unpickle()
    testlib.wait_for(lambda: not testlib.is_running(pid), SECONDS)


def test_an_interrupt_during_an_import_in_a_child(router, tmp_path, monkeypatch):
    """
    The wait for the source of a module is one as well. The import fails, and can be tried again.
    """
    (tmp_path / 'interrupted_import.py').write_text('VALUE = 7\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    child = router.local()
    pid = child.call(fork_targets.handle_signals)
    release = threading.Event()
    waiting = threading.Event()
    finder = router.responder._on_get_module

    def slow(msg):
        if not msg.is_dead and msg.data == b'interrupted_import' and not release.is_set():
            waiting.set()
            held.append(msg)
            return
        finder(msg)

    held = []
    router.add_handler(slow, mitogen.core.GET_MODULE, overwrite=True)
    path = tmp_path / 'interrupted'
    call = child.call_async(fork_targets.import_twice, 'interrupted_import', str(path))
    assert waiting.wait(SECONDS)

    def interrupt():
        os.kill(pid, signal.SIGUSR1)
        return path.exists()

    testlib.wait_for(interrupt)
    testlib.sync(router.broker)
    release.set()
    for msg in held:
        router.broker.defer_sync(lambda msg=msg: finder(msg))
    assert call.get(timeout=SECONDS).unpickle() == 7


UNSEEN_SIGNAL = '''
import _thread, threading, time
import mitogen.core
latch = mitogen.core.Latch()
def interrupt():
    # Like a signal that comes just before a sleep: it is noted, and the sleep goes on.
    time.sleep(0.3)
    _thread.interrupt_main()
threading.Thread(target=interrupt).start()
try:
    latch.get()
except KeyboardInterrupt:
    print('seen')
'''


@pytest.mark.native
def test_a_signal_that_interrupts_no_sleep_is_seen():
    done = subprocess.run([sys.executable, '-c', UNSEEN_SIGNAL], capture_output=True, text=True, timeout=60, cwd='/')
    assert (done.stdout, done.stderr) == ('seen\n', '')
