"""
RouteMonitor: routes that are announced and lost.
"""

import logging
from unittest import mock

import pytest

import mitogen
import mitogen.core
import mitogen.limits
import mitogen.parent

import testlib


class FakeRouter(object):
    """
    The tables of a router, and nothing else.
    """
    limits = mitogen.limits.Limits()
    _is_client = False

    def __init__(self):
        self.handlers = {}
        self.routes = {}
        self.contexts = self._context_by_id = {}

    def _note_loss(self, context, how):
        pass

    def _lose(self, context_id):
        pass

    def _tell_lost(self, context):
        context.on_disconnect()

    def add_handler(self, fn, handle, persist=True, policy=None, respondent=None, overwrite=False):
        self.handlers[handle] = fn, policy

    def stream_by_id(self, target_id):
        return self.routes.get(target_id) or self.routes.get(mitogen.parent_id)

    def context_by_id(self, target_id, create=True, **kwargs):
        if create:
            self.contexts.setdefault(target_id, mitogen.core.Context(None, target_id))
        return self.contexts.get(target_id)

    def add_route(self, target_id, stream):
        self.routes[target_id] = stream

    def del_route(self, target_id):
        self.routes.pop(target_id, None)

    def get_streams(self):
        return sorted(set(self.routes.values()), key=id)


class FakeStream(object):
    def __init__(self, router, remote_id):
        self.name = u'stream%d' % (remote_id,)
        self.sent = []
        self.protocol = mock.Mock(remote_id=remote_id, egress_ids=set())
        self.protocol.send = lambda msg: self.sent.append((msg.handle, msg.dst_id, msg.data))
        router.routes[remote_id] = self

    def take(self):
        sent, self.sent = self.sent, []
        return sent


ADD, DEL = mitogen.core.ADD_ROUTE, mitogen.core.DEL_ROUTE


@pytest.fixture
def tree(monkeypatch):
    """
    Context 5, whose parent is 0, with the children 10 and 11.
    """
    monkeypatch.setattr(mitogen, 'context_id', 5)
    monkeypatch.setattr(mitogen, 'parent_id', 0)
    monkeypatch.setattr(mitogen, 'parent_ids', [0])

    class Tree(object):
        pass

    tree = Tree()
    tree.router = FakeRouter()
    tree.parent = FakeStream(tree.router, 0)
    tree.monitor = mitogen.parent.RouteMonitor(tree.router, mitogen.core.Context(None, 0))
    tree.ten = FakeStream(tree.router, 10)
    tree.eleven = FakeStream(tree.router, 11)
    tree.monitor.notice_stream(tree.ten)
    tree.monitor.notice_stream(tree.eleven)
    tree.monitor.grant(tree.ten, 20, 30, mitogen.core.Message(src_id=10))

    def receive(handle, src_id, data):
        func, policy = tree.router.handlers[handle]
        msg = mitogen.core.Message(handle=handle, src_id=src_id, auth_id=src_id, data=data)
        assert policy(msg, tree.router.routes[src_id])
        with testlib.LogCapture('mitogen.route_monitor') as log:
            func(msg)
        return [r for r in log.records if r.levelno == logging.ERROR]

    tree.receive = receive
    return tree


def disconnects(tree, target_id):
    fired = []
    mitogen.core.listen(tree.router.context_by_id(target_id), 'disconnect', lambda: fired.append(target_id))
    return fired


def test_new_children_are_announced_upwards(tree):
    assert tree.parent.take() == [(ADD, 0, b'10:stream10'), (ADD, 0, b'11:stream11')]
    assert tree.monitor.get_routes(tree.ten) == set([10])
    assert tree.monitor.get_routes(tree.parent) == set()


def test_a_childs_route_is_recorded_and_passed_on(tree):
    tree.parent.take()
    assert tree.receive(ADD, 10, u'20:n\xe4me'.encode('utf-8')) == []
    assert tree.router.routes[20] is tree.ten
    assert tree.router.contexts[20].name == u'n\xe4me'
    assert tree.monitor.get_routes(tree.ten) == set([10, 20])
    assert tree.parent.take() == [(ADD, 0, u'20:n\xe4me'.encode('utf-8'))]
    assert tree.receive(ADD, 10, b'21') == []
    assert tree.parent.take() == [(ADD, 0, b'21')]


@pytest.mark.parametrize('src_id, data', [
    (10, b'11:stolen'),    # the child of somebody else
    (10, b'0'),            # our parent
    (10, b'5'),            # ourselves
    (0, b'30'),            # a parent is no child
    (10, b'junk'),
    (10, b''),
    (10, b'-3'),
])
def test_bad_routes_are_logged_and_ignored(tree, src_id, data):
    before = dict(tree.router.routes)
    tree.parent.take()
    assert len(tree.receive(ADD, src_id, data)) == 1
    assert tree.router.routes == before
    assert tree.parent.take() == []


def test_a_route_is_removed_by_its_own_stream_alone(tree):
    tree.receive(ADD, 10, b'20:x')
    tree.parent.take()
    assert len(tree.receive(DEL, 11, b'20')) == 1
    assert tree.router.routes[20] is tree.ten
    fired = disconnects(tree, 20)
    assert tree.receive(DEL, 10, b'20') == []
    assert 20 not in tree.router.routes
    assert tree.monitor.get_routes(tree.ten) == set([10])
    assert fired == [20]
    assert tree.parent.take() == [(DEL, 0, b'20')]


def test_only_those_who_wrote_to_a_lost_context_hear_of_it(tree):
    tree.receive(ADD, 10, b'20:x')
    tree.eleven.protocol.egress_ids.add(20)
    tree.parent.protocol.egress_ids.add(20)
    tree.parent.take()
    tree.receive(DEL, 10, b'20')
    assert tree.eleven.take() == [(DEL, 11, b'20')]
    assert tree.ten.take() == []
    # The parent hears of it as the parent, not for having written.
    assert tree.parent.take() == [(DEL, 0, b'20')]


def test_a_loss_told_by_the_parent_is_told_downwards_only(tree):
    tree.eleven.protocol.egress_ids.add(99)
    fired = disconnects(tree, 99)
    tree.parent.take()
    assert tree.receive(DEL, 0, b'99') == []
    assert fired == [99]
    assert tree.parent.take() == []
    assert tree.eleven.take() == [(DEL, 11, b'99')]


def test_a_lost_stream_takes_its_routes_with_it_once(tree):
    tree.receive(ADD, 10, b'20:x')
    tree.eleven.protocol.egress_ids.update([10, 20])
    fired = disconnects(tree, 20)
    tree.parent.take()
    mitogen.core.fire(tree.ten, 'disconnect')
    mitogen.core.fire(tree.ten, 'disconnect')
    assert sorted(tree.router.routes) == [0, 11]
    assert tree.parent.take() == [(DEL, 0, b'10'), (DEL, 0, b'20')]
    assert tree.eleven.take() == [(DEL, 11, b'10'), (DEL, 11, b'20')]
    assert fired == [20]


def test_dead_messages_are_ignored(tree):
    tree.parent.take()
    for handle in ADD, DEL:
        func, _ = tree.router.handlers[handle]
        func(mitogen.core.Message.dead('bye'))
    assert tree.parent.take() == []


def test_ids_come_from_the_masters_blocks():
    router = mock.Mock()
    blocks = iter([(2, 4), (10, 12)])
    router.context_by_id.return_value.send_await = lambda msg: next(blocks)
    allocator = mitogen.parent.ChildIdAllocator(router)
    assert [allocator.allocate() for _ in range(4)] == [2, 3, 10, 11]
