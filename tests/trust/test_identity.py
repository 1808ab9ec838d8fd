"""
A context's id means one process, for the life of the tree: a child announces, takes back and speaks
for the ids that it was handed, or contexts below it, and for no others. Each lie is told by a child
and by a grandchild.
"""

import gc
import pickle

import pytest

import mitogen.core
import mitogen.master
import mitogen.parent
from mitogen.core import ChannelError, Context, Latch, Message, Receiver

import targets
import testlib
from hostile_tree import own_tree as tree
from liar import ADD_ROUTE, ALLOCATE_ID, DEL_ROUTE, FORWARD_LOG, Liar
from test_hostile_child import frames_to

__all__ = ['tree']


def reply(value):
    return pickle.dumps(value, 2).decode('latin-1')


def answer_a_connection(liar, function, **fields):
    """
    Have a liar that is asked for a connection answer `fields`, while function() asks.
    """
    liar.start('answer', data=reply(dict({u'id': None, u'name': u'x', u'msg': None, u'detail': u''}, **fields)))
    try:
        return function()
    finally:
        liar.finish()


def block_of(tree, context):
    """
    Return the first id of the block that a child of the liar's parent gets, as it begins to have
    children.
    """
    return context.call(targets.allocate_ids, 1)[0]


# ---- announcing

def test_an_id_of_a_siblings_block_is_not_announced(tree):
    first = block_of(tree, tree.sibling)
    tree.liar.tell(*[dict(dst=tree.parent_id, handle=ADD_ROUTE, data='%d:liar' % i) for i in range(first, first + 20)])
    assert 'liar' in tree.logs.wait('may not add a route to %d' % (first + 1))[0].getMessage()
    # The sibling's own announcements are believed.
    secret = mitogen.core.Secret(u'for the grandchild only')
    grandchild = tree.router.local(via=tree.sibling)
    assert first < grandchild.context_id < first + 20
    assert grandchild.call(targets.identity, secret) == secret
    assert grandchild.call(targets.parent_of_context) == tree.sibling.context_id


def test_an_id_that_nobody_has_yet_is_not_announced(tree):
    upcoming = tree.router.id_allocator.allocate() + 1
    tree.liar.tell(dict(dst=tree.parent_id, handle=ADD_ROUTE, data='%d:liar' % upcoming))
    assert 'liar' in tree.logs.wait('may not add a route to %d' % upcoming)[0].getMessage()
    child = tree.router.local()
    assert child.context_id == upcoming
    tree.liar.close()
    lost = Latch()
    mitogen.core.listen(tree.liar.context, 'disconnect', lost.put)
    if tree.router.stream_by_id(tree.liar.id):
        lost.get(timeout=60)
    assert child.call(targets.identity, 5) == 5


def test_the_id_of_a_lost_sibling_is_not_announced_anew(tree):
    victim, name = tree.sibling.context_id, tree.sibling.name
    tree.sibling.shutdown(wait=True)
    tree.liar.tell(dict(dst=tree.parent_id, handle=ADD_ROUTE, data='%d:liar' % victim))
    tree.logs.wait('may not add a route to %d' % victim)
    assert tree.sibling.name == name
    with pytest.raises(ChannelError):
        tree.sibling.call(targets.identity, 1)
    tree.sibling = tree.router.local()


def test_an_id_is_announced_once(tree):
    mine = tree.liar.take_ids(tree.parent_id)
    announce = dict(dst=tree.parent_id, handle=ADD_ROUTE, data='%d:first' % mine)
    tree.liar.tell(announce, dict(dst=tree.parent_id, handle=DEL_ROUTE, data='%d' % mine),
                   dict(dst=tree.parent_id, handle=ADD_ROUTE, data='%d:second' % mine))
    assert 'liar' in tree.logs.wait('may not add a route to %d' % mine)[0].getMessage()
    tree.liar.tell(dict(dst=tree.parent_id, src=mine, handle=31337))
    tree.logs.wait('bad auth_id: got %d via' % mine)


