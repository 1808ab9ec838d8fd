"""
Hosts that answer what the tree asks for its own sake with data that nobody asked for: it is an
error of ours, and costs neither much memory nor the broker's thread.
"""

import asyncio
import concurrent.futures
import os
import threading

import pytest

import mitogen
import mitogen._tasks
import mitogen.core
from mitogen._tree import future, reader, running
from mitogen._tree.options import DEFAULT

import lying_host
import targets
import testlib


def test_a_number_of_processors_that_is_made_up_starts_no_million_processes(host, monkeypatch):
    asked = []
    monkeypatch.setattr(os, 'cpu_count', lying_host.many_processors)
    monkeypatch.setattr(host.tree, 'connect_below', lambda via, count: asked.append(count) or ())
    host.executor(processes=True)
    assert asked == [mitogen._tasks.THREADS_MAX]
    for lie in lying_host.no_numbers, lying_host.a_long_text:
        monkeypatch.setattr(os, 'cpu_count', lie)
        with pytest.raises(mitogen.core.StreamError, match='answer of shared is not a number'):
            host.executor()


@pytest.mark.parametrize('lie', [lying_host.no_numbers, lying_host.a_long_text])
def test_a_queue_that_is_no_queue_is_an_error_of_ours(host, monkeypatch, lie):
    monkeypatch.setattr(mitogen._tasks, 'start_pool', lie)
    with pytest.raises(mitogen.core.StreamError, match='answer of shared is not 2 numbers'):
        host.executor(2)


@pytest.mark.parametrize('lie, text', [
    (lying_host.no_numbers, 'answer of liar of tasks is not 2 numbers'), (lying_host.a_long_text, 'answer of liar of tasks has no handles, but')])
def test_handles_for_tasks_that_are_none_are_an_error_of_ours(tree, monkeypatch, lie, text):
    monkeypatch.setattr(mitogen._tasks, 'start', lie)
    liar = tree.connect(name='liar of tasks')
    with pytest.raises(mitogen.core.StreamError, match=text):
        liar._tasks.start().result(60)
    late = liar.submit(targets.sleep, 60)
    assert late.cancel()


def test_a_group_goes_on_where_a_queue_is_no_queue(monkeypatch):
    monkeypatch.setattr(mitogen._tasks, 'start_pool', lying_host.no_numbers)
    with mitogen.Tree(output=None, threads=2) as tree:
        results = list(tree.connect_all(['local:', 'local:']).map(targets.add, 1, 2))
        assert len(results) == 2
        for result in results:
            with pytest.raises(mitogen.core.StreamError, match='is not 2 numbers'):
                result.unwrap()


def test_a_stream_without_a_handle_is_an_error_of_ours(host):
    names = 'lying_host', None, 'items'
    with pytest.raises(mitogen.core.StreamError, match='answer of shared is not a number'):
        running.Running(host, DEFAULT, lying_host.stream_without_handle, names, (), {}).follow({})


@pytest.mark.parametrize('value', [5, u'x' * 200, None, [lying_host.LIE]])
def test_an_answer_to_a_cancellation_is_a_truth_value_or_counts_for_none(host, monkeypatch, value):
    told, handlers = [], []
    started = host._tasks.start()
    started.result(60)
    monkeypatch.setattr(host, 'send', lambda msg: None)
    monkeypatch.setattr(host.router, 'add_handler', lambda func, **kwargs: handlers.append(func) or 5)
    host._tasks._send_cancel(started, (1, 0, True), told.append)
    (on_answer,) = handlers
    on_answer(mitogen.core.Message.pickled(value))
    assert told == [None]


# ---- long answers

def readers(monkeypatch):
    """
    Return a list that has the thread of each answer that is read.
    """
    seen, read = [], future.outcome_of

    def note(msg, host):
        seen.append(threading.get_ident())
        return read(msg, host)
    monkeypatch.setattr(future, 'outcome_of', note)
    return seen


