"""
A program's function that raises, wherever the library calls one: it is logged, costs what it was
about and nothing else, and nobody waits for ever.
"""

import logging
import os
import threading

import pytest

import fork_targets
import mitogen.core
import mitogen.master
import mitogen.parent
import mitogen.select
import mitogen.service
import targets
import testlib
from mitogen.core import CallError, ChannelError, Latch, Message, Receiver, Sender, listen

#: Safety net: nothing here takes more than a second or two on an idle machine.
SECONDS = testlib.patience()


class Deliberate(Exception):
    pass


def bad(*_args, **_kwargs):
    raise Deliberate('on purpose')


@pytest.fixture
def logs():
    """
    All records of the test. The exceptions raised must be among them, and no program's exception is
    raised twice.
    """
    with testlib.LogCapture('', logging.INFO) as capture:
        yield capture


def wait_for_traceback(logs):
    return testlib.wait_for(lambda: [r for r in list(logs.records) if r.exc_info and r.exc_info[0] is Deliberate])


def works(router, child):
    assert child.call(targets.add, 1, 2) == 3
    assert router.broker.defer_sync(lambda: 5) == 5


def test_a_handler(router, logs):
    child = router.local()
    handle = router.add_handler(bad)
    child.call(fork_targets.send, Sender(router.myself(), handle), 1)
    wait_for_traceback(logs)
    works(router, child)
    # Of this process, too.
    del logs.records[:]
    Sender(router.myself(), handle).send(1)
    wait_for_traceback(logs)
    router.del_handler(handle)


def test_a_handler_that_is_told_of_the_loss_of_its_respondent(router, logs):
    child, other = router.local(), router.local()
    router.add_handler(bad, respondent=child)
    call = child.call_async(targets.sleep, 600)
    child.shutdown()
    with pytest.raises(ChannelError):
        call.get(timeout=SECONDS)
    wait_for_traceback(logs)
    works(router, other)


def test_a_policy(router, logs):
    child = router.local()
    receiver = Receiver(router, policy=bad)
    with pytest.raises(CallError, match=router.refused_msg):
        child.call(fork_targets.send_await, receiver.to_sender())
    wait_for_traceback(logs)
    works(router, child)
    receiver.close()


def test_a_hook(router, logs):
    """
    The message is refused, and what follows on that stream comes.
    """
    child = router.local()
    protocol = router.stream_by_id(child.context_id).protocol
    receiver = Receiver(router)
    protocol.on_message = lambda stream, msg: bad() if msg.handle == receiver.handle else None
    with pytest.raises(CallError, match=router.refused_msg):
        child.call(fork_targets.send_await, receiver.to_sender())
    wait_for_traceback(logs)
    works(router, child)
    protocol.on_message = None
    works(router, child)
    receiver.close()


@pytest.mark.parametrize('early', [True, False])
def test_a_listener_for_the_loss_of_a_context(router, logs, early):
    child, other = router.local(), router.local()
    if early:
        listen(child, 'disconnect', bad)
    call = child.call_async(targets.sleep, 600)
    if not early:
        listen(child, 'disconnect', bad)
    os.kill(router.stream_by_id(child.context_id).conn.proc.pid, 9)
    with pytest.raises(ChannelError):
        call.get(timeout=SECONDS)
    wait_for_traceback(logs)
    works(router, other)


def test_a_listener_for_the_end_of_a_stream(router, logs):
    child, other = router.local(), router.local()
    stream = router.stream_by_id(child.context_id)
    listen(stream, 'disconnect', bad)
    call = child.call_async(targets.sleep, 600)
    proc = stream.conn.proc
    exited = Latch()
    listen(proc, 'exit', exited.put)
    os.kill(proc.pid, 9)
    with pytest.raises(ChannelError):
        call.get(timeout=SECONDS)
    exited.get(timeout=SECONDS)
    wait_for_traceback(logs)
    works(router, other)


def test_a_listener_for_the_end_that_a_sender_finds(router, logs):
    child, other = router.local(), router.local()
    stream = router.stream_by_id(child.context_id)
    listen(stream, 'disconnect', bad)
    pid = stream.conn.proc.pid

    def send():
        # On the broker's thread, which therefore cannot have read of the end before.
        os.kill(pid, 9)
        testlib.wait_for(lambda: not testlib.is_running(pid))
        child.send(Message(handle=31337, data=b'x'))

    router.broker.defer_sync(send)
    wait_for_traceback(logs)
    works(router, other)