def test_the_ids_that_a_child_was_handed_are_its_own(tree):
    mine = tree.liar.take_ids(tree.parent_id)
    frames = tree.liar.tell(dict(dst=tree.parent_id, handle=ADD_ROUTE, data='%d:below' % mine),
                            dict(dst=0, src=mine, handle=FORWARD_LOG, data='root\x0050\0from below'))
    assert frames_to(frames, DEL_ROUTE) == []
    (record,) = tree.logs.wait('from below')
    assert record.mitogen_context.context_id == mine
    with pytest.raises(ChannelError):
        # Nobody may have more than it was handed.
        tree.liar.tell(dict(dst=tree.parent_id, handle=ADD_ROUTE, data='%d:beyond' % (mine + 1000)))
        tree.logs.wait('may not add a route to %d' % (mine + 1000))
        tree.router.context_by_id(mine + 1000).call(targets.identity, 1)


def test_a_child_that_takes_its_own_route_back_keeps_it(tree):
    tree.liar.tell(dict(dst=tree.parent_id, handle=DEL_ROUTE, data='%d' % tree.liar.id))
    assert 'liar' in tree.logs.wait('may not remove the route to %d' % tree.liar.id)[0].getMessage()
    assert tree.liar.sync()['alive']


def test_ids_that_a_grandchild_asked_for_are_the_grandchilds(router, tmp_path):
    """
    An intermediary knows which of its children has them: it passed the request on.
    """
    middle = router.local(name=u'middle')
    sibling = router.local(via=middle)
    liar = Liar(router, tmp_path, via=middle)
    first = sibling.call(targets.allocate_ids, 1)[0]
    with testlib.LogCapture('mitogen') as logs:
        # At the master it would be the same way.
        liar.tell(dict(dst=middle.context_id, handle=ADD_ROUTE, data='%d:liar' % (first + 1)),
                  dict(dst=0, handle=ADD_ROUTE, data='%d:liar' % (first + 1)))
        logs.wait('may not add a route to %d' % (first + 1))
    grandchild = router.local(via=sibling)
    assert grandchild.call(targets.parent_of_context) == sibling.context_id
    liar.close()


def test_no_more_routes_are_announced_than_a_peer_may_have(router, tmp_path):
    router.limits.routes = 3
    liar = Liar(router, tmp_path)
    first = liar.take_ids(0)
    with testlib.LogCapture('mitogen') as logs:
        liar.tell(*[dict(dst=0, handle=ADD_ROUTE, data='%d:x' % i) for i in range(first, first + 6)])
        assert 'liar' in logs.wait('has as many as it may have')[0].getMessage()
    assert [router.stream_by_id(i) is not None for i in range(first, first + 6)] == [True] * 2 + [False] * 4
    assert router.stats()['refusals'] == {'routes': 4}
    liar.tell(dict(dst=0, handle=DEL_ROUTE, data='%d' % first),
              dict(dst=0, handle=ADD_ROUTE, data='%d:x' % (first + 5)))
    assert router.stream_by_id(first + 5) is not None
    liar.close()


@pytest.mark.seconds(300)
def test_a_grandchild_leaves_ids_to_its_sibling(router, tmp_path):
    middle = router.local(name=u'middle')
    liar = Liar(router, tmp_path, via=middle)
    with testlib.LogCapture('mitogen', 40) as logs:
        liar.flood(frame=dict(dst=middle.context_id, handle=ALLOCATE_ID, reply_to=5), count=3000)
        assert liar.sync()['alive']
        assert 'liar' in logs.wait('asks for too many ids')[0].getMessage()
    sibling = router.local(via=middle)
    assert sibling.call(targets.allocate_ids, 1)
    liar.close()


def test_a_grandchild_that_asks_past_its_parent_takes_no_ids(router, tmp_path):
    middle = router.local(name=u'middle')
    liar = Liar(router, tmp_path, via=middle)
    liar.flood(frame=dict(dst=0, handle=ALLOCATE_ID, reply_to=5), count=3000)
    assert liar.sync()['alive']
    sibling = router.local(via=middle)
    assert sibling.call(targets.allocate_ids, 1)
    liar.close()


