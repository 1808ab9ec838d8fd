"""
A child can ask about modules, files and distributions of the master as if they were on its disk:
specs, lists of what is in packages, resources, metadata.

The packages are made for each test. One child serves all of them, so each has names of its own.
"""

import pkgutil
import sys
import textwrap
import zipfile

import pytest

import mitogen.master
from mitogen.core import CallError

import pythons

#: Functions that children run; they come as text, since nothing of the tests is on a child's path.
ASKING = '''
import importlib.util, pkgutil, sys

def find(name):
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    folders = spec.submodule_search_locations
    return (spec.origin, None if folders is None else list(folders), spec.has_location, spec.loader is not None,
            name in sys.modules)

def inside(name):
    __import__(name)
    return [(m.name, m.ispkg) for m in pkgutil.iter_modules(sys.modules[name].__path__)]

def walk(name):
    __import__(name)
    return [(m.name, m.ispkg) for m in pkgutil.walk_packages(sys.modules[name].__path__, name + '.')]

def described(name):
    module = importlib.import_module(name)
    spec = module.__spec__
    return (module.__name__, module.__package__, module.__file__, module.__loader__ is spec.loader, spec.name,
            spec.parent, spec.origin == module.__file__, spec.has_location,
            getattr(module, '__path__', None) == spec.submodule_search_locations)

def reloaded(name):
    module = importlib.import_module(name)
    del module.x
    return importlib.reload(module) is module, module.x, module.__file__, module.__spec__.origin == module.__file__

def by_hand(name):
    spec = importlib.util.find_spec(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.x, name in sys.modules

def run(name):
    import runpy
    return runpy.run_module(name)['x']

def tree(place):
    return dict((item.name, tree(item) if item.is_dir() else item.read_bytes()) for item in place.iterdir())

def files(name):
    import importlib.resources
    return tree(importlib.resources.files(name))

def entry(name, *parts):
    import importlib.resources
    place = importlib.resources.files(name).joinpath(*parts)
    return place.name, place.is_file(), place.is_dir()

def copied(name, *parts):
    import importlib.resources, os
    with importlib.resources.as_file(importlib.resources.files(name).joinpath(*parts)) as path:
        content = path.read_bytes() if path.is_file() else sorted(
            os.path.relpath(os.path.join(folder, name), str(path)) for folder, _, names in os.walk(str(path))
            for name in names)
    return content, path.name, path.exists()

def contents(name):
    import importlib.resources, warnings
    warnings.simplefilter('ignore')
    return sorted(importlib.resources.contents(name)), importlib.resources.is_resource(name, 'text.txt')

def version(name):
    import importlib.metadata
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError as e:
        return 'none: ' + e.args[0]

def metadata(name):
    import importlib.metadata as api
    found = api.distribution(name)
    return dict(name=found.metadata['Name'], version=found.version, summary=found.metadata['Summary'],
                requires=found.requires, files=[str(path) for path in found.files or ()],
                points=sorted((p.group, p.name, p.value) for p in found.entry_points),
                missing=found.read_text('no_such_file'))

def file_of(name, path):
    import importlib.metadata as api
    found = [one for one in api.files(name) if str(one) == path][0]
    return found.read_text(), found.read_binary()

def named(group):
    import importlib.metadata as api
    points = api.entry_points()
    points = points.select(group=group) if hasattr(points, 'select') else points.get(group, ())
    return sorted((p.name, p.load()()) for p in points)

def distributions():
    import importlib.metadata as api
    return [one.metadata['Name'] for one in api.distributions()]
'''


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    """
    A folder that this process imports from, with the questions.
    """
    folder = tmp_path_factory.mktemp('here')
    (folder / 'say_asking.py').write_text(ASKING)
    return folder


@pytest.fixture(scope='module')
def own_router():
    broker = mitogen.master.Broker()
    yield mitogen.master.Router(broker)
    broker.shutdown()
    broker.join()


@pytest.fixture(scope='module')
def there(tmp_path_factory):
    """
    A folder that the children import from.
    """
    return tmp_path_factory.mktemp('there')


@pytest.fixture(scope='module', params=['own', 'grandchild', 'python3.13'])
def child(request, own_router, there):
    """
    A child that has this Python, one that has its modules from its parent, and one that is sent
    sources.
    """
    python = sys.executable if request.param != 'python3.13' else pythons.find_python('python3.13')
    via = own_router.local() if request.param == 'grandchild' else None
    return own_router.local(via=via, python_path=['/usr/bin/env', 'PYTHONPATH=%s' % there, python])


