"""
Tasks: a task that is cancelled, or late, ends over there, whatever it does.
"""

import concurrent.futures
import functools
import os
import time

import pytest

import mitogen
import mitogen._tasks
import mitogen._tree.future
import mitogen.core
from mitogen.core import Message

import task_targets
import targets
import testlib


@pytest.fixture(autouse=True)
def nothing_seen(host):
    host.call(task_targets.forget)
    host.call(task_targets.tell)


@pytest.fixture(scope='module')
def wide():
    """
    A host that has four threads for tasks.
    """
    with mitogen.Tree(threads=4) as tree:
        host = tree.connect()
        host.submit(int).result()
        yield host


def has_seen(host, *values):
    """
    Wait until a host has noted just that. It can be asked only when nothing runs.
    """
    assert host.call(task_targets.seen) == list(values)


def begin(host, func, *args):
    """
    Have a function called, and return its future once it runs.
    """
    with mitogen.core.Receiver(host.router) as told:
        host.call(task_targets.tell, told.to_sender())
        future = host.submit(func, *args)
        told.get(testlib.patience())
    return future


# ---- cancel

def test_what_has_not_begun_is_dropped(host):
    first = begin(host, task_targets.sleep_and_note, 600, 'first')
    second = host.submit(task_targets.note, 'second')
    assert second.cancel() and second.cancelled()
    first.cancel()
    has_seen(host, 'begun', 'TaskCancelled')
    assert host.call(what_is_left) == (0, 1)


@pytest.mark.parametrize('func,args,then', [
    (task_targets.sleep_and_note, (600, 'late'), ['begun', 'TaskCancelled']),
    (task_targets.spin, (600,), ['begun']),
    (task_targets.read_a_pipe, (), ['begun']),
    (task_targets.double_later, (1, 600), ['begun', 'cancelled']),
])
def test_what_runs_on_the_main_thread_is_ended(host, func, args, then):
    future = begin(host, func, *args)
    assert future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    # The next call is served when the one before has ended.
    has_seen(host, *then)


def test_what_runs_in_another_thread_is_ended(wide):
    future = begin(wide, task_targets.spin, 600)
    assert future.cancel()
    # All four are free again.
    assert len({f.result() for f in [wide.submit(task_targets.meet) for _ in range(4)]}) == 4


def test_a_second_cancel_ends_what_ignored_the_first(host):
    with mitogen.core.Receiver(host.router) as told:
        host.call(task_targets.tell, told.to_sender())
        future = host.submit(task_targets.ignore_the_first_cancel, 600)
        assert told.get(testlib.patience()).unpickle() == 'begun'
        future.cancel()
        assert told.get(testlib.patience()).unpickle() == 'ignored'
    host._tasks.cancel(future._handle, 0)
    has_seen(host, 'begun', 'ignored')


def test_a_cancel_of_what_is_done_is_none(host):
    future = host.submit(targets.add, 1, 2)
    assert future.result() == 3
    assert not future.cancel()
    assert future.result() == 3


def test_cancelled_twice(host):
    future = begin(host, task_targets.sleep_and_note, 600, 'late')
    assert future.cancel() and future.cancel()
    has_seen(host, 'begun', 'TaskCancelled')


def test_thousands_of_tasks_that_are_cancelled_at_random_leave_nothing(host):
    futures = [host.submit(task_targets.note, i) for i in range(2000)]
    cancelled = [future for i, future in enumerate(futures) if i % 3 == 0 and future.cancel()]
    for i, future in enumerate(futures):
        assert future in cancelled or future.result() == i
    seen = host.call(task_targets.seen)
    assert seen == sorted(set(seen))
    assert host.call(what_is_left) == (0, 1)


def what_is_left():
    """
    Return how many keys are to be dropped, and how many tasks are taken: this one.
    """
    tasks = mitogen._tasks._tasks
    return len(tasks._dropped), len(tasks._taken)


