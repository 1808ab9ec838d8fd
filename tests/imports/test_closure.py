"""
A child that asks for a module is sent all that this module needs and the child lacks.

The packages are made for each test. They are on the path of this process, and on no child's.
Children are asked by `eval`, which they have.
"""

import os
import shutil
import sys
import textwrap
import zlib

import pytest

import mitogen.master
from mitogen.core import CallError

import closure_child
import liar
import pythons
import testlib

IMPORTER = "[f for f in __import__('sys').meta_path if type(f).__name__ == 'Importer'][0]"


@pytest.fixture
def make(tmp_path, monkeypatch):
    """
    A function that writes files, given as relative path -> text, below a folder that this process
    imports from.
    """
    # A new folder, which no cache knows.
    folder = tmp_path / 'site'
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)

    def write(files):
        testlib.write_files(folder, dict((name, textwrap.dedent(text)) for name, text in files.items()))
        return folder

    yield write
    assert not [name for name in set(sys.modules) - before if name.startswith('clo_')], 'the master has imported'


def imported(child, name, what):
    """
    Have a child import a module, and return the value of an expression in it.
    """
    return child.call(eval, "(__import__(%r), eval(%r, vars(__import__('sys').modules[%r])))[1]" % (name, what, name))


def requests(router):
    return router.get_stats()['get_module_count']


def test_a_module_that_a_package_lacks_makes_the_child_ask_for_no_source(router, make, monkeypatch):
    make({'clo_package/__init__.py': 'try:\n    import clo_package.nothing\nexcept ImportError:\n    value = 1\n'})
    asked = []
    get = mitogen.master.ResourceResponder._get_content
    monkeypatch.setattr(mitogen.master.ResourceResponder, '_get_content',
                        lambda self, *args: asked.append(args) or get(self, *args))
    assert imported(router.local(), 'clo_package', 'value') == 1
    assert not asked


CHAIN = {
    'clo_top.py': '''
        try:
            import clo_nowhere
        except ImportError:
            clo_nowhere = None
        import clo_pkg.inner
        from clo_pkg import sibling, value
        total = clo_pkg.inner.number + sibling.number + value
        ''',
    'clo_pkg/__init__.py': 'value = 1\nfrom .early import number\n',
    'clo_pkg/early.py': 'number = 10\n',
    'clo_pkg/inner.py': 'from . import deep\nnumber = deep.number + 100\n',
    'clo_pkg/deep.py': 'import json, os.path\nnumber = 1000\n',
    'clo_pkg/sibling.py': 'number = 10000\n',
    'clo_pkg/unwanted.py': '',
}


def test_all_that_a_module_needs_comes_with_one_request(router, make):
    make(CHAIN)
    child = router.local()
    assert imported(child, 'clo_top', 'total') == 11101
    assert requests(router) == 1
    stats = router.get_stats()
    assert (stats['good_load_module_count'], stats['bad_load_module_count'], stats['pushed_module_count']) == (6, 1, 6)


def test_modules_come_in_the_order_of_need(router, make):
    make(CHAIN)
    child = router.local()
    imported(child, 'clo_top', '0')
    assert [name for name in child.call(eval, 'list(%s._cache)' % IMPORTER) if name.startswith('clo_')] == [
        'clo_top', 'clo_nowhere', 'clo_pkg', 'clo_pkg.early', 'clo_pkg.inner', 'clo_pkg.deep', 'clo_pkg.sibling']


def test_packages_and_what_is_in_them_are_asked_for_at_once(router, make):
    make({'clo_a/__init__.py': '', 'clo_a/b/__init__.py': '', 'clo_a/b/c.py': 'import clo_z', 'clo_z.py': ''})
    child = router.local()
    with testlib.LogCapture('mitogen.responder') as logs:
        imported(child, 'clo_a.b.c', '0')
    # The second is not asked for if it has come already.
    assert [record.args[1] for record in logs.records if 'asks for' in record.msg] in (
        ['clo_a.b.c', 'clo_a'], ['clo_a.b.c'])


def test_what_only_type_checkers_and_main_programs_import_is_not_sent(router, make):
    make({'clo_typed.py': 'from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import clo_type\nimport clo_needed\n'
                          'if __name__ == "__main__":\n    import clo_type\n',
          'clo_type.py': '', 'clo_needed.py': ''})
    child = router.local()
    imported(child, 'clo_typed', '0')
    assert sorted(name for name in child.call(eval, 'list(%s._cache)' % IMPORTER) if name.startswith('clo_')) == [
        'clo_needed', 'clo_typed']
    assert imported(child, 'clo_type', '7') == 7


def test_a_name_that_nobody_has_costs_no_request(router, make):
    make(CHAIN)
    child = router.local()
    imported(child, 'clo_top', '0')
    before = requests(router)
    with pytest.raises(CallError) as e:
        child.call(__import__, 'clo_nowhere')
    assert 'ModuleNotFoundError' in str(e.value)
    assert requests(router) == before


