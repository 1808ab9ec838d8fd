"""
Modules that only the master has reach children and grandchildren, once each.

The packages are below tests/data, which is on this process's path and on no child's.
"""

import os
import sys
import zlib

import pytest

import mitogen.core
from mitogen.core import CallError, Message, Receiver

import targets
import testlib


@pytest.fixture
def first():
    import shipped_pkg.first
    return shipped_pkg.first


def requests(router):
    return router.get_stats()['get_module_count']


def test_the_packages_are_not_on_a_childs_path(router):
    child = router.local()
    assert not [path for path in child.call(targets.sys_attribute, 'path') if 'tests' in path]
    assert '' not in child.call(targets.sys_attribute, 'path')


def test_a_module_and_what_it_imports_are_shipped(router, first):
    child = router.local()
    assert child.call(first.value) == 42
    assert child.call(first.where).startswith('master:')
    assert child.call(first.where).endswith(os.path.join('shipped_pkg', 'first.py'))


def test_a_module_is_shipped_once_per_child(router, first):
    child = router.local()
    child.call(first.value)
    before = requests(router)
    for _ in range(5):
        child.call(first.value)
    assert requests(router) == before
    router.local().call(first.value)
    assert requests(router) > before


def test_a_module_is_shipped_to_a_grandchild(router, first):
    grandchild = router.local(via=router.local(via=router.local()))
    assert grandchild.call(first.value) == 42
    assert grandchild.call(first.where).startswith('master:')


def test_a_branch_asks_the_master_once(router, first):
    child = router.local()
    one, two = router.local(via=child), router.local(via=child)
    one.call(first.value)
    before = requests(router)
    assert two.call(first.value) == 42
    assert child.call(first.value) == 42
    assert requests(router) == before


def test_each_distinct_module_is_asked_for_once_for_a_branch(router):
    import shipped_large
    child = router.local()
    grandchild = router.local(via=child)
    before = requests(router)
    assert grandchild.call(shipped_large.count) == 3000
    assert requests(router) == before + 1


def test_a_large_module(router):
    import shipped_large
    assert router.local().call(shipped_large.count) == 3000


def test_a_module_with_other_alphabets(router):
    import shipped_unicode
    assert router.local().call(shipped_unicode.text) == shipped_unicode.TEXT


def test_an_import_inside_a_function(router, first):
    assert router.local().call(first.late) == 'late'


def test_an_exception_of_a_shipped_module_shows_its_lines(router, first):
    with pytest.raises(CallError) as caught:
        router.local().call(first.fail)
    text = str(caught.value)
    assert 'ValueError: from the shipped package' in text
    assert 'master:' in text
    assert 'shipped_pkg/first.py", line 10, in fail' in text


def test_a_module_that_replaces_itself(router):
    child = router.local()
    assert child.call(targets.attribute_of_module, 'shipped_self_replacing', 'VALUE') == 'replaced'


def test_the_source_of_a_shipped_module_can_be_read(router, first):
    source = router.local().call(targets.source_of, 'shipped_pkg.first')
    with open(first.__file__) as fp:
        assert source == fp.read()


# ---- absent and broken modules

def test_a_module_that_is_nowhere_is_an_import_error(router):
    child = router.local()
    kind, text = child.call(targets.import_error, 'no_such_module_anywhere')
    assert kind in ('ImportError', 'ModuleNotFoundError')
    assert 'no_such_module_anywhere' in text


def test_a_module_that_is_nowhere_is_asked_for_once(router):
    child = router.local()
    child.call(targets.import_error, 'no_such_module_anywhere')
    before = requests(router)
    child.call(targets.import_error, 'no_such_module_anywhere')
    assert requests(router) == before


def test_a_submodule_that_is_not_there_is_not_asked_for(router, first):
    child = router.local()
    child.call(first.value)
    before = requests(router)
    with pytest.raises(CallError) as caught:
        child.call(first.absent)
    assert 'ModuleNotFoundError' in str(caught.value)
    assert requests(router) == before


def test_a_submodule_of_a_package_the_child_has_is_not_asked_for(router):
    child = router.local()
    child.call(targets.identity, 1)
    before = requests(router)
    assert child.call(targets.import_error, 'email.no_such_submodule')[0] == 'ModuleNotFoundError'
    assert requests(router) == before


@pytest.mark.parametrize('name', ['msvcrt', 'org', 'org.python', 'cStringIO', '__builtin__'])
def test_names_that_no_master_can_serve_are_not_asked_for(router, name):
    child = router.local()
    child.call(targets.identity, 1)
    before = requests(router)
    assert child.call(targets.import_error, name)[0] == 'ModuleUnsuitableError'
    assert requests(router) == before


def test_a_module_of_the_standard_library_is_not_asked_for(router):
    child = router.local()
    child.call(targets.identity, 1)
    before = requests(router)
    assert not child.call(targets.module_file, 'xml.dom.minidom').startswith('master:')
    assert requests(router) == before


@pytest.mark.parametrize('name,error', [('shipped_broken.syntax', 'SyntaxError'), ('shipped_broken.raises', 'RuntimeError')])
def test_a_broken_module_raises_in_the_child_as_it_would_here(router, name, error):
    child = router.local()
    assert child.call(targets.import_error, name)[0] == error
    assert child.call(targets.add, 1, 2) == 3


