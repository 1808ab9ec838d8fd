"""
When it hangs, it says why: the dump on a signal, the waits it tells of, the counters of a router,
and what the error of a lost connection says.
"""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

import mitogen.core
import mitogen.debug
import mitogen.parent
import mitogen.select
from mitogen.core import ChannelError, Latch, Receiver

import places
import targets
import testlib
import waiting_targets



class Sleeping(object):
    """
    A thread that waits, for the length of a block.
    """
    def __init__(self, wait, end):
        self._wait, self._end = wait, end
        self.thread = threading.Thread(target=self._run, name='the one that waits')

    def _run(self):
        try:
            self._wait()
        except mitogen.core.Error:
            pass

    def __enter__(self):
        self.thread.start()
        testlib.wait_for(self.waits)
        return self

    def __exit__(self, *exc):
        self._end()
        self.thread.join()

    def waits(self):
        return [wait for wait in mitogen.debug.get_waits() if wait['thread'] == self.thread.ident]


# ---- waits

def test_a_wait_for_a_reply_names_handle_and_context(router):
    child = router.local(name=u'bob')
    call = child.call_async(targets.sleep, 600)
    with Sleeping(call.get, child.shutdown) as sleeping:
        wait, = sleeping.waits()
        assert wait['name'] == 'the one that waits'
        assert wait['what'] == 'handle %d, for a message of %r' % (call.handle, child)
        first = wait['seconds']
        assert first >= 0
        testlib.wait_for(lambda: sleeping.waits()[0]['seconds'] > first)


def test_a_wait_in_a_call_is_seen_though_nobody_holds_its_receiver(router):
    child = router.local(name=u'bob')
    with Sleeping(lambda: child.call(targets.sleep, 600), child.shutdown) as sleeping:
        assert repr(child) in sleeping.waits()[0]['what']


def test_a_wait_for_anybodys_message(router):
    receiver = Receiver(router)
    with Sleeping(receiver.get, receiver.close) as sleeping:
        assert sleeping.waits()[0]['what'] == 'handle %d, for any sender' % (receiver.handle,)


def test_a_wait_on_a_latch_of_the_programs_own():
    latch = Latch()
    with Sleeping(latch.get, latch.close) as sleeping:
        assert sleeping.waits()[0]['what'].startswith('Latch(')


def test_a_wait_on_a_select_names_its_members(router):
    with Receiver(router) as one, Receiver(router) as two:
        select = mitogen.select.Select([one, two])
        with Sleeping(select.get, select.close) as sleeping:
            assert sleeping.waits()[0]['what'] == 'a select of %r, %r' % (one, two)


def test_a_wait_for_a_connection_names_its_stage(router, tmp_path):
    silent, pid = tmp_path / 'silent', tmp_path / 'pid'
    silent.write_text('#!/bin/sh\necho $$ > %s.new\nmv %s.new %s\nexec sleep 600\n' % (pid, pid, pid))
    silent.chmod(0o755)

    def end():
        os.kill(int(testlib.wait_for(lambda: pid.exists() and pid.read_text())), signal.SIGKILL)

    with Sleeping(lambda: router.local(python_path=str(silent), name=u'bob'), end) as sleeping:
        testlib.wait_for(lambda: 'waiting for the interpreter' in sleeping.waits()[0]['what'])
        assert re.match(r"the connection to Context\(\d+, 'bob'\): ", sleeping.waits()[0]['what'])


def test_a_wait_for_the_end_of_a_context(router):
    child = router.local(name=u'bob')
    pid = child.call(os.getpid)
    testlib.stop_process(pid)
    with Sleeping(lambda: child.shutdown(wait=True), lambda: os.kill(pid, signal.SIGCONT)) as sleeping:
        assert sleeping.waits()[0]['what'] == '%r to end' % (child,)


def test_a_wait_for_the_brokers_thread(router):
    go_on = threading.Event()
    router.broker.defer(go_on.wait)
    with Sleeping(lambda: router.broker.defer_sync(os.getpid), go_on.set) as sleeping:
        assert sleeping.waits()[0]['what'] == 'the thread of %r to run %r' % (router.broker, os.getpid)


