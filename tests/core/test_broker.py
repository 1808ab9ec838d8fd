"""
Broker: the loop, what is deferred to it, its timers and its end.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import mitogen.core
import mitogen.master
import mitogen.parent
from mitogen.core import Latch

import targets
import testlib


# ---- defer

def test_defer_runs_on_the_brokers_thread(broker):
    latch = Latch()
    assert broker.defer(lambda: latch.put(threading.current_thread())) is None
    assert latch.get(timeout=60) is broker._thread


def test_defer_passes_arguments(broker):
    latch = Latch()
    broker.defer(lambda *a, **k: latch.put((a, k)), 1, b=2)
    assert latch.get(timeout=60) == ((1,), {'b': 2})


def test_deferred_functions_run_in_order(broker):
    seen = []
    for i in range(1000):
        broker.defer(seen.append, i)
    testlib.sync(broker)
    assert seen == list(range(1000))


def test_functions_deferred_by_many_threads_all_run(broker):
    seen = []

    def give(start):
        return lambda: [broker.defer(seen.append, start + i) for i in range(500)]

    testlib.in_threads([give(n * 500) for n in range(4)])
    testlib.sync(broker)
    assert sorted(seen) == list(range(2000))


def test_defer_on_the_brokers_own_thread_runs_at_once(broker):
    def outer():
        seen = []
        result = broker.defer(lambda: seen.append(1) or 'result')
        return seen, result

    assert broker.defer_sync(outer) == ([1], 'result')


def test_an_exception_of_a_function_deferred_on_its_own_thread_reaches_the_caller(broker):
    def outer():
        with pytest.raises(ValueError):
            broker.defer(targets.fail)
        return True

    assert broker.defer_sync(outer)


def test_defer_sync_returns_the_result(broker):
    assert broker.defer_sync(threading.current_thread) is broker._thread


def test_defer_sync_raises_what_the_function_raises(broker):
    with pytest.raises(ValueError) as caught:
        broker.defer_sync(targets.fail)
    assert 'failed on purpose' in str(caught.value)
    assert broker.defer_sync(lambda: 5) == 5


def test_defer_may_be_called_by_a_signal_handler(broker):
    seen = []
    old = signal.signal(signal.SIGALRM, lambda *_: broker.defer(seen.append, 'signal'))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        for i in range(2000):
            broker.defer(seen.append, i)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    testlib.sync(broker)
    assert [v for v in seen if v != 'signal'] == list(range(2000))


def test_defer_after_the_end_raises(broker):
    broker.shutdown()
    broker.join()
    with pytest.raises(mitogen.core.Error) as caught:
        broker.defer(lambda: None)
    assert caught.value.args[0] == mitogen.core.Waker.broker_shutdown_msg
    with pytest.raises(mitogen.core.Error):
        broker.defer_sync(lambda: None)


def test_an_exception_of_a_deferred_function_is_logged_and_ends_the_broker(make_router):
    broker = make_router().broker

    def deliberate():
        raise ValueError('deliberate')

    with testlib.LogCapture('mitogen') as logs:
        broker.defer(deliberate)
        broker.join()
    assert [r for r in logs.records if r.levelname == 'ERROR' and 'deliberate' in r.getMessage()]


# ---- life

def test_the_thread_is_named_and_no_daemon(broker):
    assert broker._thread.name == 'mitogen.broker'
    assert not broker._thread.daemon
    assert broker._thread.is_alive()


def test_shutdown_can_be_repeated(make_router):
    broker = make_router().broker
    broker.shutdown()
    broker.shutdown()
    broker.join()
    broker.shutdown()
    broker.join()
    assert not broker._thread.is_alive()


def test_grace_periods():
    assert mitogen.core.Broker.shutdown_timeout == 3.0
    assert mitogen.master.Broker.shutdown_timeout == 5.0


def test_a_core_broker_lives_and_dies():
    broker = mitogen.core.Broker()
    assert broker.defer_sync(lambda: 1) == 1
    broker.shutdown()
    broker.join()


def test_many_brokers_come_and_go():
    for _ in range(30):
        broker = mitogen.core.Broker()
        broker.shutdown()
        broker.join()


def test_a_broker_without_watcher_starts_one_thread():
    before = set(threading.enumerate())
    broker = mitogen.master.Broker(install_watcher=False)
    new = set(threading.enumerate()) - before
    assert [thread.name for thread in new] == ['mitogen.broker']
    broker.shutdown()
    broker.join()


def test_a_broker_can_be_subclassed():
    class Own(mitogen.master.Broker):
        shutdown_timeout = 0.5
        note = 'class attribute'

    broker = Own()
    broker.other = 1
    assert (broker.note, broker.other, broker.shutdown_timeout) == ('class attribute', 1, 0.5)
    broker.shutdown()
    broker.join()


def test_the_loop_is_looked_up_on_the_instance_and_called_without_arguments(make_router):
    broker = make_router().broker
    calls = []
    real = broker._loop_once

    def spy(*args, **kwargs):
        calls.append((args, kwargs))
        return real(*args, **kwargs)

    broker._loop_once = spy
    # The turn that is under way may take whatever comes meanwhile.
    testlib.wait_for(lambda: testlib.sync(broker) or ((), {}) in calls)


def test_a_broker_whose_loop_raises_says_so_and_ends(make_router):
    broker = make_router().broker
    with testlib.LogCapture('mitogen') as logs:
        def crash(*args, **kwargs):
            raise ValueError('deliberate')

        broker._loop_once = crash
        broker.defer(lambda: None)
        broker.join()
    assert logs.find('broker crashed', level=40)
    with pytest.raises(mitogen.core.Error):
        broker.defer(lambda: None)


def test_a_stream_that_fails_even_to_disconnect_is_closed(broker):
    class FailingProtocol(mitogen.core.Protocol):
        def on_receive(self, broker, buf):
            raise ValueError('deliberate')

        def on_disconnect(self, broker):
            raise ValueError('deliberate, too')

    ours, theirs = socket.socketpair()
    stream = FailingProtocol.build_stream()
    stream.accept(ours, ours)
    with testlib.LogCapture('mitogen') as logs:
        broker.start_receive(stream)
        theirs.send(b'x')
        assert theirs.recv(1) == b''
    theirs.close()
    testlib.sync(broker)
    assert len(logs.find('crashed', level=40)) == 2
    assert stream.receive_side.closed and stream.transmit_side.closed


def test_the_poller_is_closed_exactly_once(make_router):
    broker = make_router().broker
    calls = []
    real = broker.poller.close
    broker.poller.close = lambda: (calls.append(1), real())
    broker.shutdown()
    broker.join()
    assert calls == [1]


def test_shutting_down_while_a_call_is_pending_tells_the_caller_its_respondent_is_lost(make_router):
    router = make_router()
    child = router.local()
    receiver = child.call_async(targets.sleep, 60)
    router.broker.shutdown()
    with pytest.raises(mitogen.core.ChannelError) as caught:
        receiver.get(timeout=60)
    assert caught.value.args[0] == router.respondent_disconnect_msg
    router.broker.join()


def test_shutdown_waits_no_longer_than_the_grace_period_and_says_so(make_router):
    router = make_router()
    broker = router.broker
    broker.shutdown_timeout = 0.2
    rfp, wfp = mitogen.core.pipe()
    protocol = type('Stay', (mitogen.core.Protocol,), {'on_shutdown': lambda self, broker: None})
    stream = protocol.build_stream()
    stream.accept(rfp, wfp)
    broker.start_receive(stream)
    # Another grace period than its own would not end.
    with testlib.LogCapture('mitogen') as logs, testlib.attribute(mitogen.core.Broker, 'shutdown_timeout', 3600):
        start = time.time()
        broker.shutdown()
        broker.join()
    assert time.time() - start >= 0.2
    assert [r for r in logs.records if r.levelname == 'ERROR']
    assert stream.receive_side.closed


def test_a_side_that_keeps_nothing_alive_delays_nothing(make_router):
    broker = make_router().broker
    # A delay would not end.
    broker.shutdown_timeout = 3600
    rfp, wfp = mitogen.core.pipe()
    protocol = type('Stay', (mitogen.core.Protocol,), {'on_shutdown': lambda self, broker: None})
    stream = protocol.build_stream()
    stream.accept(rfp, wfp)
    stream.receive_side.keep_alive = False
    broker.start_receive(stream)
    broker.shutdown()
    broker.join()


# ---- streams of an application

class Lines(mitogen.core.DelimitedProtocol):
    def __init__(self):
        self.lines = Latch()

    def on_line_received(self, line):
        self.lines.put(line)


def test_a_stream_of_an_application_is_served(broker):
    stream = Lines.build_stream()
    rfp, wfp = mitogen.core.pipe()
    stream.accept(rfp, rfp)
    broker.start_receive(stream)
    wfp.write(b'one\ntwo\nthr')
    assert stream.protocol.lines.get(timeout=60) == b'one'
    assert stream.protocol.lines.get(timeout=60) == b'two'
    wfp.write(b'ee\n')
    assert stream.protocol.lines.get(timeout=60) == b'three'
    gone = Latch()
    mitogen.core.listen(stream, 'disconnect', gone.put)
    wfp.close()
    gone.get(timeout=60)
    testlib.sync(broker)
    assert stream.receive_side.closed


def test_an_exception_of_a_stream_is_logged_and_costs_that_stream_alone(broker):
    class Bad(Lines):
        def on_line_received(self, line):
            raise ValueError('deliberate')

    stream = Bad.build_stream()
    rfp, wfp = mitogen.core.pipe()
    stream.accept(rfp, rfp)
    gone = Latch()
    mitogen.core.listen(stream, 'disconnect', gone.put)
    broker.start_receive(stream)
    with testlib.LogCapture('mitogen') as logs:
        wfp.write(b'line\n')
        gone.get(timeout=60)
        testlib.sync(broker)
    assert [r for r in logs.records if r.levelname == 'ERROR' and (r.exc_info or 'deliberate' in r.getMessage())]
    wfp.close()


def test_receiving_can_be_stopped_and_started_again(broker):
    stream = Lines.build_stream()
    rfp, wfp = mitogen.core.pipe()
    stream.accept(rfp, rfp)
    broker.start_receive(stream)
    broker.stop_receive(stream)
    testlib.sync(broker)
    wfp.write(b'one\n')
    testlib.sync(broker)
    testlib.sync(broker)
    assert stream.protocol.lines.empty()
    broker.start_receive(stream)
    assert stream.protocol.lines.get(timeout=60) == b'one'
    broker.defer_sync(lambda: stream.on_disconnect(broker))
    wfp.close()


def test_what_cannot_be_written_at_once_is_written_later(broker):
    ours, theirs = mitogen.core.socketpair(blocking=False)
    protocol = type('Quiet', (mitogen.core.Protocol,), {'on_receive': lambda self, broker, buf: None})
    stream = protocol.build_stream()
    stream.accept(ours, ours)
    data = os.urandom(4000000)

    class Writer(mitogen.core.Protocol):
        def __init__(self):
            self.writer = None

        def on_transmit(self, broker):
            self.writer.on_transmit(broker)

    def start():
        stream.set_protocol(Writer())
        stream.protocol.writer = mitogen.core.BufferedWriter(broker, stream.protocol)
        for i in range(0, len(data), 1000000):
            stream.protocol.writer.write(data[i:i + 1000000])
        return stream.protocol.writer._len

    assert broker.defer_sync(start) > 0
    theirs.settimeout(60)
    got = b''
    while len(got) < len(data):
        got += theirs.recv(1 << 20)
    assert got == data
    testlib.wait_for(lambda: broker.defer_sync(lambda: stream.protocol.writer._len) == 0)
    broker.defer_sync(lambda: stream.on_disconnect(broker))
    theirs.close()


# ---- timers

def test_a_timer_fires_no_earlier_than_asked(broker):
    latch = Latch()
    start = mitogen.core.now()
    broker.defer(broker.timers.schedule, start + 0.25, lambda: latch.put(mitogen.core.now()))
    assert latch.get(timeout=60) - start >= 0.25


def test_timers_fire_in_the_order_of_their_times(broker):
    latch = Latch()

    def start():
        now = mitogen.core.now()
        broker.timers.schedule(now + 0.1, lambda: latch.put('second'))
        broker.timers.schedule(now + 0.05, lambda: latch.put('first'))
        broker.timers.schedule(now - 5, lambda: latch.put('past'))

    broker.defer(start)
    assert [latch.get(timeout=60) for _ in range(3)] == ['past', 'first', 'second']


def test_a_cancelled_timer_does_not_fire(broker):
    latch = Latch()

    def start():
        timer = broker.timers.schedule(mitogen.core.now() + 0.05, lambda: latch.put('cancelled'))
        broker.timers.schedule(mitogen.core.now() + 0.1, lambda: latch.put('other'))
        timer.cancel()
        timer.cancel()
        return timer.active

    assert not broker.defer_sync(start)
    assert latch.get(timeout=60) == 'other'
    assert latch.empty()


def test_a_pending_timer_delays_the_shutdown(make_router):
    broker = make_router().broker
    latch = Latch()
    broker.defer_sync(lambda: broker.timers.schedule(mitogen.core.now() + 0.3, lambda: latch.put('fired')))
    broker.shutdown()
    broker.join()
    assert latch.get(block=False) == 'fired'


def test_a_timer_of_an_upgraded_child_fires_no_earlier_than_asked(router):
    child = router.local()
    assert child.call(targets.time_of_timer, 0.25) >= 0.25


# ---- the watcher of a forgotten broker

def test_a_script_that_forgets_to_shut_down_ends_cleanly(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(
        'import mitogen.master, os\n'
        'if __name__ == "__main__":\n'
        '    router = mitogen.master.Router()\n'
        '    print(router.local().call(os.getpid) != os.getpid())\n'
    )
    proc = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (proc.returncode, proc.stdout, proc.stderr) == (0, 'True\n', '')


def test_the_watcher_is_shared_and_goes_with_the_broker(make_router):
    make_router()
    make_router()
    names = [thread.name for thread in threading.enumerate()]
    assert names.count('mitogen.master.join_thread_async') <= 1


def test_a_core_broker_has_no_timers():
    assert mitogen.core.Broker.timers.get_timeout() is None
    broker = mitogen.core.Broker()
    try:
        assert isinstance(broker.timers, mitogen.core.NullTimerList)
    finally:
        broker.shutdown()
        broker.join()
