"""
`os.fork()` at any moment, in any thread: the copy can make a router of its own, end at once or end
as usual, what it has of the parent's says so, and the parent notices nothing.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import pytest

import fork_targets
import mitogen.core
import mitogen.debug
import mitogen.master
import mitogen.select
import mitogen.service
import places
import targets
import testlib
from mitogen.core import Latch, Receiver


#: Safety net: nothing here takes more than a second on an idle machine.
SECONDS = testlib.patience()


def fork(func):
    """
    Run a function in a copy of this process, which ends with it; return the pid.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        func()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def reap(pid, seconds=SECONDS):
    """
    Wait for a process and return its status; it is killed when it does not end in time.
    """
    deadline = time.time() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        if time.time() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError('process %d did not end' % (pid,))
        time.sleep(0.002)


def check_fork(func):
    assert reap(fork(func)) == 0


def use_new_router():
    assert fork_targets.use_new_router() == 3


class Busy(object):
    """
    Threads of this process that do or wait for something for the length of a block.
    """

    def __init__(self, *functions):
        self.stopped = False
        self.errors = []
        # Daemons, so that a test that fails can end.
        self.threads = [threading.Thread(target=self.run, args=(function,), daemon=True) for function in functions]

    def run(self, function):
        try:
            function(self)
        except (mitogen.core.ChannelError, mitogen.core.LatchError):
            pass
        except BaseException as error:
            self.errors.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def end(self, *actions):
        self.stopped = True
        for action in actions:
            action()
        for thread in self.threads:
            thread.join(SECONDS)
            assert not thread.is_alive()
        assert not self.errors

    def __exit__(self, *_exc):
        self.stopped = True


def calls(context, size):
    def run(busy):
        while not busy.stopped:
            assert context.call(targets.identity, b'x' * size) == b'x' * size
    return run


# ---- what other threads do meanwhile

@pytest.mark.parametrize('size', [10, 300000])
def test_while_threads_call(router, size):
    child = router.local()
    with Busy(calls(child, size), calls(child, size)) as busy:
        for _ in range(6):
            check_fork(lambda: None)
        check_fork(use_new_router)
        busy.end()
    assert child.call(targets.add, 1, 2) == 3


def test_while_threads_wait(router):
    """
    In a latch, for a message of a child and in a select; one of them leads the loop of the compiled
    core.
    """
    child = router.local()
    latch, receiver, other = Latch(), Receiver(router), Receiver(router)
    select = mitogen.select.Select([other], oneshot=False)
    got = []
    with Busy(lambda _: got.append(latch.get()), lambda _: got.append(receiver.get().unpickle()),
              lambda _: got.append(select.get().unpickle())) as busy:
        testlib.wait_for(lambda: mitogen_waits(busy) == 3)
        for _ in range(5):
            check_fork(lambda: None)
        check_fork(use_new_router)
        busy.end(lambda: latch.put(1), lambda: child.call(fork_targets.send, receiver.to_sender(), 2),
                 lambda: child.call(fork_targets.send, other.to_sender(), 3))
    assert sorted(got) == [1, 2, 3]
    select.close()
    receiver.close()
    other.close()


def mitogen_waits(busy):
    """
    Return how many of its threads wait.
    """
    idents = [thread.ident for thread in busy.threads]
    return len([wait for wait in mitogen.debug.get_waits() if wait['thread'] in idents])


def test_while_a_sender_is_held_back(router):
    """
    The stream is full, so one thread waits for room.
    """
    router.high_water = 1 << 16
    child = router.local()
    pid = child.call(os.getpid)
    testlib.stop_process(pid)
    sent = []

    def send(_busy):
        for _ in range(20):
            sent.append(child.call_async(targets.identity, b'x' * 200000))

    with Busy(send) as busy:
        testlib.wait_for(lambda: router.stats()['blocked_senders'] or len(sent) == 20)
        assert len(sent) < 20
        for _ in range(5):
            check_fork(lambda: router.stream_by_id(child.context_id).protocol.pending_bytes())
        check_fork(use_new_router)
        os.kill(pid, signal.SIGCONT)
        busy.end()
    assert [len(receiver.get().unpickle()) for receiver in sent] == [200000] * 20


def test_while_a_pool_serves(router):
    pool = mitogen.service.Pool(router, [fork_targets.Echo(router)], size=2)
    child = router.local()

    def serve(busy):
        while not busy.stopped:
            assert child.call(fork_targets.ask_echo) == 7

    with Busy(serve) as busy:
        for _ in range(5):
            check_fork(lambda: None)
        check_fork(use_new_router)
        busy.end()
    pool.stop(join=True)


