"""
Finding the source of modules, and what they need.
"""

import errno
import importlib
import importlib.machinery
import logging
import os
import sys
import types
import zipfile

import pytest
import places
import testlib

import mitogen._shrink
import mitogen.imports
import mitogen.master
from mitogen.master import (
    DefectivePython3xMainMethod, ModuleFinder, NamespaceMethod, ParentImpEnumerationMethod, ParentSpecEnumerationMethod,
    PkgutilMethod, SourceBesideMethod, SysModulesMethod, get_child_modules, is_stdlib_name, is_stdlib_path,
)

ALL_METHODS = [
    DefectivePython3xMainMethod, PkgutilMethod, SysModulesMethod, ParentSpecEnumerationMethod,
    ParentImpEnumerationMethod, SourceBesideMethod, NamespaceMethod,
]


# The packages in tests/data/importer can be imported.
pytestmark = pytest.mark.usefixtures('importer_data')


@pytest.fixture
def finder():
    return ModuleFinder()


def data(*parts):
    path = os.path.join(places.IMPORTER_DATA, *parts)
    with open(path, 'rb') as fp:
        return path, fp.read()


def found_by(fullname):
    return [cls for cls in ALL_METHODS if cls().find(fullname) is not None]


# ---- strategies

def test_representations():
    assert repr(ModuleFinder()) == 'ModuleFinder()'
    assert [repr(cls()) for cls in ALL_METHODS] == [cls.__name__ + '()' for cls in ALL_METHODS]


def test_strategies_are_tried_in_the_order_of_the_specification(finder):
    assert [type(method) for method in finder.get_module_methods] == ALL_METHODS


def test_a_module_that_is_not_loaded(finder, monkeypatch):
    path, source = data('lonely.py')
    # Another test may have imported it.
    monkeypatch.delitem(sys.modules, 'lonely', raising=False)
    assert PkgutilMethod().find('lonely') == (path, source, False)
    assert finder.get_module_source('lonely') == (path, source, False)
    assert 'lonely' not in sys.modules


def test_a_submodule_is_found_without_importing_its_parents():
    path, source = data('simple_pkg', 'a.py')
    assert PkgutilMethod().find('simple_pkg.a') == (path, source, False)
    assert 'simple_pkg' not in sys.modules
    assert 'simple_pkg.a' not in sys.modules


@pytest.mark.parametrize('name', ['sys', '_socket', 'no_such_module', 'simple_pkg.no_such', 'no_such.module',
                                  'simple_pkg.', '.'])
def test_what_has_no_source_is_found_by_none(name):
    assert found_by(name) == []


def test_an_extension_imports_nothing_that_can_be_seen(finder):
    with testlib.LogCapture('mitogen', logging.WARNING) as logs:
        assert list(finder._find_imports('_mitogen_core', False)) == []
    assert not logs.records


@pytest.mark.parametrize('name', ['namespace_pkg', 'namespace_pkg.inside'])
def test_a_package_that_is_only_a_folder_has_an_empty_source(name):
    path = os.path.join(places.IMPORTER_DATA, *name.split('.'))
    assert found_by(name) == [NamespaceMethod]
    assert NamespaceMethod().find(name) == (path + '/', b'', True)


def test_a_module_in_a_namespace_package():
    path, source = data('namespace_pkg', 'inside', 'module.py')
    assert PkgutilMethod().find('namespace_pkg.inside.module') == (path, source, False)


def test_an_empty_package():
    path, _ = data('finder_pkg', '__init__.py')
    assert PkgutilMethod().find('finder_pkg') == (path, b'', True)
    importlib.import_module('finder_pkg')
    assert SysModulesMethod().find('finder_pkg') == (path, b'\n', True)