def test_a_wait_that_ended_is_not_told():
    latch = Latch()
    with Sleeping(latch.get, latch.close) as sleeping:
        ident = sleeping.thread.ident
    assert not [wait for wait in mitogen.debug.get_waits() if wait['thread'] == ident]


# ---- the description

def test_a_description_tells_all(router):
    child = router.local(name=u'bob')
    child.call(os.getpid)
    call = child.call_async(targets.sleep, 600)
    stream = re.compile(r'stream bob to context %d: 0 bytes queued, 0 senders blocked; last received \d+\.\d s ago, '
                        r'last sent \d+\.\d s ago; \d+ messages and \d+ bytes in' % child.context_id)

    def describe():
        text = mitogen.debug.describe()
        return stream.search(text) and text

    with Sleeping(call.get, child.shutdown):
        # The thread waits as soon as the call is queued, and the broker may write it later.
        text = testlib.wait_for(describe)
    assert text.startswith('==== process %d, context 0, %s core' % (os.getpid(), mitogen.core.CORE))
    assert re.search(r'thread the one that waits \(\d+\) waits since \d+\.\d s for handle %d' % call.handle, text)
    assert 'routes: [%d]' % child.context_id in text
    assert 'a reply is awaited: handle %d, for a message of %r' % (call.handle, child) in text
    assert 'in test_a_description_tells_all' in text


def test_a_child_describes_itself_in_a_call(router):
    child = router.local()
    text = child.call(mitogen.debug.describe)
    assert 'process %d, context %d' % (child.call(os.getpid), child.context_id) in text
    assert re.search(r'Calls being executed:\n  <function describe.*, for context 0', text)
    assert re.search('stream parent to context 0', text)


def test_what_was_asked_of_the_parent_is_told(router, tmp_path):
    child = router.local()
    child.call(waiting_targets.start_waiting, 'import_module', 'json', str(tmp_path / 'ready'))
    child.call(mitogen.debug.describe)
    asked = Latch()
    router.add_handler(lambda msg: None if msg.is_dead else asked.put(), mitogen.core.GET_MODULE, overwrite=True)
    child.call(waiting_targets.start_waiting, 'import_module', 'no_such_module', str(tmp_path / 'outcome'))
    asked.get(timeout=60)
    assert 'not answered yet: module no_such_module' in child.call(mitogen.debug.describe)


def test_a_part_that_cannot_be_told_does_not_hide_the_rest(monkeypatch):
    def fail():
        raise ValueError('on purpose')

    monkeypatch.setattr(mitogen.debug, 'get_waits', fail)
    text = mitogen.debug.describe()
    assert "cannot be told: ValueError('on purpose'" in text
    assert 'in test_a_part_that_cannot_be_told' in text


# ---- the signal

SCRIPT = '''
import os, sys, threading, time
sys.path.insert(0, %r)
import mitogen.master, mitogen.debug, targets
if __name__ == "__main__":
    router = mitogen.master.Router()
    child = router.local(name="bob")
    child.call(targets.identity, 1)
    print(child.call(os.getpid), flush=True)
    %s
'''


def run_script(tmp_path, last_line, **env):
    path = tmp_path / 'script.py'
    path.write_text(SCRIPT % (places.TARGETS, last_line))
    proc = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=dict(os.environ, **env))
    return proc, int(proc.stdout.readline())


def end_script(proc):
    proc.kill()
    proc.wait()
    proc.stdout.close()
    proc.stderr.close()


def text_of(path, part):
    """
    Return the text of a file once it has some part.
    """
    return testlib.wait_for(lambda: path.exists() and part in path.read_text() and path.read_text(), 30, part)


