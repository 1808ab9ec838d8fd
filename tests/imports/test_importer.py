"""
The child's importer by itself: the modules it offers, refuses and keeps.
"""

import importlib
import importlib.machinery
import importlib.resources
import os
import sys
import traceback
import types
import zlib
from unittest import mock

import pytest

import mitogen.core
from mitogen.core import Blob, Importer, ImportPolicy, Message

import testlib


class Served(object):
    """
    An importer whose requests are answered from a table of LOAD_MODULE tuples, by name, on the
    broker's thread.
    """

    def __init__(self, router, table=(), policy=None):
        self.broker = router.broker
        self.requests = []
        self.table = dict((entry[0], entry) for entry in table)
        self.context = mock.Mock()
        self.context.send.side_effect = self.answer
        self.importer = Importer(router, self.context, '', policy or ImportPolicy())

    def answer(self, msg):
        name = msg.data.decode('utf-8')
        assert msg.handle == mitogen.core.GET_MODULE
        self.requests.append(name)
        entry = self.table.get(name, (name, None, None, None, ()))
        self.broker.defer(self.importer._on_load_module, Message.pickled(entry, handle=mitogen.core.LOAD_MODULE))

    def load(self, name):
        sys.meta_path.insert(0, self.importer)
        try:
            return importlib.import_module(name)
        finally:
            sys.meta_path.remove(self.importer)


def entry(name, source, pkg_present=None, related=()):
    path = 'fake/%s.py' % name.replace('.', '/')
    if pkg_present is not None:
        path = path[:-3] + '/__init__.py'
    return (name, pkg_present, path, Blob(zlib.compress(source.encode())), list(related))


@pytest.fixture(autouse=True)
def clean_modules():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith('fake'):
            del sys.modules[name]


@pytest.fixture
def serve(broker):
    def make(*table, **kwargs):
        return Served(mitogen.core.Router(broker), table, **kwargs)
    return make


# ---- finding

def test_an_unknown_name_is_offered(serve):
    importer = serve().importer
    spec = importer.find_spec('fake_module', None)
    assert isinstance(spec, importlib.machinery.ModuleSpec)
    assert spec.name == 'fake_module'
    assert spec.loader is importer
    assert not spec.has_location


def test_nothing_is_requested_by_looking(serve):
    served = serve()
    served.importer.find_spec('fake_module', None)
    assert served.requests == []


def test_what_is_here_is_left_to_the_others(serve):
    served = serve()
    spec = served.importer.find_spec('email', None)
    assert spec is None or spec.loader is not served.importer


def test_an_overridden_name_is_offered_though_it_is_here(serve):
    served = serve(policy=ImportPolicy(overrides=['email']))
    assert served.importer.find_spec('email', None).loader is served.importer


def test_main_is_always_offered(serve):
    served = serve()
    assert served.importer.find_spec('__main__', None).loader is served.importer


def test_a_name_that_ends_with_a_dot_is_not_offered(serve):
    assert serve().importer.find_spec('fake.', None) is None


def test_a_submodule_of_a_package_from_here_is_not_offered(serve):
    import email
    assert serve().importer.find_spec('email.no_such_thing', email.__path__) is None


def test_a_submodule_that_the_package_does_not_have_is_not_offered(serve):
    served = serve(entry('fake', '', pkg_present=['here']))
    package = served.load('fake')
    assert served.importer.find_spec('fake.here', package.__path__).loader is served.importer
    assert served.importer.find_spec('fake.absent', package.__path__) is None
    assert served.requests == ['fake']


def test_submodules_of_mitogen_are_known_beforehand(serve):
    content = Importer.MITOGEN_PKG_CONTENT
    for name in ('compat', 'fork', 'imports', 'master', 'minify', 'parent', 'select', 'service', 'ssh', 'sudo', 'utils'):
        assert name in content


# ---- loading

def test_a_module_is_made_from_its_source(serve):
    served = serve(entry('fake_module', 'VALUE = 5\nNAME = __name__\n'))
    module = served.load('fake_module')
    assert (module.VALUE, module.NAME) == (5, 'fake_module')
    assert module.__file__ == 'master:fake/fake_module.py'
    assert module.__spec__.origin == module.__file__
    assert not hasattr(module, '__path__')


def test_the_path_of_a_package_is_the_parents_folder(serve):
    served = serve(entry('fake', '', pkg_present=['a']))
    package = served.load('fake')
    assert list(package.__path__) == ['master:fake/fake']
    assert package.__spec__.submodule_search_locations == package.__path__
    assert package.__spec__.has_location


