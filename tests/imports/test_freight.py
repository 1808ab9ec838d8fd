"""
Distributions that modules do not suffice for travel whole, into a private folder of the child.

They are made for the tests. They are on the path of this process, and on no child's.
"""

import os
import stat
import sys
import threading

import pytest

import mitogen._freight
import mitogen.master
from mitogen.core import CallError

import made_distributions
import pythons
import testlib

FOLDER = "__import__('mitogen._private_folder')._private_folder._base"


@pytest.fixture(scope='module')
def extension(tmp_path_factory):
    """
    The content of a built extension, ``fre_ext._native``.
    """
    with open(made_distributions.build_extension(tmp_path_factory.mktemp('ext'), '_native'), 'rb') as fp:
        return fp.read()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """
    A folder that this process imports from.
    """
    folder = tmp_path / 'site'
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    assert not [name for name in set(sys.modules) - before if name.startswith('fre_')], 'the master has imported'


@pytest.fixture
def native(site, extension):
    """
    A distribution with an extension, and metadata that somebody asks for.
    """
    def make(tag=made_distributions.TAG):
        made_distributions.install(site, 'fre-ext', {
            'fre_ext/__init__.py': 'from fre_ext import _native\nfrom fre_ext.more import more\n',
            'fre_ext/more.py': 'more = 7\n',
            'fre_ext/_native.abi3.so': extension,
        }, tag=tag)

    make()
    return make


def imported(child, name, what):
    """
    Have a child import a module, and return the value of an expression in it.
    """
    return child.call(eval, "(__import__(%r), eval(%r, vars(__import__('sys').modules[%r])))[1]" % (name, what, name))


def failure(child, name):
    with pytest.raises(CallError) as e:
        child.call(__import__, name)
    return str(e.value)


def test_an_extension_comes_with_its_distribution(router, native):
    child = router.local()
    assert imported(child, 'fre_ext', '_native.answer() + more') == 49
    folder = child.call(eval, FOLDER)
    assert imported(child, 'fre_ext', '__file__').startswith(folder)
    assert child.call(eval, "__import__('sys').path[-1]").startswith(folder)
    version = "__import__('importlib.metadata').metadata.version('fre-ext')"
    assert child.call(eval, version) == '1.0'


@pytest.mark.parametrize('name', ['python3.6', 'python3.8', 'python3.12'])
def test_an_extension_comes_to_another_python_that_can_load_it(router, native, name):
    # The C library of the other one may be older than ours.
    native('cp36-abi3-manylinux_2_17_' + os.uname()[4])
    child = router.local(python_path=pythons.find_python(name))
    assert imported(child, 'fre_ext', '_native.answer() + more') == 49


def test_the_folder_is_private_and_goes_with_the_child(router, native):
    child = router.local()
    imported(child, 'fre_ext', '0')
    folder = child.call(eval, FOLDER)
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    for base, folders, files in os.walk(folder):
        for name in folders + files:
            assert stat.S_IMODE(os.stat(os.path.join(base, name)).st_mode) & 0o077 == 0
    child.shutdown(wait=True)
    testlib.wait_for(lambda: not os.path.exists(folder))


def test_the_folder_goes_with_a_child_that_is_killed(router, native):
    child = router.local()
    imported(child, 'fre_ext', '0')
    folder = child.call(eval, FOLDER)
    os.kill(child.call(os.getpid), 9)
    testlib.wait_for(lambda: not os.path.exists(folder))


def test_a_folder_that_was_left_behind_is_removed_by_a_later_run(router, native):
    import mitogen._private_folder
    import tempfile
    left = tempfile.mkdtemp(prefix=mitogen._private_folder.PREFIX)
    os.close(mitogen._private_folder._hold(left))
    lived_in = tempfile.mkdtemp(prefix=mitogen._private_folder.PREFIX)
    fd = mitogen._private_folder._hold(lived_in)
    try:
        imported(router.local(), 'fre_ext', '0')
        assert not os.path.exists(left)
        assert os.path.exists(lived_in)
    finally:
        os.close(fd)
        os.unlink(os.path.join(lived_in, mitogen._private_folder.LOCK))
        os.rmdir(lived_in)


