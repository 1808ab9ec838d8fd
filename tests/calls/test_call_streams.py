"""
Results that a call sends as it goes: their reader is told when the call fails.
"""

import os
import signal

import pytest

import mitogen.core
import mitogen.select
from mitogen.core import CallError, ChannelError, Receiver

import error_targets
import testlib


def read(receiver):
    """
    Return what a loop gets, and the error that ends it.
    """
    found = []
    try:
        for msg in receiver:
            found.append(msg.unpickle())
    except ChannelError as e:
        return found, str(e)
    return found, None


@pytest.fixture
def child(router):
    return router.local(name=u'bob')


def test_the_loop_is_told_that_the_call_raised(router, child):
    receiver = Receiver(router)
    result = child.call_async(error_targets.sends, receiver.to_sender(), 2, 'raise')
    found, why = read(receiver)
    assert found == [0, 1]
    assert why.startswith('error_targets.sends failed, which was to send here: builtins.ValueError: after 2')
    with pytest.raises(CallError) as caught:
        result.get().unpickle()
    assert caught.value.message == 'after 2'


def test_the_loop_is_told_that_the_context_was_lost(router, child):
    receiver = Receiver(router)
    pid = child.call(os.getpid)
    result = child.call_async(error_targets.sends, count=2, then=u'sleep', sender=receiver.to_sender())
    # A process that is killed at once may not have written what it sent.
    assert [receiver.get().unpickle() for _ in range(2)] == [0, 1]
    os.kill(pid, signal.SIGKILL)
    found, why = read(receiver)
    assert found == []
    assert why.startswith('error_targets.sends failed, which was to send here: %s' % router.respondent_disconnect_msg)
    assert "Context(1, 'bob') was lost at" in why
    with pytest.raises(ChannelError):
        result.get()


def test_the_loop_ends_as_ever_where_the_call_closes_the_sender(router, child):
    receiver = Receiver(router)
    result = child.call_async(error_targets.sends, receiver.to_sender(), 2, 'close')
    assert read(receiver) == ([0, 1], None)
    assert result.get().unpickle() == 'done'


def test_a_blocking_call_tells_the_loop_too(router, child):
    receiver = Receiver(router)
    with pytest.raises(CallError):
        child.call(error_targets.sends, receiver.to_sender(), 1, 'raise')
    assert read(receiver)[0] == [0]


def test_one_of_several_calls_that_fails_does_not_end_the_loop(router, child):
    other = router.local()
    receiver = Receiver(router)
    waiting = child.call_async(error_targets.waits_for, receiver.to_sender(), 1)
    handle = receiver.get().unpickle()
    with pytest.raises(CallError):
        other.call(error_targets.sends, receiver.to_sender(), 1, 'raise')
    assert receiver.get().unpickle() == 0
    child.send(mitogen.core.Message.pickled('go on', handle=handle))
    assert receiver.get().unpickle() == 'go on'
    assert waiting.get().unpickle() == 'done'
    assert receiver.empty()


def test_a_select_takes_the_result_of_such_a_call(router, child):
    receiver = Receiver(router)
    select = mitogen.select.Select([child.call_async(error_targets.sends, receiver.to_sender(), 1)])
    assert select.get().unpickle() == 'done'
    assert receiver.get().unpickle() == 0


def test_nothing_is_left_of_such_calls(router, child):
    receiver = Receiver(router)
    child.call(error_targets.sends, receiver.to_sender(), 1)
    testlib.sync(router.broker)
    before = len(router._handle_map)
    for then in 'raise', None, 'raise':
        call = child.call_async(error_targets.sends, receiver.to_sender(), 1, then)
        call.get()
    testlib.sync(router.broker)
    assert len(router._handle_map) == before
    assert router._lent == {}