@contextlib.contextmanager
def signalled(pid):
    """
    Send a process the signal now, and every five seconds until the block ends.

    Python's own handler waits if the signal comes when the main thread is about to enter a system
    call that lasts. A further signal ends that call.
    """
    end = threading.Event()

    def send():
        while not end.is_set():
            os.kill(pid, signal.SIGUSR2)
            end.wait(5)
    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@pytest.mark.parametrize('last_line', [
    'child.call(targets.sleep, 600)',
    'time.sleep(600)',
    'threading.Event().wait()',
    'targets.spin(600)',
])
def test_a_signal_has_master_and_child_write_to_files(tmp_path, last_line):
    proc, child_pid = run_script(tmp_path, last_line, MITOGEN_DEBUG_SIGNAL=str(tmp_path / '%(pid)s.dump'))
    try:
        for pid in proc.pid, child_pid:
            with signalled(pid):
                text = text_of(tmp_path / ('%d.dump' % pid), 'MainThread')
            assert '==== process %d, ' % pid in text
            # Before that, the stacks by the C handler.
            assert '(most recent call first)' in text[:text.index('====')]
        assert proc.poll() is None
    finally:
        end_script(proc)


def test_stacks_come_while_the_interpreter_is_held_in_c(tmp_path):
    # One call of a C function that keeps the GIL and looks at no signals for long.
    proc, _ = run_script(tmp_path, 'import re; print("held", flush=True); re.match("(a*)*b", "a" * 64)',
                         MITOGEN_DEBUG_SIGNAL=str(tmp_path / '%(pid)s.dump'))
    try:
        assert proc.stdout.readline() == b'held\n'
        os.kill(proc.pid, signal.SIGUSR2)
        text_of(tmp_path / ('%d.dump' % proc.pid), 'script.py')
    finally:
        end_script(proc)


def test_a_signal_writes_to_stderr_by_default(tmp_path):
    proc, _ = run_script(tmp_path, 'mitogen.debug.enable_dump(); print("on", flush=True); time.sleep(600)')
    try:
        assert proc.stdout.readline() == b'on\n'
        with signalled(proc.pid):
            for line in iter(proc.stderr.readline, b''):
                if b'stream bob to context' in line:
                    break
            else:
                pytest.fail('no description on stderr')
    finally:
        end_script(proc)


def test_a_childs_dump_is_logged_by_the_master(router, caplog):
    caplog.set_level(logging.INFO)
    child = router.local(name=u'bob')
    child.call(mitogen.debug.enable_dump)
    with testlib.LogCapture('', logging.INFO) as logs:
        os.kill(child.call(os.getpid), signal.SIGUSR2)
        record, = logs.wait('==== process')
        assert record.name == 'stderr.[bob]'


def test_off_by_default(tmp_path):
    proc, child_pid = run_script(tmp_path, 'time.sleep(600)')
    try:
        os.kill(proc.pid, signal.SIGUSR2)
        assert proc.wait(60) == -signal.SIGUSR2
    finally:
        end_script(proc)


def test_it_can_be_switched_off_again(tmp_path):
    path = str(tmp_path / 'dump')
    mitogen.debug.enable_dump(path)
    assert signal.getsignal(signal.SIGUSR2) == mitogen.debug._on_dump_signal
    mitogen.debug.enable_dump(path)
    mitogen.debug.disable_dump()
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
    mitogen.debug.disable_dump()


# ---- counters

KEYS = ['blocked_senders', 'bytes_in', 'bytes_out', 'forwarded', 'handlers', 'messages_in', 'messages_out', 'pushed_modules',
        'queued_bytes', 'queued_work', 'refusals', 'refused', 'routes', 'streams', 'unused_modules', 'wakeups']


def test_the_counters_have_the_same_names_over_each_core(router):
    stats = router.stats()
    assert sorted(stats) == KEYS
    assert stats.pop('refusals') == {}
    assert all(isinstance(value, int) for value in stats.values())


def difference(before, after):
    return dict((key, after[key] - before[key]) for key in after if key != 'refusals')


def test_messages_and_bytes_are_counted(router):
    with testlib.Peer(router, 55) as peer:
        before = router.stats()
        with Receiver(router) as receiver:
            for _ in range(3):
                peer.send(0, handle=receiver.handle, data=b'12345')
            for _ in range(3):
                receiver.get(timeout=60)
        for _ in range(2):
            peer.context.send(mitogen.core.Message(handle=1, data=b'xyz'))
        for _ in range(2):
            peer.receive()
        change = difference(before, router.stats())
    assert (change['messages_in'], change['bytes_in']) == (3, 3 * (26 + 5))
    assert (change['messages_out'], change['bytes_out']) == (2, 2 * (26 + 3))
    assert (change['forwarded'], change['refused'], change['streams']) == (0, 0, 0)