def test_a_grandchild_gets_it_through_the_context_in_the_middle(router, native):
    below = router.local(via=router.local())
    assert imported(below, 'fre_ext', '_native.answer() + more') == 49


@pytest.mark.parametrize('tag,word', [
    ('cp36-abi3-macosx_11_0_arm64', 'platform'),
    ('cp27-cp27mu-linux_x86_64', 'ABI'),
    ('cp36-abi3-manylinux_9_99_' + os.uname()[4], 'C library'),
])
def test_an_error_says_what_forbids_an_extension(router, native, tag, word):
    native(tag)
    text = failure(router.local(), 'fre_ext')
    assert 'ImportError' in text and 'because of the %s: it is for %s' % (word, tag) in text
    assert 'router.ship(' in text


def test_a_module_that_does_without_its_extension_is_loaded_alone(router, site, extension):
    made_distributions.install(site, 'fre-opt', {
        'fre_opt/__init__.py': 'try:\n    from fre_opt import _native\nexcept ImportError as e:\n    why = str(e)\n'
                               'from fre_opt.more import more\n',
        'fre_opt/more.py': 'more = 7\n',
        'fre_opt/_native.abi3.so': extension,
    }, tag='cp36-abi3-win32')
    child = router.local()
    assert imported(child, 'fre_opt', 'more') == 7
    assert 'platform' in imported(child, 'fre_opt', 'why')
    assert imported(child, 'fre_opt', '__file__').startswith('master:')


def test_an_extension_beside_a_module_of_that_name_is_not_needed(router, site, extension):
    made_distributions.install(site, 'fre-both', {
        'fre_both/__init__.py': '',
        'fre_both/_native.py': 'def answer():\n    return 1\n',
        'fre_both/_native.abi3.so': extension,
    }, tag=made_distributions.TAG)
    child = router.local()
    assert imported(child, 'fre_both', '__file__').startswith('master:')


def test_one_that_is_too_large_says_what_to_do(router, native):
    router.limits.shipped_bytes = 100
    text = failure(router.local(), 'fre_ext')
    assert 'limits.shipped_bytes' in text and "router.ship('fre_ext')" in text
    router.ship('fre-ext')
    assert imported(router.local(), 'fre_ext', '_native.answer()') == 42


def test_an_extension_of_no_distribution_says_so(router, site, extension):
    (site / 'fre_stray.abi3.so').write_bytes(extension)
    text = failure(router.local(), 'fre_stray')
    assert 'ImportError' in text and 'RECORD' in text


def test_data_that_is_read_by_path_comes_along(router, site):
    made_distributions.install(site, 'fre-data', {
        'fre_data/__init__.py': 'import os\n'
                                'value = open(os.path.join(os.path.dirname(__file__), "d", "x.json")).read()\n',
        'fre_data/d/x.json': '{"a": 1}',
    })
    assert imported(router.local(), 'fre_data', 'value') == '{"a": 1}'


def test_a_stub_that_a_package_reads_comes_along(router, site):
    # As with lazy_loader, whose function opens it.
    made_distributions.install(site, 'fre-stub', {
        'fre_stub/__init__.py': 'import fre_loader\nvalue = fre_loader.attach_stub(__file__)\n',
        'fre_stub/__init__.pyi': 'from . import one\n', 'fre_stub/one.py': '', 'fre_stub/one.pyi': ''})
    made_distributions.install(site, 'fre-loader', {
        'fre_loader.py': 'def attach_stub(path):\n    with open(path + "i") as fp:\n        return fp.read()\n'})
    child = router.local()
    assert imported(child, 'fre_stub', 'value') == 'from . import one\n'
    # The others are of no use to a program.
    assert 'one.pyi' not in imported(child, 'fre_stub', '__import__("os").listdir(__path__[0])')


def test_stubs_of_modules_that_others_have_come_along(router, site):
    # As those of mypy.
    made_distributions.install(site, 'fre-checker', {
        'fre_checker/__init__.py': 'import os\nvalue = os.listdir(os.path.dirname(__file__) + "/stubs/lib")\n',
        'fre_checker/__init__.pyi': '', 'fre_checker/stubs/lib/json.pyi': ''})
    assert imported(router.local(), 'fre_checker', 'value') == ['json.pyi']