def test_source_and_file_name_can_be_asked_for(serve):
    served = serve(entry('fake', 'TEXT = 1\n', pkg_present=[]))
    served.load('fake')
    assert served.importer.get_filename('fake') == 'master:fake/fake/__init__.py'
    assert served.importer.get_source('fake') == 'TEXT = 1\n'


def test_the_file_name_of_the_specification(serve):
    served = serve(('fake_pkg', [], 'fake_pkg/__init__.py', Blob(zlib.compress(b'TEXT = 1\n')), []))
    served.importer.create_module(served.importer.find_spec('fake_pkg', None))
    assert served.importer.get_filename('fake_pkg') == 'master:fake_pkg/__init__.py'
    assert served.importer.get_source('fake_pkg') == 'TEXT = 1\n'


def test_the_file_name_of_an_unknown_module_is_none(serve):
    assert serve().importer.get_filename('fake_unknown') is None


def test_a_negative_answer_is_an_import_error_that_names_the_module(serve):
    served = serve()
    spec = served.importer.find_spec('fake_absent', None)
    with pytest.raises(ImportError) as caught:
        served.importer.create_module(spec)
    assert 'fake_absent' in str(caught.value)
    assert str(caught.value) == Importer.absent_msg % ('fake_absent',)


def test_a_negative_answer_is_kept(serve):
    served = serve()
    spec = served.importer.find_spec('fake_absent', None)
    for _ in range(3):
        with pytest.raises(ImportError):
            served.importer.create_module(spec)
    assert served.requests == ['fake_absent']
    with pytest.raises(mitogen.core.ModuleNotFoundError):
        served.importer.get_filename('fake_absent')
    with pytest.raises(mitogen.core.ModuleNotFoundError):
        served.importer.get_source('fake_absent')


def test_a_syntax_error_is_logged_and_raised(serve):
    served = serve(entry('fake_broken', 'def broken(:\n'))
    with testlib.LogCapture('mitogen') as logs:
        with pytest.raises(SyntaxError) as caught:
            served.load('fake_broken')
    assert caught.value.filename == 'master:fake/fake_broken.py'
    assert [r for r in logs.records if r.levelname == 'ERROR']


def test_no_flags_of_the_loader_are_inherited_by_the_source(serve):
    served = serve(entry('fake_flags', 'def f(a: undefined_name = 1): pass\n'))
    with pytest.raises(NameError):
        # From Python 3.14 on they are evaluated when somebody asks for them.
        served.load('fake_flags').f.__annotations__


def test_traceback_lines_are_those_of_the_master(serve):
    served = serve(entry('fake_lines', '\n\n\ndef f():\n    raise ValueError()\n'))
    module = served.load('fake_lines')
    with pytest.raises(ValueError) as caught:
        module.f()
    last = traceback.extract_tb(caught.tb)[-1]
    assert (last.filename, last.lineno) == ('master:fake/fake_lines.py', 5)


def test_loaded_sources_are_kept_as_tuples(serve):
    served = serve(entry('fake_module', 'X = 1\n'))
    served.load('fake_module')
    cached = served.importer._cache['fake_module']
    assert len(cached) == 5
    assert (cached[0], cached[1], cached[2]) == ('fake_module', None, 'fake/fake_module.py')


def test_threads_that_want_one_module_make_one_request(serve):
    served = serve()
    served.context.send.side_effect = lambda msg: served.requests.append(msg.data.decode())
    done = []
    callbacks = [lambda *_: done.append(1) for _ in range(5)]
    for callback in callbacks:
        served.importer._request_module('fake_shared', callback)
    assert served.requests == ['fake_shared']
    assert done == []
    served.importer._on_load_module(Message.pickled(entry('fake_shared', '')))
    assert len(done) == 5
    served.importer._request_module('fake_shared', callbacks[0])
    assert len(done) == 6
    assert served.requests == ['fake_shared']


def test_all_that_wait_are_told_of_an_answer_that_cannot_be_read(serve):
    served = serve()
    served.context.send.side_effect = lambda msg: served.requests.append(msg.data.decode())
    told = []
    for name in 'fake_one', 'fake_two':
        served.importer._request_module(name, lambda name=name: told.append(name))
    served.importer._on_load_module(Message(data=b'nonsense', enc=Message.ENC_PKL, handle=mitogen.core.LOAD_MODULE))
    assert sorted(told) == ['fake_one', 'fake_two']
    assert not served.importer._cache
    served.importer._request_module('fake_one', lambda: None)
    # The parent is told, too.
    assert served.requests == ['fake_one', 'fake_two', '!', 'fake_one']