def test_forwards_are_counted(router):
    with testlib.Peer(router, 55) as one, testlib.Peer(router, 56) as two:
        before = router.stats()
        for _ in range(4):
            one.send(56, handle=1, data=b'x')
        for _ in range(4):
            two.receive()
        change = difference(before, router.stats())
    assert change['forwarded'] == change['messages_in'] == change['messages_out'] == 4


def test_refusals_are_counted(router):
    with testlib.Peer(router, 55) as peer:
        before = router.stats()
        peer.send(0, handle=99999, reply_to=5)   # no such handle
        peer.receive()
        peer.send(4321, handle=1, reply_to=5)    # no such context
        peer.receive()
        peer.send(0, src=7, handle=1)            # not its name
        peer.send(0, handle=99999, reply_to=5)
        peer.receive()
        assert difference(before, router.stats())['refused'] == 4
        router.add_handler(lambda msg: None, 5000, policy=lambda msg, stream: False)
        peer.send(0, handle=5000, reply_to=5)    # by a policy of the program's own
        peer.receive()
        assert difference(before, router.stats())['refused'] == 5


def test_what_closed_streams_carried_is_not_forgotten(router):
    child = router.local()
    for i in range(10):
        child.call(targets.identity, i)
    before = router.stats()
    assert before['messages_in'] >= 10
    child.shutdown(wait=True)
    testlib.wait_for(lambda: router.stats()['streams'] == 0)
    testlib.wait_for(lambda: router.stats()['messages_in'] >= before['messages_in'])
    assert router.stats()['bytes_in'] >= before['bytes_in']


def test_queued_bytes_are_counted(router):
    with testlib.Peer(router, 55) as peer:
        receiver = peer.context.send_async(mitogen.core.Message(handle=1, data=b'x' * (4 << 20)))
        assert router.stats()['queued_bytes'] > 1 << 20
        testlib.wait_for(lambda: '%d bytes queued' % router.stats()['queued_bytes'] in mitogen.debug.describe())
    with pytest.raises(ChannelError):
        receiver.get(timeout=60)
    assert router.stats()['queued_bytes'] == 0


def test_senders_that_are_held_back_are_counted(router):
    router.high_water = 1 << 20
    with testlib.Peer(router, 55) as peer:
        thread = threading.Thread(
            target=lambda: peer.context.send(mitogen.core.Message(handle=1, data=b'x' * (8 << 20))))
        thread.start()
        testlib.wait_for(lambda: router.stats()['blocked_senders'] == 1)
        assert '1 senders blocked' in mitogen.debug.describe()
    thread.join()
    assert router.stats()['blocked_senders'] == 0


def test_wake_ups_are_counted(router):
    before = router.stats()['wakeups']
    for _ in range(5):
        testlib.sync(router.broker)
    assert router.stats()['wakeups'] > before


def test_a_child_has_counters_too(router):
    assert sorted(router.local().call(router_stats)) == KEYS


@mitogen.core.takes_router
def router_stats(router):
    return router.stats()


# ---- the error of a lost connection

def error_of(router, end, call):
    end()
    with pytest.raises(ChannelError) as caught:
        call.get(timeout=60)
    error = caught.value
    assert error.args == (router.respondent_disconnect_msg,)
    assert str(error) == '%s: %s' % (router.respondent_disconnect_msg, error.detail)
    return error.detail


def test_it_names_the_connection_the_time_and_the_reason(router):
    child = router.local(name=u'bob')
    call = child.call_async(targets.sleep, 600)
    pid = router.stream_by_id(child.context_id).conn.proc.pid
    detail = error_of(router, lambda: os.kill(pid, signal.SIGKILL), call)
    assert re.match(r"Context\(%d, 'bob'\) was lost at \d\d:\d\d:\d\d, with the connection 'bob': "
                    r"(closed by the other side|.*reset.*|.*roken pipe)" % child.context_id, detail)


def test_it_names_the_connection_to_the_intermediary(router):
    child = router.local(name=u'bob')
    grandchild = router.local(via=child, name=u'below')
    call = grandchild.call_async(targets.sleep, 600)
    pid = router.stream_by_id(child.context_id).conn.proc.pid
    detail = error_of(router, lambda: os.kill(pid, signal.SIGKILL), call)
    assert "'bob.below') was lost at" in detail and "with the connection 'bob'" in detail


