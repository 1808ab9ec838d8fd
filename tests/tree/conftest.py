"""
One tree, and one host in it, for all tests of a file. Other hosts that a test
connects end with it.
"""

import threading

import pytest

import mitogen


@pytest.fixture(scope='module')
def whole():
    # Output would start a thread in the middle of a test.
    with mitogen.Tree(output=None) as tree:
        # The thread for callbacks is started by the first one, and stays.
        called = threading.Event()
        tree.connect('local:', name='shared').submit(int).add_done_callback(lambda future: called.set())
        called.wait()
        yield tree


@pytest.fixture(scope='module')
def host(whole):
    return next(host for host in whole.hosts if host.name == 'shared')


@pytest.fixture
def tree(whole):
    before = whole.hosts
    yield whole
    for child in whole.hosts:
        if child not in before and child.via in before + [None]:
            child.close()