def test_a_chain_of_contexts_has_ids_of_its_own_at_each_level(router):
    chain = [router.local()]
    for _ in range(3):
        chain.append(router.local(via=chain[-1]))
    ids = [context.context_id for context in chain]
    assert len(set(ids)) == 4
    assert [context.call(targets.context_id) for context in chain] == ids
    other = router.local(via=chain[1])
    assert other.call(targets.context_id) == other.context_id
    assert other.context_id not in ids


def test_no_context_has_the_id_that_means_nobody(router):
    allocator = router.id_allocator
    allocator._unused = mitogen.core.NOBODY - 1
    assert allocator.allocate() == mitogen.core.NOBODY - 1
    with pytest.raises(mitogen.core.Error):
        allocator.allocate()


# ---- what a connection is answered with

def test_a_context_asked_for_a_child_does_not_name_anothers(tree):
    for context_id in (tree.sibling.context_id, tree.parent_id, 0, tree.liar.id, 2 ** 32, -1, u'x', None):
        with pytest.raises(mitogen.core.StreamError):
            answer_a_connection(tree.liar, lambda: tree.router.local(via=tree.liar.context), id=context_id)
    assert tree.sibling.name and 'liar' not in tree.sibling.name
    assert getattr(tree.sibling, 'via', None) is tree.middle


def test_a_context_asked_for_a_child_answers_nonsense(tree):
    endless = ()
    for _ in range(60):
        endless = (endless, endless)
    for answer in (u'x', 5, [], {}, None, {u'msg': 5}, {u'msg': endless, u'kind': endless, u'detail': endless},
                   {u'id': endless, u'name': u'x'}, {u'id': 10 ** 5000, u'name': u'x'}):
        tree.liar.start('answer', data=reply(answer))
        with pytest.raises(mitogen.core.StreamError):
            tree.router.local(via=tree.liar.context)
        tree.liar.finish()


def test_a_context_asked_for_a_child_that_answers_late_names_none_but_its_own(tree, monkeypatch):
    """
    A child that was started too late is ended. The sibling was not.
    """
    monkeypatch.setattr(mitogen.parent.Router, 'via_grace', 0.0)
    own = tree.liar.take_ids(tree.parent_id)
    tree.liar.tell(dict(dst=tree.parent_id, handle=ADD_ROUTE, data='%d:child' % own))
    ended = []
    monkeypatch.setattr(mitogen.parent.Context, 'shutdown', lambda self, wait=False: ended.append(self.context_id))
    for context_id in tree.sibling.context_id, tree.parent_id, own:
        with pytest.raises(mitogen.parent.ConnectError):
            tree.router.local(via=tree.liar.context, connect_timeout=0.01)
        tree.liar.answer(data=reply({u'id': context_id, u'name': u'x', u'msg': None, u'detail': u''}))
        tree.settle()
    assert ended == [own]


def test_a_context_asked_for_a_child_may_name_its_own(tree):
    mine = tree.liar.take_ids(tree.parent_id)
    tree.liar.tell(dict(dst=tree.parent_id, handle=ADD_ROUTE, data='%d:child' % mine))
    context = answer_a_connection(
        tree.liar, lambda: tree.router.local(via=tree.liar.context), id=mine, name=u'a\nb' + u'x' * 5000)
    assert (context.context_id, context.via) == (mine, tree.liar.context)
    assert '\n' not in context.name and len(context.name) < 600


@pytest.fixture
def family(router, tmp_path):
    """
    A liar and its sibling, children of the master.
    """
    liar = Liar(router, tmp_path)
    yield liar, router.local(name=u'sibling')
    liar.close()


def test_a_context_that_is_reached_by_way_of_a_parent_may_name_an_id_that_is_new_here(family):
    """
    Only the parent knows which ids the liar was handed. It does not let the liar speak for others
    by that.
    """
    liar, sibling = family
    assert answer_a_connection(
        liar, lambda: sibling.call(targets.connect_via, liar.id), id=77777) == (77777, liar.id)
    with pytest.raises(mitogen.core.CallError):
        answer_a_connection(liar, lambda: sibling.call(targets.connect_via, liar.id), id=sibling.context_id)
    with testlib.LogCapture('mitogen') as logs:
        liar.tell(dict(src=77777, dst=sibling.context_id, handle=31337, reply_to=5))
        logs.wait('bad auth_id: got 77777 via')


