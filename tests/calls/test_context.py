"""
Contexts as a program holds them: alive, shut down, lost, kept in containers.
"""

import pickle

import pytest

import mitogen.core
import mitogen.parent
from mitogen.core import ChannelError, Context, Latch, Message

import targets


def test_a_plain_pickle_has_no_router(router):
    child = router.local(name=u'bob')
    back = pickle.loads(pickle.dumps(child))
    assert (back.router, back.context_id, back.name) == (None, child.context_id, u'bob')


def test_unpickle_functions_of_the_module(router):
    context = mitogen.core._unpickle_context(5, u'name')
    assert (context.router, context.context_id, context.name) == (None, 5, u'name')
    assert mitogen.core._unpickle_context(5, u'name', router=router) is router.context_by_id(5)
    sender = mitogen.core._unpickle_sender(router, 5, 1000)
    assert (sender.context.context_id, sender.dst_handle) == (5, 1000)


@pytest.mark.parametrize('context_id,name', [(-1, None), (u'1', None), (1, 5), (1, b'bytes'), (1, u'x' * 501), (None, None)])
def test_unpickle_context_checks_its_arguments(context_id, name):
    with pytest.raises(TypeError):
        mitogen.core._unpickle_context(context_id, name)


def test_contexts_can_be_keys(router):
    child = router.local()
    table = {child: 'value'}
    assert table[router.context_by_id(child.context_id)] == 'value'
    assert table[mitogen.parent.Context(router, child.context_id)] == 'value'


def test_a_context_can_be_passed_to_another_child(router):
    first, second = router.local(), router.local()
    # Not the same object: the context that the second router names cannot be
    # called by ours.
    assert second.call(targets.identity, first) == first
    assert second.call(targets.context_facts, first) == (first.context_id, first.name)
    assert first.call(targets.identity, first) is first


def test_a_context_in_a_child_leads_back(router):
    child = router.local()
    assert child.call(targets.context_facts, router.myself()) == (mitogen.context_id, u'master')


def test_the_masters_own_context_has_its_name_in_a_child(router):
    assert router.local().call(targets.master_context) == (0, u'master')


def test_disconnect_may_be_listened_to_twice(router):
    child = router.local()
    latch = Latch()
    for _ in range(2):
        mitogen.core.listen(child, 'disconnect', latch.put)
    child.shutdown(wait=True)
    latch.get(timeout=60)
    latch.get(timeout=60)


def test_a_context_that_was_lost_says_so(router):
    child = router.local()
    child.shutdown(wait=True)
    for _ in range(3):
        with pytest.raises(ChannelError):
            child.call(targets.add, 1, 2)


def test_a_message_to_a_lost_context_without_reply_is_dropped(router):
    child = router.local()
    child.shutdown(wait=True)
    child.send(Message(handle=123))
    child.call_no_reply(targets.add, 1, 2)
    assert router.local().call(targets.add, 1, 2) == 3


def test_calling_a_service_of_a_context_that_has_none(router):
    with pytest.raises(ChannelError) as caught:
        router.myself().call_service(u'no.such.Service', u'method')
    assert caught.value.args[0] == router.invalid_handle_msg


def test_a_core_context_has_no_call():
    assert not hasattr(Context(None, 1), 'call')
    assert hasattr(mitogen.parent.Context(None, 1), 'call')


def test_repr_of_a_child(router):
    child = router.local(name=u'bob')
    assert repr(child) == "Context(1, 'bob')"