def test_what_the_modules_of_a_whole_distribution_import_comes_in_the_same_answer(router, site, monkeypatch):
    made_distributions.install(site, 'fre-data', {
        'fre_data/__init__.py': 'import fre_data.inner\nimport os\n'
                                'path = os.path.join(os.path.dirname(__file__), "x.txt")\n',
        'fre_data/inner.py': 'import fre_alone.one\n',
        'fre_data/x.txt': 'text',
    })
    made_distributions.install(site, 'fre-alone', {
        'fre_alone/__init__.py': '', 'fre_alone/one.py': 'import fre_alone.two\n', 'fre_alone/two.py': 'x = 2\n'})
    asked = []
    push = mitogen.master.ModuleResponder._push
    monkeypatch.setattr(mitogen.master.ModuleResponder, '_push',
                        lambda self, stream, name: asked.append(name) or push(self, stream, name))
    child = router.local()
    assert imported(child, 'fre_data', 'fre_data.inner.fre_alone.two.x, open(path).read()') == (2, 'text')
    assert [name for name in asked if name.startswith('fre_')] == ['fre_data']
    # `fre_data.inner` has come as a file.
    sent = router.stream_by_id(child.context_id).protocol.sent_modules
    assert 'fre_alone.two' in sent and 'fre_data.inner' not in sent


@pytest.fixture
def asked(monkeypatch):
    """
    The names of modules whose distributions children have asked for.
    """
    names, replies = [], []
    answer = mitogen.master._Freight.answer

    def note(freight, stream, fullname, resource, reply):
        # Not those for pieces: a child that seems far is sent fewer of them. A request that has
        # waited for an offer that did not come is answered in a second call.
        if u'take ' in resource and reply not in replies:
            replies.append(reply)
            names.append(fullname)
        return answer(freight, stream, fullname, resource, reply)

    monkeypatch.setattr(mitogen.master._Freight, 'answer', note)
    return names


def install_for_later(site, names, tag):
    """
    Install distributions with data that are known to be needed together, and are not imported
    together.
    """
    for name in names:
        made_distributions.install(site, name, {
            name + '/__init__.py': 'import os, sys\nif not sys.path:\n    import %s\n'
                                   'size = os.path.getsize(os.path.dirname(__file__) + "/data")\n' % ', '.join(names),
            name + '/data': os.urandom(600000)}, tag=tag)


PIECES = ("[key for f in __import__('sys').meta_path if type(f).__name__ == 'Importer' "
          "for key in f._resource_requester._cache if key[1][:2] in ('\\0p', '\\0o')]")


@pytest.mark.parametrize('is_far', [False, True])
def test_what_runs_anywhere_is_sent_before_the_child_asks(router, site, monkeypatch, asked, is_far):
    monkeypatch.setattr(mitogen.parent, '_is_far', lambda stream: is_far)
    install_for_later(site, ['fre_one', 'fre_two'], 'py3-none-any')
    child = router.local()
    assert imported(child, 'fre_one', 'size') == 600000
    takes = mitogen.master._takes_of(router.stream_by_id(child.context_id))
    testlib.wait_for(lambda: 'fre_two' in takes.offered and not takes.open)
    # The call comes after what was sent before.
    assert imported(child, 'fre_two', 'size') == 600000
    assert 'fre_two' not in asked
    assert not child.call(eval, PIECES)
    # An offer that was used is sent again.
    assert child.call(eval, "setattr(__import__('mitogen._freight')._freight, '_folders', {})") is None
    child.call(eval, "__import__('sys').modules.pop('fre_two') and None")
    assert child.call(eval, "(lambda f: f._ask([i for i in __import__('sys').meta_path if type(i).__name__ == 'Importer'"
                            "][0], 'fre_two').count)(__import__('mitogen._freight')._freight)") == 3


