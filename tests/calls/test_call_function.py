"""
Calling functions in a child: arguments, results, errors, refusals.
"""

import functools
import os
import sys

import pytest

import mitogen.core
import mitogen.parent
from mitogen.core import CallError, ChannelError, Latch, Message, Receiver

import named_targets
import targets
import testlib


@pytest.fixture
def child(router):
    return router.local()


# ---- what can be called

def test_a_function_of_the_standard_library(shared_child):
    assert shared_child.call(os.getpid) != os.getpid()


def test_arguments_and_keywords(shared_child):
    assert shared_child.call(targets.identity, 1, u'two', b'three') == (1, u'two', b'three')
    assert shared_child.call(targets.keywords, a=1, b=u'two') == {'a': 1, 'b': u'two'}


def test_a_class_method(shared_child):
    assert shared_child.call(targets.Holder.class_method, 5) == (u'Holder', 5)


def test_a_lambda_is_refused(shared_child):
    with pytest.raises(TypeError) as caught:
        shared_child.call(lambda: None)
    assert caught.value.args[0] == mitogen.parent.CallChain.lambda_msg


def test_a_closure_is_refused_before_a_lambda(shared_child):
    value = 1

    def closure():
        return value

    for function in (closure, lambda: value):
        with pytest.raises(TypeError) as caught:
            shared_child.call(function)
        assert caught.value.args[0] == mitogen.parent.CallChain.closures_msg


def test_a_bound_method_is_refused(shared_child):
    with pytest.raises(TypeError) as caught:
        shared_child.call(targets.Holder().method)
    assert caught.value.args[0] == mitogen.parent.CallChain.method_msg


def test_a_refused_function_sends_nothing(router, child):
    before = len(router._handle_map)
    with pytest.raises(TypeError):
        child.call_async(lambda: None)
    assert len(router._handle_map) == before


def test_an_argument_that_cannot_be_pickled_raises_here_and_leaves_nothing(router, child):
    child.call(targets.identity, 1)
    before = len(router._handle_map)
    with pytest.raises(Exception):
        child.call(targets.identity, lambda: None)
    assert len(router._handle_map) == before
    assert child.call(targets.identity, 1) == 1


def test_a_static_method_is_called_and_not_the_function_of_its_name(shared_child):
    assert shared_child.call(named_targets.Holder.identity, 1) == (u'Holder.identity', 1)


def test_a_method_of_a_class_inside_of_a_class_is_called(shared_child):
    assert shared_child.call(named_targets.Holder.Inner.class_method, 1) == (u'Holder.Inner', 1)
    assert shared_child.call(named_targets.Holder.Inner.identity, 1) == (u'Holder.Inner.identity', 1)
    assert shared_child.call(named_targets.Inner.class_method, 1) == (u'Inner', 1)


def test_a_wrapped_function_is_called_as_its_wrapper(shared_child):
    assert shared_child.call(named_targets.wrapped, 1) == (u'wrapped', 1)
    assert shared_child.call(named_targets.counted, 1) == (u'counted', 1)


def test_a_closure_that_its_name_leads_to_is_called(shared_child):
    assert shared_child.call(named_targets.decorated, 1) == (u'logged', 1)
    assert shared_child.call(named_targets.Decorated.both, 1) == (u'logged', 1)
    with pytest.raises(TypeError) as caught:
        shared_child.call(named_targets.replaced, 1)
    assert caught.value.args[0] == mitogen.parent.CallChain.closures_msg


def test_a_function_that_was_renamed_is_called_by_its_name_of_now(shared_child):
    assert shared_child.call(named_targets.known_as, 1) == (u'renamed', 1)


def test_a_partial_is_called_as_its_function_with_all_arguments(shared_child):
    inner = functools.partial(targets.all_of, 1, b=2)
    inner.note = 'so that it stays a partial within the other'
    outer = functools.partial(inner, 3, c=4)
    assert shared_child.call(outer, 5, b=6) == (1, 3, 5, 6, 4)
    assert shared_child.call_async(outer).get().unpickle() == (1, 3, 2, 4)
    assert shared_child.call(functools.partial(named_targets.Inner.class_method, 1)) == (u'Inner', 1)


def test_an_argument_within_a_partial_is_looked_at_as_the_others_are(shared_child):
    with pytest.raises(mitogen.core.CallError, match='argument 2 of targets.all_of'):
        shared_child.call(functools.partial(targets.all_of, 1, slice(1)))
    recv = mitogen.core.Receiver(shared_child.router)
    assert shared_child.call(functools.partial(targets.identity, recv.to_sender())).dst_handle == recv.handle


