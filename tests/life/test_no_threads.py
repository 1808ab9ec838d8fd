"""
The system gives no thread: nothing waits for one that never started, and the next one does.
"""

import concurrent.futures
import gc
import logging
import os
import threading

import pytest

import mitogen
import mitogen.core
import mitogen.master
import mitogen.parent
import mitogen.service
import mitogen.unix
from mitogen._tree import reader

import targets
import task_targets
import testlib


class Scarce:
    """
    Stands in the place of :meth:`threading.Thread.start`. Threads of a name do not start while
    `names` has the beginning of it.
    """
    def __init__(self, monkeypatch):
        self.names, self._start = [], threading.Thread.start
        monkeypatch.setattr(threading.Thread, 'start', lambda thread: self.start(thread))

    def start(self, thread):
        if any(thread.name.startswith(name) for name in self.names):
            raise RuntimeError("can't start new thread")
        self._start(thread)


@pytest.fixture
def scarce(monkeypatch):
    return Scarce(monkeypatch)


def test_callbacks_of_futures_run_once_there_is_a_thread_or_at_the_end(scarce):
    scarce.names.append('mitogen.callbacks')
    ran = []
    with testlib.LogCapture('mitogen.tree') as logs:
        with mitogen.Tree(output=None) as tree:
            host = tree.connect('local:')

            def add(word):
                future = host.submit(targets.sleep, 0.01)
                future.add_done_callback(lambda future: ran.append(word))
                return future.result(testlib.patience())
            add('first')
            logs.wait('callbacks of futures wait')
            assert ran == []
            del scarce.names[:]
            add('second')
            testlib.wait_for(lambda: ran == ['first', 'second'])
        scarce.names.append('mitogen.callbacks')
        with mitogen.Tree(output=None) as tree:
            host = tree.connect('local:')
            add('third')
            testlib.wait_for(lambda: len(logs.find('callbacks of futures wait', logging.ERROR)) == 2)
    assert ran == ['first', 'second', 'third']


def test_lines_of_output_are_shown_once_there_is_a_thread_or_at_the_end(scarce):
    scarce.names.append('mitogen.output')
    shown = []
    with testlib.LogCapture('mitogen.tree') as logs:
        with mitogen.Tree(output=lambda host, line: shown.append(line)) as tree:
            host = tree.connect('local:')
            host.call(print, 'first')
            logs.wait('lines of output wait')
            del scarce.names[:]
            host.call(print, 'second')
            testlib.wait_for(lambda: shown == ['first', 'second'])
        scarce.names.append('mitogen.output')
        with mitogen.Tree(output=lambda host, line: shown.append(line)) as tree:
            tree.connect('local:').call(print, 'third')
            testlib.wait_for(lambda: len(logs.find('lines of output wait', logging.ERROR)) == 2)
    assert shown == ['first', 'second', 'third']


def test_a_long_answer_is_read_all_the_same(scarce):
    scarce.names.append('mitogen.reader')
    given = []
    reader.Reader().read(lambda: given.append(1))
    assert given == [1]
    with mitogen.connect('local:') as host:
        future = host.submit(bytes, 1 << 20)
        # A thread that waits so is to know whether it is an error.
        done = concurrent.futures.wait([future], testlib.patience(), concurrent.futures.FIRST_EXCEPTION)
        assert done.done == {future} and len(future.result()) == 1 << 20


@pytest.mark.parametrize('name', ['mitogen.broker', 'mitogen.master.join_thread'])
@pytest.mark.parametrize('make', [mitogen.master.Broker, mitogen.Tree])
def test_a_broker_that_does_not_get_its_threads_leaves_nothing(scarce, monkeypatch, name, make):
    monkeypatch.setattr(mitogen.master.ThreadWatcher, '_watchers', {})
    threads, descriptors = set(threading.enumerate()), set(os.listdir('/proc/self/fd'))
    scarce.names.append(name)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        make()
    gc.collect()
    # Those of earlier tests may end meanwhile.
    assert not set(threading.enumerate()) - threads
    assert not set(os.listdir('/proc/self/fd')) - descriptors
    assert not mitogen.master.ThreadWatcher._watchers


def test_children_compile_what_nobody_compiles_for_them(scarce, monkeypatch):
    monkeypatch.setattr(mitogen.parent, '_late_code_begun', False)
    scarce.names.append('mitogen-late-core')
    mitogen.parent._prepare_late_code()
    assert mitogen.parent._late_code_begun


def test_a_pool_that_does_not_get_its_threads_gives_the_handle_back(router, scarce):
    scarce.names.append('mitogen.Pool')
    with pytest.raises(RuntimeError):
        mitogen.service.Pool(router, size=2)
    del scarce.names[:]
    pool = mitogen.service.Pool(router, size=2)
    pool.stop()


def test_a_host_that_does_not_get_its_threads_says_so_and_may_be_asked_again():
    with mitogen.connect('local:') as host:
        host.submit(int).result()
        before = host.call(task_targets.handles)
        with pytest.raises(mitogen.RemoteError, match="can't start new thread"):
            host.call(task_targets.start_pool_without_threads)
        assert host.call(task_targets.handles) == before
        with host.executor(2) as executor:
            assert executor.submit(abs, -1).result() == 1


def test_questions_about_links_are_answered_once_there_is_a_thread(router, scarce):
    scarce.names.append('mitogen.unix.teller')
    teller = mitogen.unix._Teller(router)
    answered = threading.Event()

    class Question:
        is_dead, reply_to = False, 1000

        def reply(self, links):
            answered.set()
    with pytest.raises(RuntimeError):
        teller._on_question(Question())
    del scarce.names[:]
    teller._on_question(Question())
    assert answered.wait(testlib.patience())
