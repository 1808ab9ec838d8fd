"""
Contexts started through other contexts: names, ids, ten deep, failures far away.
"""

import os
import signal
import sys
import time

import pytest

import mitogen
import mitogen.core
import mitogen.parent
from mitogen.core import CallError, Receiver, StreamError

import pythons
import targets
import testlib


def chain(router, depth):
    contexts = [router.local()]
    while len(contexts) < depth:
        contexts.append(router.local(via=contexts[-1]))
    return contexts


def test_a_grandchild_is_a_child_of_its_intermediary(router):
    child, grandchild = chain(router, 2)
    pid, parent = grandchild.call(targets.main_thread_id_and_pid)
    assert parent == child.call(os.getpid)
    assert grandchild.via is child


def test_names_tell_the_way(router):
    child = router.local(name=u'a')
    grandchild = router.local(via=child, name=u'b')
    assert grandchild.name == u'a.b'
    unnamed = router.local(via=child)
    assert unnamed.name == u'a.local.%d' % unnamed.call(os.getpid)


def test_the_context_of_a_grandchild_is_the_canonical_one(router):
    _, grandchild = chain(router, 2)
    assert router.context_by_id(grandchild.context_id) is grandchild
    assert grandchild.call(targets.identity, grandchild) is grandchild


def test_ids_are_taken_from_blocks(router):
    child = router.local()
    assert child.context_id == 1
    assert child.call(targets.allocate_ids, 2) == [2, 3]
    assert router.allocate_id() == 1002


def test_ids_of_grandchildren_come_from_their_parents_block(router):
    child, first = chain(router, 2)
    second = router.local(via=child)
    assert [child.context_id, first.context_id, second.context_id] == [1, 2, 3]
    assert router.local().context_id == 1002


def test_a_block_that_is_used_up_is_followed_by_another(router):
    child = router.local()
    ids = child.call(targets.allocate_ids, 1005)
    assert ids == list(range(2, 1002)) + list(range(1002, 1007))


@pytest.mark.slow
def test_ten_deep(router):
    contexts = chain(router, 10)
    pids = [context.call(os.getpid) for context in contexts]
    assert len(set(pids)) == 10
    assert contexts[-1].call(targets.mitogen_globals)['parent_ids'] == [
        context.context_id for context in reversed(contexts[:-1])] + [mitogen.context_id]
    data = os.urandom(1 << 20)
    assert contexts[-1].call(targets.identity, data) == data


def test_a_deep_context_streams_to_the_master(router):
    context = chain(router, 4)[-1]
    with Receiver(router) as receiver:
        result = context.call_async(targets.send_bytes, receiver.to_sender(), 1000, 1000)
        assert sum(1 for _ in receiver) == 1000
        assert result.get(timeout=60).unpickle() is None


def test_a_deep_context_raises_like_a_near_one(router):
    with pytest.raises(CallError) as caught:
        chain(router, 3)[-1].call(targets.fail, u'down there')
    assert str(caught.value).startswith('builtins.ValueError: down there')


def test_brothers_below_one_child_start_in_parallel(router):
    child = router.local()
    contexts = testlib.in_threads([lambda: router.local(via=child)] * 4)
    assert len(set(context.call(os.getpid) for context in contexts)) == 4


def test_a_middle_context_forwards_while_its_main_thread_sleeps(router):
    child, grandchild = chain(router, 2)
    grandchild.call(targets.identity, 1)
    # Longer than a test may take.
    child.call_no_reply(targets.sleep, 3600)
    for i in range(100):
        assert grandchild.call(targets.identity, i) == i


def test_a_middle_context_forwards_while_its_main_thread_holds_the_interpreter(router, tmp_path):
    child, grandchild = chain(router, 2)
    grandchild.call(targets.identity, 1)
    with Receiver(router) as started:
        path = tmp_path / 'enough'
        receiver = child.call_async(targets.say_and_spin, started.to_sender(), str(path))
        started.get(timeout=60)
        for i in range(10):
            assert grandchild.call(targets.identity, i) == i
        assert receiver.empty()
        path.write_text(u'')
        assert receiver.get(timeout=60).unpickle() > 0


# ---- failures

def test_a_start_that_fails_far_away_is_reported(router):
    child = router.local()
    with pytest.raises(StreamError) as caught:
        router.local(via=child, python_path='derp')
    text = str(caught.value)
    assert text.startswith('error occurred on host ')
    assert 'Child start failed: [Errno 2] No such file or directory' in text


def test_each_hop_says_where_it_was(router):
    contexts = chain(router, 2)
    with pytest.raises(StreamError) as caught:
        router.local(via=contexts[-1], python_path='true')
    assert str(caught.value).count('error occurred on host ') == 1
    assert mitogen.parent.Connection.eof_error_msg.strip() in str(caught.value)