def test_a_related_module_that_came_along_is_not_requested(serve):
    served = serve(entry('fake_first', ''))
    served.importer._on_load_module(Message.pickled(entry('fake_second', 'X = 2\n')))
    assert served.load('fake_second').X == 2
    assert served.requests == []


def test_a_dead_message_is_ignored(serve):
    served = serve()
    served.importer._on_load_module(Message.dead('over'))


def test_repr(serve):
    assert repr(serve().importer) == 'Importer'


# ---- refusals

@pytest.mark.parametrize('name', ['builtins', '__builtin__', 'msvcrt', 'thread', 'org', 'org.python', 'cStringIO'])
def test_names_that_no_master_can_serve_are_refused_here(serve, name):
    served = serve()
    spec = mock.Mock()
    spec.name = name
    with pytest.raises(mitogen.core.ModuleUnsuitableError):
        served.importer.create_module(spec)
    assert served.requests == []


def test_a_denied_name_is_refused_without_a_request(serve):
    served = serve(policy=ImportPolicy(overrides=['fake']))
    spec = mock.Mock()
    spec.name = 'other_module'
    with pytest.raises(mitogen.core.ModuleDeniedByOverridesError) as caught:
        served.importer.create_module(spec)
    assert caught.value.args[0] == mitogen.core.ModuleDeniedByOverridesError.fmt % ('other_module',)
    served = serve(policy=ImportPolicy(blocks=['fake']))
    spec.name = 'fake.module'
    with pytest.raises(mitogen.core.ModuleDeniedByBlocksError):
        served.importer.create_module(spec)
    assert served.requests == []


def test_importing_pbr_sets_its_version(serve, monkeypatch):
    monkeypatch.delenv('PBR_VERSION', raising=False)
    served = serve(entry('pbr', ''))
    spec = served.importer.find_spec('pbr', None)
    served.importer.create_module(spec)
    assert os.environ['PBR_VERSION'] == '0.0.0'


# ---- the policy

def test_a_policy_without_lists_denies_only_the_unsuitable():
    policy = ImportPolicy()
    assert policy.denied('anything') is False
    assert policy.denied('builtins') is mitogen.core.ModuleUnsuitableError


def test_overrides_deny_everything_else():
    policy = ImportPolicy(overrides=['pkg'])
    assert policy.denied('otherpkg.mod') is mitogen.core.ModuleDeniedByOverridesError
    assert policy.denied('builtins') is mitogen.core.ModuleDeniedByOverridesError
    assert policy.denied('pkg') is False
    assert policy.denied('pkg.mod') is False
    assert policy.denied('pkgother') is mitogen.core.ModuleDeniedByOverridesError


def test_overrides_and_blocks_together_deny_everything():
    policy = ImportPolicy(overrides=['pkg'], blocks=['pkg'])
    for name in ('pkg', 'pkg.mod', 'otherpkg.mod', 'builtins'):
        assert policy.denied(name)
    assert policy.denied('pkg.mod') is mitogen.core.ModuleDeniedByBlocksError


def test_blocks_deny_a_package_and_all_below():
    policy = ImportPolicy(blocks=['pkg.sub'])
    assert policy.denied('pkg.sub.mod') is mitogen.core.ModuleDeniedByBlocksError
    assert policy.denied('pkg.sub') is mitogen.core.ModuleDeniedByBlocksError
    assert policy.denied('pkg') is False


def test_a_policy_may_change():
    policy = ImportPolicy()
    policy.blocks.add('pkg')
    assert policy.denied('pkg')
    assert policy.overriden('pkg') is False
    policy.overrides.add('pkg')
    assert policy.overriden('pkg.mod') is True


def test_denied_raise():
    policy = ImportPolicy(blocks=['pkg'])
    policy.denied_raise('other')
    with pytest.raises(mitogen.core.ModuleDeniedByBlocksError) as caught:
        policy.denied_raise('pkg.mod')
    assert caught.value.args[0] == mitogen.core.ModuleDeniedByBlocksError.fmt % ('pkg.mod',)


# ---- resources