@pytest.fixture
def ask(home, child, monkeypatch):
    """
    A function that asks the child.
    """
    monkeypatch.syspath_prepend(str(home))
    before = set(sys.modules)

    def ask(name, *args):
        return child.call(eval, '(__import__("say_asking"), __import__("sys").modules["say_asking"].%s(*%r))[1]' % (
            name, args))

    yield ask
    assert not [name for name in set(sys.modules) - before if name.startswith('say_')], 'the master has imported'


PACKAGE = {
    'say_pkg/__init__.py': 'x = 1\n', 'say_pkg/mod.py': 'x = 2\n', 'say_pkg/sub/__init__.py': '',
    'say_pkg/sub/deep.py': 'x = 3\n', 'say_pkg/text.txt': 'text\n', 'say_pkg/data/a/b.txt': 'b\n',
    'say_pkg/data/c.txt': 'c\n', 'say_pkg/empty.bin': '', 'say_pkg/__pycache__/left.pyc': '',
}


# ---- specs

def test_a_module_is_found_without_being_imported(ask, home):
    write(home, {'say_found.py': 'raise SystemExit\n', 'say_found_pkg/__init__.py': '', 'say_found_pkg/mod.py': ''})
    assert ask('find', 'say_found') == ('master:%s/say_found.py' % home, None, True, True, False)
    assert ask('find', 'say_found_pkg') == (
        'master:%s/say_found_pkg/__init__.py' % home, ['master:%s/say_found_pkg' % home], True, True, False)
    # That imports the package, as the standard library says.
    assert ask('find', 'say_found_pkg.mod')[:2] == ('master:%s/say_found_pkg/mod.py' % home, None)
    assert ask('find', 'say_found_pkg.no_such_module') is None


def test_a_module_that_the_master_has_not_is_not_found(ask):
    assert ask('find', 'say_no_such_module') is None
    assert ask('find', 'json')[0].endswith('json/__init__.py')
    assert not ask('find', 'json')[0].startswith('master:')


def test_a_module_says_what_it_is(ask, home):
    write(home, PACKAGE)
    assert ask('described', 'say_pkg.sub') == (
        'say_pkg.sub', 'say_pkg.sub', 'master:%s/say_pkg/sub/__init__.py' % home, True, 'say_pkg.sub', 'say_pkg.sub',
        True, True, True)
    assert ask('described', 'say_pkg.mod') == (
        'say_pkg.mod', 'say_pkg', 'master:%s/say_pkg/mod.py' % home, True, 'say_pkg.mod', 'say_pkg', True, True, True)


def test_a_module_can_be_reloaded_and_loaded_by_hand_and_run(ask, home):
    write(home, PACKAGE)
    write(home, {'say_hand.py': 'x = 5\n', 'say_run.py': 'x = 6\n'})
    assert ask('reloaded', 'say_pkg.mod') == (True, 2, 'master:%s/say_pkg/mod.py' % home, True)
    assert ask('by_hand', 'say_hand') == (5, False)
    assert ask('run', 'say_run') == 6


# ---- lists

def test_the_modules_of_a_package_are_listed(ask, home):
    write(home, PACKAGE)
    folder = str(home / 'say_pkg')
    listed = [(module.name, module.ispkg) for module in pkgutil.iter_modules([folder])]
    # As on a disk: a folder without __init__ is not listed, though it can be imported.
    assert ask('inside', 'say_pkg') == listed == [('mod', False), ('sub', True)]
    assert ask('walk', 'say_pkg') == [('say_pkg.mod', False), ('say_pkg.sub', True), ('say_pkg.sub.deep', False)]


TREE = {'__init__.py': b'x = 1\n', 'mod.py': b'x = 2\n', 'text.txt': b'text\n', 'empty.bin': b'',
        'sub': {'__init__.py': b'', 'deep.py': b'x = 3\n'}, 'data': {'a': {'b.txt': b'b\n'}, 'c.txt': b'c\n'}}


needs_files = pytest.mark.skipif(sys.version_info < (3, 10), reason='files() looks at the disk only')


