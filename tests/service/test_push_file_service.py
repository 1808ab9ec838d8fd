"""
Files pushed down the tree.
"""

import logging
import os
import pathlib
import sys
import threading

import pytest
import service_targets
import testlib

import mitogen.core
import mitogen.parent
import mitogen.service
from mitogen.core import Blob, CallError
from mitogen.service import Pool, PushFileService

NAME = u'mitogen.service.PushFileService'


@pytest.fixture
def service(router):
    service = PushFileService(router=router)
    pool = Pool(router, services=[service], size=2)
    yield service
    pool.stop()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'\x00content\xff')
    return str(path)


@pytest.fixture
def crossings(monkeypatch):
    """
    The service calls that leave this process: (id of the neighbour, method, id of the destination).
    """
    found = []
    original = mitogen.parent.Context.call_service_async

    def call_service_async(self, service_name, method_name, **kwargs):
        if 'context' in kwargs:
            found.append((self.context_id, method_name, kwargs['context'].context_id))
        return original(self, service_name, method_name, **kwargs)

    monkeypatch.setattr(mitogen.parent.Context, 'call_service_async', call_service_async)
    return found


def pushed(context, path):
    return context.call_async(service_targets.pushed_file, path).get(timeout=60).unpickle()


def test_a_file_comes_to_a_child(router, service, path):
    child = router.local()
    assert service.propagate_to(context=child, path=path) is None
    assert pushed(child, path) == b'\x00content\xff'


class Text(str):
    """
    A path of a program that marks its paths somehow.
    """


@pytest.mark.parametrize('kind', [Text, pathlib.Path, os.fsencode])
def test_a_path_of_another_type_arrives_as_text(router, service, path, kind):
    child = router.local()
    other = path + '.other'
    service.propagate_to(child, kind(path))
    service.propagate_paths_and_modules(child, [kind(other)], {kind(other): b'other'}, None)
    assert pushed(child, path) == b'\x00content\xff'
    assert pushed(child, other) == b'other'


def test_get_waits_for_the_file(router, service, path):
    child = router.local()
    receiver = child.call_async(service_targets.pushed_file, path)
    # Its answer is on the same stream as the pool's, of which there is none before the call has
    # begun.
    assert child.call_service(service_targets.Plain, 'pid')
    with pytest.raises(mitogen.core.TimeoutError):
        receiver.get(timeout=0.1)
    service.propagate_to(child, path)
    assert receiver.get(timeout=60).unpickle() == b'\x00content\xff'


def test_a_file_crosses_each_link_once(router, service, path, crossings):
    interm = router.local()
    first, second = router.local(via=interm), router.local(via=interm)
    for child in first, second, first:
        service.propagate_to(child, path)
        assert pushed(child, path) == b'\x00content\xff'
    assert crossings == [
        (interm.context_id, 'store_and_forward', first.context_id),
        (interm.context_id, 'forward', second.context_id),
        (interm.context_id, 'forward', first.context_id),
    ]
    # For the one on the way it is there too, and that needs nothing at all.
    service.propagate_to(interm, path)
    assert len(crossings) == 3
    assert interm.call(service_targets.is_pushed, path)


def test_links_to_different_children_each_get_it(router, service, path, crossings):
    children = [router.local() for _ in range(2)]
    for child in children:
        service.propagate_to(child, path)
        service.propagate_to(child, path)
        assert pushed(child, path) == b'\x00content\xff'
    assert crossings == [(child.context_id, 'store_and_forward', child.context_id) for child in children]


def test_the_file_is_read_once(router, service, path):
    first, second = router.local(), router.local()
    service.propagate_to(first, path)
    os.unlink(path)
    service.propagate_to(second, path)
    assert pushed(second, path) == b'\x00content\xff'
    assert service.get(path) == b'\x00content\xff'


def test_a_source_in_place_of_the_file(router, service):
    child = router.local()
    service.propagate_to(child, u'/no/such/file', overridden_source=b'made up')
    assert pushed(child, u'/no/such/file') == b'made up'


def test_a_missing_file(router, service, tmp_path):
    child = router.local()
    path = str(tmp_path / 'missing')
    with pytest.raises(IOError):
        service.propagate_to(child, path)
    with pytest.raises(CallError) as caught:
        router.myself().call_service(NAME, 'propagate_to', context=child, path=path)
    assert 'missing' in str(caught.value)


