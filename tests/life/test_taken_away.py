"""
Nothing waits for ever: whatever a thread waits for, the wait ends with the documented error when
the other side is taken away in the middle.
"""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

import mitogen.core
import mitogen.master
import mitogen.parent
import mitogen.select
import mitogen.service
from mitogen.core import ChannelError, Latch, LatchError, Message, Receiver, StreamError

import places
import targets
import testlib
import waiting_targets


#: Generous: each wait ends within a few milliseconds of the other side's end, some after a grace
#: period.
SECONDS = 30


class Waiter(object):
    """
    A thread that calls a function, and how that ended. The thread is a daemon, so that a wait that
    never ends fails one test only.
    """
    def __init__(self, func, *args, **kwargs):
        self._done = threading.Event()
        self._call = func, args, kwargs
        self._thread = threading.Thread(target=self._run)
        self._thread.daemon = True
        self._thread.start()

    def _run(self):
        func, args, kwargs = self._call
        self.result = self.error = None
        try:
            self.result = func(*args, **kwargs)
        except BaseException as error:
            self.error = error
        self._done.set()

    def is_done(self):
        return self._done.is_set()

    def is_asleep(self):
        """
        Return whether the thread is in a system call that does not return.
        """
        try:
            with open('/proc/self/task/%d/stat' % self._thread.native_id) as fp:
                return fp.read().rpartition(')')[2].split()[0] == 'S'
        except (IOError, TypeError):
            return False

    def sleep(self):
        """
        Wait until the thread sleeps, or has nothing to wait for, and return the waiter.
        """
        testlib.wait_for(lambda: self.is_done() or self.is_asleep(), SECONDS, 'a sleeping thread')
        return self

    def outcome(self):
        """
        Return what the function returned, or raise what it raised.
        """
        assert self._done.wait(SECONDS), 'the wait does not end'
        self._thread.join()
        if self.error is not None:
            raise self.error
        return self.result


def kill(pid):
    testlib.send_signal(pid, signal.SIGKILL)


def stop_then_kill(pid):
    with contextlib.suppress(ProcessLookupError):
        testlib.stop_process(pid)
    testlib.send_signal(pid, signal.SIGKILL)


def terminate(pid):
    testlib.send_signal(pid, signal.SIGTERM)


@pytest.fixture(params=[kill, stop_then_kill, terminate])
def take(request):
    """
    A way of taking a process away.
    """
    return request.param


@pytest.fixture
def started(router):
    """
    A receiver that what sleeps in a child sends its process id to.
    """
    with Receiver(router) as receiver:
        yield receiver


def pid_from(receiver):
    return receiver.get(timeout=SECONDS).unpickle()


def fails_with(text, waiter):
    with pytest.raises(ChannelError) as caught:
        waiter.outcome()
    assert caught.value.args[0] == text
    return caught.value


# ---- calls

def test_a_call(router, started, take):
    child = router.local()
    waiter = Waiter(child.call, waiting_targets.say_and_sleep, started.to_sender())
    take(pid_from(started))
    fails_with(router.respondent_disconnect_msg, waiter)


def test_a_call_to_a_child_that_holds_the_interpreter(router, started, take):
    child = router.local()
    waiter = Waiter(child.call, waiting_targets.say_and_hold, started.to_sender())
    take(pid_from(started))
    fails_with(router.respondent_disconnect_msg, waiter)


def test_a_call_whose_answer_is_waited_for_later(router, started, take):
    child = router.local()
    receiver = child.call_async(waiting_targets.say_and_sleep, started.to_sender())
    take(pid_from(started))
    fails_with(router.respondent_disconnect_msg, Waiter(receiver.get))


def test_many_calls_at_once(router, take):
    child = router.local()
    pid = child.call(os.getpid)
    testlib.stop_process(pid)
    waiters = [Waiter(child.call, targets.identity, i).sleep() for i in range(20)]
    take(pid)
    testlib.send_signal(pid, signal.SIGCONT)
    for waiter in waiters:
        fails_with(router.respondent_disconnect_msg, waiter)


def test_a_call_through_an_intermediary_that_is_taken_away(router, started, take):
    child = router.local()
    grandchild = router.local(via=child)
    waiter = Waiter(grandchild.call, waiting_targets.say_and_sleep, started.to_sender())
    pid_from(started)
    take(child.call(os.getpid))
    fails_with(router.respondent_disconnect_msg, waiter)