def test_a_function_of_before_a_reload_is_called(child):
    old = named_targets.not_wrapped
    namespace = {'__name__': 'named_targets', '__file__': named_targets.__file__}
    with open(named_targets.__file__) as stream:
        exec(compile(stream.read(), named_targets.__file__, 'exec'), namespace)
    named_targets.not_wrapped = namespace['not_wrapped']
    try:
        assert named_targets.not_wrapped is not old
        assert child.call(old, 1) == (u'not wrapped', 1)
    finally:
        named_targets.not_wrapped = old


@pytest.mark.parametrize('function, words', [
    (named_targets.make_identity(), 'make_identity.<locals>.identity cannot be called'),
    (named_targets.wrapped_alone, 'This named_targets.wrapped cannot be called'),
    (named_targets.other_wrapper, 'This named_targets.not_wrapped cannot be called'),
    (named_targets.counted.func, 'This named_targets.counted cannot be called'),
    (functools.partial(named_targets.make_identity()), 'make_identity.<locals>.identity cannot be called'),
    (dict.update, 'has no name, or no module'),
], ids=['nested', 'unwrapped', 'other wrapper', 'unwrapped from an object', 'partial of a nested one', 'method of a builtin'])
def test_a_function_that_another_one_would_run_for_is_refused(router, child, function, words):
    child.call(named_targets.identity, 1)
    before = len(router._handle_map)
    with pytest.raises(TypeError) as caught:
        child.call(function, 1)
    assert words in str(caught.value)
    assert len(router._handle_map) == before


# ---- extras given by the child

def test_a_function_may_ask_for_the_econtext(shared_child):
    assert shared_child.call(targets.econtext_class) == u'ExternalContext'
    assert shared_child.call(targets.Holder.class_method_with_econtext) == u'ExternalContext'


def test_a_function_may_ask_for_the_router(shared_child):
    assert shared_child.call(targets.router_is_econtexts) is True
    assert shared_child.call(targets.router_class).endswith(u'Router')


def test_a_keyword_of_the_caller_wins(shared_child):
    assert shared_child.call(targets.given_econtext, econtext=5) == 5
    assert shared_child.call(targets.given_econtext) == u'ours'


# ---- errors

def test_an_exception_becomes_a_call_error(shared_child):
    with pytest.raises(CallError) as caught:
        shared_child.call(targets.fail, u'the text')
    text = str(caught.value)
    assert text.startswith('builtins.ValueError: the text\n')
    assert 'targets.py' in text
    assert 'in fail' in text


def test_a_returned_call_error_is_raised(shared_child):
    with pytest.raises(CallError) as caught:
        shared_child.call(targets.return_call_error)
    assert caught.value.args[0] == 'returned, not raised'


def test_a_module_that_is_nowhere(shared_child):
    module = type(sys)('no_such_module_anywhere')
    exec('def function(): pass', module.__dict__)
    module.function.__module__ = module.__name__
    with pytest.raises(CallError) as caught:
        shared_child.call(module.function)
    assert 'no_such_module_anywhere' in str(caught.value)
    assert shared_child.call(targets.identity, 1) == 1


@pytest.mark.parametrize('payload', [
    None, 5, u'text', (), (None,), (None, u'os', None, u'getpid', ()), (None, u'os', None, u'no_such_thing', (), {}),
    (None, u'os', u'NoSuchClass', u'x', (), {}), (None, 5, None, u'x', (), {}), (None, u'os', None, u'getpid', 5, {}),
    (None, u'', None, u'x', (), {}), (None, u'os', None, u'name', (), {}),
], ids=repr)
def test_a_malformed_call_gives_a_call_error(shared_child, payload):
    receiver = shared_child.send_async(Message.pickled(payload, handle=mitogen.core.CALL_FUNCTION))
    with pytest.raises(CallError):
        receiver.get(timeout=60).unpickle()
    assert shared_child.call(targets.identity, 1) == 1


@pytest.mark.parametrize('data', [b'', b'rubbish', b'\x80\x02', b'\xff' * 100])
def test_a_call_that_cannot_be_unpickled_gives_a_call_error(shared_child, data):
    receiver = shared_child.send_async(Message(data=data, handle=mitogen.core.CALL_FUNCTION))
    with pytest.raises(CallError):
        receiver.get(timeout=60).unpickle()
    assert shared_child.call(targets.identity, 1) == 1


