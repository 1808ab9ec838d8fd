"""
From start to end: shutdown, sudden death on either side, orphans, output, logs, detaching.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from unittest import mock

import pytest

import mitogen.core
from mitogen.core import ChannelError, Latch, Receiver

import places
import targets
import testlib



def gone(pid, seconds=None):
    testlib.wait_for(lambda: not testlib.is_running(pid), seconds, 'the end of process %d' % pid)


def exit_of(router, context):
    """
    Return a latch that is woken when the process of a context was reaped.
    """
    latch = Latch()
    mitogen.core.listen(router.stream_by_id(context.context_id).conn.proc, 'exit', latch.put)
    return latch


# ---- shutdown

def test_shutdown_ends_the_child(router):
    child = router.local()
    pid = child.call(os.getpid)
    exited = exit_of(router, child)
    child.shutdown(wait=True)
    exited.get(timeout=60)
    gone(pid)


def test_shutdown_without_waiting_returns_a_latch(router):
    child = router.local()
    latch = child.shutdown()
    assert latch.get(timeout=60) is None


def test_a_child_that_idles_ends_by_its_own_sigterm(router):
    child = router.local()
    proc = router.stream_by_id(child.context_id).conn.proc
    exited = exit_of(router, child)
    child.shutdown()
    exited.get(timeout=60)
    assert proc.poll() == -signal.SIGTERM


def test_a_child_whose_main_thread_sleeps_is_gone_within_seconds(router):
    child = router.local()
    pid = child.call(os.getpid)
    child.call_no_reply(targets.sleep, 120)
    child.shutdown()
    gone(pid)


def test_a_child_whose_main_thread_spins_is_gone_within_seconds(router):
    child = router.local()
    pid = child.call(os.getpid)
    child.call_no_reply(targets.spin, 60)
    child.shutdown()
    gone(pid)


def test_a_child_that_ignores_sigterm_is_killed(router):
    child = router.local()
    pid = child.call(os.getpid)
    child.call(targets.ignore_sigterm)
    child.call_no_reply(targets.sleep, 120)
    child.shutdown()
    gone(pid)


def test_threads_of_the_application_do_not_keep_a_child(router):
    child = router.local()
    pid = child.call(os.getpid)
    child.call(targets.leave_threads)
    child.shutdown()
    gone(pid)


def test_the_masters_shutdown_ends_the_whole_tree(make_router):
    router = make_router()
    child = router.local()
    others = [router.local(via=child), router.local(via=child), router.local()]
    pids = [context.call(os.getpid) for context in [child] + others]
    others[0].call_no_reply(targets.sleep, 120)
    router.broker.shutdown()
    router.broker.join()
    for pid in pids:
        gone(pid)


def test_the_masters_shutdown_is_quick(make_router):
    router = make_router()
    child = router.local()
    router.local(via=child)
    # The grace period would not end.
    router.broker.shutdown_timeout = 3600
    router.broker.shutdown()
    router.broker.join()


def test_shutting_an_intermediary_down_ends_what_is_below(router):
    child = router.local()
    grandchild = router.local(via=child)
    pids = [context.call(os.getpid) for context in (child, grandchild)]
    child.shutdown()
    for pid in pids:
        gone(pid)


def test_a_child_is_shut_down_from_inside(router):
    child = router.local()
    pid = child.call(os.getpid)
    child.call_no_reply(targets.shut_own_broker_down)
    gone(pid)


# ---- sudden death

def test_a_killed_child_wakes_its_caller_and_harms_no_other(router):
    victim, other = router.local(), router.local()
    receiver = victim.call_async(targets.sleep, 60)
    os.kill(router.stream_by_id(victim.context_id).conn.proc.pid, signal.SIGKILL)
    with pytest.raises(ChannelError) as caught:
        receiver.get(timeout=60)
    assert caught.value.args[0] == router.respondent_disconnect_msg
    assert other.call(targets.add, 1, 2) == 3


def test_a_child_killed_while_it_sends_much(router):
    victim = router.local()
    with Receiver(router) as receiver:
        victim.call_async(targets.send_bytes, receiver.to_sender(), 1 << 20, 1000)
        receiver.get(timeout=60)
        lost = Latch()
        mitogen.core.listen(victim, 'disconnect', lost.put)
        os.kill(router.stream_by_id(victim.context_id).conn.proc.pid, signal.SIGKILL)
        lost.get(timeout=60)
    assert router.local().call(targets.add, 1, 2) == 3


def test_a_child_killed_while_it_is_sent_much(router):
    victim = router.local()
    pid = victim.call(os.getpid)
    victim.call_no_reply(targets.sleep, 60)
    testlib.stop_process(pid)
    first = threading.Event()

    def send():
        # The sender is held back once so much is queued that memory would grow without bound.
        receivers = []
        for _ in range(16):
            receivers.append(victim.call_async(targets.identity, b'x' * (1 << 20)))
            first.set()
        return receivers

    def kill():
        first.wait(60)
        os.kill(pid, signal.SIGKILL)

    receivers = testlib.in_threads([send, kill])[0]
    for receiver in receivers:
        with pytest.raises(ChannelError):
            receiver.get(timeout=60)


def test_a_killed_intermediary_takes_what_is_below_with_it(router):
    child = router.local()
    grandchild = router.local(via=child)
    child_pid, pid = child.call(os.getpid), grandchild.call(os.getpid)
    receiver = grandchild.call_async(targets.sleep, 60)
    os.kill(child_pid, signal.SIGKILL)
    with pytest.raises(ChannelError):
        receiver.get(timeout=60)
    gone(pid)


MASTER = '''
import os, sys
sys.path.insert(0, %r)
import mitogen.master, mitogen.core, targets
if __name__ == "__main__":
    router = mitogen.master.Router()
    child = router.local()
    below = router.local(via=child)
    idle = router.local(via=child)
    pids = [os.getpid()] + [c.call(os.getpid) for c in (child, below, idle)]
    receiver = below.call_async(targets.%s, 100)
    child.call(targets.identity, 1)
    print(" ".join(map(str, pids)))
    sys.stdout.flush()
    receiver.get()
'''


@pytest.mark.parametrize('busy', ['sleep', 'spin'])
def test_a_killed_master_leaves_no_process(tmp_path, busy):
    script = tmp_path / 'master.py'
    script.write_text(MASTER % (places.TARGETS, busy))
    proc = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    pids = [int(pid) for pid in proc.stdout.readline().split()]
    assert len(pids) == 4
    proc.kill()
    proc.wait()
    proc.stdout.close()
    for pid in pids:
        gone(pid)


def test_an_interrupt_ends_a_waiting_master_at_once(tmp_path):
    script = tmp_path / 'master.py'
    script.write_text(MASTER % (places.TARGETS, 'sleep'))
    proc = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pids = [int(pid) for pid in proc.stdout.readline().split()]
    proc.send_signal(signal.SIGINT)
    err = proc.stderr.read()
    proc.wait(timeout=60)
    assert b'KeyboardInterrupt' in err
    proc.stdout.close()
    proc.stderr.close()
    for pid in pids:
        gone(pid)


def test_an_interrupt_reaches_a_waiting_caller_within_a_tenth_of_a_second(router):
    child = router.local()
    receiver = child.call_async(targets.sleep, 60)
    delays = []

    def interrupt():
        delays.append(-time.time())
        os.kill(os.getpid(), signal.SIGINT)

    # A busy machine makes some of them late, and none of them early.
    for _ in range(5):
        timer = threading.Timer(0.1, interrupt)
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            receiver.get(timeout=60)
        delays[-1] += time.time()
        timer.join()
    assert min(delays) < 0.1 + 0.4


EXIT = '''
import os, sys, threading
sys.path.insert(0, %r)
import mitogen.core, mitogen.master, targets
if __name__ == "__main__":
    router = mitogen.master.Router()
    children = [router.local() for _ in range(2)]
    def work(child):
        # Quiet at the end: CPython itself aborts when a daemon thread is in the middle of writing a traceback then.
        try:
            while True:
                child.call(targets.identity, b"x" * 1000)
        except mitogen.core.Error:
            pass
    for child in children:
        thread = threading.Thread(target=work, args=(child,))
        thread.daemon = True
        thread.start()
    for child in children:
        child.call(targets.add, 1, 2)
    print("end of main")
'''


def test_an_interpreter_may_exit_while_daemon_threads_call(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(EXIT % (places.TARGETS,))
    for _ in range(3):
        proc = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
        assert proc.stdout == 'end of main\n'
        assert proc.returncode == 0, proc.stderr
        assert 'Fatal Python error' not in proc.stderr


def test_a_fork_of_the_master_harms_nobody(router):
    child = router.local()
    for _ in range(3):
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        assert child.call(targets.add, 1, 2) == 3


# ---- output

def test_what_a_child_prints_appears_in_the_master(router, caplog):
    caplog.set_level(logging.INFO)
    child = router.local(name=u'bob')
    with testlib.LogCapture('', logging.INFO) as logs:
        child.call(targets.print_line, u'hello there')
        record = logs.wait('hello there')[0]
    assert (record.name, record.levelno, record.getMessage()) == ('stdout.[bob]', logging.INFO, 'hello there')


def test_what_a_child_writes_to_stderr_appears_too(router, caplog):
    caplog.set_level(logging.INFO)
    child = router.local(name=u'bob')
    with testlib.LogCapture('', logging.INFO) as logs:
        child.call(targets.write_fd, 2, b'to stderr\n')
        assert logs.wait('to stderr')[0].name == 'stderr.[bob]'


def test_output_of_a_childs_own_children_appears_too(router, caplog):
    caplog.set_level(logging.INFO)
    child = router.local(name=u'bob')
    with testlib.LogCapture('', logging.INFO) as logs:
        assert child.call(targets.run_shell, 'echo from the shell; echo and an error >&2') == 0
        assert logs.wait('from the shell')[0].name == 'stdout.[bob]'
        assert logs.wait('and an error')[0].name == 'stderr.[bob]'


def test_output_arrives_line_by_line_in_order(router, caplog):
    caplog.set_level(logging.INFO)
    child = router.local(name=u'bob')
    with testlib.LogCapture('', logging.INFO) as logs:
        child.call(targets.write_fd, 1, b''.join(b'line %d\n' % i for i in range(500)))
        logs.wait('line 499')
        lines = [r.getMessage() for r in logs.records if r.name == 'stdout.[bob]']
    assert lines == ['line %d' % i for i in range(500)]


def test_output_that_is_not_utf8_is_shown_all_the_same(router, caplog):
    caplog.set_level(logging.INFO)
    child = router.local(name=u'bob')
    with testlib.LogCapture('', logging.INFO) as logs:
        child.call(targets.write_fd, 1, b'bad \xff byte\n')
        assert logs.wait('bad \ufffd byte')


def test_a_line_without_end_is_logged_in_pieces(router, caplog):
    # The child would fill its memory with it.
    caplog.set_level(logging.INFO)
    child = router.local(name=u'bob')
    most = mitogen.core.IoLoggerProtocol.MAX_LINE
    line = ''.join('%07d ' % i for i in range(most // 4))
    with testlib.LogCapture('', logging.INFO) as logs:
        child.call(targets.write_fd_whole, 1, line.encode() + b'\n' + line[:most].encode() + b'\nend\n')
        testlib.wait_for(lambda: [r for r in logs.records if r.getMessage() == 'end'])
        pieces = [r.getMessage() for r in logs.records if r.name == 'stdout.[bob]']
    # A piece that is not longer than that is kept together.
    assert pieces[-2:] == [line[:most], 'end']
    assert ''.join(pieces[:-2]) == line
    assert all(len(piece) <= most + mitogen.core.CHUNK_SIZE for piece in pieces)


def test_a_mebibyte_of_output_is_written_whole(router):
    assert router.local().call(targets.write_stdout, 1 << 20) == 1 << 20


def test_output_written_just_before_the_end_arrives(router, caplog):
    caplog.set_level(logging.INFO)
    child = router.local(name=u'bob')
    with testlib.LogCapture('', logging.INFO) as logs:
        child.call(targets.print_line, u'last words')
        child.shutdown(wait=True)
        logs.wait('last words')


def test_standard_input_is_empty(router):
    assert router.local().call(targets.read_stdin) == b''


# ---- logs

def test_a_log_record_of_a_child_appears_in_the_master(router, caplog):
    caplog.set_level(logging.INFO)
    child = router.local(name=u'zed')
    with testlib.LogCapture('', logging.INFO) as logs:
        child.call(targets.log, 'x.y', logging.WARNING, 'hello %s', 5)
        record = logs.wait('hello 5')[0]
    assert record.name == 'x.y.[zed]'
    assert record.levelno == logging.WARNING
    assert record.getMessage() == 'hello 5'
    assert record.mitogen_name == 'x.y'
    assert record.mitogen_message == 'hello 5'
    assert record.mitogen_context is child
    assert (record.pathname, record.lineno, record.args) == ('(unknown file)', 0, ())


def test_a_log_record_of_a_grandchild_appears_in_the_master(router, caplog):
    caplog.set_level(logging.INFO)
    grandchild = router.local(via=router.local(name=u'a'), name=u'b')
    with testlib.LogCapture('', logging.INFO) as logs:
        grandchild.call(targets.log, 'far', logging.INFO, 'away')
        assert logs.wait('away')[0].mitogen_context is grandchild


def test_a_record_may_hold_any_text(router, caplog):
    caplog.set_level(logging.INFO)
    child = router.local(name=u'zed')
    text = u'nul \0 and 100% and \u20ac and\nnewline'
    with testlib.LogCapture('', logging.INFO) as logs:
        child.call(targets.log, 'x', logging.INFO, text)
        record, = logs.wait(u'nul \\x00 and 100% and \u20ac and\n[zed] newline')
        assert record.mitogen_message == text


def test_records_below_the_masters_level_are_not_sent(router):
    with testlib.LogCapture('', logging.WARNING) as logs:
        child = router.local()
        child.call(targets.log, 'x', logging.INFO, 'too quiet')
        child.call(targets.log, 'x', logging.ERROR, 'loud')
        logs.wait('loud')
    assert not logs.find('too quiet')


def test_records_of_the_io_logger_stay_in_the_child(router):
    with testlib.LogCapture('', logging.DEBUG) as logs:
        child = router.local()
        child.call(targets.log_on_io_logger, 'other')
        logs.wait('comes through')
    assert not logs.find('stays here')


def test_records_made_by_a_record_factory_of_the_application(router, caplog):
    caplog.set_level(logging.INFO)
    old = logging.getLogRecordFactory()

    def factory(*args, **kwargs):
        record = old(*args, **kwargs)
        record.own_attribute = 'set'
        return record

    child = router.local()
    logging.setLogRecordFactory(factory)
    try:
        with testlib.LogCapture('', logging.INFO) as logs:
            child.call(targets.log, 'x', logging.INFO, 'made by a factory')
            assert logs.wait('made by a factory')[0].own_attribute == 'set'
    finally:
        logging.setLogRecordFactory(old)


def test_logging_from_many_threads_of_a_child_loses_nothing(router, caplog):
    caplog.set_level(logging.INFO)
    child = router.local()
    with testlib.LogCapture('', logging.INFO) as logs:
        child.call(targets.log_from_threads, 4, 50)
        testlib.wait_for(lambda: len(logs.find('record ')) == 200)


def make_record(name='name', level=99, message='msg'):
    return logging.LogRecord(name, level, '', 0, message, (), None)


def test_a_log_handler_keeps_records_until_uncorked():
    context = mock.Mock()
    handler = mitogen.core.LogHandler(context)
    handler.emit(make_record())
    assert context.send.call_count == 0
    assert len(handler._buffer) == 1
    handler.uncork()
    assert context.send.call_count == 1
    assert handler._buffer is None
    (msg,), _ = context.send.call_args
    assert msg.handle == mitogen.core.FORWARD_LOG == 102
    assert msg.data == b'name\x0099\x00msg'


def test_an_uncorked_log_handler_sends_at_once():
    context = mock.Mock()
    handler = mitogen.core.LogHandler(context)
    handler.uncork()
    handler.emit(make_record(message='one'))
    handler.emit(make_record(message='two'))
    assert [c[0][0].data for c in context.send.call_args_list] == [b'name\x0099\x00one', b'name\x0099\x00two']


def test_a_log_handler_keeps_the_order_across_the_uncorking():
    context = mock.Mock()
    handler = mitogen.core.LogHandler(context)
    for i in range(20):
        handler.emit(make_record(message='%d' % i))
    handler.uncork()
    assert [c[0][0].data for c in context.send.call_args_list] == [b'name\x0099\x00%d' % i for i in range(20)]


def test_a_log_handler_ignores_the_io_logger():
    context = mock.Mock()
    handler = mitogen.core.LogHandler(context)
    handler.uncork()
    handler.emit(make_record(name='mitogen.io'))
    assert context.send.call_count == 0


def test_a_log_call_made_while_emitting_does_not_recurse():
    context = mock.Mock()
    handler = mitogen.core.LogHandler(context)
    handler.uncork()
    context.send.side_effect = lambda msg: handler.emit(make_record(message='inner'))
    handler.emit(make_record(message='outer'))
    assert context.send.call_count == 1


# ---- detaching

def test_a_detached_child_outlives_its_master(make_router):
    router = make_router()
    child = router.local()
    lost = Latch()
    mitogen.core.listen(child, 'disconnect', lost.put)
    with Receiver(router) as receiver:
        child.call_no_reply(targets.detach, receiver.to_sender())
        pid = receiver.get(timeout=60).unpickle()
        lost.get(timeout=60)
    router.broker.shutdown()
    router.broker.join()
    assert testlib.is_running(pid)
    os.kill(pid, signal.SIGTERM)
    # Our own child all the same: nobody else collects it.
    try:
        os.waitpid(pid, 0)
    except OSError:
        pass
    gone(pid)


def test_a_detached_child_knows_that_it_has_no_parent(make_router, tmp_path):
    router = make_router()
    child = router.local()
    path = tmp_path / 'answer'
    with Receiver(router) as receiver:
        child.call_no_reply(targets.detach_and_write, receiver.to_sender(), str(path))
        pid = receiver.get(timeout=60).unpickle()
        testlib.wait_for(lambda: path.exists() and path.read_text().endswith('.'))
    assert path.read_text() == 'None [] True.'
    os.kill(pid, signal.SIGKILL)
    try:
        os.waitpid(pid, 0)
    except OSError:
        pass
    gone(pid)


# ---- a child on descriptors of the caller's choosing

SOCKET_CHILD = '''
import socket, sys, os
import mitogen.core
fd = int(sys.argv[1])
mitogen.core.ExternalContext(dict(
    parent_ids=[0], context_id=123, log_levels=[30, 30, 30], debug=False, profiling=False, unidirectional=False,
    max_message_size=1 << 27, version=mitogen.__version__, import_overrides=[], import_blocks=[],
    in_fd=os.dup(fd), out_fd=fd, core_src_fd=None, send_ec2=False, setup_stdio=False, setup_package=False,
)).main()
'''


def test_a_child_serves_calls_over_two_duplicates_of_a_socket(router):
    import socket
    ours, theirs = socket.socketpair()
    os.set_inheritable(theirs.fileno(), True)
    proc = subprocess.Popen([sys.executable, '-c', SOCKET_CHILD, str(theirs.fileno())], close_fds=False)
    theirs.close()
    stream = mitogen.core.MitogenProtocol.build_stream(router, remote_id=123)
    ours.setblocking(False)
    stream.accept(ours, ours)
    context = router.context_class(router, 123, name=u'by hand')
    router.register(context, stream)
    assert context.call(os.getpid) == proc.pid
    context.shutdown()
    proc.wait(timeout=60)


def test_a_detached_child_that_logs_comes_to_rest(make_router, tmp_path):
    # A log record that finds no way out must not be reported by another one.
    router = make_router()
    child = router.local()
    path = tmp_path / 'times'
    pid = child.call(os.getpid)
    child.call_no_reply(targets.detach_log_and_measure, str(path))
    testlib.wait_for(lambda: path.exists() and path.read_text().endswith('.'), 30)
    switches = int(path.read_text().rstrip('.'))
    os.kill(pid, signal.SIGKILL)
    try:
        os.waitpid(pid, 0)
    except OSError:
        pass
    gone(pid)
    # A loop of records makes thousands a second.
    assert switches < 200


def test_what_was_sent_before_the_end_is_still_delivered(router):
    child = router.local()
    size = 6 << 20
    with Receiver(router) as receiver:
        child.call_no_reply(targets.send_much_and_end, receiver.to_sender(), size)
        assert receiver.get(timeout=60).unpickle() == b'z' * size


def test_a_peer_that_does_not_read_delays_the_end_by_the_grace_period_only(make_router):
    router = make_router()
    child = router.local()
    pid = child.call(os.getpid)
    router.broker.shutdown_timeout = 1.0
    testlib.stop_process(pid)
    receiver = child.call_async(targets.identity, b'x' * (2 << 20))
    router.broker.shutdown()
    router.broker.join()
    testlib.wait_for_end(pid)
    with pytest.raises(ChannelError):
        receiver.get(timeout=60)