def test_a_call_of_a_grandchild_that_is_taken_away(router, started, take):
    child = router.local()
    grandchild = router.local(via=child)
    waiter = Waiter(grandchild.call, waiting_targets.say_and_sleep, started.to_sender())
    take(pid_from(started))
    fails_with(router.respondent_disconnect_msg, waiter)
    assert child.call(targets.add, 1, 2) == 3


def test_a_call_of_a_brother_by_an_object_of_the_callers_own(router, started, tmp_path):
    caller, brother = router.local(), router.local()
    router.stream_by_id(caller.context_id).protocol.auth_id = 0
    path = str(tmp_path / 'outcome')
    with Receiver(router) as pids:
        caller.call_no_reply(waiting_targets.private_context_call, brother.context_id, pids.to_sender(), path)
        kill(pid_from(pids))
    testlib.wait_for(lambda: os.path.exists(path), SECONDS)
    assert open(path).read().startswith('ChannelError: ' + router.respondent_disconnect_msg)


def test_a_call_by_a_context_object_of_ones_own(router, started, take):
    child = router.local()
    own = mitogen.parent.Context(router, child.context_id)
    waiter = Waiter(own.call, waiting_targets.say_and_sleep, started.to_sender())
    take(pid_from(started))
    fails_with(router.respondent_disconnect_msg, waiter)


@pytest.mark.parametrize('whose', ['context', 'grandchild', 'stream'])
def test_calls_by_way_of_a_context_of_whose_end_a_listener_fails(router, started, whose):
    # A failing listener is the program's own; it must not harm the broker, nor threads that wait.
    child = router.local()
    below = [router.local(via=child) for _ in range(2)]
    pid = child.call(os.getpid)

    def fail():
        raise ValueError('on purpose')

    obj = {'context': child, 'grandchild': below[0], 'stream': router.stream_by_id(child.context_id)}[whose]
    mitogen.core.listen(obj, 'disconnect', fail)
    waiters = [Waiter(context.call, waiting_targets.say_and_sleep, started.to_sender()) for context in [child] + below]
    for _ in waiters:
        pid_from(started)
    kill(pid)
    for waiter in waiters:
        fails_with(router.respondent_disconnect_msg, waiter)
    testlib.wait_for(lambda: not any(router.stream_by_id(context.context_id) for context in [child] + below), SECONDS)
    assert router.local().call(targets.add, 1, 2) == 3


def test_a_call_of_a_child_made_by_fork(router, started, take):
    child = router.fork()
    waiter = Waiter(child.call, waiting_targets.say_and_sleep, started.to_sender())
    take(pid_from(started))
    fails_with(router.respondent_disconnect_msg, waiter)


def test_a_call_over_descriptors_that_are_closed():
    """
    The peer lives on, and has closed the connection.
    """
    broker = mitogen.master.Broker()
    router = mitogen.master.Router(broker)
    with testlib.Peer(router, 55) as peer:
        waiter = Waiter(peer.context.call, targets.identity, 1)
        assert peer.receive()
    fails_with(router.respondent_disconnect_msg, waiter)
    broker.shutdown()
    broker.join()


def test_a_call_over_a_connection_that_is_shut_down_for_writing_only(router):
    with testlib.Peer(router, 55) as peer:
        waiter = Waiter(peer.context.call, targets.identity, 1)
        assert peer.receive()
        peer.sock.shutdown(socket.SHUT_WR)
        fails_with(router.respondent_disconnect_msg, waiter)


def test_a_call_whose_connection_breaks_in_the_middle_of_the_answer(router):
    with testlib.Peer(router, 55) as peer:
        waiter = Waiter(peer.context.call, targets.identity, 1)
        reply_to = peer.receive()[4 + 1]
        peer.write(testlib.frame(0, 55, handle=reply_to, data=b'x' * 100)[:60])
    fails_with(router.respondent_disconnect_msg, waiter)


def test_a_call_when_our_own_broker_ends(make_router, started):
    router = make_router()
    child = router.local()
    with Receiver(router) as own:
        waiter = Waiter(child.call, waiting_targets.say_and_sleep, own.to_sender())
        pid_from(own)
        router.broker.shutdown()
        fails_with(router.respondent_disconnect_msg, waiter)


# ---- receivers, selects, services

def test_a_receiver_of_a_contexts_messages(router, started, take):
    child = router.local()
    child.call_no_reply(waiting_targets.say_and_sleep, started.to_sender())
    with Receiver(router, respondent=child) as receiver:
        waiter = Waiter(receiver.get).sleep()
        take(pid_from(started))
        fails_with(router.respondent_disconnect_msg, waiter)


