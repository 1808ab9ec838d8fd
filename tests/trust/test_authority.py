"""
A Sender or Context keeps the authority of the context that made it. A recipient that uses it orders
nothing that its maker could not have ordered. A Context belongs to one router.
"""

import pickle

import pytest

import mitogen.core
import mitogen.master
from mitogen.core import ChannelError, Context, Message, Receiver, Sender

import targets
import testlib
from hostile_tree import family, tree
from liar import ADD_ROUTE, CALL_FUNCTION, DEL_ROUTE

__all__ = ['family', 'tree']


def given(tree, value):
    """
    Return what the liar's answer to a call is here, if it is `value`.
    """
    tree.liar.start('answer', data=pickle.dumps(value, 2).decode('latin-1'))
    try:
        return tree.liar.context.call(targets.identity, 1)
    finally:
        tree.liar.finish()


def call_of(function, *args):
    """
    Return what a CALL_FUNCTION carries.
    """
    return None, u'targets', None, function, args, mitogen.core.Kwargs({})


def notes_of(tree):
    return [targets.notes()] + [context.call(targets.notes) for context in (tree.middle, tree.sibling) if context]


# ---- a child makes something up

def test_a_sender_that_a_child_made_up_gives_no_orders(tree):
    for victim in (tree.sibling, tree.middle):
        if victim:
            sender = given(tree, Sender(Context(None, victim.context_id), CALL_FUNCTION))
            sender.send(call_of(u'note', 1))
            sender.close()
    assert notes_of(tree) == [[]] * len(notes_of(tree))
    sender = given(tree, Sender(Context(None, tree.sibling.context_id), 106))
    sender.send(b'', enc=Message.ENC_BIN)
    assert tree.sibling.call(targets.identity, 1) == 1


def test_a_sender_that_a_child_made_up_gives_this_process_no_orders(tree):
    taken = []
    handle = tree.router.add_handler(taken.append, policy=mitogen.core.has_parent_authority)
    given(tree, Sender(Context(None, 0), handle)).send(5)
    testlib.sync(tree.router.broker)
    assert taken == []
    Sender(tree.router.myself(), handle).send(5)
    testlib.wait_for(lambda: len(taken) == 1)


def test_a_context_that_a_child_made_up_is_not_obeyed(tree):
    context = given(tree, Context(None, tree.sibling.context_id, u'me'))
    assert context == tree.sibling and context is not tree.sibling
    for use in (lambda: context.call(targets.note, 1), lambda: context.call_async(targets.note, 1).get().unpickle(),
                lambda: context.call_service(u'targets.Noted', u'note'), lambda: tree.router.local(via=context),
                lambda: context.shutdown(wait=True)):
        with pytest.raises(ChannelError) as caught:
            use()
        assert tree.router.refused_msg in str(caught.value)
    assert tree.sibling.call(targets.notes) == []
    assert tree.sibling.name == u'sibling' or tree.sibling.name.endswith(u'.sibling')


def test_what_was_made_up_does_not_become_ours_on_its_way(tree):
    """
    A child makes up a Sender for a grandchild; the master passes it on, and the grandchild's own
    parent uses it.
    """
    grandchild = tree.router.local(via=tree.sibling)
    sender = given(tree, Sender(Context(None, grandchild.context_id), CALL_FUNCTION))
    tree.sibling.call(targets.send_to, sender, call_of(u'note', 1))
    context = given(tree, Context(None, grandchild.context_id, u'me'))
    with pytest.raises(mitogen.core.Error) as caught:
        tree.sibling.call(targets.call_note, context)
    assert tree.router.refused_msg in str(caught.value)
    assert grandchild.call(targets.notes) == []


def test_a_sender_that_a_child_made_up_does_not_take_a_route(tree):
    """
    A sibling that uses one speaks to its neighbours, but not as a neighbour.
    """
    grandchild = tree.router.local(via=tree.sibling)
    for handle in (ADD_ROUTE, DEL_ROUTE):
        sender = given(tree, Sender(Context(None, tree.parent_id), handle))
        tree.sibling.call(targets.send_bytes_to, sender, b'%d' % grandchild.context_id)
    assert grandchild.call(targets.identity, 5) == 5


def test_a_client_lends_its_authority_to_no_sender(router):
    """
    A stream is stamped with its context's authority: a message that the context passes on for
    another one is not.
    """
    first, second = router.local(), router.local()
    third = router.local(via=first)
    protocol = router.stream_by_id(first.context_id).protocol

    def stamp():
        protocol.auth_id = mitogen.context_id
        protocol.is_privileged = True

    router.broker.defer_sync(stamp)
    assert tuple(first.call(targets.call_context, second.context_id, 'notes')) == ('ok', [])
    sender = Sender(Context(router, second.context_id), CALL_FUNCTION)
    sender.context.auth_id = third.context_id
    first.call(targets.send_to, sender, call_of(u'note', 1))
    assert second.call(targets.notes) == []