@pytest.mark.parametrize('name', ['before_shutdown', 'shutdown', 'exit'])
def test_a_listener_for_the_end_of_a_broker(logs, name):
    broker = mitogen.master.Broker()
    # The first of all.
    listen(broker, name, bad)
    router = mitogen.master.Router(broker)
    child = router.local()
    pid = child.call(os.getpid)
    call = child.call_async(targets.sleep, 600)
    receiver = Receiver(router)
    router.broker.shutdown()
    router.broker.join()
    for waiting in (call, receiver):
        with pytest.raises(ChannelError):
            waiting.get(timeout=SECONDS)
    wait_for_traceback(logs)
    testlib.wait_for(lambda: not testlib.is_running(pid))


def test_a_timer(make_router, logs):
    """
    As for a deferred function: the broker ends, and says why.
    """
    router = make_router()
    child = router.local()
    pid = child.call(os.getpid)
    call = child.call_async(targets.sleep, 600)
    router.broker.defer(lambda: router.broker.timers.schedule(0, bad))
    with pytest.raises(ChannelError):
        call.get(timeout=SECONDS)
    router.broker.join()
    wait_for_traceback(logs)
    testlib.wait_for(lambda: not testlib.is_running(pid))


def test_a_deferred_function(make_router, logs):
    router = make_router()
    child = router.local()
    pid = child.call(os.getpid)
    call = child.call_async(targets.sleep, 600)
    router.broker.defer(bad)
    with pytest.raises(ChannelError):
        call.get(timeout=SECONDS)
    router.broker.join()
    wait_for_traceback(logs)
    testlib.wait_for(lambda: not testlib.is_running(pid))


def test_notify_of_a_receiver(router, logs):
    child = router.local()
    receiver = Receiver(router)
    receiver.notify = bad
    child.call(fork_targets.send, receiver.to_sender(), 1)
    wait_for_traceback(logs)
    assert receiver.get(timeout=SECONDS).unpickle() == 1
    works(router, child)
    receiver.close()


def test_notify_of_a_latch():
    latch = Latch()
    latch.notify = bad
    with pytest.raises(Deliberate):
        latch.put(1)
    assert latch.get(timeout=SECONDS) == 1


def test_notify_of_a_select(router, logs):
    child = router.local()
    receiver = Receiver(router)
    select = mitogen.select.Select([receiver], oneshot=False)
    select.notify = bad
    child.call(fork_targets.send, receiver.to_sender(), 1)
    assert select.get(timeout=SECONDS).unpickle() == 1
    works(router, child)
    select.close()
    receiver.close()


class BadService(mitogen.service.Service):
    @mitogen.service.expose(mitogen.service.AllowAny())
    def method(self):
        bad()

    def on_shutdown(self):
        bad()


def test_a_service_and_its_end(router, logs):
    pool = mitogen.service.Pool(router, [BadService(router), fork_targets.Echo(router)], size=1)
    child = router.local()
    for _ in range(2):
        with pytest.raises(mitogen.core.CallError) as info:
            router.myself().call_service(BadService, 'method')
        assert 'Deliberate' in str(info.value)
    assert child.call(fork_targets.ask_echo) == 7
    pool.defer(bad)
    wait_for_traceback(logs)
    assert child.call(fork_targets.ask_echo) == 7
    pool.stop(join=True)
    works(router, child)


def test_on_start_and_on_fork(router, logs):
    context = router.fork(on_start=bad)
    lost = Latch()
    listen(context, 'disconnect', lost.put)
    if router.stream_by_id(context.context_id):
        lost.get(timeout=SECONDS)
    with pytest.raises(mitogen.core.StreamError):
        router.fork(on_fork=bad)


class BadHandler(logging.Handler):
    def emit(self, record):
        bad()


def test_a_log_handler(router):
    """
    Here and in a child: a record is lost, nothing else.
    """
    handler = BadHandler()
    logger = logging.getLogger()
    logger.addHandler(handler)
    try:
        child = router.local()
        child.call(targets.log, 'x', logging.ERROR, 'hello')
        child.call(fork_targets.log_badly)
        os.kill(router.stream_by_id(child.context_id).conn.proc.pid, 9)
        with pytest.raises(ChannelError):
            child.call(targets.sleep, 600)
        other = router.local()
        works(router, other)
    finally:
        logger.removeHandler(handler)


def test_a_stream_of_a_program(router, logs):
    class BadProtocol(mitogen.core.Protocol):
        on_receive = bad
        on_shutdown = bad

    left, right = mitogen.core.socketpair()
    stream = BadProtocol.build_stream()
    stream.accept(right, right)
    router.broker.start_receive(stream)
    left.send(b'x')
    wait_for_traceback(logs)
    testlib.wait_for(lambda: stream.receive_side.closed)
    left.close()
    works(router, router.local())
