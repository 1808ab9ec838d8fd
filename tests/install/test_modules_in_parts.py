"""
Modules in parts: one text where they are installed, parts that are run in one namespace in a
checkout.
"""

import ast
import glob
import json
import os
import shutil
import subprocess
import sys

import pytest

import mitogen.core
import mitogen.master

import places
import pythons

PACKAGE = os.path.join(places.ROOT, 'mitogen')
INSTALLED = os.path.dirname(mitogen.core.__file__)

IN_TREE = os.path.exists(os.path.join(PACKAGE, '_house.py'))

pytestmark = [pytest.mark.once, pytest.mark.skipif(not IN_TREE, reason='needs the source tree')]

HOUSE = {}
if IN_TREE:
    with open(os.path.join(PACKAGE, '_house.py')) as _fp:
        exec(_fp.read(), HOUSE)
MODULES = sorted(HOUSE.get('PARTS', ()))


def joined(module):
    return HOUSE['join'](os.path.join(PACKAGE, module + '.py'))


def in_checkout(program, python=sys.executable, core='pure'):
    """
    Run a program that imports the package from the source tree; return what it prints, which is
    JSON.
    """
    env = dict(os.environ, PYTHONPATH=places.ROOT, MITOGEN_CORE=core, PYTHONDONTWRITEBYTECODE='1')
    out = subprocess.check_output([python, '-c', 'import json, sys\n' + program], env=env, cwd=places.LIB, timeout=110)
    return json.loads(out.decode())


@pytest.mark.parametrize('module', MODULES)
def test_what_is_installed_is_the_parts_joined(module):
    with open(os.path.join(INSTALLED, module + '.py')) as fp:
        assert fp.read() == joined(module)
    assert not glob.glob(os.path.join(INSTALLED, '_house*')) and not glob.glob(os.path.join(INSTALLED, '_core'))


