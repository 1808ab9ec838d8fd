"""
Latch: a closable queue, fair among sleepers.
"""

import gc
import os
import signal
import threading
import time
import weakref

import pytest

import mitogen.core
from mitogen.core import Latch, LatchError, TimeoutError

import testlib


def sleepers(latch, count, results):
    """
    Start threads that get() from a latch one after the other, each asleep before the next starts.
    """
    threads = []
    for index in range(count):
        asleep = threading.Event()

        def run(index=index, asleep=asleep):
            asleep.set()
            try:
                results[index] = latch.get(timeout=60)
            except Exception as error:
                results[index] = error

        thread = threading.Thread(target=run)
        thread.start()
        asleep.wait()
        wait_until_asleep(thread)
        threads.append(thread)
    return threads


def wait_until_asleep(thread):
    """
    Wait until the kernel has a thread asleep and keeps it so for some looks in a row.
    """
    path = '/proc/self/task/%d/stat' % thread.native_id
    calm = [0]

    def look():
        with open(path) as fp:
            text = fp.read()
        calm[0] = calm[0] + 1 if text[text.rindex(')') + 2] == 'S' else 0
        return calm[0] > 10

    testlib.wait_for(look, what='a thread that sleeps')


def test_what_is_put_comes_out_in_order():
    latch = Latch()
    for i in range(5):
        latch.put(i)
    assert [latch.get() for _ in range(5)] == [0, 1, 2, 3, 4]


def test_put_without_an_object_puts_none():
    latch = Latch()
    latch.put()
    assert latch.get() is None


def test_any_object_is_handed_over_as_it_is():
    latch = Latch()
    obj = object()
    latch.put(obj)
    assert latch.get() is obj


def test_size_and_empty_count_what_was_not_taken():
    latch = Latch()
    assert latch.empty()
    assert latch.size() == 0
    latch.put(1)
    latch.put(2)
    assert not latch.empty()
    assert latch.size() == 2
    latch.get()
    assert latch.size() == 1


def test_a_get_that_may_not_block_times_out_at_once():
    # Had it any time to wait, it would wait for ever.
    with pytest.raises(TimeoutError):
        Latch().get(block=False)


def test_a_get_with_no_time_times_out_or_takes_what_is_there():
    latch = Latch()
    with pytest.raises(TimeoutError):
        latch.get(timeout=0)
    latch.put(1)
    assert latch.get(timeout=0) == 1


def test_a_get_times_out_no_earlier_than_asked():
    start = mitogen.core.now()
    with pytest.raises(TimeoutError):
        Latch().get(timeout=0.1)
    assert mitogen.core.now() - start >= 0.1


def test_a_put_wakes_a_sleeper():
    latch = Latch()
    results = {}
    threads = sleepers(latch, 1, results)
    latch.put('x')
    threads[0].join(60)
    assert results == {0: 'x'}


def test_sleepers_are_served_in_the_order_they_came():
    latch = Latch()
    results = {}
    threads = sleepers(latch, 5, results)
    for value in 'abcde':
        latch.put(value)
    for thread in threads:
        thread.join(60)
    assert [results[i] for i in range(5)] == list('abcde')


def test_every_value_is_delivered_exactly_once():
    latch = Latch()
    values = list(range(200))
    lock = threading.Lock()
    seen = []

    def take():
        for _ in range(40):
            value = latch.get(timeout=60)
            with lock:
                seen.append(value)

    def give():
        for value in values:
            latch.put(value)

    testlib.in_threads([take] * 5 + [give])
    assert sorted(seen) == values