def test_iteration_over_a_contexts_messages(router, started, take):
    child = router.local()
    child.call_no_reply(waiting_targets.say_and_sleep, started.to_sender())
    with Receiver(router, respondent=child) as receiver:
        waiter = Waiter(list, receiver).sleep()
        take(pid_from(started))
        assert waiter.outcome() == []


def test_a_select(router, started, take):
    other, child = router.local(), router.local()
    with Receiver(router) as quiet:
        call = child.call_async(waiting_targets.say_and_sleep, started.to_sender())
        with mitogen.select.Select([quiet, call]) as select:
            waiter = Waiter(select.get).sleep()
            take(pid_from(started))
            fails_with(router.respondent_disconnect_msg, waiter)
    assert other.call(targets.add, 1, 2) == 3


def test_a_select_of_selects(router, started, take):
    child = router.local()
    call = child.call_async(waiting_targets.say_and_sleep, started.to_sender())
    with mitogen.select.Select([call]) as inner, mitogen.select.Select([inner]) as outer:
        waiter = Waiter(outer.get).sleep()
        take(pid_from(started))
        fails_with(router.respondent_disconnect_msg, waiter)


def test_all_answers_of_several(router, started, take):
    other, child = router.local(), router.local()
    calls = [other.call_async(targets.identity, 1),
             child.call_async(waiting_targets.say_and_sleep, started.to_sender())]
    waiter = Waiter(mitogen.select.Select.all, calls)
    take(pid_from(started))
    fails_with(router.respondent_disconnect_msg, waiter)


def test_a_service_call(router, started, take):
    child = router.local()
    waiter = Waiter(child.call_service, waiting_targets.SleepyService, 'sleep', started=started.to_sender())
    take(pid_from(started))
    fails_with(router.respondent_disconnect_msg, waiter)


class SlowFile(io.BytesIO):
    """
    A file whose first write waits until it is told to go on.
    """
    def __init__(self):
        super().__init__()
        self.written, self.go_on = threading.Event(), threading.Event()

    def write(self, data):
        self.written.set()
        assert self.go_on.wait(SECONDS)
        return super().write(data)


def test_a_transfer_of_a_file_in_the_middle(router, take, tmp_path):
    path = tmp_path / 'large'
    path.write_bytes(b'x' * (8 << 20))
    child = router.local()
    pid = child.call(os.getpid)
    fp = SlowFile()
    waiter = Waiter(mitogen.service.FileService.get, child, str(path), fp)
    assert fp.written.wait(SECONDS)
    take(pid)
    testlib.wait_for(lambda: not testlib.is_running(pid), SECONDS)
    fp.go_on.set()
    ok, metadata = waiter.outcome()
    assert not ok and metadata['size'] == 8 << 20


def test_a_transfer_of_a_file_before_it_begins(router, take, tmp_path):
    child = router.local()
    pid = child.call(os.getpid)
    testlib.stop_process(pid)
    waiter = Waiter(mitogen.service.FileService.get, child, '/etc/passwd', io.BytesIO()).sleep()
    take(pid)
    testlib.send_signal(pid, signal.SIGCONT)
    fails_with(router.respondent_disconnect_msg, waiter)


# ---- connections

class Tool(object):
    """
    A program that stands where an interpreter is expected, writes its process id to a file, and
    waits.
    """
    def __init__(self, folder, before='', after='exec sleep 600'):
        self.path, self.pid_path = str(folder / 'tool'), folder / 'pid'
        with open(self.path, 'w') as fp:
            fp.write('#!/bin/sh\n%s\necho $$ > %s.new\nmv %s.new %s\n%s\n' % (
                before, self.pid_path, self.pid_path, self.pid_path, after))
        os.chmod(self.path, 0o755)

    def pid(self):
        testlib.wait_for(self.pid_path.exists, SECONDS)
        return int(self.pid_path.read_text())


#: The first line of the first stage: its last argument shows that the parent has started it.
SAYS_0 = 'for token; do :; done; echo "MITO000 0 30b07f0 $token"'

#: The child's output so far when it is taken away.
STAGES = {
    'silent': '',
    'banner': 'echo hello; printf "no newline"',
    'first_stage': SAYS_0,
    'second_stage': SAYS_0 + '; echo MITO001',
}