def test_what_a_child_has_is_not_sent(router, make, tmp_path):
    make(CHAIN)
    over_there = tmp_path / 'over_there' / 'clo_pkg'
    over_there.mkdir(parents=True)
    for name in 'inner', 'sibling':
        (over_there / (name + '.py')).write_text('number = 1\n')
    (over_there / '__init__.py').write_text('value = 1\n')
    child = router.local(python_path=['/usr/bin/env', 'PYTHONPATH=%s' % over_there.parent, sys.executable])
    assert imported(child, 'clo_top', 'total') == 3
    assert router.get_stats()['good_load_module_count'] == 1


def test_a_child_of_the_same_python_is_sent_bytecode_that_shows_its_source(router, make):
    make({'clo_fails.py': 'def fail():\n    raise ValueError("over there")\n'})
    child = router.local()
    assert imported(child, 'clo_fails', '__file__').startswith('master:/')
    assert child.call(eval, "b'\\0' in __import__('zlib').decompress(%s._cache['clo_fails'][3])[:9]" % IMPORTER)
    trace = child.call(eval, '''[i for i in [__import__('traceback')] for m in [__import__('clo_fails')]] and (
        lambda t: (t.__class__, __import__('inspect').getsource(__import__('clo_fails').fail)))('')[1]''')
    assert trace == 'def fail():\n    raise ValueError("over there")\n'
    with pytest.raises(CallError) as e:
        child.call(eval, "__import__('clo_fails').fail()")
    assert 'clo_fails.py", line 2, in fail' in str(e.value)
    assert 'master:/' in str(e.value)


@pytest.mark.parametrize('name', ['python2.7', 'python3.6', 'python3.9'])
def test_a_child_of_another_python_is_sent_source(router, make, name):
    make(CHAIN)
    child = router.local(python_path=pythons.find_python(name))
    assert child.call(closure_child.value_in, 'clo_top', 'total') == 11101


@pytest.mark.parametrize('name', ['python2.7', 'python3.9', None])
def test_a_context_in_the_middle_answers_from_what_it_has(router, make, name):
    make(CHAIN)
    middle = router.local()
    imported(middle, 'clo_top', '0')
    below = router.local(via=middle, python_path=pythons.find_python(name) if name else sys.executable)
    before = requests(router)
    assert below.call(closure_child.value_in, 'clo_top', 'total') == 11101
    assert requests(router) == before + 1


def test_the_closure_reaches_a_grandchild(router, make):
    make(CHAIN)
    middle = router.local()
    below = router.local(via=middle)
    before = requests(router)
    assert imported(below, 'clo_top', 'total') == 11101
    assert requests(router) == before + 1


def test_an_edited_file_is_sent_as_it_is(router, make):
    make({'clo_user.py': 'import clo_edited as e', 'clo_edited.py': 'value = 1'})
    assert imported(router.local(), 'clo_user', 'e.value') == 1
    make({'clo_edited.py': 'value = 22'})
    assert imported(router.local(), 'clo_user', 'e.value') == 22


#: Files of one module in turn: it is edited, becomes a package, goes away and comes back.
FILES = [{'clo_edited.py': 'value = 1'}, {'clo_edited.py': 'value = 22'},
         {'clo_edited/__init__.py': 'from clo_edited.inner import value', 'clo_edited/inner.py': 'value = 333'},
         {}, {'clo_edited.py': 'value = 4444'}]


@pytest.mark.parametrize('name', ['python2.7', 'python3.8', None])
def test_a_long_living_master_notices_what_becomes_of_a_file(router, make, name):
    path = name and pythons.find_python(name)
    folder = make({'clo_user.py': 'import clo_edited as e', 'clo_other.py': 'import clo_user.nothing\n'})
    for files in FILES:
        for old in folder.glob('clo_edited*'):
            shutil.rmtree(str(old)) if old.is_dir() else old.unlink()
        make(files)
        # A folder that changes twice within one tick of the clock has one time.
        stamp = os.stat(str(folder)).st_mtime + len(list(folder.iterdir())) + 1
        os.utime(str(folder), (stamp, stamp))
        for _ in range(2):
            child = router.local(python_path=path)
            if files:
                assert child.call(closure_child.value_in, 'clo_user', 'e.value') == int(list(files.values())[-1].split()[-1])
            else:
                with pytest.raises(CallError, match="unable to serve 'clo_edited'"):
                    child.call(closure_child.value_in, 'clo_user', '0')
            child.shutdown(wait=True)


