"""
Small trees with a child that lies: a liar, its parent, its sibling, and what was logged. The liar
is a child of the master, or a grandchild, whose parent is a child itself.

``tree`` shares all but the liar with the other tests of the module, ``own_tree`` and ``quiet_tree``
share nothing: they are for what a test changes or measures in the liar's parent. A test cannot
spoil the shared ones for the next: they are looked at after each, and not used again if anything
about them is not as it was.
"""

import contextlib
import logging

import pytest

import mitogen.master

import targets
import testlib
from liar import Liar

SHAPES = ['child', 'grandchild']


class WithoutTracebacks(testlib.LogCapture):
    """
    A keeper of records, as pytest is until a test ends, keeps with a traceback all that its
    functions had: a million lists, of which a handler did not approve, are 100 MB.
    """
    def emit(self, record):
        testlib.LogCapture.emit(self, record)
        if record.exc_info:
            self.format(record)
            record.exc_info = None


class Family(object):
    """
    A master's router, the parent of a liar if that is a child, and a sibling.

    :ivar bool spoiled: not to be used by another test.
    """
    def __init__(self, shape, level):
        self.router = mitogen.master.Router(mitogen.master.Broker())
        # A peer that is told so much may need a while to be done with it.
        self.router.broker.shutdown_timeout = testlib.patience()
        # Children log what is logged here when they start.
        with testlib.LogCapture('', level):
            self.middle = self.router.local(name=u'middle') if shape == 'grandchild' else None
            self.via = {'via': self.middle} if self.middle else {}
            self.sibling = self.router.local(name=u'sibling', **self.via)
            self.sibling.call(targets.identity, 0)
        self.state = self.look()
        self.spoiled = False

    def members(self):
        return [context for context in (self.middle, self.sibling) if context]

    def look(self):
        """
        Return what may not change in the master and in the children.
        """
        told = [targets.notes()] + [context.call(targets.notes) for context in self.members()]
        return told, self.router.stats()['refusals'], sorted(vars(self.router.limits).items())

    def close(self):
        self.router.broker.shutdown()
        self.router.broker.join()


class Tree(object):
    """
    A family, and a liar of its own.
    """
    def __init__(self, family, folder, logs):
        self.family, self.logs = family, logs
        self.router, self.middle, self.sibling = family.router, family.middle, family.sibling
        self.parent_id = self.middle.context_id if self.middle else 0
        self.liar = Liar(self.router, folder, **family.via)

    def check(self):
        """
        All but the liar are well.
        """
        assert self.sibling.call(targets.identity, 1) == 1
        if self.middle:
            assert self.middle.call(targets.identity, 2) == 2
        assert not self.logs.find('broker crashed')

    def settle(self):
        """
        Wait until the master has read all that the liar has said, also by way of its parent.
        """
        self.liar.sync()
        if self.middle:
            self.middle.call(targets.identity, 3)
        testlib.sync(self.router.broker)

    def end_liar(self):
        self.liar.close()
        testlib.wait_for(lambda: self.router.stream_by_id(self.liar.id) is None, what='the end of the liar')


@contextlib.contextmanager
def with_liar(family, folder, level):
    with WithoutTracebacks('', level) as logs:
        tree = Tree(family, folder, logs)
        yield tree
        tree.check()
        tree.end_liar()


@contextlib.contextmanager
def with_family(shape, folder, level):
    family = Family(shape, level)
    try:
        with with_liar(family, folder, level) as tree:
            yield tree
    finally:
        family.close()


@pytest.fixture(scope='module', params=SHAPES)
def family(request):
    family = Family(request.param, logging.DEBUG)
    yield family
    family.close()


@pytest.fixture
def tree(request, family, tmp_path):
    if family.spoiled:
        with with_family('grandchild' if family.middle else 'child', tmp_path, logging.DEBUG) as tree:
            yield tree
        return
    # Until it has been looked at.
    family.spoiled = True
    with with_liar(family, tmp_path, logging.DEBUG) as tree:
        yield tree
    testlib.sync(family.router.broker)
    family.spoiled = family.look() != family.state


@pytest.fixture(params=SHAPES)
def own_tree(request, tmp_path):
    with with_family(request.param, tmp_path, logging.DEBUG) as tree:
        yield tree


@pytest.fixture(params=SHAPES)
def quiet_tree(request, tmp_path):
    """
    For floods: a log record for each request would fill the memory of the test.
    """
    with with_family(request.param, tmp_path, logging.ERROR) as tree:
        yield tree