# ---- what goes on working

def test_a_child_gives_a_sender_of_its_own_and_gets_data(router):
    child = router.local()
    grandchild = router.local(via=child)
    for context in child, grandchild:
        sender = context.call(targets.make_receiver)
        sender.send(u'data')
        sender.send(b'bytes', enc=Message.ENC_BIN)
        assert context.call(targets.take_two) == [u'data', b'bytes']


def test_a_sender_goes_from_one_child_to_another(router):
    first, second = router.local(), router.local()
    below = router.local(via=second)
    for context in second, below:
        sender = first.call(targets.make_receiver)
        context.call(targets.send_to, sender, u'data')
        context.call(targets.send_to, sender, u'more')
        assert first.call(targets.take_two) == [u'data', u'more']


def test_a_sender_of_the_masters_goes_through_children(router):
    first, second = router.local(), router.local()
    with Receiver(router) as receiver:
        sender = first.call(targets.identity, receiver.to_sender())
        second.call(targets.send_to, sender, 1)
        assert receiver.get(timeout=60).unpickle() == 1
        sender.send(2)
        assert receiver.get(timeout=60).unpickle() == 2


def test_a_third_ones_sender_carries_data(router):
    """
    Data arrives whichever context has named the Sender: a handle without a policy takes it from
    everybody.
    """
    left, right = router.local(), router.local()
    first, second = router.local(via=left), router.local(via=right)
    sender = first.call(targets.make_receiver)
    echoed = second.call(targets.identity, sender)
    assert echoed.context.auth_id == second.context_id
    echoed.send(u'data')
    third = router.local(via=left)
    third.call(targets.send_to, echoed, u'more')
    assert first.call(targets.take_two) == [u'data', u'more']


def test_a_child_gives_its_own_child_to_the_master(router):
    child = router.local()
    grandchild = child.call(targets.make_child)
    assert grandchild.call(targets.parent_of_context) == child.context_id
    assert grandchild is router.context_by_id(grandchild.context_id)
    below = grandchild.call(targets.make_child)
    assert below.call(targets.parent_of_context) == grandchild.context_id
    assert router.local(via=below).call(targets.parent_of_context) == below.context_id
    lost = mitogen.core.Latch()
    mitogen.core.listen(below, 'disconnect', lambda: lost.put(1))
    below.shutdown()
    assert lost.get(timeout=60) == 1


def test_a_context_that_comes_from_itself_is_the_one_we_have(router):
    child = router.local()
    assert child.call(targets.identity, child) is child
    assert child.auth_id is None


def test_a_number_out_of_a_message_is_used_with_the_authority_of_the_program(tree):
    taken = []
    number = given(tree, tree.router.add_handler(taken.append, policy=mitogen.core.has_parent_authority))
    tree.router.myself().send(Message.pickled(5, handle=number))
    testlib.wait_for(lambda: [msg.unpickle() for msg in taken] == [5])


# ---- a Context of another router

@pytest.fixture
def other(make_router):
    return make_router()


def test_a_context_of_another_router_is_not_sent(router, other):
    child, foreign = router.local(name=u'mine'), other.local(name=u'foreign')
    for use in (lambda: child.call(targets.identity, foreign), lambda: child.call_async(targets.identity, [{1: foreign}]),
                lambda: child.call_no_reply(targets.identity, x=foreign),
                lambda: child.call(targets.identity, Sender(foreign, 1000)),
                lambda: child.call_service(u'targets.Noted', u'note', x=foreign),
                lambda: Sender(child, 1000).send((foreign,)),
                lambda: child.default_call_chain.call(targets.identity, mitogen.core.Kwargs({u'a': foreign}))):
        with pytest.raises(mitogen.core.Error) as caught:
            use()
        assert repr(foreign) in str(caught.value) and repr(router) in str(caught.value)
    assert child.call(targets.identity, child) is child
    assert foreign.call(targets.identity, foreign) is foreign


def test_a_context_of_another_router_in_a_result_is_the_one_of_that_number_here(router):
    """
    Results are not looked at: the function's own program has made that mistake.
    """
    child = router.local()
    found = child.call(targets.context_of_another_router, child.context_id)
    assert found is child


def test_a_context_of_another_router_starts_no_child(router, other):
    foreign = other.local()
    with pytest.raises(mitogen.core.Error) as caught:
        router.local(via=foreign)
    assert repr(foreign) in str(caught.value) and repr(router) in str(caught.value)


def test_a_context_of_another_router_does_not_answer(router, other):
    foreign = other.local()
    with pytest.raises(mitogen.core.Error) as caught:
        Receiver(router, respondent=foreign)
    assert repr(foreign) in str(caught.value) and repr(router) in str(caught.value)