def test_extensions_are_sent_before_they_are_asked_for_once_the_platform_is_known(router, site, extension, asked):
    install_for_later(site, ['fre_one', 'fre_two'], made_distributions.TAG)
    for name in 'fre_one', 'fre_two':
        (site / name / '_native.abi3.so').write_bytes(extension)
        with open(str(site / (name + '-1.0.dist-info') / 'RECORD'), 'a') as fp:
            fp.write('%s/_native.abi3.so,,\n' % name)
    child = router.local()
    assert imported(child, 'fre_one', 'size') == 600000
    takes = mitogen.master._takes_of(router.stream_by_id(child.context_id))
    testlib.wait_for(lambda: 'fre_two' in takes.offered and not takes.open)
    assert imported(child, 'fre_two', 'size') == 600000
    assert child.call(eval, "__import__('fre_two._native')._native.answer()") == 42
    assert asked == ['fre_one']


def test_a_package_that_lists_its_own_folder_finds_its_modules(router, site):
    made_distributions.install(site, 'fre-list', {
        'fre_list/__init__.py': 'import pkgutil\nnames = [m[1] for m in pkgutil.iter_modules(__path__)]\n',
        'fre_list/one.py': '', 'fre_list/two.py': '',
    })
    assert imported(router.local(), 'fre_list', 'names') == ['one', 'two']


HAS_DATA = 'import os\ndef has():\n    return os.path.exists(os.path.join(os.path.dirname(__file__), "x"))\n'

LOOKS = """
import os, pathlib, pkgutil
here = os.path.dirname(os.path.abspath(__file__))
def has():
    return os.path.exists(os.path.join(here, "x"))
def read():
    with open(os.path.join(here, os.pardir, "fre_much", "d", "e", "y")) as fp:
        return fp.read()
def names():
    return sorted(os.listdir(here + "/d"))
def walked():
    return [files for _, _, files in os.walk(__path__[0] + "/d")]
def found():
    return pathlib.Path(__file__).resolve().with_name("x").is_file()
def entered():
    os.chdir(here)
    size = os.path.getsize("x")
    os.chdir("/")
    return size
def connected():
    import sqlite3
    sqlite3.connect("file:%s/x?mode=ro" % here, uri=True).close()
    return True
def by_loader():
    return pkgutil.get_data(__name__, "d/e/y")
def plugins():
    return sorted(m[1] for m in pkgutil.iter_modules([os.path.join(here, "plugins")]))
def modules():
    return sorted(m[1] for m in pkgutil.iter_modules(__path__))
"""


@pytest.fixture
def much(site, router):
    """
    A distribution that is sent by modules, because it has much data.
    """
    made_distributions.install(site, 'fre-much', {
        'fre_much/__init__.py': LOOKS + '#' * 10000,
        'fre_much/inner.py': 'import fre_much\npath = __file__\n',
        'fre_much/plugins/one.py': '', 'fre_much/plugins/two.py': '',
        'fre_much/x': b'x' * 100000, 'fre_much/d/e/y': 'why',
    })
    router.limits.shipped_data_bytes = 50000


FOUND = {'has': True, 'read': 'why', 'names': ['e'], 'walked': [[], ['y']], 'found': True, 'plugins': ['one', 'two'],
         'entered': 100000}


# pathlib keeps functions of `os` up to Python 3.10; there are audit events from 3.8 on.
@pytest.mark.parametrize('name,look', [
    ('python3.6', 'read'), ('python3.6', 'names'), ('python3.6', 'entered'), ('python3.8', 'found'), ('python3.10', 'has'),
    ('python3.10', 'found'), ('python3.11', 'plugins'), ('python3.11', 'entered'), ('python3.13', 'walked')])
def test_much_data_is_there_once_a_program_looks_for_it(router, much, name, look, asked):
    child = router.local(python_path=pythons.find_python(name))
    assert imported(child, 'fre_much.inner', 'path').startswith('/')
    # No program has looked.
    assert not asked
    assert imported(child, 'fre_much', look + '()') == FOUND[look]
    assert asked == ['fre_much']
    # It comes once.
    for look in FOUND:
        assert imported(child, 'fre_much', look + '()') == FOUND[look]
    assert imported(child, 'fre_much.inner', 'open(path).read()[:6]') == 'import'
    assert asked == ['fre_much']