def test_many_givers_and_takers_lose_nothing():
    latch = Latch()
    each = 500

    def give(start):
        return lambda: [latch.put(start + i) for i in range(each)]

    def take():
        return [latch.get(timeout=60) for _ in range(each)]

    results = testlib.in_threads([give(i * each) for i in range(4)] + [take] * 4)
    taken = sum(results[4:], [])
    assert sorted(taken) == list(range(4 * each))
    assert latch.empty()
    for part in results[4:]:
        # One taker sees what one giver put in the order it was put.
        for giver in range(4):
            mine = [v for v in part if v // each == giver]
            assert mine == sorted(mine)


def test_a_getter_that_does_not_sleep_takes_nothing_that_belongs_to_a_sleeper():
    for _ in range(50):
        latch = Latch()
        results = {}
        got = threading.Event()

        def run():
            got.set()
            results['sleeper'] = latch.get(timeout=60)

        thread = threading.Thread(target=run)
        thread.start()
        wait_until_asleep(thread)
        latch.put('for the sleeper')
        try:
            results['other'] = latch.get(block=False)
        except TimeoutError:
            pass
        thread.join(60)
        assert results == {'sleeper': 'for the sleeper'}


# ---- close

def test_a_closed_latch_refuses_everything():
    latch = Latch()
    latch.put(1)
    latch.close()
    assert latch.closed
    for call in (latch.put, latch.get, latch.size, latch.empty, lambda: latch.get(block=False),
                 lambda: latch.get(timeout=0)):
        with pytest.raises(LatchError):
            call()


def test_close_can_be_repeated():
    latch = Latch()
    latch.close()
    latch.close()


def test_close_wakes_every_sleeper():
    latch = Latch()
    results = {}
    threads = sleepers(latch, 5, results)
    latch.close()
    for thread in threads:
        thread.join(60)
    assert [type(results[i]) for i in range(5)] == [LatchError] * 5


# ---- notify

def test_notify_is_called_with_the_latch_when_nobody_sleeps():
    latch = Latch()
    calls = []
    latch.notify = calls.append
    latch.put(1)
    assert calls == [latch]
    assert latch.get() == 1


def test_notify_is_not_called_when_a_sleeper_is_woken():
    latch = Latch()
    results = {}
    threads = sleepers(latch, 1, results)
    calls = []
    latch.notify = calls.append
    latch.put(1)
    threads[0].join(60)
    assert results == {0: 1}
    assert calls == []


def test_notify_may_be_the_put_of_another_latch():
    first, second = Latch(), Latch()
    first.notify = second.put
    first.put('x')
    assert second.get(timeout=60) is first
    assert first.get(timeout=0) == 'x'


def test_a_latch_that_was_put_stays_where_it_is_when_its_notify_changes():
    first, second = Latch(), Latch()
    for value in (1, 2):
        latch = Latch()
        latch.notify = first.put
        latch.put(value)
        latch.notify = second.put
        latch.put(value * 10)
        latch.notify = None
        del latch
    gc.collect()
    got = [queue.get(timeout=60).get(block=False) for queue in (first, second, first, second)]
    assert got == [1, 10, 2, 20]
    assert first.empty() and second.empty()


def test_what_a_latch_keeps_for_another_one_ends_with_it():
    first, gone = Latch(), Latch()
    gone.notify = first.put
    gone.put(1)
    gone.notify = None
    watched = weakref.ref(gone)
    del gone
    gc.collect()
    assert watched() is not None
    del first
    gc.collect()
    assert watched() is None


def test_a_sleeper_is_woken_through_the_put_of_another_latch():
    first, second = Latch(), Latch()
    first.notify = second.put
    results = {}
    threads = sleepers(second, 1, results)
    first.put('x')
    threads[0].join(60)
    assert results == {0: first}


# ---- sleeping

def test_a_sleeper_lets_other_threads_run():
    latch = Latch()
    results = {}
    threads = sleepers(latch, 1, results)
    total = sum(range(100000))
    latch.put(total)
    threads[0].join(60)
    assert results == {0: total}


class Interrupted(Exception):
    pass


def test_a_signal_handler_runs_while_the_main_thread_sleeps():
    latch = Latch()
    old = signal.signal(signal.SIGALRM, lambda *_: latch.put('from the handler'))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert latch.get(timeout=60) == 'from the handler'
    finally:
        signal.signal(signal.SIGALRM, old)


def test_an_exception_of_a_signal_handler_ends_the_sleep_within_a_tenth_of_a_second():
    latch = Latch()
    fired = []

    def handler(*_):
        fired.append(time.time())
        raise Interrupted()

    old = signal.signal(signal.SIGALRM, handler)
    start = time.time()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            latch.get(timeout=60)
    finally:
        signal.signal(signal.SIGALRM, old)
    assert fired[0] - start < 0.05 + 0.1 + 0.5


def test_a_get_that_was_interrupted_leaves_no_phantom_sleeper():
    latch = Latch()

    def handler(*_):
        raise KeyboardInterrupt()

    old = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            latch.get(timeout=60)
    finally:
        signal.signal(signal.SIGALRM, old)
    latch.put(1)
    assert latch.size() == 1
    assert latch.get(block=False) == 1


def test_a_get_that_timed_out_leaves_no_phantom_sleeper():
    latch = Latch()
    with pytest.raises(TimeoutError):
        latch.get(timeout=0.01)
    latch.put(1)
    assert latch.get(block=False) == 1


# ---- descriptors and the rest

def test_descriptors_of_sleepers_are_closed_on_fork():
    before = len(os.listdir('/proc/self/fd'))
    latch = Latch()
    results = {}
    threads = sleepers(latch, 3, results)
    for i in range(3):
        latch.put(i)
    for thread in threads:
        thread.join(60)
    Latch._on_fork()
    assert len(os.listdir('/proc/self/fd')) == before


def test_descriptors_of_sleepers_are_reused():
    latch = Latch()

    def once():
        with pytest.raises(TimeoutError):
            latch.get(timeout=0.001)

    once()
    before = len(os.listdir('/proc/self/fd'))
    for _ in range(20):
        once()
    assert len(os.listdir('/proc/self/fd')) == before


def test_descriptors_are_closed_on_exec():
    latch = Latch()
    results = {}
    threads = sleepers(latch, 1, results)
    inherited = []
    for name in os.listdir('/proc/self/fd'):
        try:
            if os.get_inheritable(int(name)) and int(name) > 2:
                inherited.append(os.readlink('/proc/self/fd/' + name))
        except OSError:
            pass
    latch.put(1)
    threads[0].join(60)
    assert not [target for target in inherited if 'socket' in target or 'anon_inode' in target]


def test_repr_tells_the_size_and_the_thread():
    latch = Latch()
    latch.put(1)
    text = repr(latch)
    assert text.startswith('Latch(')
    assert '1' in text
    assert threading.current_thread().name in text


def test_a_latch_has_the_attributes_others_reach_for():
    latch = Latch()
    assert latch.notify is None
    assert latch.closed is False
    assert hasattr(Latch, 'poller_class')
    latch.something = 1
    assert latch.something == 1


def test_a_latch_can_be_subclassed():
    class Counting(Latch):
        puts = 0

        def put(self, obj=None):
            self.puts += 1
            return super(Counting, self).put(obj)

    latch = Counting()
    latch.put(1)
    assert latch.puts == 1
    assert latch.get() == 1


def test_many_latches_come_and_go():
    for _ in range(2000):
        latch = Latch()
        latch.put(latch)
        assert latch.get() is latch


def test_a_latch_comes_out_of_the_latch_it_was_put_in_though_nobody_refers_to_it():
    target, source = Latch(), Latch()
    source.notify = target.put
    source.put('first')
    source.put('second')
    del source
    gc.collect()
    source = target.get(timeout=10)
    assert (source.get(block=False), source.get(block=False)) == ('first', 'second')
    assert target.get(timeout=10) is source
    assert target.empty()


def test_a_latch_that_lies_in_another_one_ends_with_that():
    target, source = Latch(), Latch()
    source.notify = target.put
    source.put('x')
    gone = weakref.ref(source)
    del source
    del target
    gc.collect()
    assert gone() is None


@pytest.mark.once
def test_an_item_that_an_interrupted_wait_gives_back_is_the_next_again(monkeypatch):
    latch = mitogen.core._pure['Latch']()

    class Interrupted(mitogen.core._Sleeper):
        def sleep(self, timeout):
            latch.put('given to who slept')
            latch.put('put after that')
            raise KeyboardInterrupt()

    monkeypatch.setattr(mitogen.core, '_Sleeper', Interrupted)
    with pytest.raises(KeyboardInterrupt):
        latch.get()
    assert [latch.get(block=False), latch.get(block=False)] == ['given to who slept', 'put after that']