def test_a_parent_that_cannot_be_imported_is_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / 'exploding').mkdir()
    (tmp_path / 'exploding' / '__init__.py').write_text('1 / 0\n')
    (tmp_path / 'exploding' / 'inner.py').write_text('x = 1\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert PkgutilMethod().find('exploding.inner') == (
        str(tmp_path / 'exploding' / 'inner.py'), b'x = 1\n', False)
    assert 'exploding' not in sys.modules


def test_source_travels_as_the_bytes_of_the_file(finder):
    path, source = data('latin_crlf.py')
    assert b'\r\n' in source and b'\xe9' in source
    assert finder.get_module_source('latin_crlf') == (path, source, False)
    importlib.import_module('latin_crlf')
    assert SysModulesMethod().find('latin_crlf') == (path, source, False)
    assert ParentSpecEnumerationMethod().find('latin_crlf') == (path, source, False)


def test_a_module_in_an_archive(tmp_path, monkeypatch, finder):
    path = str(tmp_path / 'things.zip')
    with zipfile.ZipFile(path, 'w') as fp:
        fp.writestr('zipped/__init__.py', b'')
        fp.writestr('zipped/inner.py', b'# coding: latin-1\nx = "\xe9"\n')
    monkeypatch.syspath_prepend(path)
    assert PkgutilMethod().find('zipped.inner') == (
        os.path.join(path, 'zipped', 'inner.py'), b'# coding: latin-1\nx = "\xe9"\n', False)
    found = finder.get_module_source('zipped')
    assert found == (os.path.join(path, 'zipped', '__init__.py'), b'', True)
    assert get_child_modules(found[0], 'zipped') == ['inner']


class MemoryLoader(object):
    """
    An importer's loader that has what the class attribute says.
    """
    names = {}

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname in cls.names:
            spec = importlib.machinery.ModuleSpec(fullname, cls(), is_package=cls.names[fullname][2])
            spec.origin = cls.names[fullname][0]
            return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        pass

    def get_filename(self, fullname):
        return self.names[fullname][0]

    def get_source(self, fullname):
        return self.names[fullname][1]

    def is_package(self, fullname):
        return self.names[fullname][2]

    def iter_modules(self, prefix):
        assert prefix is None
        return [('', 'inner', False)]


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.setattr(sys, 'meta_path', sys.meta_path + [MemoryLoader])
    monkeypatch.setattr(MemoryLoader, 'names', {
        'in_memory': ('<ansible_synthetic_collection_package>', None, True),
        'in_memory.inner': ('/nowhere/inner.py', u'x = "\u20ac"\n', False),
        'in_memory.native': ('/nowhere/native.so', None, False),
        'in_memory.bare': ('/nowhere/bare.py', None, False),
    })


def test_a_package_made_in_memory(memory, finder):
    assert finder.get_module_source('in_memory') == ('<ansible_synthetic_collection_package>', b'\n', True)
    assert get_child_modules('<ansible_synthetic_collection_package>', 'in_memory') == ['inner']


def test_text_of_a_loader_is_encoded(memory, finder):
    assert finder.get_module_source('in_memory.inner') == (
        '/nowhere/inner.py', u'x = "\u20ac"\n'.encode('utf-8'), False)


@pytest.mark.parametrize('name', ['in_memory.native', 'in_memory.bare'])
def test_a_loader_without_source(memory, name):
    assert found_by(name) == []


def test_an_object_in_place_of_a_module_is_found_by_its_file_only():
    import finder_pkg.replaces_itself
    assert type(sys.modules['finder_pkg.replaces_itself']).__name__ == 'Replacement'
    assert found_by('finder_pkg.replaces_itself') == [ParentSpecEnumerationMethod]
    path, source = data('finder_pkg', 'replaces_itself.py')
    assert ParentSpecEnumerationMethod().find('finder_pkg.replaces_itself') == (path, source, False)