def test_a_failed_process_far_away_is_noticed_at_once(router):
    child = router.local()
    router.local(via=child)
    # By its end, and not by a time that is over.
    with pytest.raises(StreamError) as caught:
        router.local(via=child, python_path='true')
    assert mitogen.parent.Connection.eof_error_msg.strip() in str(caught.value)


def test_an_unknown_option_far_away_is_a_call_error(router):
    child = router.local()
    with pytest.raises(CallError) as caught:
        router.local(via=child, bogus=1)
    assert 'TypeError' in str(caught.value)
    assert router.local(via=child).call(targets.add, 1, 2) == 3


def test_a_failed_start_leaves_the_intermediary_usable(router):
    child = router.local()
    for _ in range(3):
        with pytest.raises(StreamError):
            router.local(via=child, python_path='true')
    assert router.local(via=child).call(targets.add, 1, 2) == 3


# ---- children that become parents

def test_upgrading_a_router_twice_is_harmless(router):
    child = router.local()
    child.call(targets.remember_econtext)
    seen = child.call(targets.upgrade_twice_and_start)
    assert seen['class'] == 'mitogen.parent.Router'
    assert seen['same'] is True
    assert seen['handles'] == [100, 103, 104, 108, 109, 112]
    assert seen['child_pid'] != child.call(os.getpid)


def test_upgrading_by_call_is_harmless(router):
    child = router.local()
    for _ in range(2):
        child.call(mitogen.parent.upgrade_router)
    assert child.call(targets.router_class) == 'mitogen.parent.Router'
    assert child.call(targets.add, 1, 2) == 3


def test_upgrading_loses_no_output(router):
    child = router.local()
    data = os.urandom(8 << 20)
    receivers = [child.call_async(targets.identity, data) for _ in range(3)]
    receivers.append(child.call_async(mitogen.parent.upgrade_router))
    receivers += [child.call_async(targets.identity, data) for _ in range(3)]
    results = [receiver.get(timeout=60).unpickle() for receiver in receivers]
    assert results == [data] * 3 + [None] + [data] * 3


def test_a_child_starts_children_by_itself(router):
    child = router.local()
    context_id = child.call(targets.start_local_child, name=u'inner')
    stream = testlib.wait_for(lambda: router.stream_by_id(context_id))
    assert stream.protocol.remote_id == child.context_id
    context = router.context_by_id(context_id)
    assert context.name == u'inner'
    assert context.call(targets.add, 1, 2) == 3


def test_a_child_that_was_not_upgraded_has_the_core_classes(router):
    child = router.local()
    assert child.call(targets.router_class) == 'mitogen.core.Router'


# ---- an intermediary that is busy

def test_an_intermediary_in_a_call_starts_children_at_once(router):
    child = router.local()
    busy = child.call_async(targets.sleep, 600)
    below = router.local(via=child)
    assert below.call(targets.identity, 5) == 5
    assert busy.empty()


@pytest.mark.parametrize('python', ['python2.7', 'python3.6'])
def test_an_intermediary_of_an_old_python_does_so_too(router, python, monkeypatch):
    # `tools/check_extension.py` puts the package for this Python there; an old one would take it.
    monkeypatch.delenv('PYTHONPATH', raising=False)
    child = router.local(python_path=pythons.find_python(python))
    busy = child.call_async(targets.sleep, 600)
    assert router.local(via=child, python_path=sys.executable).call(targets.identity, 5) == 5
    assert busy.empty()


def test_the_time_to_connect_holds_for_an_intermediary_that_is_stopped(router, monkeypatch):
    monkeypatch.setattr(router, 'via_grace', 0.5)
    child = router.local()
    pid = child.call(os.getpid)
    testlib.stop_process(pid)
    with pytest.raises(mitogen.parent.ConnectError) as caught:
        router.local(via=child, connect_timeout=0.5)
    assert caught.value.args[0] == router.connection_timeout_msg
    assert caught.value.detail == "%r did not answer within 1.00 seconds." % (child,)
    # The child was asked, and nobody wants the grandchild that it starts now.
    os.kill(pid, signal.SIGCONT)
    stream = router.stream_by_id(child.context_id)
    testlib.wait_for(lambda: router.route_monitor.gave(child.context_id, child.context_id + 1))
    testlib.wait_for(lambda: router.route_monitor.get_routes(stream) == {child.context_id})


def test_an_intermediary_that_has_no_such_handle_is_asked_as_upstreams_is(router):
    child = router.local()
    child.call(targets.forget_handle, mitogen.core.CALL_AT_ONCE)
    assert router.local(via=child).call(targets.identity, 5) == 5


def test_a_child_that_was_sent_the_core_knows_which_build_it_is_of(router, monkeypatch):
    monkeypatch.setenv('MITOGEN_SHIP', '1')
    child, _ = chain(router, 2)
    assert child.call(mitogen.parent._version_str) == mitogen.__build__