def test_a_database_that_is_opened_by_a_uri_is_there(router, much):
    assert imported(router.local(), 'fre_much', 'connected()')


def test_data_of_a_package_by_its_loader_needs_no_distribution(router, much, asked):
    child = router.local()
    assert imported(child, 'fre_much', 'by_loader()') == b'why'
    files = "__import__('importlib.resources').resources.files('fre_much')"
    assert child.call(eval, "(%s / 'd' / 'e' / 'y').read_text()" % files) == 'why'
    assert imported(child, 'fre_much', 'modules()') == ['inner']
    assert not asked


def test_a_promised_folder_is_private_and_goes_with_the_child(router, much):
    child = router.local()
    folder = os.path.dirname(imported(child, 'fre_much', 'here'))
    assert not os.path.exists(folder)
    assert imported(child, 'fre_much', 'has()')
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    child.shutdown(wait=True)
    testlib.wait_for(lambda: not os.path.exists(folder))


def test_forks_share_what_is_promised(router, much):
    child = router.local()
    assert imported(child, 'fre_much', 'here')
    forked = router.fork(via=child)
    assert imported(forked, 'fre_much', 'has()')
    assert imported(child, 'fre_much', 'read()') == 'why'


def test_much_data_that_cannot_come_says_why(router, much):
    router.limits.shipped_bytes = 100
    child = router.local()
    assert imported(child, 'fre_much', 'has()') is False
    for _ in range(2):
        with pytest.raises(CallError) as e:
            imported(child, 'fre_much', 'read()')
        assert 'FileNotFoundError' in str(e.value) and "router.ship('fre_much')" in str(e.value)
    router.ship('fre_much')
    assert imported(router.local(), 'fre_much', 'has()') is True


def test_a_folder_that_somebody_else_made_is_not_used(router, much):
    child = router.local()
    folder = os.path.dirname(imported(child, 'fre_much', 'here'))
    os.mkdir(folder, 0o755)
    try:
        with pytest.raises(CallError) as e:
            imported(child, 'fre_much', 'read()')
        assert 'somebody else has made it' in str(e.value) and not os.listdir(folder)
    finally:
        os.rmdir(folder)


def test_much_data_comes_through_a_context_in_the_middle(router, much):
    below = router.local(via=router.local())
    assert imported(below, 'fre_much', 'has(), read()') == (True, 'why')


def test_functions_that_are_watched_stay_what_they_are(router, much):
    child = router.local()
    assert imported(child, 'fre_much', "os.stat(0).st_mode > 0 and os.stat in os.supports_fd and "
                    "os.access('/', os.R_OK) and __import__('pickle').loads(__import__('pickle').dumps(os.stat)) is os.stat")


def test_much_data_with_little_code_travels_at_once(router, site, asked):
    for name, size in ('fre_most', 790000), ('fre_more', 810000):
        made_distributions.install(site, name, {name + '/__init__.py': HAS_DATA, name + '/x': b'x' * size})
    router.limits.shipped_data_bytes = 50000
    child = router.local()
    for name in 'fre_more', 'fre_most':
        imported(child, name, '0')
    assert asked == ['fre_most']
    assert imported(child, 'fre_more', 'has()') and imported(child, 'fre_most', 'has()')


def test_a_wheel_is_sent_to_a_child_that_the_installed_one_is_not_for(router, native, extension, tmp_path):
    native('cp36-abi3-win32')
    wheels = tmp_path / 'wheels'
    wheels.mkdir()
    files = {'fre_ext/__init__.py': 'from fre_ext import _native\n', 'fre_ext/_native.abi3.so': extension}
    for tag in made_distributions.TAG, 'cp36-abi3-macosx_11_0_arm64':
        made_distributions.make_wheel(wheels, 'fre_ext', files, '2.0', tag)
    router.ship('fre-ext', wheels=str(wheels))
    assert imported(router.local(), 'fre_ext', '_native.answer()') == 42
    with pytest.raises(ValueError):
        router.ship('fre_other', wheels=str(wheels))