def test_while_brokers_come_and_go():
    def come_and_go(busy):
        while not busy.stopped:
            with own_router() as router:
                router.myself()

    with Busy(come_and_go, come_and_go) as busy:
        for _ in range(15):
            check_fork(lambda: None)
        check_fork(use_new_router)
        busy.end()


class own_router(object):
    def __enter__(self):
        self.broker = mitogen.master.Broker()
        return mitogen.master.Router(self.broker)

    def __exit__(self, *_exc):
        self.broker.shutdown()
        self.broker.join()


# ---- who forks

def test_threads_that_fork_at_the_same_time(router):
    child = router.local()

    def forks():
        for _ in range(6):
            check_fork(lambda: None)
        assert child.call(targets.add, 1, 2) == 3

    with Busy(calls(child, 10)) as busy:
        assert testlib.in_threads([forks] * 4, SECONDS) == [None] * 4
        busy.end()
    assert child.call(targets.add, 1, 2) == 3


def test_the_brokers_thread_forks(router):
    child = router.local()
    with Busy(calls(child, 10)) as busy:
        for func in (lambda: None, use_new_router):
            assert reap(router.broker.defer_sync(lambda func=func: fork(func))) == 0
        busy.end()
    assert child.call(targets.add, 1, 2) == 3


def test_handlers_policies_and_hooks_fork(router):
    child = router.local()
    pids = Latch()

    def do_fork(*_args):
        pids.put(fork(use_new_router))
        return True

    handle = router.add_handler(do_fork, policy=do_fork, persist=True)
    stream = router.stream_by_id(child.context_id)
    sender = mitogen.core.Sender(router.myself(), handle)
    child.call(fork_targets.send, sender, 1)
    stream.protocol.on_message = do_fork
    assert child.call(targets.add, 1, 2) == 3
    stream.protocol.on_message = None
    for _ in range(3):
        assert reap(pids.get(timeout=SECONDS)) == 0
    router.del_handler(handle)
    while pids.size():
        reap(pids.get())
    assert child.call(targets.add, 1, 2) == 3


def test_a_signal_handler_forks_while_its_thread_waits(router):
    child = router.local()
    pids = []
    forking = []

    def on_signal(*_args):
        # Not again while it forks: the standard library has a hook (of concurrent.futures) that
        # takes a lock until the fork is over, so a second one between its hooks would wait for that
        # for ever, with or without Mitogen. A mask of signals is not enough: the interpreter may
        # have noted the second signal before.
        if not forking:
            forking.append(True)
            try:
                pids.append(fork(use_new_router))
            finally:
                del forking[:]

    old = signal.signal(signal.SIGUSR1, on_signal)
    try:
        assert child.call(fork_targets.signal_parent_and_answer, os.getpid(), int(signal.SIGUSR1), 3) == 'answer'
        # Two that come before the first is handled are one.
        testlib.wait_for(lambda: pids)
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert set(reap(pid) for pid in pids) == {0}


def test_a_hook_that_forks_before_a_fork(tmp_path):
    """
    A function that runs before a fork may fork, and may make rubbish of streams.
    """
    result = run_script(tmp_path, '''
import os, sys, gc
nested = []
def before():
    if not nested:
        nested.append(1)
        pid = os.fork()
        if not pid:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    gc.collect()
# Registered first, so called last.
os.register_at_fork(before=before)
import mitogen.master, targets
router = mitogen.master.Router()
child = router.local()
pid = os.fork()
if not pid:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert child.call(targets.add, 1, 2) == 3
print('fine')
''')
    assert result == 'fine\n'


# ---- what the copy has of the parent

def test_what_the_copy_has_of_the_parents_says_so(router):
    child = router.local()
    receiver = Receiver(router)
    answer = child.call_async(targets.identity, 5)
    assert answer.get().unpickle() == 5
    pending = child.call_async(targets.sleep, 0.5)
    broker = router.broker

    def look():
        with pytest.raises(mitogen.core.Error):
            child.call(targets.add, 1, 2)
        with pytest.raises(mitogen.core.Error):
            child.call(targets.identity, b'x' * 1000000)
        for waiting in (receiver, pending):
            with pytest.raises(mitogen.core.ChannelError):
                waiting.get(timeout=60)
        with pytest.raises(mitogen.core.ChannelError):
            Receiver(router).get(timeout=60)
        with pytest.raises(mitogen.core.Error):
            broker.defer(lambda: None)
        with pytest.raises(mitogen.core.Error):
            broker.defer_sync(lambda: None)
        router.stats()
        broker.shutdown()
        broker.join()

    check_fork(look)
    assert child.call(targets.add, 1, 2) == 3
    assert pending.get().unpickle() == 0.5
    receiver.close()