@pytest.mark.parametrize('stage', sorted(STAGES))
def test_a_connection(router, take, tmp_path, stage):
    tool = Tool(tmp_path, STAGES[stage])
    waiter = Waiter(router.local, python_path=tool.path)
    take(tool.pid())
    with pytest.raises(mitogen.parent.EofError) as caught:
        waiter.outcome()
    assert str(caught.value).startswith(mitogen.parent.Connection.eof_error_msg)


@pytest.mark.parametrize('stage', sorted(STAGES))
def test_a_connection_whose_descriptors_are_closed(router, tmp_path, stage):
    tool = Tool(tmp_path, STAGES[stage], 'exec <&- >&- 2>&- sleep 600')
    waiter = Waiter(router.local, python_path=tool.path)
    with pytest.raises(mitogen.parent.EofError):
        waiter.outcome()


@pytest.mark.parametrize('stage', sorted(STAGES))
def test_a_connection_of_an_intermediary_that_is_taken_away(router, take, tmp_path, stage):
    child = router.local()
    pid = child.call(os.getpid)
    tool = Tool(tmp_path, STAGES[stage], 'exec cat > /dev/null')
    waiter = Waiter(router.local, via=child, python_path=tool.path)
    below = tool.pid()
    take(pid)
    fails_with(router.respondent_disconnect_msg, waiter)
    testlib.wait_for(lambda: not testlib.is_running(below), SECONDS)


def test_a_connection_through_an_intermediary_when_the_tool_is_taken_away(router, take, tmp_path):
    child = router.local()
    tool = Tool(tmp_path)
    waiter = Waiter(router.local, via=child, python_path=tool.path)
    take(tool.pid())
    with pytest.raises(StreamError):
        waiter.outcome()
    assert child.call(targets.add, 1, 2) == 3


def test_a_connection_when_our_broker_ends(make_router, tmp_path):
    router = make_router()
    tool = Tool(tmp_path)
    waiter = Waiter(router.local, python_path=tool.path)
    tool.pid()
    router.broker.shutdown()
    with pytest.raises(mitogen.parent.CancelledError):
        waiter.outcome()


# ---- shutdown, join, disconnect

def test_waiting_for_the_shutdown_of_a_context(router, take):
    child = router.local()
    pid = child.call(os.getpid)
    testlib.stop_process(pid)
    waiter = Waiter(child.shutdown, wait=True).sleep()
    take(pid)
    testlib.send_signal(pid, signal.SIGCONT)
    assert waiter.outcome() is None


def test_waiting_for_the_shutdown_of_a_grandchild_whose_intermediary_is_taken_away(router, take):
    child = router.local()
    grandchild = router.local(via=child)
    pids = child.call(os.getpid), grandchild.call(os.getpid)
    testlib.stop_process(pids[1])
    waiter = Waiter(grandchild.shutdown, wait=True).sleep()
    take(pids[0])
    assert waiter.outcome() is None
    testlib.send_signal(pids[1], signal.SIGCONT)


def test_waiting_for_the_shutdown_of_a_context_that_is_gone(router):
    child = router.local()
    child.shutdown(wait=True)
    assert Waiter(child.shutdown, wait=True).outcome() is None
    assert child.shutdown().get(timeout=SECONDS) is None


def test_waiting_for_the_shutdown_by_an_object_of_ones_own(router):
    child = router.local()
    own = mitogen.parent.Context(router, child.context_id)
    assert Waiter(own.shutdown, wait=True).outcome() is None


def test_waiting_for_the_shutdown_of_a_brother_that_is_gone(router, tmp_path):
    caller, brother = router.local(), router.local()
    router.stream_by_id(caller.context_id).protocol.auth_id = 0
    brother.shutdown(wait=True)
    path = str(tmp_path / 'outcome')
    caller.call(waiting_targets.start_waiting, 'shut_down', str(brother.context_id), path)
    testlib.wait_for(lambda: os.path.exists(path), SECONDS)
    assert open(path).read() == 'returned None'


def test_waiting_for_the_shutdown_of_a_brother(router, tmp_path):
    caller, brother = router.local(), router.local()
    router.stream_by_id(caller.context_id).protocol.auth_id = 0
    path = str(tmp_path / 'outcome')
    caller.call(waiting_targets.start_waiting, 'shut_down', str(brother.context_id), path)
    testlib.wait_for(lambda: os.path.exists(path), SECONDS)
    assert open(path).read() == 'returned None'