def test_plain_calls_can_be_made_beside_tasks(host):
    future = host.submit(targets.add, 1, 2)
    assert host.call_async(targets.add, 2, 3).get().unpickle() == 5
    host.call_no_reply(task_targets.note, 'no reply')
    assert future.result() == 3
    has_seen(host, 'no reply')


def test_a_chain_of_calls_fails_as_ever(host):
    import mitogen.parent
    host.submit(int).result()
    with mitogen.parent.CallChain(host, pipelined=True) as chain:
        with pytest.raises(mitogen.core.CallError):
            chain.call(targets.fail)
        with pytest.raises(mitogen.core.CallError, match='on purpose'):
            chain.call(targets.add, 1, 2)
    assert host.call(what_is_left) == (0, 1)


# ---- deadlines

def test_what_is_late_is_stopped(host):
    with pytest.raises(mitogen.DeadlineExceeded) as info:
        host.options(timeout=0.1).call(task_targets.sleep_and_note, 600, 'late')
    error = info.value
    assert (error.began, error.host) == (True, 'shared')
    assert isinstance(error, mitogen.core.TimeoutError) and isinstance(error, TimeoutError)
    has_seen(host, 'begun', 'TaskCancelled')


def test_what_is_late_before_it_begins_is_dropped(host):
    first = begin(host, task_targets.sleep_and_note, 600, 'first')
    with pytest.raises(mitogen.DeadlineExceeded) as info:
        host.options(timeout=0.05).call(task_targets.note, 'second')
    assert info.value.began is False
    first.cancel()
    has_seen(host, 'begun', 'TaskCancelled')


def test_a_deadline_in_the_past(host, monkeypatch):
    def limit(future, seconds):
        # The host can be told which task to end.
        handles.append(future._handle)
        whole(future, seconds)

    handles, whole = [], mitogen._tree.future.HostFuture._limit
    monkeypatch.setattr(mitogen._tree.future.HostFuture, '_limit', limit)
    with pytest.raises(mitogen.DeadlineExceeded):
        host.options(timeout=-1).call(task_targets.sleep_and_note, 600, 'late')
    assert host.call(targets.add, 1, 2) == 3
    assert None not in handles and len(handles) == 1


def test_a_deadline_of_what_was_cancelled_holds_nothing_up(host, whole):
    futures = [host.options(timeout=600).submit(time.sleep, 600) for _ in range(3)]
    whole.broker.defer_sync(int)
    timers = [future._timer for future in futures]
    for future in futures:
        future.cancel()
    whole.broker.defer_sync(int)
    assert [timer.active for timer in timers] == [False] * len(timers)


def test_what_is_in_time_is_not_stopped(host):
    assert host.options(timeout=600).call(targets.add, 1, 2) == 3


def test_options_do_not_collide_with_keywords(host):
    assert host.options(timeout=600).call(targets.keywords, timeout=1, fn=2) == {'timeout': 1, 'fn': 2}


def test_options_that_do_not_exist(host):
    with pytest.raises(TypeError):
        host.options(colour='red')
    with pytest.raises(ValueError):
        host.options(window=0)


def test_a_group_with_a_deadline(tree):
    group = tree.connect_all(['local:', 'local:/nothing/here'])
    errors = {result.host: result.error for result in group.options(timeout=0.1).map(time.sleep, 600)}
    assert [type(errors[member.name]) for member in group] == [mitogen.DeadlineExceeded, mitogen.NoPython]


# ---- coroutines, threads, processes

def test_a_coroutine_is_run_there(host):
    assert host.call(task_targets.double_later, 4) == 8
    assert host.submit(task_targets.double_later, 5).result() == 10


def test_threads_run_at_the_same_time(wide):
    names = {future.result() for future in [wide.submit(task_targets.meet) for _ in range(4)]}
    assert names == {'mitogen.task.%d' % i for i in range(4)}
    assert wide.call(task_targets.thread_name).startswith('mitogen.task.')


def test_a_worker_is_a_process_of_its_own(host):
    pids = [host.options(worker=True).call(os.getpid) for _ in range(2)]
    assert host.call(os.getpid) not in pids and pids[0] != pids[1]