def test_a_module_in_place_of_its_package_is_found_by_its_file_only(finder):
    import finder_pkg.replaced_pkg
    assert sys.modules['finder_pkg.replaced_pkg'].__name__ == 'finder_pkg.replaced_pkg.real'
    assert found_by('finder_pkg.replaced_pkg') == [ParentSpecEnumerationMethod]
    assert finder.get_module_source('finder_pkg.replaced_pkg') == data(
        'finder_pkg', 'replaced_pkg', '__init__.py') + (True,)
    # The nearest parent that can be trusted is one further up.
    assert ParentSpecEnumerationMethod().find('finder_pkg.replaced_pkg.real') == data(
        'finder_pkg', 'replaced_pkg', 'real.py') + (False,)


def test_a_module_does_not_serve_as_a_package():
    assert ParentSpecEnumerationMethod().find('lonely.inner') is None


def test_modules_loaded_in_unusual_ways(tmp_path, finder, monkeypatch):
    path = tmp_path / 'elsewhere.py'
    path.write_bytes(b'x = 1\n')
    module = types.ModuleType('unusual')
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, 'unusual', module)
    assert found_by('unusual') == [SysModulesMethod]
    # Under another name it is something else.
    monkeypatch.setitem(sys.modules, 'alias', module)
    assert found_by('alias') == []


def test_a_file_that_cannot_be_read_leaves_it_to_the_next_strategy(finder, monkeypatch):
    module = types.ModuleType('vanished')
    module.__file__ = os.path.join(os.path.dirname(__file__), 'vanished.py')
    monkeypatch.setitem(sys.modules, 'vanished', module)
    assert SysModulesMethod().find('vanished') is None
    assert finder.get_module_source('vanished') == (None, None, None)


def test_a_package_that_cannot_be_read_counts_as_empty(monkeypatch):
    module = types.ModuleType('vanished')
    module.__file__ = os.path.join(os.path.dirname(__file__), 'vanished', '__init__.py')
    module.__path__ = []
    monkeypatch.setitem(sys.modules, 'vanished', module)
    assert SysModulesMethod().find('vanished') == (module.__file__, b'\n', True)


# ---- __main__

