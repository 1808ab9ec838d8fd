"""
`os.fork()` while other threads hold locks that hooks of the fork want, while objects of dead
connections are freed, and while brokers come and go: the fork comes back, and the copy is whole.
"""

import gc
import logging
import os
import subprocess
import sys
import threading

import pytest

import mitogen.core
import mitogen.master
import targets
import testlib

#: Has no word for a fork that other threads see: from 3.12 on the interpreter warns of it.
PYTHON = [sys.executable, '-W', 'ignore:This process:DeprecationWarning', '-c']

#: A program's own lock, which each fork of it takes. A thread holds it while it waits for an
#: answer.
LOCKED = '''
import os
import sys
import threading
import time

lock = threading.Lock()

def hold_in_forks():
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)

if sys.argv[1] == 'before':
    hold_in_forks()
import mitogen.core
import mitogen.master
if sys.argv[1] == 'after':
    hold_in_forks()
assert mitogen.core.CORE == sys.argv[2]

def call_with_lock():
    with lock:
        holds.set()
        answers.append(child.call(time.sleep, 0.3))

broker = mitogen.master.Broker()
router = mitogen.master.Router(broker)
child = router.local()
answers = []
holds = threading.Event()
thread = threading.Thread(target=call_with_lock)
thread.start()
holds.wait()
pid = os.fork()
if not pid:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
thread.join()
assert answers == [None]
broker.shutdown()
broker.join()
print('well')
'''


@pytest.mark.parametrize('order', ['before', 'after'])
def test_a_thread_that_waits_for_an_answer_may_hold_a_lock_of_a_fork_hook(order):
    """
    Whether the program registers its hook before or after it imports us.
    """
    env = dict(os.environ, MITOGEN_CORE=mitogen.core.CORE)
    done = subprocess.run(PYTHON + [LOCKED, order, mitogen.core.CORE], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=testlib.patience(), check=False, cwd='/')
    assert done.stdout == b'well\n'


class Copy(object):
    """
    A copy of this process, which ends at once.
    """

    def __init__(self):
        self.pid = os.fork()
        if not self.pid:
            os._exit(0)

    def check(self):
        assert os.waitpid(self.pid, 0)[1] == 0


def test_a_thread_that_waits_for_an_answer_may_hold_the_lock_of_a_logging_handler(router):
    """
    The hooks of `logging` take the locks of all handlers.
    """
    child = router.local()

    class Asking(logging.Handler):
        def emit(self, record):
            holds.set()
            child.call(targets.sleep, 0.3)
            answers.append(child.call(targets.add, 1, 2))

    holds, answers = threading.Event(), []
    logger = logging.Logger('of this test')
    logger.addHandler(Asking())
    thread = threading.Thread(target=logger.warning, args=('a record',), daemon=True)
    thread.start()
    assert holds.wait(testlib.patience())
    Copy().check()
    thread.join(testlib.patience())
    assert answers == [3]


def make_cycle(router):
    """
    Leave a connection of frames that only the collector can find, and that was never closed.
    """
    stream = mitogen.core.Stream()
    stream.set_protocol(mitogen.core.MitogenProtocol(router, 12345))
    reader, writer = os.pipe()
    stream.accept(os.fdopen(reader, 'rb', 0), os.fdopen(writer, 'wb', 0))
    if hasattr(stream.protocol, '_opened_link'):
        stream.protocol._opened_link()
    stream.myself = stream


#: Run by the first hook of each fork.
in_hook = []


@pytest.fixture(scope='module', autouse=True)
def a_hook():
    os.register_at_fork(before=lambda: [func() for func in in_hook])


def test_a_hook_may_collect_connections_that_nobody_has_closed(router):
    child = router.local()
    stopped = []

    def call():
        while not stopped:
            child.call(targets.add, 1, 2)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    in_hook.append(gc.collect)
    try:
        for _ in range(10):
            make_cycle(router)
            Copy().check()
    finally:
        in_hook.remove(gc.collect)
        stopped.append(True)
    thread.join(testlib.patience())
    assert not thread.is_alive()
    assert child.call(targets.add, 3, 4) == 7


def test_a_copy_that_is_made_while_brokers_come_and_go_runs_all_its_hooks():
    """
    A hook of the interpreter's that raises is reported, and skips what it has not done yet.
    """
    program = '''
import os, sys, threading
import mitogen.master

raised = []
sys.unraisablehook = raised.append
stopped = []

def make_and_end():
    while not stopped:
        broker = mitogen.master.Broker()
        mitogen.master.Router(broker)
        broker.shutdown()
        broker.join()

threads = [threading.Thread(target=make_and_end, daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
bad = 0
for _ in range(100):
    pid = os.fork()
    if not pid:
        os._exit(len(raised) != 0)
    bad += os.waitpid(pid, 0)[1] != 0
stopped.append(True)
for thread in threads:
    thread.join()
print(bad, raised)
'''
    env = dict(os.environ, MITOGEN_CORE=mitogen.core.CORE)
    done = subprocess.run(PYTHON + [program], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=10 * testlib.patience(), check=False, cwd='/')
    assert done.stdout == b'0 []\n'


def test_a_broker_that_is_being_made_is_given_up_in_a_copy_only_once_it_is_whole(monkeypatch):
    """
    Fork while another thread holds the lock, each time.
    """
    seen = []

    def init(waker, broker):
        seen.append([ref() for ref in list(mitogen.core.Broker._all.values())])
        made(waker, broker)

    made = mitogen.core.Waker.__init__
    monkeypatch.setattr(mitogen.core.Waker, '__init__', init)
    broker = mitogen.master.Broker()
    broker.shutdown()
    broker.join()
    assert seen and not any(broker in brokers for brokers in seen)


#: Holds every lock of a module or a class of ours, and prints which of them a copy cannot take.
ALL_LOCKS = '''
import importlib
import os
import pkgutil
import sys
import threading
import mitogen

for found in pkgutil.walk_packages(mitogen.__path__, 'mitogen.'):
    if not found.name.startswith(('mitogen.ansible', 'mitogen.__main__')):
        try:
            importlib.import_module(found.name)
        except ImportError:
            # It needs a distribution that is not here, or an interpreter of another kind.
            pass
kinds = type(threading.Lock()), type(threading.RLock())
owners = [module for name, module in list(sys.modules.items()) if name.split('.')[0] == 'mitogen' and module]
owners += [value for module in owners for value in list(vars(module).values())
           if isinstance(value, type) and value.__module__.split('.')[0] == 'mitogen']
locks = sorted({(owner.__name__, name): owner for owner in owners for name, value in list(vars(owner).items())
                if isinstance(value, kinds)}.items(), key=lambda item: item[0])
held, over = threading.Event(), threading.Event()

def hold():
    for (_, name), owner in locks:
        getattr(owner, name).acquire()
    held.set()
    over.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
if not os.fork():
    print(len(locks), [key for key, owner in locks if not getattr(owner, key[1]).acquire(False)], flush=True)
    os._exit(0)
os.wait()
os._exit(0)
'''


def test_no_lock_of_a_module_is_held_in_a_copy():
    done = subprocess.run(PYTHON + [ALL_LOCKS], capture_output=True, text=True, timeout=testlib.patience())
    count, _, left = done.stdout.strip().partition(' ')
    # The watcher of threads looks at the id of its process, each time.
    assert left == "[('ThreadWatcher', '_lock')]", done.stdout + done.stderr
    assert int(count) > 10