def test_it_tells_who_reported_a_loss_farther_away(router):
    child = router.local(name=u'bob')
    grandchild = router.local(via=child, name=u'below')
    pid = grandchild.call(os.getpid)
    call = grandchild.call_async(targets.sleep, 600)
    detail = error_of(router, lambda: os.kill(pid, signal.SIGKILL), call)
    assert "'bob.below') was lost at" in detail and ", says 'bob': " in detail


def test_it_tells_that_we_have_closed_it(router):
    child = router.local(name=u'bob')
    call = child.call_async(targets.sleep, 600)
    detail = error_of(router, lambda: router.disconnect(child), call)
    assert detail.endswith("with the connection 'bob': closed by this process")


def test_it_tells_of_bad_data(router):
    with testlib.Peer(router, 55, name=u'peer') as peer:
        call = peer.context.send_async(mitogen.core.Message(handle=1))
        with testlib.LogCapture('mitogen'):
            detail = error_of(router, lambda: peer.write(b'x' * 100), call)
    assert detail.endswith("with the connection 'peer': it sent what is no message")


def watch_looks(router, child, looks, seen=None):
    """
    Have the stream to a child look at its process after each of some waits. If `seen` is given,
    each look appends to it, and sees a process that runs.
    """
    stream = router.stream_by_id(child.context_id)
    stream.first_looks, stream.looks = (0,), looks
    if seen is not None:
        proc, poll = stream.conn.proc, stream.conn.proc.poll

        def look():
            seen.append(stream._waits)
            return None if stream._waits else poll()

        proc.poll = look
    return stream


@pytest.mark.parametrize('signum', [signal.SIGKILL, signal.SIGSEGV])
def test_a_call_that_waits_tells_how_the_process_ended(router, signum):
    with testlib.LogCapture('') as logs:
        child = router.local(name=u'bob')
        child.call(os.write, 2, b'these words\n')
        logs.wait('these words')
    grandchild = router.local(via=child, name=u'below')
    # However slow the machine is.
    watch_looks(router, child, [0.001] * 60000)
    pid = child.call(os.getpid)
    calls = [context.call_async(targets.sleep, 600) for context in (child, grandchild)]
    os.kill(pid, signum)
    details = []
    for call in calls:
        with pytest.raises(ChannelError) as caught:
            call.get(timeout=60)
        details.append(caught.value.detail)
        assert '; the process exited due to signal %d (%s)' % (signum, signal.Signals(signum).name) in details[-1]
    assert details[0].endswith('\nLast lines of its stderr:\n  these words')


def test_a_process_that_seems_to_go_on_is_waited_for_a_number_of_times(router):
    child, other = router.local(name=u'bob'), router.local(name=u'other')
    seen = []
    pid = watch_looks(router, child, [0.001] * 7, seen).conn.proc.pid
    call = child.call_async(targets.sleep, 600)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ChannelError) as caught:
        call.get(timeout=60)
    assert seen[:8] == [True] * 8 and not any(seen[8:])
    # It was known by then, as nobody pretended any more.
    assert 'signal 9' in caught.value.detail
    assert other.call(os.getpid)


@pytest.mark.parametrize('end', ['disconnect', 'shutdown'])
def test_nobody_waits_for_a_process_whose_stream_we_close(router, end):
    child, other = router.local(name=u'bob'), router.local(name=u'other')
    seen = []
    stream = watch_looks(router, child, [0] + [600] * 7, seen)
    call = child.call_async(targets.sleep, 600)
    os.kill(stream.conn.proc.pid, signal.SIGKILL)
    testlib.wait_for(lambda: len(seen) == 2)
    # Others are served meanwhile.
    assert other.call(os.getpid)
    if end == 'disconnect':
        router.disconnect(child)
        assert stream.receive_side.closed
    else:
        router.broker.shutdown()
    with pytest.raises(ChannelError):
        call.get(timeout=60)


