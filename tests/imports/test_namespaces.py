"""
Packages of several folders, of which some are on the master and some on the target; and folders
that only look like packages.

The packages are made for each test. One child serves all tests of a router's kind, so each has
names of its own.
"""

import sys
import textwrap
import zipfile

import pytest

import mitogen.master
from mitogen.core import CallError

import closure_child
import pythons

EXTEND = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"
DECLARE = "__import__('pkg_resources').declare_namespace(__name__)\n"

#: The work of declare_namespace, for interpreters that lack setuptools.
PKG_RESOURCES = '''
import pkgutil, sys

def declare_namespace(name):
    module = sys.modules[name]
    module.__path__ = pkgutil.extend_path(module.__path__, name)
'''


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


class Places:
    """
    The folders that this process imports from, and those of the child.
    """
    def __init__(self, here, there, child, monkeypatch):
        self._here, self._there, self.child, self._monkeypatch = here, there, child, monkeypatch
        self._count = 0

    def here(self, files):
        """
        Write files into a new folder of our path.
        """
        self._count += 1
        folder = self._here / str(self._count)
        folder.mkdir()
        self._monkeypatch.syspath_prepend(str(write(folder, files)))
        return folder

    def there(self, files):
        """
        Write files into the folder that is on the child's path.
        """
        write(self._there, files)
        self.child.call(eval, "__import__('importlib').invalidate_caches()")

    def value(self, name, what):
        return self.child.call(eval, "(__import__(%r), eval(%r, vars(__import__('sys').modules[%r])))[1]" % (
            name, what, name))


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    there = tmp_path_factory.mktemp('there')
    broker = mitogen.master.Broker()
    router = mitogen.master.Router(broker)
    yield there, router.local(python_path=['/usr/bin/env', 'PYTHONPATH=%s' % there, sys.executable])
    broker.shutdown()
    broker.join()


@pytest.fixture
def places(shared, tmp_path, monkeypatch):
    before = set(sys.modules)
    yield Places(tmp_path, shared[0], shared[1], monkeypatch)
    loaded = [name for name in set(sys.modules) - before if name.startswith('nsp_')]
    # A folder may be imported, which runs nothing.
    assert not [name for name in loaded if getattr(sys.modules[name], '__file__', None)], 'the master has imported'
    for name in loaded:
        del sys.modules[name]


def test_a_folder_without_init_is_a_package(places):
    places.here({'nsp_a/inner/mod.py': 'x = 1', 'nsp_a/top.py': 'x = 2'})
    assert places.value('nsp_a.inner.mod', 'x') == 1
    assert places.value('nsp_a.top', 'x') == 2
    assert places.value('nsp_a', '(__file__ if "__file__" in globals() else None, __spec__.origin)') == (None, None)


def test_a_package_may_be_in_several_folders_of_the_master(places):
    places.here({'nsp_b/one.py': 'x = 1'})
    places.here({'nsp_b/two.py': 'x = 2'})
    assert [places.value('nsp_b.' + name, 'x') for name in ('one', 'two')] == [1, 2]


@pytest.mark.parametrize('name, text', [('nsp_ext', EXTEND), ('nsp_dec', DECLARE)])
def test_so_may_one_that_is_put_together_by_its_source(places, name, text):
    places.there({'pkg_resources.py': PKG_RESOURCES})
    places.here({name + '/__init__.py': text, name + '/one.py': 'x = 1', name + '/two/__init__.py': ''})
    places.here({name + '/__init__.py': text, name + '/three.py': 'x = 3', name + '/four/__init__.py': '', name + '/four/mod.py': 'x = 4'})
    assert [places.value('%s.%s' % (name, inner), 'x') for inner in ('one', 'three', 'four.mod')] == [1, 3, 4]