def test_waiting_for_the_shutdown_of_a_context_over_which_one_has_no_power(router, tmp_path):
    caller, brother = router.local(), router.local()
    path = str(tmp_path / 'outcome')
    caller.call(waiting_targets.start_waiting, 'shut_down', str(brother.context_id), path)
    testlib.wait_for(lambda: os.path.exists(path), SECONDS)
    assert open(path).read().startswith('ChannelError: ' + router.refused_msg)
    assert brother.call(targets.add, 1, 2) == 3


def test_joining_a_broker_whose_child_is_stopped(make_router):
    router = make_router()
    router.broker.shutdown_timeout = 0.5
    pid = router.local().call(os.getpid)
    testlib.stop_process(pid)
    router.broker.shutdown()
    Waiter(router.broker.join).outcome()
    kill(pid)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        # The router's own reaper was faster.
        pass


def test_joining_a_broker_while_a_thread_of_its_pool_waits(make_router, started):
    # The thread waits for a message that only the broker could bring.
    router = make_router()
    router.broker.shutdown_timeout = 1.5
    pool = mitogen.service.get_or_create_pool(router=router)
    asleep = threading.Event()
    with Receiver(router) as never:
        pool.defer(lambda: (asleep.set(), never.get()))
        assert asleep.wait(SECONDS)
        router.broker.shutdown()
        Waiter(router.broker.join).outcome()
    Waiter(pool.join).outcome()


def test_disconnecting_a_context(router, take):
    child = router.local()
    pid = child.call(os.getpid)
    testlib.stop_process(pid)
    assert Waiter(router.disconnect, child).outcome() is None
    os.kill(pid, signal.SIGKILL)


def test_disconnecting_a_context_of_which_a_listener_fails(router):
    # The signal then does not reach the listeners after that one. The connection ends all the same.
    child = router.local()

    def fail():
        raise ValueError('on purpose')

    pid = child.call(os.getpid)
    mitogen.core.listen(router.stream_by_id(child.context_id), 'disconnect', fail)
    with pytest.raises(ValueError):
        Waiter(router.disconnect, child).outcome()
    assert router.stream_by_id(child.context_id) is None
    testlib.wait_for(lambda: not testlib.is_running(pid), SECONDS)


# ---- what a broker no longer does

def test_a_function_deferred_to_a_broker_that_ends(make_router):
    router = make_router()
    broker = router.broker
    inside, go_on = threading.Event(), threading.Event()

    def block():
        inside.set()
        go_on.wait(SECONDS)

    broker.defer(block)
    assert inside.wait(SECONDS)
    waiters = [Waiter(broker.defer_sync, lambda: 5).sleep() for _ in range(3)]
    broker.shutdown()
    go_on.set()
    assert [waiter.outcome() for waiter in waiters] == [5] * 3
    broker.join()
    with pytest.raises(mitogen.core.Error) as caught:
        Waiter(broker.defer_sync, lambda: 5).outcome()
    assert caught.value.args[0] == mitogen.core.Waker.broker_shutdown_msg


def test_a_function_deferred_to_a_broker_that_crashes(make_router):
    router = make_router()
    broker = router.broker
    inside, go_on = threading.Event(), threading.Event()

    def crash(timeout=None):
        inside.set()
        go_on.wait(SECONDS)
        raise ValueError('crashed on purpose')

    def install():
        broker._loop_once = crash

    broker.defer(install)
    assert inside.wait(SECONDS)
    waiter = Waiter(broker.defer_sync, lambda: 5).sleep()
    go_on.set()
    assert waiter.outcome() == 5
    broker.join()


def test_a_receiver_whose_broker_ends(make_router):
    router = make_router()
    with Receiver(router) as receiver:
        waiter = Waiter(receiver.get).sleep()
        router.broker.shutdown()
        fails_with(router.broker_exit_msg, waiter)


def test_a_receiver_made_after_the_end_of_the_broker(make_router):
    router = make_router()
    router.broker.shutdown()
    router.broker.join()
    with Receiver(router) as receiver:
        fails_with(router.broker_exit_msg, Waiter(receiver.get))


def test_a_latch_that_is_closed():
    latch = Latch()
    waiters = [Waiter(latch.get).sleep() for _ in range(3)]
    latch.close()
    for waiter in waiters:
        with pytest.raises(LatchError):
            waiter.outcome()


# ---- senders