def test_the_negative_answer_is_this_tuple(router):
    with testlib.Peer(router, 101, child=True) as peer:
        peer.send(dst=0, handle=mitogen.core.GET_MODULE, data=b'no_such_module_anywhere')
        _, dst, src, _, handle, _, data = peer.receive()
        assert (dst, src, handle) == (101, 0, mitogen.core.LOAD_MODULE)
        assert Message(data=data).unpickle() == (u'no_such_module_anywhere', None, None, None, ())


def test_the_positive_answer_is_this_tuple(router):
    with testlib.Peer(router, 101, child=True) as peer:
        peer.send(dst=0, handle=mitogen.core.GET_MODULE, data=b'shipped_pkg')
        fullname, present, path, compressed, related = Message(data=peer.receive()[6]).unpickle()
        assert fullname == u'shipped_pkg'
        assert sorted(present) == [u'first', u'inner', u'late', u'second']
        assert path.endswith('shipped_pkg/__init__.py')
        assert isinstance(compressed, mitogen.core.Blob)
        with open(path, 'rb') as fp:
            assert zlib.decompress(compressed) == fp.read()
        assert related == []


def test_related_modules_come_before_the_one_asked_for(router, first):
    with testlib.Peer(router, 101, child=True) as peer:
        for name in (b'shipped_pkg', b'shipped_pkg.first'):
            peer.send(dst=0, handle=mitogen.core.GET_MODULE, data=name)
        names = []
        while u'shipped_pkg.first' not in names:
            names.append(Message(data=peer.receive()[6]).unpickle()[0])
        assert names[0] == u'shipped_pkg'
        assert set(names[1:-1]) == set([u'shipped_pkg.second', u'shipped_pkg.inner', u'shipped_pkg.inner.leaf'])
        assert names.index(u'shipped_pkg.inner') < names.index(u'shipped_pkg.inner.leaf')


# ---- several children that ask for one module

def test_threads_of_a_child_that_want_one_module_ask_once(router):
    child = router.local()
    child.call(targets.identity, 1)
    before = requests(router)
    assert child.call(targets.call_in_threads, 'shipped_slow', 8) == 8
    assert requests(router) == before + 1


def test_grandchildren_that_want_one_module_at_once_ask_once(router):
    import shipped_large
    child = router.local()
    grandchildren = [router.local(via=child) for _ in range(3)]
    before = requests(router)
    receivers = [grandchild.call_async(shipped_large.count) for grandchild in grandchildren]
    assert [receiver.get(timeout=60).unpickle() for receiver in receivers] == [3000] * 3
    assert requests(router) == before + 1


def test_many_children_at_once(router, first):
    children = testlib.in_threads([router.local] * 5)
    receivers = [child.call_async(first.value) for child in children]
    assert [receiver.get(timeout=60).unpickle() for receiver in receivers] == [42] * 5


# ---- the policy

def test_a_child_made_with_overrides_asks_for_nothing_else(make_router, first):
    router = make_router()
    router.responder.whitelist_prefix('targets')
    child = router.local()
    child.call(targets.identity, 1)
    before = requests(router)
    kind, _ = child.call(targets.import_error, 'shipped_pkg')
    assert kind == 'ModuleDeniedByOverridesError'
    assert requests(router) == before


def test_a_blocked_package_is_not_asked_for(make_router, first):
    router = make_router()
    router.responder.blacklist_prefix('shipped_pkg')
    child = router.local()
    child.call(targets.identity, 1)
    before = requests(router)
    assert child.call(targets.import_error, 'shipped_pkg.first')[0] == 'ModuleDeniedByBlocksError'
    assert requests(router) == before


def test_a_package_blocked_after_the_start_is_refused_by_the_master(make_router, first):
    router = make_router()
    child = router.local()
    child.call(targets.identity, 1)
    before = requests(router)
    router.responder.blacklist_prefix('shipped_pkg')
    kind, text = child.call(targets.import_error, 'shipped_pkg')
    assert kind in ('ImportError', 'ModuleNotFoundError')
    assert text == mitogen.core.Importer.absent_msg % ('shipped_pkg',)
    assert requests(router) == before + 1


# ---- the core itself

def test_the_source_of_the_core_can_be_read_in_a_child(router):
    source = router.local().call(targets.source_of_core)
    assert 'class ExternalContext' in source


def test_modules_of_mitogen_are_there_for_a_child(router):
    child = router.local()
    assert child.call(targets.attribute_of_module, 'mitogen.utils', '__name__') == 'mitogen.utils'
    assert child.call(targets.attribute_of_module, 'mitogen.select', '__name__') == 'mitogen.select'


def test_the_masters_main_is_not_shipped_by_accident(router):
    child = router.local()
    with Receiver(router) as receiver:
        child.call(targets.send_numbers, receiver.to_sender(), 1, None)
    assert '__main__' not in child.call(targets.loaded_modules)


def test_a_child_of_an_interpreter_without_the_package_gets_everything(router, first, tmp_path):
    path = tmp_path / 'python'
    path.write_text('#!/bin/sh\nexec %s -I -S "$@"\n' % sys.executable)
    path.chmod(0o755)
    child = router.local(python_path=str(path))
    grandchild = router.local(via=child, python_path=str(path))
    assert child.call(first.value) == 42
    assert grandchild.call(first.value) == 42
    assert grandchild.call(targets.attribute_of_module, 'mitogen.select', '__name__') == 'mitogen.select'