def test_half_of_a_folder_here_and_half_there(places):
    places.here({'nsp_c/ours.py': 'x = "here"'})
    places.there({'nsp_c/theirs.py': 'x = "there"'})
    assert places.value('nsp_c.theirs', 'x') == 'there'
    assert places.value('nsp_c.ours', 'x') == 'here'
    assert places.value('nsp_c.theirs', '__file__').startswith('/')
    names = "[m.name for m in __import__('pkgutil').iter_modules(__path__)]"
    assert sorted(places.value('nsp_c', names)) == ['ours', 'theirs']
    with pytest.raises(CallError) as e:
        places.value('nsp_c.nobodys', 'x')
    assert 'ModuleNotFoundError' in str(e.value)


@pytest.mark.skipif(sys.version_info < (3, 10), reason='files() takes no folders without __init__')
def test_data_of_a_folder_that_is_half_here_and_half_there(places):
    places.here({'nsp_r/ours.txt': 'ours', 'nsp_r/both.txt': 'ours', 'nsp_r/sub/ours.txt': 'deep', 'nsp_r/only/a/b.txt': 'b',
                 'nsp_r/mixed/x.txt': ''})
    places.there({'nsp_r/theirs.txt': 'theirs', 'nsp_r/both.txt': 'theirs', 'nsp_r/sub/theirs.txt': '', 'nsp_r/mixed': 'file'})
    files = "__import__('importlib.resources').resources.files(%r)"
    for name, path, text in (
            ('nsp_r', 'ours.txt', 'ours'), ('nsp_r', 'theirs.txt', 'theirs'), ('nsp_r', 'both.txt', 'theirs'),
            ('nsp_r', 'sub/ours.txt', 'deep'), ('nsp_r.sub', 'ours.txt', 'deep'), ('nsp_r', 'only/a/b.txt', 'b'),
            ('nsp_r', 'mixed', 'file')):
        assert places.value(name, (files + ".joinpath(*%r.split('/')).read_text()") % (name, path)) == text
    names = files + ".joinpath(%r).iterdir()"
    assert places.value('nsp_r', '[f.name for f in %s]' % names % ('nsp_r', 'sub')) == ['ours.txt', 'theirs.txt']
    kinds = '[(f.name, f.is_dir(), f.is_file()) for f in %s.iterdir()]' % files % 'nsp_r'
    assert places.value('nsp_r', kinds) == [
        ('both.txt', False, True), ('mixed', False, True), ('only', True, False), ('ours.txt', False, True),
        ('sub', True, False), ('theirs.txt', False, True)]
    # As a folder of a disk.
    copied = "list(map(lambda c: (sorted(__import__('os').listdir(str(c.__enter__()))), c.__exit__(None, None, None))[0], " \
             "[__import__('importlib.resources').resources.as_file(%s / 'sub')]))" % files % 'nsp_r'
    assert places.value('nsp_r', copied) == [['ours.txt', 'theirs.txt']]
    for path, error in ('no.txt', 'FileNotFoundError'), ('sub', 'IsADirectoryError'):
        with pytest.raises(CallError) as e:
            places.value('nsp_r', (files + '.joinpath(%r).read_text()') % ('nsp_r', path))
        assert error in str(e.value)


@pytest.mark.parametrize('name, text', [('nsp_hext', EXTEND), ('nsp_hdec', DECLARE)])
def test_half_of_a_package_that_is_put_together_here_and_half_there(places, name, text):
    places.here({name + '/__init__.py': text, name + '/ours.py': 'x = "here"', name + '/deep/__init__.py': '',
                 name + '/deep/mod.py': 'x = "deep"'})
    places.there({'pkg_resources.py': PKG_RESOURCES, name + '/__init__.py': text, name + '/theirs.py': 'x = "there"'})
    # Something has come before.
    places.here({'nsp_before.py': ''})
    places.value('nsp_before', '0')
    assert places.value(name + '.theirs', 'x') == 'there'
    assert places.value(name + '.ours', 'x') == 'here'
    assert places.value(name + '.deep.mod', 'x') == 'deep'
    with pytest.raises(CallError) as e:
        places.value(name + '.nobodys', 'x')
    assert 'ModuleNotFoundError' in str(e.value)


