"""
The resources of packages that a master serves.
"""

import errno
import importlib.machinery
import os
import sys

import pytest
import places
from responders import FakeRouter, Stream

import mitogen.core
import mitogen.master


# The packages in tests/data/importer can be imported.
pytestmark = pytest.mark.usefixtures('importer_data')


@pytest.fixture
def stream():
    return Stream()


def read(*parts):
    with open(os.path.join(places.IMPORTER_DATA, *parts), 'rb') as fp:
        return fp.read()


RESOURCES = [('text.txt', True), ('empty', True), ('sub_dir/empty', True), ('sub_pkg/inner.txt', True),
             ('does_not_exist', False), ('sub_dir', False)]


@pytest.mark.parametrize('hops', [1, 2])
def test_resources_in_children(router, hops):
    import resource_user
    context = router.local()
    if hops == 2:
        context = router.local(via=context)
    for name, expected in RESOURCES:
        assert context.call(resource_user.is_resource, name) is expected, name
    for package, name in (('resource_pkg', 'text.txt'), ('resource_pkg', 'binary'), ('resource_pkg', 'empty'),
                          ('resource_pkg.sub_pkg', 'inner.txt')):
        path = package.split('.') + [name]
        assert context.call(resource_user.read, package, name) == read(*path)


@pytest.mark.parametrize('package, name', [
    ('resource_pkg', '../lonely.py'), ('resource_pkg', os.path.join(places.IMPORTER_DATA, 'lonely.py')),
    ('resource_pkg', ''), ('resource_pkg', '.'), ('resource_pkg', 'sub_dir/../text.txt'), ('resource_pkg', 'a\0b'),
    ('no_such_package', 'x'), ('lonely', 'text.txt'), ('', 'x'),
])
def test_what_is_no_resource_is_answered_all_the_same(package, name, stream):
    router = FakeRouter()
    router.stream_by_id = lambda context_id: stream
    responder = mitogen.master.ResourceResponder(router)
    responder._on_get_resource(mitogen.core.Message.pickled((package, name), src_id=1))
    message, = router.sent()
    assert (message.dst_id, message.handle) == (1, mitogen.core.LOAD_RESOURCE)
    assert list(message.unpickle_iter()) == [(package, name), None]


@pytest.mark.parametrize('request_', [(u'resource_pkg', 5), (5, u'x'), u'x', (u'a', u'b', u'c'), None], ids=repr)
def test_what_names_no_resource_is_not_answered(request_, stream):
    router = FakeRouter()
    router.stream_by_id = lambda context_id: stream
    responder = mitogen.master.ResourceResponder(router)
    responder._on_get_resource(mitogen.core.Message.pickled(request_, src_id=1))
    assert list(router.sent()) == []


def test_a_resource_does_not_import_its_package(stream):
    responder = mitogen.master.ResourceResponder(FakeRouter())
    assert responder._get_resource('resource_pkg', 'text.txt') == b'text\n'
    assert 'resource_pkg' not in sys.modules


def ask(package, name, stream):
    router = FakeRouter()
    router.responder.policy = mitogen.core.ImportPolicy()
    router.stream_by_id = lambda context_id: stream
    responder = mitogen.master.ResourceResponder(router)
    responder._on_get_resource(mitogen.core.Message.pickled((package, name), src_id=1))
    message, = router.sent()
    return list(message.unpickle_iter())[1]


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(mitogen.master, '_swallowed', set())
    return lambda: [record.getMessage() for record in caplog.records if record.levelname == 'WARNING']


def test_a_resource_that_is_there_and_cannot_be_read_is_named_in_one_warning(stream, monkeypatch, warnings):
    def fail(_loader, path):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)

    monkeypatch.setattr(importlib.machinery.SourceFileLoader, 'get_data', fail)
    monkeypatch.setattr(importlib.machinery.SourceFileLoader, 'get_resource_reader', None)
    for _ in range(2):
        assert ask('resource_pkg', 'text.txt', stream) is None
    text, = warnings()
    assert "'resource_pkg/text.txt'" in text and os.strerror(errno.EMFILE) in text


def test_a_resource_whose_loader_fails_is_named_in_one_warning(stream, monkeypatch, warnings):
    def fail(_loader, path):
        raise RuntimeError('no loader of ours')

    monkeypatch.setattr(importlib.machinery.SourceFileLoader, 'get_data', fail)
    for _ in range(2):
        assert ask('resource_pkg', 'text.txt', stream) is None
    text, = warnings()
    assert "'resource_pkg/text.txt'" in text and 'no loader of ours' in text


@pytest.mark.parametrize('package, name', [
    ('resource_pkg', 'does_not_exist'), ('resource_pkg', 'sub_dir'), ('resource_pkg', '../lonely.py'), ('resource_pkg', 'a\0b'),
    ('resource_pkg', 'x' * 300), ('no_such_package', 'x'), ('no_such\0package', 'x'), ('..', 'x'), ('lonely', 'text.txt'),
])
def test_a_resource_that_is_not_there_is_no_warning(package, name, stream, warnings):
    assert ask(package, name, stream) is None
    assert warnings() == []
