"""
Modules in parts: one text where they are installed, parts that are run in one namespace in a checkout.
"""

import ast
import glob
import json
import os
import subprocess
import sys

import pytest

import mitogen.core
import mitogen.master

import places
import pythons

PACKAGE = os.path.join(places.ROOT, 'mitogen')
INSTALLED = os.path.dirname(mitogen.core.__file__)

pytestmark = pytest.mark.skipif(not os.path.exists(os.path.join(PACKAGE, '_house.py')), reason='needs the source tree')

HOUSE = {}
if not pytestmark.args[0]:
    with open(os.path.join(PACKAGE, '_house.py')) as _fp:
        exec(_fp.read(), HOUSE)
MODULES = sorted(HOUSE.get('PARTS', ()))


def joined(module):
    return HOUSE['join'](os.path.join(PACKAGE, module + '.py'))


def in_checkout(program, python=sys.executable, core='pure'):
    """
    Run a program that imports the package from the source tree; return what it prints, which is JSON.
    """
    env = dict(os.environ, PYTHONPATH=places.ROOT, MITOGEN_CORE=core, PYTHONDONTWRITEBYTECODE='1')
    out = subprocess.check_output([python, '-c', 'import json, sys\n' + program], env=env, cwd=places.LIB, timeout=60)
    return json.loads(out.decode())


@pytest.mark.parametrize('module', MODULES)
def test_what_is_installed_is_the_parts_joined(module):
    with open(os.path.join(INSTALLED, module + '.py')) as fp:
        assert fp.read() == joined(module)
    assert not glob.glob(os.path.join(INSTALLED, '_house*')) and not glob.glob(os.path.join(INSTALLED, '_core'))


@pytest.mark.parametrize('module', MODULES)
def test_no_part_is_left_out_and_none_is_there_twice(module):
    names = []
    for part in HOUSE['PARTS'][module]:
        with open(HOUSE['part_path'](os.path.join(PACKAGE, module + '.py'), part)) as fp:
            tree = ast.parse(fp.read())
        names += [node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    tree = ast.parse(joined(module))
    assert names == [node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    assert '# house' not in joined(module)


@pytest.mark.parametrize('name', pythons.NAMES)
def test_a_checkout_serves_the_joined_text_to_its_children(name):
    program = '''
import os
import mitogen.core, mitogen.master, mitogen.parent, mitogen.utils
def source(module):
    return mitogen.master.ModuleFinder().get_module_source(module)[1].decode('utf-8')
def main(router):
    child = router.local(python_path=%r)
    below = router.local(via=child, python_path=%r)
    return child.call(os.getpid) != below.call(os.getpid)
print(json.dumps([mitogen.core.get_core_source().decode('utf-8'), source('mitogen.parent'), source('mitogen.master'),
                  source('mitogen.service'), mitogen.utils.run_with_router(main)]))
'''
    python = pythons.find_python(name)
    for parent, child in (python, sys.executable), (sys.executable, python):
        expected = [joined('core'), joined('parent'), joined('master'), joined('service'), True]
        assert in_checkout(program % (child, child), parent) == expected


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