def test_partials_run_in_each_way(host):
    plus_one = functools.partial(targets.add, 1)
    assert host.call(plus_one, 2) == 3
    assert host.submit(plus_one, b=2).result() == 3
    assert host.options(worker=True).call(plus_one, 2) == 3
    assert list(host.stream(functools.partial(task_targets.count, stop=3))) == [0, 1, 2]
    with host.executor(1) as executor:
        assert list(executor.map(plus_one, range(3))) == [1, 2, 3]


def test_a_worker_that_is_cancelled_is_ended(host, tmp_path):
    path = tmp_path / 'pid'
    future = host.options(worker=True).submit(say_and_block, str(path))
    pid = int(testlib.wait_for(lambda: path.exists() and path.read_text()))
    assert future.cancel()
    testlib.wait_for(lambda: not testlib.is_running(pid))
    assert host.call(targets.add, 1, 2) == 3


def say_and_block(path):
    """
    Write the number of this process to a file, and block in C where no Python runs.
    """
    with open(path + '~', 'w') as fp:
        fp.write(str(os.getpid()))
    os.rename(path + '~', path)
    import ctypes
    ctypes.PyDLL(None).sleep(600)


# ---- map

def test_a_map_is_in_order_and_lazy(host):
    taken = []

    def items():
        for i in range(10):
            taken.append(i)
            yield i

    results = host.options(window=3).map(task_targets.note, items())
    assert next(results) == 0
    assert len(taken) == 3
    assert list(results) == list(range(1, 10))


def test_a_map_that_is_left_cancels_what_is_outstanding(host):
    results = host.options(window=3).map(task_targets.sleep_and_note, [0, 600, 600], 'abc')
    assert next(results) == 'a'
    results.close()
    # The second one may have begun or not.
    assert not {'b', 'c'} & set(host.call(task_targets.seen))


# ---- peers that may not, or cannot

def test_a_sibling_cancels_nothing(host, tree):
    future = begin(host, task_targets.sleep_and_note, 0.5, 'on')
    sibling = tree.connect()
    handle = host._tasks.start().result()[0]
    sibling.call(send_cancel, host, handle, future._handle)
    assert future.result() == 'on'


def send_cancel(context, handle, task):
    context.send(Message.pickled((task, 0, False), handle=handle))


@pytest.mark.parametrize('payload', [(1,), (u'x', 0, False), (1, 5, False), (1, -1, False), None, 5])
def test_a_cancel_that_is_nonsense_harms_nobody(host, payload):
    handle = host._tasks.start().result()[0]
    host.send(Message.pickled(payload, handle=handle))
    assert host.call(targets.add, 1, 2) == 3
    assert host.call(what_is_left) == (0, 1)


@pytest.mark.parametrize('payload', [0, 10 ** 6, u'x', None, -1])
def test_a_kill_that_is_nonsense_harms_nobody(host, payload):
    handle = host._tasks.start().result()[1]
    host.send(Message.pickled(payload, handle=handle))
    assert host.call(targets.add, 1, 2) == 3


def test_a_host_that_does_not_know_tasks(tree, monkeypatch):
    child = tree.connect()
    child.call(pretend_old)
    assert child.submit(targets.add, 1, 2).result() == 3
    with pytest.raises(mitogen.DeadlineExceeded) as info:
        child.options(timeout=0.1).call(time.sleep, 0.5)
    assert info.value.began is None
    with pytest.raises(mitogen.RemoteError, match='need Python 3.6'):
        child._tasks.start().result()
    assert child.call(targets.add, 1, 2) == 3


def pretend_old():
    """
    Have this process say that it has an older Python.
    """
    import sys
    sys.version_info = (3, 5)


def test_an_unpicklable_result_is_an_error_of_the_call(host):
    with pytest.raises(mitogen.core.StreamError, match='object'):
        host.submit(task_targets.unpicklable).result()
    with pytest.raises(mitogen.RemoteError, match='pickle'):
        host.submit(task_targets.not_even_pickled).result()
    assert host.call(targets.add, 1, 2) == 3