@pytest.mark.parametrize('module', MODULES)
def test_no_part_is_left_out_and_none_is_there_twice(module):
    names = []
    for part in HOUSE['part_paths'](os.path.join(PACKAGE, module + '.py')):
        with open(part) as fp:
            tree = ast.parse(fp.read())
        names += [node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    tree = ast.parse(joined(module))
    assert names == [node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    assert '# house' not in joined(module)


#: Prints what a master serves of its modules, and for each interpreter whether a child of it has a
#: child of its own, or why it has none.
SERVES = '''
import os, traceback
import mitogen.core, mitogen.master, mitogen.parent, mitogen.utils
def source(module):
    return mitogen.master.ModuleFinder().get_module_source(module)[1].decode('utf-8')
def main(router):
    for path in %r:
        try:
            child = router.local(python_path=path)
            # Its own text is not for the other kind of Python.
            below = [router.local(via=child, python_path=other) for other in (path, %r)]
            yield len(set(context.call(os.getpid) for context in [child] + below)) == 3
            child.shutdown(wait=True)
        except mitogen.core.Error:
            yield traceback.format_exc()
print(json.dumps([mitogen.core.get_core_source().decode('utf-8'), source('mitogen.parent'), source('mitogen.master'),
                  source('mitogen.service'), mitogen.utils.run_with_router(lambda router: list(main(router)))]))
'''


def served(parent, children):
    """
    Run a master in the checkout; return for each child whether it had children of its own, one of
    another Python.
    """
    other = pythons.find_python('python2.7') if pythons.is_here('python2.7') else sys.executable
    found = in_checkout(SERVES % (children, other), parent)
    assert found[:-1] == [joined('core'), joined('parent'), joined('master'), joined('service')]
    return dict(zip(children, found[-1]))


@pytest.fixture(scope='module')
def served_here():
    """
    The outcome of children of every interpreter, below one master on the running one.
    """
    return served(sys.executable, [pythons.find_python(name) for name in pythons.NAMES if pythons.is_here(name)])


@pytest.mark.parametrize('name', pythons.NAMES)
def test_a_checkout_serves_the_joined_text_to_its_children(name, served_here):
    python = pythons.find_python(name)
    assert served_here[python] is True
    assert served(python, [sys.executable]) == {sys.executable: True}


@pytest.mark.parametrize('module', MODULES)
def test_an_installed_package_serves_what_it_has(module):
    found = mitogen.master.ModuleFinder().get_module_source('mitogen.' + module)
    assert found == (os.path.join(INSTALLED, module + '.py'), joined(module).encode('utf-8'), False)


def test_parts_of_a_checkout_are_one_module():
    found = in_checkout('''
import pickle, traceback
from unittest import mock
import mitogen.core, mitogen.parent
try:
    mitogen.core.Message(enc=1)
except ValueError:
    frame = traceback.extract_tb(sys.exc_info()[2])[-1]
with mock.patch('mitogen.core.LOG') as log:
    mitogen.core.Context(None, 1).on_disconnect()
blob = mitogen.core.Blob(b'x')
mitogen.parent._preexec_hook = lambda: None
print(json.dumps([
    frame[0], frame[3], log.debug.call_count, pickle.loads(pickle.dumps(blob)) == blob,
    mitogen.parent.popen.__globals__['_preexec_hook'] is mitogen.parent._preexec_hook,
    sorted(name for name in sys.modules if name.startswith(('mitogen._core', 'mitogen._parent'))),
    sorted(set(vars(cls).get('__module__') for cls in vars(mitogen.core).values()
               if isinstance(cls, type) and cls.__name__ in ('Router', 'Latch', 'Message'))),
    mitogen.core.__doc__, mitogen.parent.__doc__]))
''')
    assert os.path.relpath(found[0], places.ROOT) == os.path.join('mitogen', '_core', 'pure_message.py')
    assert found[1].startswith('raise ValueError')
    assert found[2:7] == [1, True, True, [], ['mitogen.core']]
    assert found[7:] == [ast.get_docstring(ast.parse(joined(name)), clean=False) for name in ('core', 'parent')]


def test_parts_of_a_checkout_run_in_a_zip_file(tmp_path):
    path = str(tmp_path / 'checkout.zip')
    subprocess.check_call([sys.executable, '-c', '''
import os, sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as fp:
    for base, folders, files in os.walk(sys.argv[2]):
        for name in files:
            if name.endswith('.py'):
                where = os.path.join(base, name)
                fp.write(where, os.path.join('mitogen', os.path.relpath(where, sys.argv[2])))
''', path, PACKAGE])
    program = 'import mitogen.core, mitogen.parent; print(json.dumps(mitogen.core.get_core_source().decode("utf-8")))'
    assert in_checkout('sys.path.insert(0, %r)\n' % path + program) == joined('core')


@pytest.fixture
def checkout(tmp_path):
    """
    A copy of the package as it is in a checkout.
    """
    copy = tmp_path / 'checkout'
    shutil.copytree(PACKAGE, str(copy / 'mitogen'), ignore=shutil.ignore_patterns('__pycache__'))
    return copy


def caches(checkout):
    return sorted((checkout / 'mitogen' / '__pycache__').glob('core.parts.*'))


def import_core(checkout, options=(), **kwargs):
    """
    Import mitogen.core of a checkout; return the file and the text of a part's function.
    """
    env = dict(os.environ, PYTHONPATH=str(checkout), MITOGEN_CORE='pure', PYTHONDONTWRITEBYTECODE='')
    env.update(kwargs)
    program = 'import mitogen.core as c; print(c.fire.__code__.co_filename); print(c.fire.__doc__.split()[0])'
    out = subprocess.check_output([sys.executable] + list(options) + ['-c', program], env=env, cwd=places.LIB, timeout=110)
    return out.decode().splitlines()


def test_the_parts_of_a_checkout_are_cached_in_one_file(checkout):
    part = str(checkout / 'mitogen' / '_core' / 'signals.py')
    assert import_core(checkout) == [part, 'Call']
    cache, = caches(checkout)
    before = cache.stat()
    assert import_core(checkout) == [part, 'Call']
    assert (cache.stat().st_ino, cache.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    # Optimized code is other code.
    assert import_core(checkout, ['-O']) == [part, 'Call'] and len(caches(checkout)) == 2
    assert not (checkout / 'mitogen' / '_core' / '__pycache__').exists()


def test_a_part_that_was_changed_is_compiled_again(checkout):
    part = checkout / 'mitogen' / '_core' / 'signals.py'
    import_core(checkout)
    # Not even its size changes.
    part.write_text(part.read_text().replace('"""Call every listener', '"""Tell every listener'))
    assert import_core(checkout) == [str(part), 'Tell']
    assert import_core(checkout) == [str(part), 'Tell']


def test_a_checkout_that_was_moved_names_its_files(checkout):
    import_core(checkout)
    moved = checkout.rename(checkout.parent / 'moved')
    assert import_core(moved) == [str(moved / 'mitogen' / '_core' / 'signals.py'), 'Call']


@pytest.mark.parametrize('damage', [lambda data: b'', lambda data: data[:-1000]])
def test_a_damaged_cache_is_written_anew(checkout, damage):
    import_core(checkout)
    cache, = caches(checkout)
    whole = cache.read_bytes()
    cache.write_bytes(damage(whole))
    assert import_core(checkout)[1] == 'Call'
    assert cache.read_bytes()[:1000] == whole[:1000] and import_core(checkout)[1] == 'Call'


def test_nothing_is_cached_where_that_is_not_wanted_or_not_possible(checkout):
    assert import_core(checkout, PYTHONDONTWRITEBYTECODE='1')[1] == 'Call'
    assert not caches(checkout)
    # As in a checkout that is read-only, also for root.
    (checkout / 'mitogen' / '__pycache__').write_text('')
    assert import_core(checkout)[1] == 'Call'
