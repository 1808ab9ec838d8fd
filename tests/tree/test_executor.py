"""
The executor of a host, which is one of the standard library's kind.
"""

import concurrent.futures
import gc
import operator
import os
import signal
import threading
import time
import weakref

import pytest

import mitogen
import mitogen._tree.executor
import mitogen.core
from mitogen._tree import errors

import targets
import task_targets
import testlib

@pytest.fixture(scope='module')
def shared(whole):
    return whole.connect(name='executor')


@pytest.fixture(scope='module')
def four(shared):
    with shared.executor(4) as executor:
        yield executor


def test_a_map_is_in_order(four):
    assert list(four.map(targets.add, range(50), range(50))) == [2 * i for i in range(50)]


def test_as_many_run_at_a_time_as_there_are_workers(four):
    assert len({future.result() for future in [four.submit(task_targets.meet) for _ in range(4)]}) == 4


def test_what_raises_raises_a_remote_error(four):
    with pytest.raises(mitogen.RemoteError, match='on purpose'):
        four.submit(targets.fail).result()


def test_after_a_shutdown_nothing_is_taken(shared):
    executor = shared.executor(1)
    future = executor.submit(targets.add, 1, 2)
    executor.shutdown()
    assert future.result() == 3
    with pytest.raises(RuntimeError):
        executor.submit(targets.add, 1, 2)
    executor.shutdown()


def test_a_shutdown_may_drop_what_has_not_begun(shared):
    with mitogen.core.Receiver(shared.router) as told:
        shared.call(task_targets.tell, told.to_sender())
        executor = shared.executor(1)
        first = executor.submit(task_targets.wait_for_release, 'first')
        others = [executor.submit(task_targets.note, 'other') for _ in range(10)]
        told.get(testlib.patience())
        executor.shutdown(wait=False, cancel_futures=True)
        shared.call(task_targets.release)
        executor.shutdown()
        shared.call(task_targets.tell)
    assert first.result() == 'first'
    assert all(other.cancelled() for other in others)


def test_submit_while_others_shut_it_down(shared):
    executor = shared.executor(2)
    executor.submit(time.sleep, 0.1)
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError):
        executor.submit(time.sleep, 0.1)
    executor.shutdown(wait=True)


def test_threads_of_an_executor_end_with_it(shared):
    with shared.executor(3) as executor:
        executor.submit(int).result()
    testlib.wait_for(lambda: shared.call(threads_named, 'mitogen.task.') in (0, 4))


def threads_named(start):
    import threading
    return sum(1 for thread in threading.enumerate() if thread.name.startswith(start))


def test_processes_are_below_the_host(shared):
    with shared.executor(2, processes=True) as executor:
        pids = {future.result() for future in [executor.submit(os.getpid) for _ in range(8)]}
        assert len(pids) == 2 and shared.call(os.getpid) not in pids
    for pid in pids:
        testlib.wait_for(lambda: not testlib.is_running(pid))


def test_a_bad_number_of_workers(shared):
    for number in (0, -1):
        with pytest.raises(ValueError):
            shared.executor(number)


def test_a_host_that_is_lost_fails_what_is_outstanding(tree):
    child = tree.connect()
    executor = child.executor(1)
    futures = [executor.submit(time.sleep, 600) for _ in range(3)]
    child.close()
    for future in futures:
        with pytest.raises(mitogen.ConnectionLost):
            future.result(testlib.patience())
    executor.shutdown()


def test_as_completed_takes_futures_of_both_kinds(four):
    with concurrent.futures.ThreadPoolExecutor(1) as local:
        futures = [four.submit(targets.add, 1, 2), local.submit(targets.add, 1, 2)]
        assert [future.result() for future in concurrent.futures.as_completed(futures)] == [3, 3]


def test_wait_tells_of_what_was_cancelled(four):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        futures = [four.submit(task_targets.spin, 600) for _ in range(5)]
        waiting = pool.submit(concurrent.futures.wait, futures, testlib.patience())
        for future in futures:
            assert future.cancel()
        assert waiting.result().not_done == set()
    assert list(four.map(targets.add, range(5), range(5))) == [0, 2, 4, 6, 8]


def test_keywords_belong_to_the_function(four):
    assert four.submit(targets.keywords, fn=1, timeout=2).result() == {'fn': 1, 'timeout': 2}


def test_what_was_returned_is_not_kept_and_needs_no_collection(four):
    gc.disable()
    try:
        # Of the types that travel, one whose instances may be referred to weakly.
        for found in four.map(mitogen.core.Secret, ['a', 'b', 'c']):
            kept = weakref.ref(found)
            del found
            # The thread that set the result may still be on its way out.
            testlib.wait_for(lambda: kept() is None, what='nobody keeps a result')
    finally:
        gc.enable()


# ---- map, whose calls have no futures with the compiled core

def test_a_map_fails_where_its_item_failed_and_cancels_the_rest(shared):
    with shared.executor(1) as executor:
        results = executor.map(operator.truediv, [1, 2, 3, 4, 5] + [1] * 195, [1, 1, 1, 1, 1, 0] + [1] * 194)
        assert [next(results) for _ in range(5)] == [1, 2, 3, 4, 5]
        with pytest.raises(mitogen.RemoteError, match='division'):
            next(results)
        assert list(results) == []
        assert list(executor.map(pow, [2, 3], [5, 6])) == [32, 729]
        assert not executor._mappings
    with pytest.raises(RuntimeError):
        executor.map(abs, [1])