@pytest.fixture
def main_script(monkeypatch, tmp_path):
    def install(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        module = types.ModuleType('__main__')
        module.__file__ = str(path)
        module.__spec__ = None
        monkeypatch.setitem(sys.modules, '__main__', module)
        return str(path), content, False
    return install


def test_a_main_module_with_a_suffix(main_script):
    expected = main_script('program.py', b'x = 1\n')
    assert found_by('__main__') == [DefectivePython3xMainMethod, SysModulesMethod]
    assert DefectivePython3xMainMethod().find('__main__') == expected
    assert SysModulesMethod().find('__main__') == expected


def test_a_main_script_without_a_suffix(main_script, finder):
    expected = main_script('program', b'#!/usr/bin/python\nx = 1\n')
    assert found_by('__main__') == [DefectivePython3xMainMethod, SysModulesMethod]
    assert finder.get_module_source('__main__') == expected


def test_a_main_program_that_is_no_script(main_script, finder):
    main_script('program', b'\x7fELF\x00\x01')
    assert found_by('__main__') == []


def test_a_main_module_that_is_not_ascii_at_its_start(main_script, finder):
    expected = main_script('program.py', u'# \u20ac\nx = 1\n'.encode('utf-8'))
    assert DefectivePython3xMainMethod().find('__main__') == expected
    assert finder.get_module_source('__main__') == expected


# ---- file names

@pytest.mark.parametrize('name, expected', [
    ('', (None, False)),
    (None, (None, False)),
    ('/a/b.py', ('/a/b.py', False)),
    ('/a/b.pyc', ('/a/b.py', False)),
    ('/a/b.pyo', ('/a/b.py', False)),
    ('/a/b.so', (None, False)),
    ('/a/does-not-exist', (None, False)),
    ('/a/__synthetic__', ('/a/__synthetic__', True)),
    ('<ansible_synthetic_collection_package>', ('<ansible_synthetic_collection_package>', True)),
])
def test_file_names(name, expected):
    assert mitogen.master._py_filename(name) == expected


def test_scripts_are_recognised_by_their_first_bytes(tmp_path):
    script, binary = tmp_path / 'script', tmp_path / 'binary'
    script.write_bytes(b'#!/bin/sh\n\t' + b'x' * 600 + b'\x00')
    binary.write_bytes(b'x' * 511 + b'\x01')
    assert mitogen.master._looks_like_script(str(script))
    assert not mitogen.master._looks_like_script(str(binary))
    assert not mitogen.master._looks_like_script(str(tmp_path))
    assert not mitogen.master._looks_like_script(str(tmp_path / 'absent'))
    assert mitogen.master._py_filename(str(script)) == (str(script), False)
    assert mitogen.master._py_filename(str(binary)) == (None, False)


# ---- the cache, overrides and modifiers

def test_both_outcomes_are_remembered(finder, monkeypatch):
    calls = []

    class Counting(object):
        def find(self, fullname):
            calls.append(fullname)
            return ('/p.py', b'x', False) if fullname == 'there' else None

    monkeypatch.setattr(finder, 'get_module_methods', [Counting()])
    for _ in range(2):
        assert finder.get_module_source('there') == ('/p.py', b'x', False)
        assert finder.get_module_source('absent') == (None, None, None)
    assert calls == ['there', 'absent']
    assert finder._found_cache == {'there': ('/p.py', b'x', False), 'absent': (None, None, None)}


def test_an_override_replaces_strategies_and_modifiers(finder):
    finder.add_source_modifier('lonely', lambda *args: 1 / 0)
    finder.add_source_override('lonely', '/o.py', 'x = 2\n', False)
    assert finder.get_module_source('lonely') == ('/o.py', b'x = 2\n', False)


def test_modifiers_run_once_in_order(finder):
    path, source = data('lonely.py')
    seen = []

    def modifier(text):
        def modify(fullname, path, source, is_pkg):
            seen.append((fullname, path, is_pkg))
            return path, source + text, is_pkg
        return modify

    finder.add_source_modifier('lonely', modifier(b'# 1'))
    finder.add_source_modifier('lonely', modifier(b'# 2'))
    for _ in range(2):
        assert finder.get_module_source('lonely') == (path, source + b'# 1# 2', False)
    assert seen == [('lonely', path, False)] * 2
    assert finder._found_cache['lonely'][0] == path


def test_modifiers_do_not_run_for_what_is_absent(finder):
    finder.add_source_modifier('absent', lambda *args: 1 / 0)
    assert finder.get_module_source('absent') == (None, None, None)


# ---- the standard library

@pytest.mark.parametrize('name', ['sys', 'logging', 'email', 'os', '_socket', 'email.message'])
def test_loaded_modules_of_the_standard_library(name):
    importlib.import_module(name)
    assert is_stdlib_name(name)


def test_what_is_not_of_the_standard_library():
    import namespace_pkg
    assert namespace_pkg.__path__
    assert not is_stdlib_name('namespace_pkg')
    assert not is_stdlib_name('mitogen.core')
    assert not is_stdlib_name('pytest')
    sys.modules.pop('wave', None)
    assert not is_stdlib_name('wave')


def test_standard_library_paths():
    libpath = os.path.dirname(os.path.realpath(os.__file__))
    assert is_stdlib_path(os.path.join(libpath, 'email', 'utils.py'))
    assert not is_stdlib_path(os.path.join(libpath, 'site-packages', 'x.py'))
    assert not is_stdlib_path(os.path.join(libpath, 'dist-packages', 'x.py'))
    assert not is_stdlib_path(libpath + 'x/y.py')
    assert not is_stdlib_path(os.path.abspath(__file__))


def test_a_virtualenv_is_known_by_its_links(tmp_path):
    link = tmp_path / 'linked'
    link.symlink_to(os.path.dirname(os.__file__))
    assert is_stdlib_path(str(link / 'email' / 'utils.py'))


# ---- related modules

@pytest.mark.parametrize('name, level, expected', [
    ('email.utils', 0, ''),
    ('email.utils', 1, 'email.'),
    ('email.utils', 2, ''),
    ('email', 1, 'email.'),
    ('email', 2, ''),
    ('email.mime', 1, 'email.mime.'),
    ('email.mime', 2, 'email.'),
    ('', 0, ''),
    ('', 1, ''),
    ('', 2, ''),
])
def test_prefixes_of_relative_imports(finder, name, level, expected):
    import email.mime.text
    assert email.mime.text
    assert finder.resolve_relpath(name, level) == expected


def test_parent_names(finder):
    assert list(finder.generate_parent_names('a.b.c')) == ['a.b', 'a']
    assert list(finder.generate_parent_names('a')) == []


RELATED = ['finder_pkg', 'finder_pkg.a', 'finder_pkg.b', 'finder_pkg.sub', 'mitogen', 'mitogen.core', 'simple_pkg',
           'simple_pkg.b']


def prepare_relations(finder):
    """
    Load what the module `finder_pkg.relations` imports, the absent one excepted. Its `from . import
    b` is not among what upstream reports either; here another import of b follows.
    """
    import finder_pkg.a
    import finder_pkg.b
    import finder_pkg.sub
    import simple_pkg.a
    import simple_pkg.b
    import simple_pkg.c
    assert 'zz_never_loaded' not in sys.modules


def test_related_imports_of_a_module(finder):
    prepare_relations(finder)
    # Packages come in by their modules: in find_related().
    expected = [name for name in RELATED if name not in ('mitogen', 'simple_pkg')]
    assert finder.find_related_imports('finder_pkg.relations') == expected
    assert finder._related_cache['finder_pkg.relations'] == expected


def test_only_loaded_modules_are_related(finder):
    import finder_pkg
    assert finder_pkg
    assert finder.find_related_imports('finder_pkg.b') == ['finder_pkg']


def test_a_lone_relative_import_matches_nothing(finder):
    import finder_pkg.b
    assert finder_pkg.b
    finder.add_source_override('finder_pkg.other', '/o.py', 'from . import b\n', False)
    assert finder.find_related_imports('finder_pkg.other') == ['finder_pkg']
    finder.add_source_override('finder_pkg.other', '/o.py', 'from .b import x\nfrom .. import y\n', False)
    assert finder.find_related_imports('finder_pkg.other') == ['finder_pkg', 'finder_pkg.b']


def test_what_is_never_related(finder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'six.moves.zz', types.ModuleType('six.moves.zz'))
    monkeypatch.setitem(sys.modules, 'blocked_by_none', None)
    finder.add_source_override(
        'x', '/x.py', 'import __main__, six.moves.zz, blocked_by_none, logging, sys\n', False)
    assert finder.find_related_imports('x') == []
    assert finder.find_related('x') == []


def test_related_modules_of_related_modules(finder):
    prepare_relations(finder)
    related = finder.find_related('finder_pkg.relations')
    assert related == sorted(set(related))
    assert set(RELATED) <= set(related)
    assert 'finder_pkg.relations' not in related


def test_a_module_with_few_needs():
    finder = ModuleFinder()
    import simple_pkg.a
    assert simple_pkg.a
    assert finder.find_related('simple_pkg.a') == ['simple_pkg', 'simple_pkg.b']
    assert finder.find_related('simple_pkg.b') == ['simple_pkg']


def test_an_absent_module_needs_nothing(finder):
    assert finder.find_related_imports('absent') == []
    assert finder.find_related('absent') == []


def test_a_module_that_does_not_compile_here_needs_its_parents_only(finder):
    import simple_pkg
    assert simple_pkg
    finder.add_source_override('simple_pkg.old', '/old.py', 'import sys\nprint "2"\n', False)
    assert finder.find_related_imports('simple_pkg.old') == ['simple_pkg']


def test_an_altered_source_is_not_read_from_the_bytecode_cache(finder):
    import simple_pkg.a
    import simple_pkg.c
    assert simple_pkg.a and simple_pkg.c
    finder.add_source_modifier(
        'simple_pkg.a', lambda name, path, source, is_pkg: (path, b'import simple_pkg.c\n', is_pkg))
    assert finder.find_related_imports('simple_pkg.a') == ['simple_pkg', 'simple_pkg.c']


def test_fakessh_needs_three_modules(finder):
    pytest.importorskip('mitogen.fakessh')
    expected = ['mitogen', 'mitogen.core', 'mitogen.parent']
    assert finder.find_related_imports('mitogen.fakessh') == expected
    assert finder.find_related('mitogen.fakessh') == expected


# ---- submodules

def test_submodules_of_a_package():
    path, _ = data('finder_pkg', '__init__.py')
    assert get_child_modules(path, 'finder_pkg') == [
        'a', 'b', 'relations', 'replaced_pkg', 'replaces_itself', 'sub']


def test_submodules_of_a_new_package(tmp_path):
    for name in ('__init__.py', 'a.py', 'b.py', 'c.txt', 'd'):
        (tmp_path / name).write_text(u'')
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'sub' / '__init__.py').write_text(u'')
    assert get_child_modules(str(tmp_path / '__init__.py'), 'whatever') == ['a', 'b', 'sub']