def test_a_sender_that_is_held_back(router, take):
    child = router.local()
    pid = child.call(os.getpid)
    child.call_no_reply(targets.sleep, 600)
    testlib.stop_process(pid)
    if mitogen.core.CORE == 'native':
        router.high_water = 1 << 20

    def send():
        return [child.call_async(targets.identity, b'x' * (1 << 20)) for _ in range(8)]

    waiter = Waiter(send).sleep()
    take(pid)
    testlib.send_signal(pid, signal.SIGCONT)
    for receiver in waiter.outcome():
        # Of those that were sent after the end there is no way any more.
        with pytest.raises(ChannelError):
            Waiter(receiver.get).outcome()


def test_a_sender_that_is_held_back_when_the_broker_ends(make_router):
    router = make_router()
    router.broker.shutdown_timeout = 0.5
    child = router.local()
    pid = child.call(os.getpid)
    testlib.stop_process(pid)
    if mitogen.core.CORE == 'native':
        router.high_water = 1 << 20

    def send():
        for _ in range(8):
            child.call_async(targets.identity, b'x' * (1 << 20))

    waiter = Waiter(send).sleep()
    router.broker.shutdown()
    try:
        waiter.outcome()
    except mitogen.core.Error:
        # Messages that were still queued could not be sent.
        pass
    router.broker.join()
    testlib.wait_for_end(pid)


def test_what_came_while_another_thread_was_writing_is_written_before_the_end(broker):
    # The other thread has written, and is not yet back to look whether there is more.
    ours, theirs = socket.socketpair()
    theirs.settimeout(SECONDS)
    ours.setblocking(False)
    stream = mitogen.core.DelimitedProtocol.build_stream()
    stream.accept(ours, ours)
    writer = mitogen.core.BufferedWriter(broker, stream.protocol)
    writer._lock.acquire()
    writer.write(b'last words')
    closing = Waiter(broker.defer_sync, writer.close).sleep()
    writer._lock.release()
    closing.outcome()
    assert theirs.recv(100) == b'last words'
    stream.receive_side.close()
    stream.transmit_side.close()
    theirs.close()


# ---- in a child that loses its parent

def detached(router, context):
    """
    Have a context leave its parent; return its process id.
    """
    with Receiver(router) as receiver:
        context.call_no_reply(waiting_targets.detach, receiver.to_sender())
        return receiver.get(timeout=SECONDS).unpickle()


def silence(router, *handles):
    """
    Have a master receive what it should answer, and say nothing; return a receiver of what it
    receives.
    """
    latch = Latch()
    for handle in handles:
        router.add_handler(lambda msg: latch.put(msg) if not msg.is_dead else None, handle, overwrite=True)
    return latch


def end(pid):
    os.kill(pid, signal.SIGKILL)
    try:
        os.waitpid(pid, 0)
    except OSError:
        # Not a child of ours, or reaped already.
        pass


WAITS = [
    # function, its argument, what the master is asked by, how the wait ends
    ('import_module', 'no_such_module', mitogen.core.GET_MODULE, 'ModuleNotFoundError: '),
    ('read_resource', 'name', mitogen.core.GET_RESOURCE, 'returned None'),
    ('call_master', '12345', 12345, 'ChannelError: '),
    ('allocate', '', mitogen.core.ALLOCATE_ID, 'ChannelError: '),
]


@pytest.mark.parametrize('what, name, handle, expected', WAITS, ids=[w[0] for w in WAITS])
def test_a_child_that_leaves_its_parent(make_router, tmp_path, what, name, handle, expected):
    router = make_router()
    child = router.local()
    path = str(tmp_path / 'outcome')
    # Everything that it will need for the test itself.
    child.call(waiting_targets.start_waiting, 'import_module', 'json', str(tmp_path / 'ready'))
    asked = silence(router, handle)
    child.call(waiting_targets.start_waiting, what, name, path)
    asked.get(timeout=SECONDS)
    pid = detached(router, child)
    try:
        testlib.wait_for(lambda: os.path.exists(path), SECONDS)
        assert open(path).read().startswith(expected)
    finally:
        end(pid)


def test_a_child_that_leaves_its_parent_while_it_waits_for_a_file_to_be_pushed(make_router, tmp_path):
    router = make_router()
    child = router.local()
    path = str(tmp_path / 'outcome')
    child.call(waiting_targets.start_waiting, 'get_pushed_file', 'no such file', path)
    # The pool is there, and the service in it.
    child.call_service('mitogen.service.PushFileService', 'propagate_to', context=child, path=u'other',
                       overridden_source=b'x')
    pid = detached(router, child)
    try:
        testlib.wait_for(lambda: os.path.exists(path), SECONDS)
        expected = mitogen.service.PushFileService.lost_msg % (u'no such file',)
        assert open(path).read() == 'ChannelError: ' + expected
    finally:
        end(pid)


