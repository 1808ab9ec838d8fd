"""
The connection method `fork`.
"""

import gc
import logging
import os
import random
import signal
import sys
import threading
import warnings

import pytest
import places
import targets
import testlib

import mitogen.core
import mitogen.fork
import mitogen.parent

pytestmark = pytest.mark.skipif(not mitogen.fork.FORK_SUPPORTED, reason='this platform cannot fork')


def draw():
    return random.random(), os.urandom(4)


def module_names():
    return 'pytest' in sys.modules, mitogen.is_master, mitogen.context_id


def add_here(a, b):
    return a + b


def open_sockets():
    return sorted(target for target in targets.descriptors() if target.startswith('socket:'))


def test_a_child_is_a_copy_of_this_process(router):
    context = router.fork()
    pid = context.call(os.getpid)
    assert pid != os.getpid()
    assert context.call(os.getppid) == os.getpid()
    assert context.name == 'fork.%d' % pid
    assert context.call(add_here, 2, 3) == 5
    assert context.call(module_names) == (True, False, context.context_id)
    assert router.get_stats()['get_module_count'] == 0


def garbage_collector():
    return gc.isenabled(), gc.get_freeze_count()


@pytest.mark.usefixtures('nothing_frozen')
def test_a_child_looks_for_garbage_as_we_do(router):
    assert router.fork().call(garbage_collector) == (True, 0)
    gc.disable()
    try:
        assert router.fork().call(garbage_collector) == (False, 0)
    finally:
        gc.enable()
    assert router.fork(on_fork=gc.disable).call(garbage_collector) == (False, 0)


@pytest.mark.usefixtures('nothing_frozen')
def test_what_a_program_has_frozen_stays_so_in_a_child(router):
    gc.freeze()
    try:
        collects, frozen = router.fork().call(garbage_collector)
        # The child has released some of it.
        assert collects and frozen > gc.get_freeze_count() / 2
    finally:
        gc.unfreeze()


def test_a_local_child_looks_for_garbage(router):
    assert router.local().call(garbage_collector) == (True, 0)


def reader_of_messages():
    return mitogen.parent._skip is not None


@pytest.mark.pure
def test_what_reads_messages_is_compiled_before_the_fork(router, monkeypatch):
    monkeypatch.setattr(mitogen.parent, '_skip', None)
    context = router.fork()
    assert mitogen.parent._skip
    assert context.call(reader_of_messages)


def test_a_child_has_none_of_our_streams(router):
    other = router.local()
    ours = set(open_sockets())
    context = router.fork()
    assert not ours & set(context.call(open_sockets))
    assert other.call(os.getpid)


def test_a_fork_beside_threads_is_no_warning(router):
    """Python 3.15 would raise it once the child is there, so nobody would know the child."""
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for _ in range(2):
            assert router.fork().call(add_here, 1, 2) == 3
            # As a program may do at any time.
            warnings.simplefilter('error')


def test_a_child_whose_number_got_lost_ends(router, monkeypatch):
    pids = []

    def fork():
        pids.append(os.fork())
        if pids[0]:
            raise DeprecationWarning('too late')
        return 0

    monkeypatch.setattr(mitogen.fork, '_fork', fork)
    before = open_sockets()
    with pytest.raises(DeprecationWarning):
        router.fork()
    # The child's end of its socket is closed here, so it meets the end of its input.
    os.waitpid(pids[0], 0)
    assert open_sockets() == before


def test_a_fork_of_a_fork(router):
    parent = router.fork()
    child = router.fork(via=parent)
    assert child.call(os.getppid) == parent.call(os.getpid)
    assert child.name == 'fork.%d.fork.%d' % (parent.call(os.getpid), child.call(os.getpid))


def test_modules_that_children_lack_are_still_fetched(router, monkeypatch):
    monkeypatch.syspath_prepend(places.IMPORTER_DATA)
    import lonely
    parent = router.local()
    before = router.get_stats()['get_module_count']
    first = router.fork(via=parent)
    assert first.call(lonely.add, 1, 2) == 3
    assert router.get_stats()['get_module_count'] > before
    # A later fork knows all that its parent knows by now.
    before = router.get_stats()['get_module_count']
    second = router.fork(via=first)
    assert second.call(lonely.add, 3, 4) == 7
    assert router.get_stats()['get_module_count'] == before