def test_what_is_not_there_yet_is_looked_for_only_if_a_folder_has_changed(router, make, monkeypatch):
    folder = make({'clo_user.py': 'try:\n    import clo_absent\nexcept ImportError:\n    value = 1\n'})
    assert imported(router.local(), 'clo_user', 'value') == 1
    asked = []
    find = router.responder._finder._find
    monkeypatch.setattr(router.responder._finder, '_find', lambda name: asked.append(name) or find(name))
    assert imported(router.local(), 'clo_user', 'value') == 1
    assert asked == []
    make({'clo_something.py': ''})
    stamp = os.stat(str(folder)).st_mtime + 1
    os.utime(str(folder), (stamp, stamp))
    monkeypatch.setattr(router.responder._parcels, 'content', None)
    # The answer is still the one that was made.
    assert imported(router.local(), 'clo_user', 'value') == 1
    assert 'clo_absent' in asked


def test_an_answer_is_made_once_for_children_that_lack_the_same(router, make, monkeypatch):
    make(CHAIN)
    imported(router.local(), 'clo_top', '0')
    monkeypatch.setattr(router.responder._parcels, 'content', None)
    assert imported(router.local(), 'clo_top', 'total') == 11101


def test_an_answer_is_made_once_for_children_that_ask_at_once(router, make, monkeypatch):
    make(CHAIN)
    # As many messages as there are modules, with the others' turns in between.
    monkeypatch.setattr(mitogen.master._Push, 'chunk', 1)
    made = []
    add = mitogen.master._Push._add
    monkeypatch.setattr(mitogen.master._Push, '_add', lambda push, batch, name, is_root: (
        made.append(name), add(push, batch, name, is_root))[1])
    children = [router.local() for _ in range(3)]
    for child in children:
        child.call(eval, '0')
    code = "(__import__('clo_top'), __import__('sys').modules['clo_top'].total)[1]"
    held = mitogen.core.Latch()
    router.broker.defer(lambda: held.get())
    receivers = [child.call_async(eval, code) for child in children]
    held.put()
    assert [receiver.get().unpickle() for receiver in receivers] == [11101] * 3
    assert sorted(made) == sorted(set(made))


def test_what_is_denied_is_not_sent_with_others(router, make):
    make(CHAIN)
    router.responder.blacklist_prefix('clo_pkg')
    with pytest.raises(CallError) as e:
        imported(router.local(), 'clo_top', '0')
    assert 'ModuleDeniedByBlocksError' in str(e.value)
    assert router.get_stats()['good_load_module_count'] == 1


@pytest.mark.parametrize('limit', ['pushed_modules', 'pushed_bytes'])
def test_what_is_beyond_the_limit_is_asked_for(router, make, limit):
    make(CHAIN)
    setattr(router.limits, limit, 2)
    assert imported(router.local(), 'clo_top', 'total') == 11101
    assert requests(router) > 1


def test_a_module_that_does_not_compile_fails_over_there(router, make):
    make({'clo_user.py': 'import clo_broken', 'clo_broken.py': 'x = 1\nthis is no Python\n'})
    with pytest.raises(CallError) as e:
        imported(router.local(), 'clo_user', '0')
    assert 'SyntaxError' in str(e.value) and 'clo_broken.py, line 2' in str(e.value)


def test_what_is_imported_by_a_text_comes_along(router, make):
    make({
        'clo_user.py': 'for name in ("clo_named", "clo_none", "os"):\n    try:\n        __import__(name)\n'
                       '    except ImportError:\n        pass\n',
        'clo_named.py': 'value = 5',
    })
    child = router.local()
    imported(child, 'clo_user', '0')
    assert child.call(eval, "%s._cache['clo_named'][2]" % IMPORTER).endswith('clo_named.py')


def test_names_of_classes_and_of_what_is_imported_are_none_of_modules(router, make):
    make({
        'clo_user.py': 'from clo_other import (clo_thing, clo_thing as x)\n__import__("clo_named")\n'
                       'class clo_class(object):\n    pass\n__all__ = ["clo_class", "clo_thing", "x"]\n',
        'clo_other.py': 'clo_thing = 1', 'clo_thing.py': '', 'clo_class.py': '', 'clo_named.py': '',
    })
    child = router.local()
    imported(child, 'clo_user', '0')
    assert sorted(name for name in child.call(eval, 'list(%s._cache)' % IMPORTER) if name.startswith('clo_')) == [
        'clo_named', 'clo_other', 'clo_user']


def test_a_part_of_this_package_is_sent_compiled_to_a_child_that_is_near(router, make):
    make({'clo_user.py': 'import mitogen._folders'})
    child = router.local(python_path=[sys.executable, '-S'])
    imported(child, 'clo_user', '0')
    assert child.call(eval, "b'\\0' in __import__('zlib').decompress(%s._cache['mitogen._folders'][3])[:9]" % IMPORTER)
    assert 'def _copied' in child.call(eval, "__import__('inspect').getsource(__import__('mitogen._folders')._folders)")