def test_a_pushed_file_that_is_waited_for_when_the_service_ends(router):
    pool = mitogen.service.Pool(router)
    service = mitogen.service.PushFileService(router=router)
    pool.add(service)
    waiters = [Waiter(service.get, u'no such file').sleep() for _ in range(2)]
    pool.stop()
    for waiter in waiters + [Waiter(service.get, u'nor this')]:
        fails_with(service.lost_msg % (u'nor this' if waiter not in waiters else u'no such file',), waiter)


@pytest.mark.parametrize('what, name, handle, expected', WAITS, ids=[w[0] for w in WAITS])
@pytest.mark.parametrize('when', ['before', 'after'])
def test_a_grandchild_whose_parent_leaves_the_tree(make_router, tmp_path, what, name, handle, expected, when):
    router = make_router()
    child = router.local()
    grandchild = router.local(via=child)
    pid = grandchild.call(os.getpid)
    path = str(tmp_path / 'outcome')
    if what == 'import_module':
        # Its parent is there, and tells why it has nothing to pass on.
        expected = 'ImportError: the parent was lost before it could serve'
    child.call(waiting_targets.start_waiting, 'import_module', 'json', str(tmp_path / 'ready'))
    grandchild.call(waiting_targets.start_waiting, 'import_module', 'json', str(tmp_path / 'ready2'))
    asked = silence(router, handle)
    if when == 'before':
        grandchild.call(waiting_targets.start_waiting, what, name, path)
        asked.get(timeout=SECONDS)
        top = detached(router, child)
    else:
        # The grandchild asks when nobody can answer any more.
        grandchild.call_no_reply(targets.sleep, 1)
        grandchild.call_no_reply(waiting_targets.start_waiting, what, name, path)
        top = detached(router, child)
    try:
        testlib.wait_for(lambda: os.path.exists(path), SECONDS)
        assert open(path).read().startswith(expected)
    finally:
        end(top)
        testlib.wait_for(lambda: not testlib.is_running(pid), SECONDS)


def test_a_grandchild_whose_parent_leaves_the_tree_in_the_middle_of_an_answer(make_router, tmp_path, monkeypatch):
    # The module has come, and the master has said that there is more to come.
    router = make_router()
    child = router.local()
    grandchild = router.local(via=child)
    pid = grandchild.call(os.getpid)
    for context, name in (child, 'ready'), (grandchild, 'ready2'):
        context.call(waiting_targets.start_waiting, 'import_module', 'json', str(tmp_path / name))
    pack, packed = mitogen.parent._pack_modules, Latch()

    def pack_without_end(more, entries, contents):
        if 'shipped_unicode' in [entry[0] for entry in entries]:
            packed.put(None)
        # The end of an earlier answer may come only now.
        return pack(more or not packed.empty(), entries, contents)

    monkeypatch.setattr(mitogen.parent, '_pack_modules', pack_without_end)
    path = str(tmp_path / 'outcome')
    grandchild.call(waiting_targets.start_waiting, 'import_module', 'shipped_unicode', path)
    testlib.wait_for(lambda: not packed.empty(), SECONDS)
    # The answer to this call is behind the module, on the same stream.
    child.call(os.getpid)
    top = detached(router, child)
    try:
        testlib.wait_for(lambda: os.path.exists(path), SECONDS)
        assert open(path).read() == "returned 'shipped_unicode'"
    finally:
        end(top)
        testlib.wait_for(lambda: not testlib.is_running(pid), SECONDS)


# ---- clients of a UNIX socket

LISTENER = '''
import os, sys
sys.path.insert(0, %r)
import mitogen.master, mitogen.unix, targets
if __name__ == "__main__":
    router = mitogen.master.Router()
    children = [router.fork() for _ in range(int(sys.argv[2]))]
    listener = mitogen.unix.Listener.build_stream(router, path=sys.argv[1])
    print(os.getpid(), *["%%d:%%d" %% (child.context_id, child.call(os.getpid)) for child in children])
    sys.stdout.flush()
    sys.stdin.read()
''' % (places.TARGETS,)

