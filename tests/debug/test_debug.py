"""
Looking into a running process.
"""

import gc
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import testlib

import mitogen
import mitogen.core
import mitogen.debug
import mitogen.parent
from mitogen import debug


def test_evil_interrupts():
    old = signal.getsignal(signal.SIGALRM)
    debug.enable_evil_interrupts()
    try:
        assert signal.getitimer(signal.ITIMER_REAL)[1] == 0.01
        time.sleep(0.05)
    finally:
        debug.disable_evil_interrupts()
        signal.signal(signal.SIGALRM, old)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_subclasses():
    class A(object):
        pass

    class B(A):
        pass

    class C(B):
        pass

    assert debug.get_subclasses(A) == set([A, B, C])
    assert mitogen.parent.Router in debug.get_subclasses(mitogen.core.Router)


def test_routers_and_streams(router):
    context = router.local()
    key, = [key for key, value in debug.get_routers().items() if value is router]
    assert debug.get_router_info()['routers'][key] == {
        'id': key, 'streams': 1, 'contexts': len(router._context_by_id), 'handles': len(router._handle_map)}
    info, = debug.get_stream_info(key)['streams'].values()
    assert info['name'] == context.name
    assert info['remote_id'] == context.context_id
    assert info['routes'] == [context.context_id]
    assert info['sent_module_count'] == 2
    assert info['type'] == 'mitogen.parent'


def test_stacks():
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name='waiting thread')
    thread.start()
    text = debug.format_stacks()
    done.set()
    thread.join()
    assert 'PID %d' % os.getpid() in text
    assert 'waiting thread' in text
    assert 'in test_stacks' in text
    assert 'text = debug.format_stacks()' in text


def test_snapshots_show_what_has_changed(monkeypatch):
    monkeypatch.setattr(debug, '_last', None)
    monkeypatch.setattr(debug, 'format_stacks', lambda: 'one\n')
    assert debug.get_snapshot() == 'one\n'
    assert 'no change' in debug.get_snapshot()
    monkeypatch.setattr(debug, 'format_stacks', lambda: 'two\n')
    text = debug.get_snapshot()
    assert '--- then' in text and '-one\n+two' in text


def test_the_signal(monkeypatch):
    seen = []
    monkeypatch.setattr(debug, '_handle_signal', lambda *args: seen.append(args[0]))
    old = signal.getsignal(signal.SIGUSR2)
    try:
        debug.install_handler()
        os.kill(os.getpid(), signal.SIGUSR2)
        testlib.wait_for(lambda: seen == [signal.SIGUSR2])
    finally:
        signal.signal(signal.SIGUSR2, old)


PROGRAM = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import mitogen.debug
# Has the terminal, as it opens it as the leader of a new session.
os.close(os.open(sys.argv[2], os.O_RDWR))
mitogen.debug.install_handler()
os.kill(os.getpid(), signal.SIGUSR2)
print('done')
"""


def test_the_snapshot_goes_to_the_terminal():
    master, slave = pty.openpty()
    root = os.path.dirname(os.path.dirname(mitogen.__file__))
    # Its own files are elsewhere.
    proc = subprocess.Popen([sys.executable, '-c', PROGRAM, root, os.ttyname(slave)], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    text = ''
    while 'in <module>' not in text:
        text += os.read(master, 65536).decode()
    out, err = proc.communicate(timeout=60)
    os.close(slave)
    os.close(master)
    assert (proc.returncode, out, err) == (0, 'done\n', '')
    assert '# PID %d ThreadID: ' % (proc.pid,) in text


def test_a_child_dumps_its_threads(router):
    with testlib.LogCapture() as logs:
        # It is told our log levels when it is started.
        context = router.local()
        assert context.call(debug.dump_to_logger, 1) is None
        record = logs.wait('ThreadID')[0]
        assert record.name == 'mitogen.debug.[%s]' % context.name
        assert 'PID %d' % context.call(os.getpid) in record.getMessage()
        testlib.wait_for(lambda: len(logs.find('ThreadID')) > 1)


def test_handlers_that_come_while_they_are_described_do_no_harm(router):
    respondent = router.context_by_id(55)
    for _ in range(50):
        router.add_handler(lambda msg: None, respondent=respondent)

    def add(phase, info):
        # As another thread may, at any time that it is let run.
        if not router._write_lock._is_owned():
            router.add_handler(lambda msg: None)

    thresholds = gc.get_threshold()
    gc.callbacks.append(add)
    gc.set_threshold(1)
    try:
        lines = debug._describe_router(router)
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(add)
    assert sum('a reply is awaited' in line for line in lines) == 50