def test_submodules_that_nobody_knows():
    assert get_child_modules('__init__.py', 'no_such_package') == []
    assert get_child_modules('__init__.py', 'logging') == []


def test_a_module_below_namespaces_is_found_without_running_anything(tmp_path, monkeypatch):
    folder = tmp_path / 'outer_ns' / 'inner_ns' / 'regular'
    folder.mkdir(parents=True)
    (folder / '__init__.py').write_text('raise SystemExit()\n')
    (folder / 'leaf.py').write_text('x = 1\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert PkgutilMethod().find('outer_ns.inner_ns.regular.leaf') == (str(folder / 'leaf.py'), b'x = 1\n', False)
        assert 'outer_ns.inner_ns.regular' not in sys.modules
    finally:
        for name in [name for name in sys.modules if name.startswith('outer_ns')]:
            del sys.modules[name]


def test_modules_of_a_frozen_application_are_not_those_of_the_interpreter(monkeypatch):
    import json.decoder
    monkeypatch.setattr(sys, 'frozen', True, raising=False)
    monkeypatch.setattr(os, '__file__', os.path.join(places.IMPORTER_DATA, 'os.pyc'))
    monkeypatch.setattr(mitogen.master, '_STDLIB_PATHS', mitogen.master._stdlib_paths())
    monkeypatch.setattr(mitogen.master, '_stdlib_dir_cache', {})
    path, _ = data('lonely.py')
    assert not is_stdlib_path(path)
    monkeypatch.setitem(sys.modules, 'lonely', types.ModuleType('lonely'))
    monkeypatch.setattr(sys.modules['lonely'], '__file__', path, raising=False)
    assert not is_stdlib_name('lonely')
    assert is_stdlib_name('json.decoder') == (sys.version_info >= (3, 10))


# ---- what is not found because of somebody's mistake

class BrokenFinder(object):
    def find_spec(self, fullname, path=None, target=None):
        raise RuntimeError('no finder of ours')


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == 'WARNING']