def test_an_exception_whose_text_cannot_be_made_is_still_reported(shared_child):
    with pytest.raises(CallError):
        shared_child.call(targets.raise_unprintable)
    assert shared_child.call(targets.identity, 1) == 1


def test_a_keyboard_interrupt_ends_the_child_quietly(router, child):
    with testlib.LogCapture('') as logs:
        with pytest.raises(ChannelError) as caught:
            child.call(targets.keyboard_interrupt)
    assert caught.value.args[0] == router.respondent_disconnect_msg
    assert not [r for r in logs.records if r.levelname == 'ERROR']


def test_a_dead_message_to_the_call_handle_ends_the_child(router, child):
    lost = Latch()
    mitogen.core.listen(child, 'disconnect', lost.put)
    child.send(Message.dead(handle=mitogen.core.CALL_FUNCTION))
    lost.get(timeout=60)


# ---- ways of calling

def test_call_async_returns_a_receiver(shared_child):
    receiver = shared_child.call_async(targets.add, 1, 2)
    assert isinstance(receiver, Receiver)
    assert receiver.get(timeout=60).unpickle() == 3


def test_call_no_reply_runs_the_function_and_returns_none(child):
    assert child.call_no_reply(targets.note, 5) is None
    assert child.call(targets.notes) == [5]


def test_a_failed_call_without_reply_is_logged(shared_child):
    with testlib.LogCapture('') as logs:
        shared_child.call_no_reply(targets.fail, u'nobody listens')
        shared_child.call(targets.identity, 1)
        assert [r for r in logs.wait('nobody listens') if r.levelname == 'ERROR']


def test_calls_run_one_after_the_other_in_their_order(child):
    receivers = [child.call_async(targets.note, i) for i in range(200)]
    for i, receiver in enumerate(receivers):
        assert receiver.get(timeout=60).unpickle() == list(range(i + 1))


def test_threads_may_call_at_the_same_time(shared_child):
    def many(start):
        return lambda: [shared_child.call(targets.identity, start + i) for i in range(50)]

    results = testlib.in_threads([many(n * 50) for n in range(4)])
    assert results == [list(range(n * 50, n * 50 + 50)) for n in range(4)]


def test_children_work_at_the_same_time(router):
    children = [router.local() for _ in range(4)]
    receivers = [child.call_async(targets.identity, i) for i, child in enumerate(children)]
    assert [receiver.get(timeout=60).unpickle() for receiver in receivers] == [0, 1, 2, 3]


def test_many_calls(shared_child):
    for i in range(2000):
        assert shared_child.call(targets.identity, i) == i


@pytest.mark.parametrize('size', [0, 1, 100, 16383, 16384, 65536, 131071, 131072, 131073, 1 << 20, 10 << 20])
def test_sizes_of_arguments_and_results(shared_child, size):
    data = (os.urandom(1024) * (size // 1024 + 1))[:size]
    assert shared_child.call(targets.identity, data) == data


def test_a_large_result_while_a_large_argument_is_on_its_way(shared_child):
    data = os.urandom(8 << 20)
    receivers = [shared_child.call_async(targets.identity, data) for _ in range(4)]
    for receiver in receivers:
        assert receiver.get(timeout=60).unpickle() == data


def test_a_call_of_somebody_without_authority_is_refused(router, child):
    receiver = Receiver(router)
    router.route(Message.pickled(
        (None, u'os', None, u'getpid', (), mitogen.core.Kwargs({})), dst_id=child.context_id,
        handle=mitogen.core.CALL_FUNCTION, reply_to=receiver.handle, src_id=0, auth_id=child.context_id + 500))
    with pytest.raises(ChannelError) as caught:
        receiver.get(timeout=60)
    assert caught.value.args[0] == router.refused_msg
    receiver.close()


def test_the_receiver_of_a_finished_call_can_be_closed(shared_child):
    receiver = shared_child.call_async(targets.identity, 1)
    receiver.close()
    assert shared_child.call(targets.identity, 2) == 2


def test_a_call_with_a_blob_a_secret_and_a_sender(router, child):
    assert child.call(targets.identity, mitogen.core.Blob(b'x')) == b'x'
    assert child.call(targets.identity, mitogen.core.Secret(u'x')) == u'x'
    with Receiver(router) as receiver:
        sender = child.call(targets.identity, receiver.to_sender())
        sender.send(u'still leads here')
        assert receiver.get(timeout=60).unpickle() == u'still leads here'