def test_nobody_waits_for_a_process_that_was_asked_to_end(router):
    child = router.local(name=u'bob')
    seen = []
    watch_looks(router, child, [600], seen)
    child.shutdown(wait=True)
    assert True not in seen


def later_error_of(child, told):
    """
    Return the error of a call to a context that there is no way to, once its detail has what is
    told.
    """
    def error():
        with pytest.raises(ChannelError) as caught:
            child.call(os.getpid)
        return caught.value if told in (caught.value.detail or '') and 'no route' in caught.value.args[0] else None

    return testlib.wait_for(error, what=told)


@pytest.mark.parametrize('end, status', [
    (lambda child: child.call_async(os._exit, 4), 'exited with return code 4'),
    (lambda child: os.kill(child.call(os.getpid), signal.SIGKILL), 'exited due to signal 9 (SIGKILL)'),
    (lambda child: os.kill(child.call(os.getpid), signal.SIGSEGV), 'exited due to signal 11 (SIGSEGV)'),
], ids=['exit', 'kill', 'segv'])
def test_every_later_call_tells_how_the_context_was_lost(router, end, status):
    child = router.local(name=u'bob')
    end(child)
    error = later_error_of(child, 'the process ' + status)
    assert error.args[0] == router.no_route_msg % (child.context_id, mitogen.context_id)
    assert re.match(r"Context\(%d, 'bob'\) was lost at \d\d:\d\d:\d\d, with the connection 'bob': " % child.context_id,
                    error.detail)
    assert str(error) == '%s: %s' % (error.args[0], error.detail)


def test_a_later_call_tells_the_last_lines_of_stderr(router):
    with testlib.LogCapture('') as logs:
        child = router.local(name=u'bob')
        child.call(os.write, 2, b''.join(b'line %d of\x1b many\n' % i for i in range(20)))
        logs.wait('line 19')
    child.call_async(os._exit, 4)
    detail = later_error_of(child, 'Last lines').detail
    # The end of the process and its last words are told as they become known.
    detail = detail if 'return code 4' in detail else later_error_of(child, 'return code 4').detail
    assert detail.endswith('\nLast lines of its stderr:' + ''.join(
        '\n  line %d of\\x1b many' % i for i in range(15, 20)))


def test_a_later_call_tells_the_last_words_of_the_tool(router, tmp_path):
    tool = tmp_path / 'tool'
    tool.write_text('#!/bin/sh\n"$@"\necho "tool: it is over" >&2\n')
    tool.chmod(0o755)

    class Connection(mitogen.parent.Connection):
        create_child_args = {'stderr_pipe': True}
        child_is_immediate_subprocess = False

    options = Connection.options_class(max_message_size=1 << 20, python_path=[str(tool), sys.executable])
    context = mitogen.parent.Context(router, router.allocate_id(), u'bob')
    Connection(options, router).connect(context)
    context.call_async(os._exit, 4)
    detail = later_error_of(context, 'Last lines').detail
    assert detail.endswith('\nLast lines of its stderr:\n  tool: it is over')


def test_a_later_call_tells_how_a_context_farther_away_was_lost(router):
    child = router.local(name=u'bob')
    grandchild = router.local(via=child, name=u'below')
    os.kill(grandchild.call(os.getpid), signal.SIGKILL)
    detail = later_error_of(grandchild, 'was lost').detail
    assert "says 'bob': " in detail


def test_as_many_losses_are_remembered_as_a_few(router):
    losses = mitogen.parent._Losses()
    for i in range(3 * losses.count_max):
        context = mitogen.parent.Context(router, 1000 + i)
        context._loss = u'\nlost %d' % i
        losses.add(context, None)
    assert len(losses._losses) == losses.count_max
    text = router.no_route_msg % (1000 + i, mitogen.context_id)
    assert losses.explain(text, router.no_route_msg) == text + '\nlost %d' % i
    assert losses.explain(router.no_route_msg % (1000, 0), router.no_route_msg) == router.no_route_msg % (1000, 0)


def test_other_errors_have_no_detail(router):
    receiver = Receiver(router)
    receiver.close()
    with pytest.raises(ChannelError) as caught:
        receiver.get()
    assert caught.value.detail is None
    assert str(caught.value) == receiver.closed_msg