@pytest.fixture
def nothing_said(monkeypatch):
    monkeypatch.setattr(mitogen.master, '_swallowed', set())


def test_a_finder_that_fails_is_named_in_one_warning(finder, monkeypatch, caplog, nothing_said):
    monkeypatch.setattr(sys, 'meta_path', [BrokenFinder()] + sys.meta_path)
    for cls in PkgutilMethod, ParentSpecEnumerationMethod:
        for _ in range(2):
            cls().find('absent_module')
    assert warnings_of(caplog) == [
        "a finder of sys.meta_path failed on 'absent_module': no finder of ours",
        "'BrokenFinder' of sys.meta_path failed: no finder of ours",
    ]


def test_a_module_that_cannot_be_looked_through_is_named_in_one_warning(finder, monkeypatch, caplog, nothing_said):
    def fail(_code):
        raise ValueError('bytecode that is not known')

    monkeypatch.setattr(mitogen.imports, 'codeobj_imports', fail)
    monkeypatch.setattr(mitogen.master, '_imports_by_source', mitogen.master._BySource())
    for _ in range(2):
        assert finder.find_related('lonely') == []
    text, = warnings_of(caplog)
    assert "cannot tell what 'lonely' needs" in text and 'bytecode that is not known' in text


def test_a_core_that_cannot_be_reduced_is_one_warning(monkeypatch, caplog, nothing_said):
    def fail(_source, _constants):
        raise IndexError('tables of another Python')

    monkeypatch.setattr(mitogen.master, '_made_before', lambda key: None)
    monkeypatch.setattr(mitogen._shrink, 'divide_source', fail)
    for _ in range(2):
        text, late = mitogen.master._reduce_core_source(True, False)
        assert late is None and 'class ExternalContext' in text
    text, = warnings_of(caplog)
    assert "cannot reduce 'mitogen.core'" in text and 'tables of another Python' in text