def test_a_package_of_the_target_is_not_filled_up(places):
    places.here({'nsp_d/__init__.py': '', 'nsp_d/ours.py': 'x = 1'})
    places.there({'nsp_d/__init__.py': ''})
    with pytest.raises(CallError) as e:
        places.value('nsp_d.ours', 'x')
    assert 'ModuleNotFoundError' in str(e.value)


def test_a_mere_folder_of_the_target_hides_no_module(places):
    places.here({'nsp_e.py': 'x = 1', 'nsp_f/__init__.py': 'x = 2', 'nsp_f/sub.py': 'x = 3'})
    places.there({'nsp_e/readme.txt': '', 'nsp_f/readme.txt': ''})
    assert [places.value(name, 'x') for name in ('nsp_e', 'nsp_f', 'nsp_f.sub')] == [1, 2, 3]
    assert places.value('nsp_f', '__file__').startswith('master:')


def test_a_folder_that_only_the_target_has_stays_a_package(places):
    places.there({'nsp_g/mod.py': 'x = 1'})
    assert places.value('nsp_g.mod', 'x') == 1
    assert places.value('nsp_g', "type(__path__).__name__").lstrip('_') == 'NamespacePath'


def test_a_folder_inside_a_package_is_a_package(places):
    places.here({'nsp_h/__init__.py': '', 'nsp_h/plain/mod.py': 'x = 1', 'nsp_h/not-a-name/x.py': ''})
    assert places.value('nsp_h.plain.mod', 'x') == 1
    # On a disk it is not listed either.
    assert places.value('nsp_h', "[m.name for m in __import__('pkgutil').iter_modules(__path__)]") == []


def test_a_source_beside_an_extension_is_served(places):
    suffix = __import__('importlib.machinery').machinery.EXTENSION_SUFFIXES[0]
    folder = places.here({'nsp_i/__init__.py': '', 'nsp_i/fast.py': 'x = "slow"', 'nsp_i/only' + suffix: '\x00',
                          'nsp_i/fast' + suffix: '\x00', 'nsp_i/pkg/__init__' + suffix: '\x00',
                          'nsp_i/pkg/__init__.py': 'x = 4'})
    assert places.value('nsp_i.fast', 'x') == 'slow'
    assert places.value('nsp_i.fast', '__file__') == 'master:%s/nsp_i/fast.py' % folder
    assert places.value('nsp_i.pkg', 'x') == 4
    with pytest.raises(CallError) as e:
        places.value('nsp_i.only', 'x')
    assert 'ImportError' in str(e.value) or 'ModuleNotFoundError' in str(e.value)


def test_zipped_packages(places, tmp_path, monkeypatch):
    path = str(tmp_path / 'packed.zip')
    with zipfile.ZipFile(path, 'w') as fp:
        for name, text in {'nsp_z/__init__.py': 'x = 1', 'nsp_z/sub/__init__.py': '', 'nsp_z/sub/mod.py': 'x = 2',
                           'nsp_zs.py': 'x = 3', 'nsp_zn/': '', 'nsp_zn/mod.py': 'x = 4'}.items():
            fp.writestr(name, text)
    monkeypatch.syspath_prepend(path)
    assert [places.value(name, 'x') for name in ('nsp_z', 'nsp_z.sub.mod', 'nsp_zs', 'nsp_zn.mod')] == [1, 2, 3, 4]


def test_editable_installs_by_pth_files(places, tmp_path, monkeypatch):
    import site
    project = write(tmp_path / 'project', {'nsp_j/__init__.py': '', 'nsp_j/mod.py': 'x = 1', 'nsp_jn/mod.py': 'x = 2'})
    folder = write(tmp_path / 'site', {'project.pth': '%s\n' % project})
    monkeypatch.setattr(sys, 'path', list(sys.path))
    site.addsitedir(str(folder))
    assert places.value('nsp_j.mod', 'x') == 1
    assert places.value('nsp_jn.mod', 'x') == 2