LATE = "%s._resource_requester._cache['mitogen', 'core.late']" % IMPORTER


def test_the_rest_of_the_core_is_sent_compiled_to_children_of_our_kind(router, make):
    make(CHAIN)
    path = [sys.executable, '-S']
    router.local(python_path=path)
    testlib.wait_for(mitogen.parent._get_late_code)
    child = router.local(python_path=path)
    other = router.local(via=child, python_path=pythons.find_python('python3.8'))
    for context in child, other:
        assert imported(context, 'clo_top', 'total') == 11101
    late, source = child.call(eval, LATE), mitogen.parent.get_late_source('mitogen', 'core.late')
    assert b'marshal' in zlib.decompress(late)
    assert mitogen.parent._late_source_in(late) == mitogen.parent._late_source_in(source) == source
    # A child that is far, and one of another kind, is sent source.
    far = router.local(python_path=path)
    router.stream_by_id(far.context_id).conn._is_far = True
    for context in far, router.local(python_path=pythons.find_python('python3.8')):
        assert imported(context, 'clo_top', 'total') == 11101
        assert context.call(eval, LATE) == source


def test_modules_of_other_systems_cost_no_request(router, make):
    make(CHAIN)
    child = router.local()
    imported(child, 'clo_top', '0')
    before = requests(router)
    with pytest.raises(CallError):
        child.call(__import__, 'winreg')
    assert requests(router) == before


def test_modules_that_import_each_other(router, make):
    make({'clo_one.py': 'import clo_two\nx = 1', 'clo_two.py': 'import clo_one\ny = 2'})
    child = router.local()
    assert imported(child, 'clo_one', 'clo_two.y') == 2
    assert requests(router) == 1


def test_threads_import_while_modules_come(router, make):
    files = dict(('clo_m%d.py' % i, 'import clo_m%d\nvalue = %d\n' % (i + 1, i)) for i in range(60))
    files['clo_m60.py'] = 'value = 60\n'
    files.update(('clo_n%d.py' % i, 'value = %d\n' % i) for i in range(20))
    make(files)
    child = router.local()
    code = '''(lambda t, l: ([t.start_new_thread(lambda n=n: l.put(__import__('clo_n%d' % n).value), ()) for n in range(20)],
        __import__('clo_m0'), sorted(l.get() for _ in range(20)))[2])(
        __import__('_thread'), __import__('mitogen.core').core.Latch())'''
    assert child.call(eval, code.replace('\n', ' ')) == list(range(20))


def test_an_announcement_that_is_nonsense_does_no_harm(router, make, tmp_path):
    make(CHAIN)
    child = liar.Liar(router, tmp_path)
    frames = [dict(dst=0, handle=114, data=data) for data in ('x', '', 'y' * 300000)]
    child.send(frames=frames + [dict(dst=0, handle=liar.GET_MODULE, data='clo_top')])
    testlib.wait_for(lambda: router.stats()['refusals'].get('announcement_bytes'))
    assert imported(router.local(), 'clo_top', 'total') == 11101
    child.close()


def test_a_push_that_fails_leaves_no_child_waiting(router, make, monkeypatch):
    make({'clo_one.py': 'x = 1', 'clo_two.py': 'x = 2', 'clo_three.py': 'x = 3'})
    child = router.local()

    def fail(_push, _root):
        raise ValueError('on purpose')

    with monkeypatch.context() as patch:
        patch.setattr(mitogen.master._Push, '_make_for_root', fail)
        for name in 'clo_one', 'clo_two':
            with pytest.raises(CallError, match='ModuleNotFoundError'):
                imported(child, name, 'x')
    assert imported(child, 'clo_three', 'x') == 3


SECOND_FIRST = '''
import _thread, os, sys, time
import mitogen.core
go_on, done = mitogen.core.Latch(), mitogen.core.Latch()
waiting, listdir = [], os.listdir


def slow_listdir(path):
    if not waiting:
        waiting.append(path)
        go_on.get()
    return listdir(path)


os.listdir = slow_listdir
_thread.start_new_thread(lambda: done.put(__import__('clo_plain').value), ())
while not waiting:
    time.sleep(0.001)
import clo_pkg
sys.clo = go_on, done
'''


def test_a_thread_does_not_ask_before_its_child_has_said_what_it_has(router, make):
    """
    Another thread is about to say so, and takes its time.
    """
    make({'clo_plain.py': 'value = 2\n', 'clo_pkg/__init__.py': 'value = 1\n'})
    child = router.local()
    child.call(exec, SECOND_FIRST, {})
    assert mitogen.parent._announced_by(router.stream_by_id(child.context_id))
    assert child.call(eval, "[__import__('sys').clo[0].put(1), __import__('sys').clo[1].get()][1]") == 2