def cannot_read(paths):
    """
    Return a replacement of functions that read files, which fails for some paths as where no
    descriptor is left.
    """
    def read(*args):
        if args[-1] in paths:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), args[-1])
        with open(args[-1], 'rb') as fp:
            return fp.read()
    return read


def test_a_source_that_is_there_and_cannot_be_read_is_named_in_one_warning(finder, monkeypatch, caplog, nothing_said):
    path, _ = data('lonely.py')
    monkeypatch.delitem(sys.modules, 'lonely', raising=False)
    monkeypatch.setattr(importlib.machinery.SourceFileLoader, 'get_data', cannot_read([path]))
    monkeypatch.setattr(mitogen.master, '_read_file', cannot_read([path]))
    assert finder.get_module_source('lonely') == (None, None, None)
    text, = warnings_of(caplog)
    assert "cannot read the source of 'lonely'" in text and os.strerror(errno.EMFILE) in text


def test_a_module_that_is_not_there_is_no_warning(finder, caplog, nothing_said):
    assert finder.get_module_source('absent_module') == (None, None, None)
    assert warnings_of(caplog) == []


def test_imports_that_cannot_be_told_are_one_warning(finder, monkeypatch, caplog, nothing_said):
    def fail(_code):
        raise ValueError('bytecode that is not known')

    monkeypatch.setattr(mitogen.imports, 'codeobj_imports', fail)
    monkeypatch.setattr(mitogen.master, '_needs_by_source', mitogen.master._BySource())
    for _ in range(2):
        assert list(finder._find_imports('lonely', False)) == []
    text, = warnings_of(caplog)
    assert "cannot tell what 'lonely' imports" in text and 'bytecode that is not known' in text


def test_a_source_that_is_no_python_is_no_warning(finder, caplog, nothing_said):
    finder.add_source_override('lonely', '/o.py', 'x = (\n', False)
    assert list(finder._find_imports('lonely', False)) == []
    assert warnings_of(caplog) == []


def test_bytecode_that_cannot_be_had_is_one_warning(router, monkeypatch, caplog, nothing_said):
    def fail(*args):
        raise RuntimeError('no compiler of ours')

    parcels = router.responder._parcels
    monkeypatch.setattr(mitogen.master, '_get_bytecode', fail)
    for _ in range(2):
        assert parcels._make(parcels.get('lonely'), True) == router.responder._get_source('lonely')
    text, = warnings_of(caplog)
    assert "cannot compile 'lonely'" in text and 'no compiler of ours' in text