def test_a_wheel_serves_for_what_is_not_installed_here(router, site, tmp_path):
    made_distributions.make_wheel(tmp_path, 'fre_wheel', {
        'fre_wheel/__init__.py': 'from fre_wheel.sub import value\n',
        'fre_wheel/sub/__init__.py': 'value = 3\n',
        'fre_wheel-1.0.data/purelib/fre_lib.py': 'value = 4\n',
        'fre_wheel-1.0.data/scripts/run': '',
        '../outside.py': '', '/outside.py': '',
    })
    router.ship('fre_wheel', wheels=str(tmp_path))
    child = router.local()
    assert imported(child, 'fre_wheel.sub', 'value') == 3
    assert imported(child, 'fre_lib', 'value') == 4


def test_a_record_that_leads_elsewhere_leads_nowhere(router, site, extension):
    made_distributions.install(site, 'fre-out', {
        'fre_out/__init__.py': '', 'fre_out/_native.abi3.so': extension,
    }, tag=made_distributions.TAG, listed=['../../etc/passwd', '/etc/passwd', 'fre_out/gone.txt'])
    child = router.local()
    folder = os.path.dirname(os.path.dirname(imported(child, 'fre_out', '__file__')))
    assert sorted(os.listdir(folder)) == ['fre_out', 'fre_out-1.0.dist-info']


def test_what_is_denied_does_not_travel_with_the_rest(router, native):
    router.responder.blacklist_prefix('fre_ext.more')
    assert "No module named 'fre_ext.more'" in failure(router.local(), 'fre_ext')
    router.responder.blacklist_prefix('fre_ext')
    assert 'ModuleDeniedByBlocksError' in failure(router.local(), 'fre_ext')


def test_a_distribution_in_the_list_of_those_that_may_travel(router, native):
    router.responder.whitelist_prefix('fre_ext')
    assert imported(router.local(), 'fre_ext', '_native.answer() + more') == 49


def test_threads_that_import_modules_of_one_distribution_share_it(router, site, extension):
    made_distributions.install(site, 'fre-two', {
        'fre_a/__init__.py': 'from fre_a import _native\nvalue = 1\n', 'fre_a/_native.abi3.so': extension,
        'fre_b.py': 'value = 2\n',
    }, tag=made_distributions.TAG)
    child = router.local()
    code = '''(lambda t, l: ([t.start_new_thread(lambda n=n: l.put(__import__(n).value), ())
        for n in ('fre_a', 'fre_b')], sorted(l.get() for _ in range(2)))[1])(__import__('_thread'), __import__('mitogen.core').core.Latch())'''
    assert child.call(eval, code.replace('\n', ' ')) == [1, 2]
    assert child.call(eval, "[p for p in __import__('sys').path if %s in p].__len__()" % FOLDER) == 1


def test_a_child_that_lies_about_its_bytecode_has_no_more_archives_made(router, native):
    child = router.local()
    freight, stream = router.responder._freight, router.stream_by_id(child.context_id)
    replies = []

    def ask():
        words = mitogen._freight.describe().split(' ')[:-1]
        for number in range(30):
            freight._take(stream, 'fre_ext', ' '.join(words + ['%08x' % (number,)]), replies.append)
        assert len([thread for thread in threading.enumerate() if thread.name == 'mitogen-freight']) <= 1
    router.broker.defer_sync(ask)
    testlib.wait_for(lambda: len(replies) == 30)
    assert [reply.split(b' ')[0] for reply in replies] == [b'ok'] * 30
    assert len(freight._made) == 1


def test_children_are_told_where_no_thread_packs_and_later_ones_get_it(router, native, monkeypatch):
    start, scarce = threading.Thread.start, [True]

    def start_some(thread):
        if scarce and thread.name == 'mitogen-freight':
            raise RuntimeError("can't start new thread")
        start(thread)
    monkeypatch.setattr(threading.Thread, 'start', start_some)
    with pytest.raises(CallError, match="cannot be packed: can't start new thread"):
        router.local().call(eval, '__import__("fre_ext").more')
    del scarce[:]
    assert router.local().call(eval, '__import__("fre_ext").more') == 7