class Editable:
    """
    A finder as editable installs have that map names to files.
    """
    def __init__(self, paths):
        self._paths = paths

    def find_spec(self, fullname, path=None, target=None):
        from importlib.util import spec_from_file_location
        if fullname in self._paths:
            return spec_from_file_location(fullname, self._paths[fullname])


def test_editable_installs_by_finders(places, tmp_path, monkeypatch):
    project = write(tmp_path / 'src', {'nsp_k/__init__.py': '', 'nsp_k/mod.py': 'x = 1', 'nsp_k/data.txt': 'text'})
    monkeypatch.setattr(sys, 'meta_path', sys.meta_path + [Editable({'nsp_k': str(project / 'nsp_k' / '__init__.py')})])
    assert places.value('nsp_k.mod', 'x') == 1
    assert places.value('nsp_k', "__import__('pkgutil').get_data('nsp_k', 'data.txt')") == b'text'


def test_a_package_under_another_name(places):
    places.here({'nsp_l/__init__.py': '', 'nsp_l/_real/__init__.py': '', 'nsp_l/_real/core.py': 'x = 1',
                 'nsp_lm.py': 'import sys, nsp_l._real\nsys.modules["nsp_alias"] = nsp_l._real\nimport nsp_alias.core\n'
                              'x = nsp_alias.core.x\n'})
    assert places.value('nsp_lm', 'x') == 1


def test_a_package_that_puts_something_else_in_its_place(places):
    places.here({
        'nsp_m/__init__.py': '''
            import sys
            class Lazy(object):
                __path__ = __path__
                __name__ = __name__
                __spec__ = __spec__
            sys.modules[__name__] = Lazy()
            ''',
        'nsp_m/sub.py': 'x = 1\n', 'nsp_mu.py': 'import nsp_m.sub\nx = nsp_m.sub.x\n'})
    assert places.value('nsp_mu', 'x') == 1


def test_a_package_that_puts_a_bare_module_in_its_place(places):
    # It has no loader.
    places.here({
        'nsp_s/__init__.py': '''
            import importlib, sys, types
            class Lazy(types.ModuleType):
                def __getattr__(self, name):
                    if name.startswith('_'):
                        raise AttributeError(name)
                    return importlib.import_module(self.__name__ + '.' + name)
            lazy = Lazy(__name__)
            lazy.__path__, lazy.__file__ = __path__, __file__
            sys.modules[__name__] = lazy
            ''',
        'nsp_s/sub.py': 'x = 1\n', 'nsp_su.py': 'import nsp_s\nx = nsp_s.sub.x\n', 'nsp_sv.py': 'from nsp_s.sub import x\n'})
    assert places.value('nsp_su', 'x') == 1
    assert places.value('nsp_sv', 'x') == 1


OLD = [name for name in ('python2.7', 'python3.6', 'python3.12', 'python3.13') if pythons.is_here(name)]


@pytest.mark.parametrize('name', OLD)
def test_children_of_other_pythons(router, tmp_path, monkeypatch, name):
    here, there = tmp_path / 'here', tmp_path / 'there'
    write(here, {'nsp_n/ours.py': 'x = 1', 'nsp_o/__init__.py': EXTEND, 'nsp_o/ours.py': 'x = 2', 'nsp_p.py': 'x = 3',
                 'nsp_q/__init__.py': '', 'nsp_q/sub/mod.py': 'x = 4'})
    write(there, {'nsp_o/__init__.py': EXTEND, 'nsp_o/theirs.py': 'x = 5', 'nsp_p/readme.txt': '',
                  'nsp_n/readme.txt': ''})
    monkeypatch.syspath_prepend(str(here))
    child = router.local(python_path=['/usr/bin/env', 'PYTHONPATH=%s' % there, pythons.find_python(name)])
    names = ['nsp_p', 'nsp_n.ours', 'nsp_o.theirs', 'nsp_o.ours', 'nsp_q.sub.mod']
    assert [child.call(closure_child.value_in, module, 'x') for module in names] == [3, 1, 5, 2, 4]
    for module in [module for module in sys.modules if module.startswith('nsp_')]:
        del sys.modules[module]