def test_random_numbers_differ(router):
    contexts = [router.fork(), router.fork()]
    drawn = [draw()] + [context.call(draw) for context in contexts]
    assert len(set(number for number, _ in drawn)) == 3
    assert len(set(data for _, data in drawn)) == 3


def test_on_start_runs_in_the_child(router):
    with mitogen.core.Receiver(router) as recv:
        handle = recv.handle

        def on_start(econtext):
            main = threading.current_thread() is threading.main_thread()
            master = mitogen.parent.Context(econtext.router, 0)
            mitogen.core.Sender(master, handle).send((os.getpid(), main))

        context = router.fork(on_start=on_start)
        assert recv.get(timeout=60).unpickle() == (context.call(os.getpid), True)


def test_on_fork_runs_in_the_child(router):
    rfd, wfd = os.pipe()
    try:
        context = router.fork(on_fork=lambda: os.write(wfd, b'%d' % os.getpid()))
        assert int(os.read(rfd, 100)) == context.call(os.getpid)
    finally:
        os.close(rfd)
        os.close(wfd)


@pytest.mark.parametrize('name', ['python_path', 'remote_name', 'connect_timeout', 'nonsense'])
def test_options_of_other_methods_are_refused(router, name):
    with pytest.raises(TypeError):
        router.fork(**{name: 'x'})


def test_a_child_that_does_not_start(router):
    def fail():
        raise ValueError('no')

    with pytest.raises(mitogen.core.StreamError):
        router.fork(on_fork=fail)


def test_a_child_ends_with_its_broker(make_router):
    router = make_router()
    context = router.fork()
    gone = mitogen.core.Latch()
    proc = router.stream_by_id(context.context_id).conn.proc
    assert isinstance(proc, mitogen.fork.Process)
    assert repr(proc) == 'Process %s pid %d' % (context.name, proc.pid)
    mitogen.core.listen(proc, 'exit', gone.put)
    context.shutdown(wait=True)
    gone.get(timeout=60)
    with pytest.raises(OSError):
        os.waitpid(proc.pid, os.WNOHANG)


def test_a_child_that_somebody_else_reaped_is_gone():
    pid = os.fork()
    if not pid:
        os._exit(3)
    os.waitpid(pid, 0)
    proc = mitogen.fork.Process(pid, None, None)
    with testlib.LogCapture('mitogen') as logs:
        assert proc.poll() == 0
        assert proc.poll() == 0
    assert len(logs.find('another part of the program has waited for it')) == 1


def test_a_child_ends_where_the_system_reaps_children(make_router):
    router = make_router()
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        context = router.fork()
        gone = mitogen.core.Latch()
        mitogen.core.listen(router.stream_by_id(context.context_id).conn.proc, 'exit', gone.put)
        context.shutdown(wait=True)
        gone.get(timeout=60)
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize('how, expected', [
    (lambda: os._exit(3), 3),
    (lambda: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL),
])
def test_exit_statuses(how, expected):
    pid = os.fork()
    if not pid:
        try:
            how()
        finally:
            os._exit(99)
    assert mitogen.fork._convert_exit_status(os.waitpid(pid, 0)[1]) == expected


def test_a_stopped_process_has_a_status_too():
    pid = os.fork()
    if not pid:
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    status = os.waitpid(pid, os.WUNTRACED)[1]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert mitogen.fork._convert_exit_status(status) == -signal.SIGSTOP


def test_the_hook_closes_streams_and_replaces_locks():
    left, right = mitogen.core.socketpair()
    stream = mitogen.core.Stream()
    stream.accept(left, left)
    lock = mitogen.core.ExternalContext.service_stub_lock
    pid = os.fork()
    if not pid:
        try:
            mitogen.fork.on_fork()
            closed = stream.receive_side.closed and left.fileno() == -1
            os._exit(0 if closed and mitogen.core.ExternalContext.service_stub_lock is not lock else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    left.close()
    right.close()


def test_what_old_pythons_need_after_a_fork():
    handler = logging.NullHandler()
    handler.createLock()
    lock, module_lock = handler.lock, logging._lock
    try:
        mitogen.fork.reset_logging_framework()
        assert logging._lock is not module_lock
        assert handler.lock is not lock or lock is None
    finally:
        logging._lock = module_lock
    state = random.getstate()
    mitogen.fork.fixup_prngs()
    assert random.getstate() != state
    random.setstate(state)