def test_a_reader_gives_what_its_requester_gets():
    requester = mock.Mock(_cache={})
    requester._get_resource.side_effect = lambda package, name: {
        ('pkg', 'here'): b'content', ('pkg', 'empty'): b'', ('pkg', '\0folder'): b'empty\0here\0sub/',
    }.get((package, name))
    reader = mitogen.core.ResourceReader(requester, 'pkg')
    assert reader.is_resource('here') is True
    assert reader.is_resource('empty') is True
    assert reader.is_resource('gone') is False
    assert reader.open_resource(resource='here').read() == b'content'
    assert reader.open_resource('empty').read() == b''
    with pytest.raises(FileNotFoundError):
        reader.open_resource('gone')
    with pytest.raises(FileNotFoundError):
        reader.resource_path('here')
    assert sorted(reader.contents()) == ['empty', 'here', 'sub']


def test_the_files_of_a_reader():
    requester = mock.Mock(_cache={})
    requester._get_resource.side_effect = lambda package, name: {
        ('pkg', 'here'): b'content\n', ('pkg', 'sub/there'): b'gr\xfc\xdfe', ('pkg', '\0folder'): b'here\0sub/',
        ('pkg', '\0folder/sub'): b'there'}.get((package, name))
    top = mitogen.core.ResourceReader(requester, 'pkg').files()
    assert (top.name, top.is_dir(), top.is_file()) == ('pkg', True, False)
    assert [item.name for item in top.iterdir()] == ['here', 'sub']
    assert [(item.name, item.is_file()) for item in (top / 'sub').iterdir()] == [('there', True)]
    here = top / 'here'
    assert (here.name, here.is_dir(), here.is_file()) == ('here', False, True)
    assert here.read_bytes() == b'content\n'
    assert here.read_text() == 'content\n'
    for there in (top / 'sub' / 'there', top.joinpath('sub/there'), top.joinpath('sub', 'there')):
        assert there.name == 'there'
        assert there.read_text(encoding='latin-1') == 'gr\xfc\xdfe'
        with there.open('rb') as fp:
            assert fp.read() == b'gr\xfc\xdfe'
        with there.open(encoding='utf-8', errors='replace') as fp:
            assert fp.read() == 'gr\ufffd\ufffde'
    gone = top / 'gone'
    assert not gone.is_file()
    assert not gone.is_dir()
    with pytest.raises(FileNotFoundError):
        gone.read_text()
    for no_folder in gone, here:
        with pytest.raises(NotADirectoryError):
            no_folder.iterdir()


@pytest.mark.filterwarnings('ignore:is_resource is deprecated:DeprecationWarning')
@pytest.mark.filterwarnings('ignore:.*contents is deprecated:DeprecationWarning')
def test_the_standard_library_asks_a_reader():
    requester = mock.Mock(_cache={})
    requester._get_resource.side_effect = lambda package, name: {
        ('pkg', 'here'): b'content', ('pkg', '\0folder'): b'here'}.get((package, name))
    loader = mock.Mock(spec=['get_resource_reader'])
    loader.get_resource_reader.side_effect = lambda name: mitogen.core.ResourceReader(requester, name)
    package = types.ModuleType('pkg')
    package.__spec__ = importlib.machinery.ModuleSpec('pkg', loader, is_package=True)
    for name, expected in (('here', True), ('gone', False), ('', False)):
        assert importlib.resources.is_resource(package, name) is expected
    assert list(importlib.resources.contents(package)) == ['here']


def test_an_importer_has_a_reader_for_each_package(serve):
    importer = serve().importer
    reader = importer.get_resource_reader('pkg')
    assert isinstance(reader, mitogen.core.ResourceReader)
    assert isinstance(importer._resource_requester, mitogen.core.ResourceRequester)


# ---- who asks

def test_pkg_resources_may_not_import_the_main_program(serve, monkeypatch):
    importer = serve().importer
    monkeypatch.setitem(sys.modules, 'pkg_resources', mock.Mock())
    code = compile('importer.create_module(spec)', 'pkg_resources.py', 'eval')
    spec = mock.Mock()
    spec.name = '__main__'
    with pytest.raises(mitogen.core.ModuleNotFoundError) as caught:
        eval(code, {'__name__': 'pkg_resources', 'importer': importer, 'spec': spec})
    assert caught.value.args[0] == importer.pkg_resources_msg


def test_the_list_of_the_unsuitable_can_be_extended(monkeypatch):
    blacklist = mitogen.core.Importer.ALWAYS_BLACKLIST
    monkeypatch.setattr(mitogen.core.Importer, 'ALWAYS_BLACKLIST', blacklist + ['own'])
    policy = mitogen.core.ImportPolicy()
    assert policy.denied('own.module') is mitogen.core.ModuleUnsuitableError
    assert policy.denied('owner') is False