@needs_files
def test_resources_are_files_and_folders(ask, home):
    write(home, PACKAGE)
    assert ask('files', 'say_pkg') == TREE
    assert ask('files', 'say_pkg.data') == TREE['data']
    assert ask('entry', 'say_pkg') == ('say_pkg', False, True)
    assert ask('entry', 'say_pkg', 'data', 'c.txt') == ('c.txt', True, False)
    assert ask('entry', 'say_pkg', 'data/a') == ('a', False, True)
    assert ask('entry', 'say_pkg', 'no_such') == ('no_such', False, False)
    assert ask('entry', 'say_pkg', 'no_such', 'inside') == ('inside', False, False)


@needs_files
def test_resources_become_real_files_for_a_while(ask, home):
    write(home, PACKAGE)
    assert ask('copied', 'say_pkg', 'text.txt')[::2] == (b'text\n', False)
    assert ask('copied', 'say_pkg', 'data') == (['a/b.txt', 'c.txt'], 'data', False)


def test_the_older_functions_for_resources(ask, home):
    write(home, PACKAGE)
    assert ask('contents', 'say_pkg') == (sorted(TREE), True)


@needs_files
def test_packages_in_an_archive(ask, home, monkeypatch):
    # The master finds a module once.
    path = str(home / 'say.zip')
    with zipfile.ZipFile(path, 'w') as fp:
        for name, text in PACKAGE.items():
            fp.writestr(name.replace('say_pkg', 'say_zip'), text)
        fp.writestr('say_zipped-1.5.dist-info/METADATA', 'Name: say.zipped\nVersion: 1.5\n')
    monkeypatch.syspath_prepend(path)
    assert ask('files', 'say_zip') == TREE
    assert ask('inside', 'say_zip') == [('mod', False), ('sub', True)]
    assert ask('find', 'say_zip')[0] == 'master:%s/say_zip/__init__.py' % path
    assert ask('version', 'say-zipped') == '1.5'


# ---- distributions

DISTRIBUTION = {
    'say_dist/__init__.py': 'def plugin():\n    return 42\n', 'say_dist/data.txt': 'd\u00e4ta',
    'say_single.py': 'x = 1\n',
    'say_dist-1.2.dist-info/METADATA': '''\
        Metadata-Version: 2.1
        Name: Say.Dist
        Version: 1.2
        Summary: says something
        Requires-Dist: requests >=2
        Requires-Dist: other ; extra == 'x'

        Name: not this
        ''',
    'say_dist-1.2.dist-info/RECORD': '''\
        say_dist/__init__.py,,
        say_dist/data.txt,,
        say_single.py,,
        say_dist-1.2.dist-info/METADATA,,
        say_dist-1.2.dist-info/RECORD,,
        ''',
    'say_dist-1.2.dist-info/entry_points.txt': '[say.plugins]\none = say_dist:plugin\n',
    'say_egg.egg-info/PKG-INFO': 'Metadata-Version: 1.0\nName: say_egg\nVersion: 3\n',
    'say_file-4-py3.egg-info': 'Metadata-Version: 1.0\nName: say_file\nVersion: 4\n',
    'say_broken-1.dist-info/INSTALLER': 'pip',
}


def test_versions(ask, home):
    write(home, DISTRIBUTION)
    names = 'say-dist', 'SAY_DIST', 'say_egg', 'say-file'
    assert [ask('version', name) for name in names] == ['1.2', '1.2', '3', '4']
    assert ask('version', 'say-broken') == 'none: say-broken'
    assert ask('version', 'say-no-such') == 'none: say-no-such'


def test_metadata(ask, home):
    write(home, DISTRIBUTION)
    assert ask('metadata', 'say.dist') == dict(
        name='Say.Dist', version='1.2', summary='says something', requires=['requests >=2', "other ; extra == 'x'"],
        files=['say_dist/__init__.py', 'say_dist/data.txt', 'say_single.py', 'say_dist-1.2.dist-info/METADATA',
               'say_dist-1.2.dist-info/RECORD'],
        points=[('say.plugins', 'one', 'say_dist:plugin')], missing=None)


def test_files_of_a_distribution_can_be_read(ask, home):
    write(home, DISTRIBUTION)
    assert ask('file_of', 'say-dist', 'say_dist/data.txt') == ('d\u00e4ta', 'd\u00e4ta'.encode('utf-8'))
    assert ask('file_of', 'say-dist', 'say_single.py')[0] == 'x = 1\n'
    assert ask('file_of', 'say-dist', 'say_dist-1.2.dist-info/METADATA')[0].startswith('Metadata-Version')


def test_plugins_are_found_by_entry_points(ask, home):
    write(home, DISTRIBUTION)
    assert ask('named', 'say.plugins') == [('one', 42)]