def test_the_copy_holds_no_stream_of_the_parents_open(make_router):
    """
    A link ends when the parent ends, however long a copy of it lives.
    """
    router = make_router()
    child = router.local()
    pid = child.call(os.getpid)
    rfd, wfd = os.pipe()
    copy = fork(lambda: (os.close(wfd), os.read(rfd, 1)))
    try:
        router.broker.shutdown()
        router.broker.join()
        testlib.wait_for(lambda: not testlib.is_running(pid))
    finally:
        os.close(rfd)
        os.close(wfd)
        assert reap(copy) == 0


def test_a_latch_that_a_thread_waited_for(router):
    """
    In the copy that thread is not there to take what is put.
    """
    receiver = Receiver(router)
    with Busy(lambda _: receiver.get()) as busy:
        testlib.wait_for(lambda: mitogen_waits(busy))

        def look():
            with pytest.raises(mitogen.core.ChannelError):
                receiver.get(timeout=60)

        check_fork(look)
        busy.end(receiver.close)


def test_a_child_whose_function_forks_and_returns_twice(router):
    """
    The copy has nobody to answer, so it ends.
    """
    child = router.local()
    path = child.call(fork_targets.fork_and_return_twice)
    assert path != child.call(os.getpid)
    testlib.wait_for(lambda: not testlib.is_running(path))
    assert child.call(targets.add, 1, 2) == 3


def test_a_copy_of_a_child_cannot_import_from_the_parent(router):
    child = router.local()
    assert child.call(fork_targets.import_in_a_fork) == 'ModuleNotFoundError'
    assert child.call(targets.add, 1, 2) == 3


# ---- the end of the copy

def run_script(tmp_path, text):
    """
    Run a program in a process of its own, and return what it printed. It must end well, and say
    nothing on stderr.
    """
    script = tmp_path / 'script.py'
    script.write_text('import sys\nsys.path.insert(0, %r)\n' % (places.TARGETS,) + text)
    proc = subprocess.run([sys.executable, '-X', 'dev', str(script)], capture_output=True, text=True, timeout=SECONDS)
    noise = [line for line in proc.stderr.splitlines()
             # Python 3.12 and newer say so of every fork beside threads.
             if 'DeprecationWarning' not in line and not line.startswith('  ')]
    assert (proc.returncode, noise) == (0, []), proc.stderr
    return proc.stdout


FORKS_AND_ENDS = '''
import os, threading, mitogen.core, mitogen.master, targets, fork_targets
router = mitogen.master.Router()
child = router.local()
def work():
    try:
        while True:
            child.call(targets.identity, b'x' * 300000)
    except mitogen.core.Error:
        pass
for _ in range(2):
    thread = threading.Thread(target=work)
    thread.daemon = True
    thread.start()
for end in %r:
    pids = []
    for i in range(4):
        pid = os.fork()
        if not pid:
            exec(end)
        pids.append(pid)
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0, end
assert child.call(targets.add, 1, 2) == 3
router.broker.shutdown()
router.broker.join()
print('fine')
'''


def test_the_copy_ends_as_usual(tmp_path):
    assert run_script(tmp_path, FORKS_AND_ENDS % ((
        'sys.exit(0)',
        'router.broker.shutdown(); router.broker.join(); sys.exit(0)',
        'fork_targets.use_new_router(); sys.exit(0)',
        'del router, child; import gc; gc.collect(); sys.exit(0)',
    ),)) == 'fine\n'


@pytest.mark.parametrize('method', multiprocessing.get_all_start_methods())
def test_multiprocessing(tmp_path, method):
    assert run_script(tmp_path, '''
import multiprocessing, threading, warnings, mitogen.core, mitogen.master, targets, fork_targets
warnings.simplefilter('ignore')
if __name__ == '__main__':
    multiprocessing.set_start_method(%r)
    router = mitogen.master.Router()
    child = router.local()
    stop = []
    def work():
        while not stop:
            child.call(targets.identity, b'x' * 1000)
    thread = threading.Thread(target=work)
    thread.start()
    with multiprocessing.Pool(2) as pool:
        started = [pool.apply_async(fork_targets.use_new_router) for _ in range(2)]
        # Both: the end of the pool kills who still works, and the child of a killed master says so.
        assert [result.get(60) for result in started] == [3, 3]
        assert pool.map(len, ['a', 'bc']) == [1, 2]
    stop.append(1)
    thread.join()
    assert child.call(targets.add, 1, 2) == 3
    router.broker.shutdown()
    router.broker.join()
    print('fine')
''' % (method,)) == 'fine\n'
