"""
The end of the interpreter, with brokers that run and threads in every kind of wait: no crash, no
hang, and no child is left.
"""

import os
import signal
import subprocess
import sys

import pytest

import places
import testlib

#: Safety net: nothing here takes more than a second or two on an idle machine.
SECONDS = testlib.patience()

PROGRAM = '''
import sys
sys.path.insert(0, %r)
import os, signal, threading, time
import fork_targets, targets
import mitogen.core, mitogen.master, mitogen.select, mitogen.service
from mitogen.core import Latch, Receiver
watched = %r
if not watched:
    # Makes each thread a daemon, also one that asks not to be.
    threading.Thread.daemon = property(lambda thread: True, lambda thread, value: None)
broker = mitogen.master.Broker(install_watcher=watched)
# One child is going to be stopped.
broker.shutdown_timeout = 0.5
router = mitogen.master.Router(broker)
child = router.local()
print(child.call(os.getpid), flush=True)

def quiet(func):
    def run():
        # Python itself ends badly when a daemon thread is in the middle of a traceback at the end.
        try:
            func()
        except mitogen.core.Error:
            pass
    return run

def start(func, daemon=True):
    thread = threading.Thread(target=quiet(func))
    thread.daemon = daemon
    thread.start()

def calls():
    while True:
        child.call(targets.identity, b'x' * 100000)

def held_back():
    router.high_water = 1 << 16
    pid = other.call(os.getpid)
    os.kill(pid, signal.SIGSTOP)
    with open(sys.argv[1] + '.new', 'w') as fp:
        fp.write(str(pid))
    os.rename(sys.argv[1] + '.new', sys.argv[1])
    while True:
        other.call_async(targets.identity, b'x' * 200000)

def pool():
    mitogen.service.Pool(router, [fork_targets.Echo(router)], size=2)
    child.call(fork_targets.ask_echo)

def connects():
    router.local(python_path=['sh', '-c', 'exec cat >&2'], connect_timeout=600)

def selects():
    mitogen.select.Select([Receiver(router), Receiver(router)]).get()

def brokers():
    for _ in range(3):
        mitogen.master.Broker()
%s
'''

#: The work of the threads while the main thread ends.
ALL = '''
pool()
# Before there are threads, and at less cost than others.
sleeper, other = router.fork(), router.fork()
for func in (calls, Latch().get, lambda: Latch().get(timeout=600), Receiver(router).get, selects, connects,
             lambda: sleeper.call(targets.sleep, 600), lambda: broker.join(), held_back):
    start(func)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
'''

ENDINGS = {
    'returns': '',
    'sys.exit': 'sys.exit(0)',
    'shut down before': 'broker.shutdown(); broker.join()',
    'shut down, not joined': 'broker.shutdown()',
    'os._exit': 'os._exit(0)',
    'with rubbish': 'x = [router, child, broker]; x.append(x); del x',
    'in a thread': 'start(lambda: broker.shutdown())',
    'in atexit': 'import atexit; atexit.register(lambda: child.call(targets.add, 1, 2) if broker._alive else None)',
}


def run(tmp_path, watcher, *parts):
    script = tmp_path / 'script.py'
    script.write_text(PROGRAM % (places.TARGETS, watcher, '\n'.join(parts)))
    # Its output goes to files: a child that is left would hold a pipe open.
    with open(str(tmp_path / 'out'), 'w+') as out, open(str(tmp_path / 'err'), 'w+') as err:
        proc = subprocess.Popen([sys.executable, '-X', 'dev', str(script), str(tmp_path / 'stopped')],
                                stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            status = proc.wait(SECONDS)
        finally:
            proc.kill()
            proc.wait()
            if (tmp_path / 'stopped').exists():
                try:
                    os.kill(int((tmp_path / 'stopped').read_text()), signal.SIGKILL)
                except ProcessLookupError:
                    # Its parent has ended it already.
                    pass
        out.seek(0)
        err.seek(0)
        pid, text = int(out.readline()), err.read()
    for bad in 'Fatal Python error', 'Traceback', 'AddressSanitizer', 'assert':
        assert bad not in text, text
    return status, pid, text


@pytest.mark.parametrize('name', sorted(ENDINGS))
def test_an_end_with_threads_in_every_wait(tmp_path, name):
    status, pid, text = run(tmp_path, True, ALL, ENDINGS[name])
    assert status == 0, text
    testlib.wait_for(lambda: not testlib.is_running(pid), SECONDS)


def test_an_end_with_brokers_that_nobody_shuts_down(tmp_path):
    """
    Each has a thread that is no daemon, and a watcher that shuts it down when the main thread has
    ended.
    """
    status, pid, text = run(tmp_path, True, 'brokers()')
    assert status == 0, text
    testlib.wait_for(lambda: not testlib.is_running(pid), SECONDS)


def test_an_end_while_the_brokers_thread_is_a_daemon(tmp_path):
    """
    Nothing ends it: it is in the loop, or wants the GIL, when the interpreter goes.
    """
    status, pid, text = run(tmp_path, False, ALL, """
assert all(thread.daemon for thread in threading.enumerate())
threading._shutdown = lambda: None
threading._register_atexit = lambda *args: None
""")
    assert status == 0, text
    testlib.wait_for(lambda: not testlib.is_running(pid), SECONDS)


def test_an_exception_of_the_main_thread(tmp_path):
    script_end = 'sys.excepthook = lambda *args: None\nraise KeyboardInterrupt()'
    status, pid, text = run(tmp_path, True, ALL, script_end)
    assert status in (1, 130, -2), text
    testlib.wait_for(lambda: not testlib.is_running(pid), SECONDS)
