"""
CPython's own tests of finders, loaders and resources (``test.test_importlib`` of this interpreter),
run in a child against what came from the master.

Those of finders and loaders are abstract: they name the cases, which are below. Those of resources
are mixins: they get a package that is a copy of theirs, and that only the master has.

Left out: `test_open`, `test_read` and `test_path` have classes ``Common...Tests``, and
`test_resource` the classes ``ResourceLoaderTests``, ``ResourceCornerCaseTests`` and
``DeletingZipsTest``: these make packages with a loader of their own, or delete archives.
``test_natural_path`` wants a path on disk without ``as_file()``. The tests below ``builtin``,
``extension``, ``frozen``, ``import_`` and ``source`` are about loaders that are not ours.
"""

import os
import shutil
import sys

import pytest

pytest.importorskip('test.test_importlib', reason='this interpreter has no tests of its own')

RUNNER = '''
import importlib, importlib.util, io, sys, unittest
from test.test_importlib import abc

MIXINS = [('test_files', 'FilesTests'), ('test_contents', 'ContentsTests'), ('test_open', 'OpenTests'),
          ('test_read', 'ReadTests'), ('test_path', 'PathTests'), ('test_resource', 'ResourceTests')]

def find_mixin(module, name):
    for above in 'test.test_importlib.resources.', 'test.test_importlib.':
        try:
            return getattr(importlib.import_module(above + module), name)
        except ImportError:
            continue
    raise ImportError(module)

def run(cases):
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromTestCase(case) for case in cases)
    out = io.StringIO()
    result = unittest.TextTestRunner(out).run(suite)
    return result.testsRun, result.wasSuccessful(), out.getvalue()

def run_resources(data, expected):
    cases = []
    for module, name in MIXINS:
        names = {'data': importlib.import_module(data), '__module__': __name__}
        if name == 'ContentsTests':
            names['expected'] = set(expected)
        cases.append(type(name, (find_mixin(module, name), unittest.TestCase), names))
    return run(cases)

class Finder(abc.FinderTests, unittest.TestCase):
    def found(self, name):
        spec = importlib.util.find_spec(name)
        self.assertTrue(spec.loader is importlib.import_module('cpy_finder').__loader__, spec)
        return spec

    def test_module(self):
        self.assertEqual(self.found('cpy_module').submodule_search_locations, None)

    def test_package(self):
        self.assertEqual(len(self.found('cpy_finder').submodule_search_locations), 1)

    def test_module_in_package(self):
        self.found('cpy_finder.module')

    def test_package_in_package(self):
        self.assertEqual(len(self.found('cpy_finder.package').submodule_search_locations), 1)

    def test_package_over_module(self):
        self.assertTrue(self.found('cpy_both').origin.endswith('cpy_both/__init__.py'))

    def test_failure(self):
        self.assertEqual(importlib.util.find_spec('cpy_no_such'), None)
        self.assertEqual(importlib.util.find_spec('cpy_finder.no_such'), None)

class Loader(abc.LoaderTests, unittest.TestCase):
    def load(self, name, is_package):
        sys.modules.pop(name, None)
        module = importlib.import_module(name)
        self.assertEqual(module.__name__, name)
        self.assertEqual(module.__spec__.name, name)
        self.assertEqual(module.__package__, name if is_package else name.rpartition('.')[0])
        self.assertEqual(hasattr(module, '__path__'), is_package)
        self.assertTrue(module.__file__.startswith('master:/'))
        self.assertTrue(module.__loader__ is module.__spec__.loader)
        self.assertTrue(sys.modules[name] is module)
        return module

    def test_module(self):
        self.load('cpy_module', False)

    def test_package(self):
        self.load('cpy_finder', True)

    def test_lacking_parent(self):
        for name in list(sys.modules):
            if name.startswith('cpy_finder'):
                del sys.modules[name]
        self.load('cpy_finder.module', False)

    def test_state_after_failure(self):
        module = self.load('cpy_changing', False)
        importlib.import_module('cpy_switch').fails = True
        with self.assertRaises(ZeroDivisionError):
            importlib.reload(module)
        self.assertTrue(sys.modules['cpy_changing'] is module)
        self.assertEqual(module.x, 1)

    def test_unloadable(self):
        with self.assertRaises(ImportError) as caught:
            importlib.import_module('cpy_no_such')
        with self.assertRaises(ZeroDivisionError):
            importlib.import_module('cpy_broken')
        self.assertTrue('cpy_broken' not in sys.modules)

def run_loaders():
    return run([Finder, Loader])
'''

FILES = {
    'cpy_runner.py': RUNNER, 'cpy_module.py': '', 'cpy_finder/__init__.py': '', 'cpy_finder/module.py': '',
    'cpy_finder/package/__init__.py': '', 'cpy_both.py': '', 'cpy_both/__init__.py': '', 'cpy_broken.py': '1 / 0\n',
    'cpy_switch.py': 'fails = False\n',
    'cpy_changing.py': 'import cpy_switch\nif cpy_switch.fails:\n    1 / 0\nx = 1\n',
}


@pytest.fixture
def run(router, tmp_path, monkeypatch):
    """
    A function that has a child run a function of its tests.
    """
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    child = router.local()

    def run(name, *args):
        count, is_well, text = child.call(
            eval, '(__import__("cpy_runner"), __import__("sys").modules["cpy_runner"].%s(*%r))[1]' % (name, args))
        assert is_well, text
        return count

    return run


#: Older ones lack files(), and newer ones write their data elsewhere.
needs_data = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason='the data of these tests is that of Python 3.11')


def copy_data(tmp_path, name):
    from test.test_importlib import data01
    folder = tmp_path / name
    shutil.copytree(os.path.dirname(data01.__file__), str(folder), ignore=shutil.ignore_patterns('__pycache__'))
    return folder


NAMES = ['__init__.py', 'binary.file', 'subdirectory', 'utf-16.file', 'utf-8.file']


def test_finders_and_loaders(run):
    assert run('run_loaders') == 11


@needs_data
def test_resources_of_a_package(run, tmp_path):
    copy_data(tmp_path, 'cpy_data')
    assert run('run_resources', 'cpy_data', NAMES) >= 18


@needs_data
def test_resources_of_a_folder(run, tmp_path):
    (copy_data(tmp_path, 'cpy_folder') / '__init__.py').unlink()
    assert run('run_resources', 'cpy_folder', NAMES[1:]) >= 18