def test_a_distribution_of_the_target_is_its_own(ask, home, there):
    write(home, {'say_both-1.dist-info/METADATA': 'Name: say-both\nVersion: 1\n'})
    write(there, {'say_both-2.dist-info/METADATA': 'Name: say-both\nVersion: 2\n'})
    assert ask('version', 'say_both') == '2'
    assert [name for name in ask('distributions') if name == 'say-both'] == ['say-both']


# ---- what is refused

@pytest.fixture
def denied(home, own_router, monkeypatch):
    """
    A function that asks a child which is denied things, and one that asks by hand what no honest
    child asks.
    """
    monkeypatch.syspath_prepend(str(home))
    write(home, {
        'say_open/__init__.py': '', 'say_open/text.txt': '', 'say_open/secret/__init__.py': 'key = 1\n',
        'say_open/secret/key.txt': 'key', 'say_hidden/__init__.py': '', 'say_hidden/key.txt': 'key',
        'say_open-1.dist-info/METADATA': 'Name: say-open\nVersion: 1\n',
        'say_hidden-1.dist-info/METADATA': 'Name: say-hidden\nVersion: 1\n',
        'say_hidden-1.dist-info/RECORD': 'say_hidden/__init__.py,,\n'})
    broker = mitogen.master.Broker()
    router = mitogen.master.Router(broker)
    router.responder.blacklist_prefix('say_open.secret')
    router.responder.blacklist_prefix('say_hidden')
    router.responder.blacklist_prefix('say_nothing')
    child = router.local()
    read = "%s._resource_requester._get_resource(%r, %r)"
    importer = "[f for f in __import__('sys').meta_path if type(f).__name__ == 'Importer'][0]"
    yield lambda package, name: child.call(eval, read % (importer, package, name))
    broker.shutdown()
    broker.join()


def test_what_is_denied_is_neither_listed_nor_read_nor_known(denied):
    assert denied('say_open', '\0folder') == b'__init__.py\0text.txt'
    assert denied('say_open', '\0modules') == b''
    for name in ('\0folder/secret', 'secret/key.txt', 'secret/__init__.py'):
        assert denied('say_open', name) is None
    for name in ('\0folder', '\0modules', 'key.txt'):
        assert denied('say_hidden', name) is None
    assert denied('say_hidden', '\0distribution') == b''
    assert denied('say_hidden', '\0distribution/METADATA') is None
    assert b'say-hidden' not in denied('', '\0distribution')


def test_nothing_outside_of_packages_and_metadata_is_listed_or_read(denied):
    for name in ('\0folder/..', '\0folder/secret/../..', '\0folder//etc', '\0folder/.', '\0folder/', '\0folder/x\0y',
                 '\0folder/text.txt', '\0folderx', '../x', '\0no_such_question'):
        assert denied('say_open', name) is None, name
    assert denied('no_such_package', '\0folder') is None
    assert denied('', '\0folder') is None
    assert denied('', '\0modules') is None
    for name in ('/../say_open/text.txt', '/..', '//etc/hostname', '/x\0y', '/.', '/../../../../etc/hostname'):
        assert not denied('say_open', '\0distribution' + name), name


def test_a_list_has_a_limit(denied, monkeypatch):
    monkeypatch.setattr(mitogen.master, '_LISTED_MAX', 1)
    assert denied('say_open', '\0folder') is None


def test_an_overview_of_distributions_has_a_limit(denied, monkeypatch):
    monkeypatch.setattr(mitogen.master, '_OVERVIEW_MAX', 1)
    assert denied('', '\0distribution') is None


def test_a_child_with_a_whitelist_knows_of_what_it_may_have(home, monkeypatch):
    monkeypatch.syspath_prepend(str(home))
    write(home, DISTRIBUTION)
    write(home, {'say_hidden-1.dist-info/METADATA': 'Name: say-hidden\nVersion: 1\n'})
    broker = mitogen.master.Broker()
    try:
        router = mitogen.master.Router(broker)
        router.responder.whitelist_prefix('say_dist')
        child = router.local()
        version = "__import__('importlib.metadata').metadata.version(%r)"
        assert child.call(eval, version % 'say-dist') == '1.2'
        with pytest.raises(CallError) as e:
            child.call(eval, version % 'say-hidden')
        assert 'PackageNotFoundError' in str(e.value)
    finally:
        broker.shutdown()
        broker.join()