# ---- losses

def test_a_route_that_has_another_way_by_now_outlives_the_old_one(router):
    first, second = testlib.Peer(router, 101, child=True), testlib.Peer(router, 102, child=True)
    first.grant(500, 600)
    first.send(handle=ADD_ROUTE, data=b'555:below')
    testlib.wait_for(lambda: router.stream_by_id(555) is first.stream)
    # A program may do this.
    router.add_route(555, second.stream)
    first.close()
    testlib.wait_for(lambda: router.stream_by_id(101) is None)
    testlib.sync(router.broker)
    assert router.stream_by_id(555) is second.stream
    second.close()


def test_who_waits_for_an_id_that_had_no_route_yet_is_told_of_its_loss(router):
    upcoming = router.id_allocator.allocate() + 1
    early = router.context_by_id(upcoming)
    with pytest.raises(ChannelError):
        early.call(targets.identity, 1)
    waiting = Receiver(router, respondent=early)
    child = router.local()
    assert child.context_id == upcoming
    call = child.call_async(targets.sleep, 60)
    child.shutdown()
    for receiver in call, waiting:
        with pytest.raises(ChannelError) as caught:
            receiver.get(timeout=60)
        assert caught.value.args[0] == router.respondent_disconnect_msg


# ---- contexts that are only mentioned

def mention(router, count, first=10 ** 6):
    msg = Message.pickled([Context(None, first + i, u'x') for i in range(count)])
    msg.router = router
    return msg


def test_contexts_that_a_message_mentions_are_not_kept(router):
    before = len(router._context_by_id)
    for i in range(20):
        mention(router, 1000, first=10 ** 6 * (i + 1)).unpickle()
        # Objects in circles wait for the collector, which looks now and then by itself.
        gc.collect()
    assert len(router._context_by_id) == before
    assert len(router._mentioned._refs) < 10000


def test_a_request_that_names_contexts_leaves_none(tree):
    before = len(tree.router._context_by_id)
    msg = mention(tree.router, 1000)
    data = msg.data.decode('latin-1')
    for handle in (112, 110):
        tree.liar.tell(dict(dst=0, handle=handle, data=data, magic=0x4d4a, reply_to=5))
    tree.settle()
    assert len(tree.router._context_by_id) <= before + 2


def test_a_context_that_is_mentioned_twice_is_one_object(router):
    first, second = [mention(router, 1).unpickle()[0] for _ in range(2)]
    assert first is not None and second is not None
    kept = mention(router, 1).unpickle()[0]
    assert mention(router, 1).unpickle()[0] is kept
    assert router.context_by_id(kept.context_id) is kept
    assert mention(router, 1).unpickle()[0] is kept


def test_a_context_that_was_mentioned_and_is_listened_to_tells_its_loss(router):
    with testlib.Peer(router, 101, child=True) as peer:
        peer.grant(555, 556)
        lost = Latch()
        mitogen.core.listen(mention(router, 1, first=555).unpickle()[0], 'disconnect', lambda: lost.put(5))
        peer.send(handle=ADD_ROUTE, data=b'555:below')
        testlib.wait_for(lambda: router.stream_by_id(555) is peer.stream)
        assert router.context_by_id(555).name == u'below'
        peer.send(handle=DEL_ROUTE, data=b'555')
        assert lost.get(timeout=60) == 5


def test_a_name_that_a_message_gives_is_not_believed_of_a_context_that_comes(router):
    with testlib.Peer(router, 101, child=True) as peer:
        peer.grant(555, 556)
        kept = mention(router, 1, first=555).unpickle()[0]
        assert kept.name == u'x'
        peer.send(handle=ADD_ROUTE, data=b'555:below')
        testlib.wait_for(lambda: router.stream_by_id(555) is peer.stream)
        assert router.context_by_id(555).name == u'below'