def test_a_context_that_is_gone(router, service, path):
    with pytest.raises(mitogen.service.Error):
        service.propagate_to(router.context_by_id(4242), path)


def test_several_files_and_extra_paths(router, service, path, monkeypatch):
    monkeypatch.setattr(sys, 'path', list(sys.path))
    child = router.local()
    other = path + '.other'
    service.propagate_paths_and_modules(
        context=child, paths=[path, other], overridden_sources={other: b'other'}, extra_sys_paths=['/extra/one'])
    assert pushed(child, path) == b'\x00content\xff'
    assert pushed(child, other) == b'other'
    before = list(sys.path)
    assert before[-1] == '/extra/one'
    router.myself().call_service(
        NAME, 'propagate_paths_and_modules', context=child, paths=[], extra_sys_paths=['/extra/one', '/extra/two'])
    assert sys.path == before + ['/extra/two']
    service.propagate_paths_and_modules(child, [], None, None)
    assert sys.path == before + ['/extra/two']


def test_get_is_for_its_own_process_and_for_text(router, service, path):
    service.propagate_to(router.local(), path)
    with pytest.raises(AssertionError):
        service.get(b'bytes')
    with pytest.raises(CallError):
        router.myself().call_service(NAME, 'get', path=path)


@pytest.mark.parametrize('method, kwargs', [
    ('propagate_to', {'path': u'/x'}), ('propagate_paths_and_modules', {'paths': []}),
    ('store_and_forward', {'path': u'/x', 'data': Blob(b'')}), ('forward', {'path': u'/x'}),
])
def test_only_parents_may_push(router, method, kwargs):
    child, sibling = router.local(), router.local()
    child.call(service_targets.pushed_file_service)
    kind, text = sibling.call(service_targets.refusal, child, NAME, method, context=child, **kwargs)
    assert kind == 'CallError'
    assert mitogen.service.Invoker.unauthorized_msg % (method, NAME) in text


@pytest.mark.parametrize('method, kwargs', [
    ('propagate_to', {'path': 1}), ('propagate_to', {}), ('propagate_paths_and_modules', {'paths': ()}),
    ('store_and_forward', {'path': u'/x', 'data': b'no blob'}), ('forward', {'path': None}),
])
def test_types_of_arguments(router, service, method, kwargs):
    with pytest.raises(CallError):
        router.myself().call_service(NAME, method, context=router.myself(), **kwargs)


def test_word_of_a_file_that_comes_later(router, service, path):
    # As when two pool threads take the two messages in the wrong order.
    interm = router.local()
    child = router.local(via=interm)
    interm.call_service_async(NAME, 'forward', path=path, context=child).close()
    service.propagate_to(interm, path)
    assert pushed(child, path) == b'\x00content\xff'


@pytest.mark.parametrize('bring', [
    lambda service, gone, path: service.store_and_forward(path, Blob(b'data'), gone),
    lambda service, gone, path: service.propagate_to(gone, path, b'data'),
], ids=['store_and_forward', 'propagate_to'])
def test_a_lost_target_keeps_nobody_from_the_file(router, service, bring):
    path = u'/no/such/file'
    gone = router.context_by_id(4242)
    child = router.local()
    # Three wait, in this order: the lost context, another context, and a thread of this process.
    service.forward(path, gone)
    service.forward(path, child)
    got = []
    thread = threading.Thread(target=lambda: got.append(service.get(path)))
    thread.start()
    testlib.wait_for(lambda: len(service._waiters[path]) == 3)
    with testlib.LogCapture('mitogen.service') as logs:
        with pytest.raises(mitogen.service.Error):
            bring(service, gone, path)
        assert len(logs.find('cannot be passed on', logging.ERROR)) == 1
    thread.join(60)
    service.on_shutdown()
    thread.join(60)
    assert got == [b'data']
    assert pushed(child, path) == b'data'


def test_streams_are_forgotten(router, service, path):
    child = router.local()
    service.propagate_to(child, path)
    assert len(service._sent_by_stream) == 1
    child.shutdown(wait=True)
    testlib.sync(router.broker)
    assert not service._sent_by_stream


def test_a_large_file(router, service, tmp_path):
    data = os.urandom(1 << 20) * 3
    path = tmp_path / 'large'
    path.write_bytes(data)
    child = router.local(via=router.local())
    service.propagate_to(child, str(path))
    assert pushed(child, str(path)) == data