def test_a_long_answer_is_read_by_the_thread_that_wants_it(host, monkeypatch):
    host._tasks.start().result(60)
    seen = readers(monkeypatch)
    found = host.submit(bytes, 100000)
    assert found.result(60) == bytes(100000) and seen == [threading.get_ident()]
    assert found.exception() is None and found.result() is found.result()
    assert len(seen) == 1
    settled, settle = [], future.HostFuture._settle

    def note(self, value, error):
        settled.append(threading.get_ident())
        settle(self, value, error)
    monkeypatch.setattr(future.HostFuture, '_settle', note)
    assert host.submit(bytes, 10).result(60) == bytes(10)
    assert settled == [host.router.broker._ident]


def test_an_executor_and_asyncio_read_long_answers(host):
    with host.executor(2) as executor:
        assert [len(found) for found in executor.map(bytes, [100000, 5, 200000])] == [100000, 5, 200000]

    async def wait():
        return await asyncio.wrap_future(host.submit(bytes, 100000))
    assert len(asyncio.run(wait())) == 100000


def test_a_group_reads_long_answers_where_its_results_are_wanted(host, monkeypatch):
    host._tasks.start().result(60)
    seen = readers(monkeypatch)
    (result,) = mitogen.Group([host]).map(bytes, 100000)
    assert len(result.value) == 100000 and seen == [threading.get_ident()]


def damaged():
    return mitogen.core.Message(data=b'x' * 100000, enc=mitogen.core.Message.ENC_PKL)


def test_who_waits_for_the_first_error_is_woken_by_a_long_answer_that_is_damaged(host):
    lies, others = future.HostFuture(host), future.HostFuture(host)
    waiting = threading.Thread(target=concurrent.futures.wait, args=(
        [lies, others], None, concurrent.futures.FIRST_EXCEPTION))
    waiting.start()
    testlib.wait_for(lambda: lies._waiters)
    lies._on_reply(damaged())
    waiting.join(testlib.patience())
    assert not waiting.is_alive() and not others.done()
    assert isinstance(lies.exception(), mitogen.core.DamagedError)


def test_who_waits_for_several_is_not_woken_by_a_long_value(host):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        found = [host.submit(bytes, 100000), host.submit(bytes, 200000)]
        done = pool.submit(concurrent.futures.wait, found, None, concurrent.futures.FIRST_EXCEPTION).result(60)
    assert done.done == set(found) and [len(one.result()) for one in found] == [100000, 200000]
    testlib.wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == 'mitogen.reader'])


def test_observers_are_told_of_a_long_answer_and_the_thread_of_callbacks_does_not_read_it(host, monkeypatch):
    host._tasks.start().result(60)
    host.submit(int).result(60)
    seen, ends = readers(monkeypatch), []
    stop = host.tree.observe(lambda task: ends.append)
    try:
        found = host.submit(bytes, 100000)
        lies = host.submit(targets.sleep, 60)
        assert len(found.result(60)) == 100000
        host.router.broker.defer(lies._on_reply, damaged())
        testlib.wait_for(lambda: len(ends) == 2)
    finally:
        stop()
    assert ends[0] is None and isinstance(ends[1], mitogen.core.DamagedError)
    threads = {host.router.broker._ident, host.tree._callbacks._thread.ident, threading.get_ident()}
    assert len(seen) == 2 and not threads & set(seen)


def test_a_thread_for_long_answers_reads_them_in_turn_and_ends():
    reading, read, gate = reader.Reader(), [], threading.Event()
    for _ in range(2):
        gate.clear()
        reading.read(gate.wait)
        for i in range(3):
            reading.read(lambda i=i: read.append((i, threading.get_ident())))
        gate.set()
        testlib.wait_for(lambda: not reading._runs)
    assert [i for i, _ in read] == [0, 1, 2] * 2
    assert len({ident for _, ident in read[:3]}) == 1


def test_a_long_answer_that_is_damaged_is_an_error_of_ours(host):
    for ask in (lambda found: found.exception(), lambda found: pytest.raises(mitogen.core.Error, found.result).value):
        found = future.HostFuture(host)
        found._on_reply(mitogen.core.Message(data=b'x' * 100000, enc=mitogen.core.Message.ENC_PKL))
        assert isinstance(ask(found), mitogen.core.DamagedError)
        assert isinstance(found.exception(), mitogen.core.DamagedError)