def test_a_map_has_a_time_limit_and_ends_what_is_left(shared):
    with shared.executor(1) as executor:
        with pytest.raises(concurrent.futures.TimeoutError):
            list(executor.map(task_targets.spin, [600, 600], timeout=0.1))
        results = executor.map(task_targets.spin, [0, 600, 600])
        next(results)
        results.close()
        assert list(executor.map(abs, [-1])) == [1]


def test_a_map_that_nobody_looks_at_is_waited_for(shared, tmp_path):
    executor = shared.executor(2)
    executor.map(os.mkdir, [str(tmp_path / str(number)) for number in range(100)])
    executor.shutdown()
    assert len(list(tmp_path.iterdir())) == 100
    executor = shared.executor(2)
    results = executor.map(abs, range(-100, 0))
    executor.shutdown(wait=False)
    assert list(results) == list(range(100, 0, -1))
    testlib.wait_for(lambda: not executor._mappings)
    # Again: no harm.
    executor.shutdown()


def test_a_shutdown_may_drop_what_a_map_has_not_begun(shared):
    with mitogen.core.Receiver(shared.router) as told:
        shared.call(task_targets.tell, told.to_sender())
        shared.call(task_targets.hold)
        executor = shared.executor(1)
        results = executor.map(task_targets.wait_for_release, ['first', 'second', 'third'])
        told.get(testlib.patience())
        executor.shutdown(wait=False, cancel_futures=True)
        shared.call(task_targets.release)
        executor.shutdown()
        shared.call(task_targets.tell)
    assert next(results) == 'first'
    with pytest.raises(concurrent.futures.CancelledError):
        next(results)


def test_a_map_over_a_host_that_is_lost_fails(tree):
    child = tree.connect('local:')
    with child.executor(1) as executor:
        results = executor.map(time.sleep, [0, 600, 600])
        assert next(results) is None
        os.kill(child.info.pid, signal.SIGKILL)
        with pytest.raises(mitogen.ConnectionLost):
            next(results)


def test_an_argument_of_a_map_that_cannot_be_sent(shared):
    with shared.executor(1) as executor:
        with pytest.raises(TypeError):
            list(executor.map(abs, [1, object()]))
        assert list(executor.map(abs, [1])) == [1]


def test_a_map_whose_items_fail_leaves_nothing(shared, tmp_path):
    def items():
        for number in range(3):
            yield str(tmp_path / str(number))
        raise ValueError('no more')
    with shared.executor(1) as executor:
        with pytest.raises(ValueError, match='no more'):
            executor.map(os.mkdir, items())
        # As with executors of the standard library, what was sent runs.
        testlib.wait_for(lambda: len(list(tmp_path.iterdir())) == 3)
        testlib.wait_for(lambda: not executor._mappings and not executor._outstanding)


def test_a_shutdown_waits_while_another_thread_ends_a_map(shared):
    with mitogen.core.Receiver(shared.router) as told:
        shared.call(task_targets.tell, told.to_sender())
        executor = shared.executor(1)
        results = executor.map(task_targets.spin, [0, 600, 600])
        next(results)
        told.get(testlib.patience())
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            over = threads.submit(executor.shutdown)
            testlib.wait_for(lambda: executor._is_shut)
            results.close()
            assert over.result(testlib.patience()) is None
        shared.call(task_targets.tell)


def test_the_collector_may_end_a_map_while_a_function_is_taken(shared, monkeypatch):
    class Collecting(mitogen._tree.executor.HostFuture):
        def __init__(self, *args):
            gc.collect()
            super().__init__(*args)

    class Holder:
        pass

    with shared.executor(1) as executor:
        holder = Holder()
        holder.itself, holder.results = holder, executor.map(abs, [-1, -2, -3])
        next(holder.results)
        monkeypatch.setattr(mitogen._tree.executor, 'HostFuture', Collecting)
        gone = weakref.ref(holder)
        del holder
        assert executor.submit(abs, -4).result() == 4
        assert gone() is None


def test_an_interrupt_while_answers_are_read_is_not_lost(shared, monkeypatch):
    told, seen = errors.told, []

    def interrupted(error, host):
        # The thread that reads them: the pure core's broker gets no signals.
        if not seen and threading.current_thread() is threading.main_thread():
            seen.append(error)
            raise KeyboardInterrupt()
        return told(error, host)
    monkeypatch.setattr(errors, 'told', interrupted)
    with shared.executor(1) as executor:
        try:
            list(executor.map(int, ['x'] * 300))
        except (KeyboardInterrupt, mitogen.RemoteError) as e:
            assert isinstance(e, KeyboardInterrupt) == bool(seen)
        assert seen or mitogen.core.CORE == 'pure'
        testlib.wait_for(lambda: not executor._mappings and not executor._outstanding)
        assert list(executor.map(abs, [-1])) == [1]