#: A client for each of its arguments, in a process of its own.
CLIENT = '''
import os, sys
sys.path.insert(0, %r)
import mitogen.core, mitogen.parent, mitogen.unix, waiting_targets

def tell(index, text):
    os.write(1, ("%%d %%s\\n" %% (index, text.splitlines()[0])).encode())

def run(index, kind, context_id, pid):
    router, listener = mitogen.unix.connect(sys.argv[1])
    if kind.startswith("known"):
        context = router.context_by_id(context_id)
    else:
        context = mitogen.parent.Context(router, context_id)
    if kind.endswith("listener"):
        with mitogen.core.Receiver(router, respondent=router.context_by_id(0)) as receiver:
            tell(index, "waits")
            tell(index, waiting_targets.outcome_of(receiver.get))
    elif kind.endswith("call"):
        with mitogen.core.Receiver(router) as started:
            call = context.call_async(waiting_targets.say_and_sleep, started.to_sender())
            started.get()
            tell(index, "waits")
            tell(index, waiting_targets.outcome_of(call.get))
    else:
        os.kill(pid, 19)
        latch = context.shutdown()
        tell(index, "waits")
        tell(index, waiting_targets.outcome_of(latch.get))
    router.broker.shutdown()
    router.broker.join()

for index, words in enumerate(sys.argv[2:]):
    if not os.fork():
        try:
            kind, context_id, pid = words.split(":")
            run(index, kind, int(context_id), int(pid))
        finally:
            os._exit(0)
for _ in sys.argv[2:]:
    os.wait()
''' % (places.TARGETS,)

#: The wait of a client, and the process that is taken away.
CLIENTS = [(kind, whom) for whom in ('child', 'listener')
           for kind in ('known call', 'own call', 'known shutdown', 'own shutdown')] + [('known listener', 'listener')]


def test_clients_of_a_socket(tmp_path, take):
    (tmp_path / 'listener.py').write_text(LISTENER)
    (tmp_path / 'client.py').write_text(CLIENT)
    path = str(tmp_path / 'socket')
    listener = subprocess.Popen([sys.executable, str(tmp_path / 'listener.py'), path, str(len(CLIENTS))],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    clients, pids = None, []
    try:
        words = listener.stdout.readline().decode().split()
        pids = [int(word.split(':')[1]) for word in words[1:]]
        clients = subprocess.Popen(
            [sys.executable, str(tmp_path / 'client.py'), path] + [
                '%s:%s' % (kind, word) for (kind, _), word in zip(CLIENTS, words[1:])], stdout=subprocess.PIPE)
        assert lines_of(clients, len(CLIENTS)) == dict.fromkeys(range(len(CLIENTS)), 'waits')
        for index, (kind, whom) in enumerate(CLIENTS):
            if whom == 'child':
                take(pids[index])
                if 'shutdown' in kind:
                    testlib.send_signal(pids[index], signal.SIGCONT)
                assert_ended(kind, lines_of(clients, 1)[index])
        take(int(words[0]))
        outcomes = lines_of(clients, 5)
        assert sorted(outcomes) == [index for index, (_, whom) in enumerate(CLIENTS) if whom == 'listener']
        for index, outcome in outcomes.items():
            assert_ended(CLIENTS[index][0], outcome)
        clients.wait(SECONDS)
    finally:
        for pid in pids:
            testlib.send_signal(pid, signal.SIGCONT)
        for proc in listener, clients:
            if proc is not None:
                proc.kill()
                proc.wait()
                proc.stdout.close()
        listener.stdin.close()
    testlib.wait_for(lambda: not any(testlib.is_running(pid) for pid in pids), SECONDS)


def lines_of(clients, count):
    """
    Return {number of a client: its words}, for the next so many.
    """
    lines = [Waiter(clients.stdout.readline).outcome().decode().partition(' ') for _ in range(count)]
    return dict((int(index), text.rstrip()) for index, _, text in lines)


def assert_ended(kind, outcome):
    if 'shutdown' in kind:
        assert outcome == 'returned None'
    else:
        assert outcome.startswith('ChannelError: ' + mitogen.core.Router.respondent_disconnect_msg)


def test_a_client_whose_listener_is_taken_away_before_it_answers(tmp_path):
    import mitogen.unix
    path = str(tmp_path / 'socket')
    code = ('import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen(1)\n'
            'print("ready", flush=True)\nsys.stdin.read()')
    proc = subprocess.Popen([sys.executable, '-c', code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert proc.stdout.readline() == b'ready\n'
    waiter = Waiter(mitogen.unix.connect, path).sleep()
    stop_then_kill(proc.pid)
    with pytest.raises(mitogen.unix.ConnectError):
        waiter.outcome()
    proc.wait()
    proc.stdin.close()
    proc.stdout.close()
