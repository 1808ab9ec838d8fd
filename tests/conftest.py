"""
The harness of the suite. Its parts are in tests/lib: ``both_cores`` runs the suite over each core,
``hanging`` ends a test that hangs, ``left_behind`` looks for what a test leaves, ``loggers`` keeps
threads from making loggers while pytest goes through them, ``scheduler`` gives files to processes.
Here are the order of the files and the fixtures.
"""

import os
import pathlib
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))

# Modules below tests/data and tests/targets are for children to ask for. Children do not have them
# on their own path.
sys.path[:0] = [os.path.join(HERE, name) for name in ('lib', 'targets', 'data', 'fuzz')]

import places  # noqa: E402

pytest_plugins = ['both_cores', 'costs', 'garbage', 'hanging', 'left_behind', 'loggers', 'scheduler']

#: The files that take longest come first, in this order, so that no processor idles at the end.
LONG_FILES = (
    'test_ansible.py', 'test_no_orphans.py', 'test_matrix.py', 'test_packaging.py', 'test_hostile_child.py',
    'test_taken_away.py', 'test_connect_failures.py', 'test_responder.py', 'test_ssh.py', 'test_fork_anywhere.py',
    'test_startup.py', 'test_leaks.py', 'test_examples_hosts.py', 'test_fakessh.py', 'test_minify.py', 'test_codec.py',
    'test_docs.py', 'test_native_faults.py', 'test_containers.py', 'test_fuzzers.py', 'test_examples.py', 'test_imports.py',
    'test_typing.py', 'test_serialization.py', 'test_sizes.py', 'test_identity.py', 'test_install.py',
)

#: Folders of the tests that find most in the shortest time.
QUICK = ('core', 'messages', 'calls', 'routing', 'imports')


def pytest_addoption(parser):
    parser.addoption(
        '--ansible', action='store_true', default=bool(os.environ.get('CI')),
        help='run tests/ansible, too, which fetches Ansible from PyPI and takes minutes; on where CI is set',
    )
    parser.addoption(
        '--quick', action='store_true',
        help='the inner loop: only the tests of %s, and of those only what is not marked slow' % (', '.join(QUICK),),
    )


def pytest_ignore_collect(collection_path, config):
    if config.option.quick and collection_path.parent == pathlib.Path(HERE) and collection_path.name not in QUICK:
        return True
    if collection_path != pathlib.Path(HERE, 'ansible'):
        return None
    import both_cores
    if os.environ.get(both_cores.ANSIBLE_CORES) == '':
        return True
    # Named on the command line, it is asked for.
    if not config.option.ansible and not any('ansible' in arg for arg in config.args):
        return True


def pytest_collection_modifyitems(config, items):
    if config.option.quick:
        items[:] = [item for item in items if not item.get_closest_marker('slow')]
    ranks = dict((name, rank) for rank, name in enumerate(LONG_FILES))
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


@pytest.fixture
def broker():
    """
    A master's broker, ended after the test.
    """
    import mitogen.master
    broker = mitogen.master.Broker()
    yield broker
    broker.shutdown()
    broker.join()


@pytest.fixture
def router(broker):
    """
    A master's router on the fixture ``broker``.
    """
    import mitogen.master
    return mitogen.master.Router(broker)


@pytest.fixture(scope='module')
def shared_child():
    """
    A child for those tests of a module that do no more than call it; its router is
    ``shared_child.router``.
    """
    import mitogen.master
    broker = mitogen.master.Broker()
    yield mitogen.master.Router(broker).local()
    broker.shutdown()
    broker.join()


@pytest.fixture
def importer_data(monkeypatch):
    """
    The packages in tests/data/importer can be imported; afterwards none of them stays loaded.
    """
    monkeypatch.syspath_prepend(places.IMPORTER_DATA)
    ours = {os.path.splitext(name)[0] for name in os.listdir(places.IMPORTER_DATA)}
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition('.')[0] in ours:
            del sys.modules[name]


@pytest.fixture
def make_router():
    """
    A function that makes a master's router, each on a broker of its own; they are ended after the
    test. Keyword arguments go to the router.
    """
    import mitogen.master
    brokers = []

    def make(**kwargs):
        broker = mitogen.master.Broker()
        brokers.append(broker)
        return mitogen.master.Router(broker, **kwargs)

    yield make
    for broker in brokers:
        broker.shutdown()
    for broker in brokers:
        broker.join()
