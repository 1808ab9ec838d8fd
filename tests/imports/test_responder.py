"""
The services of the master: modules, resources, ids, and the logs that it takes.
"""

import logging
import os
import re
import subprocess
import sys
import threading
import zlib
from unittest import mock

import pytest
import places
import pythons
import testlib

import mitogen.core
import mitogen.master
import mitogen.parent
from mitogen.master import ModuleResponder

PACKAGE_ROOT = os.path.dirname(os.path.dirname(mitogen.__file__))


# Known to children by the same name as here.
sys.path.insert(0, places.IMPORTER_DATA)
try:
    import responder_child as child
finally:
    sys.path.remove(places.IMPORTER_DATA)


# The packages in tests/data/importer can be imported.
pytestmark = pytest.mark.usefixtures('importer_data')


def read(*parts):
    with open(os.path.join(places.IMPORTER_DATA, *parts), 'rb') as fp:
        return fp.read()


def counts(router):
    """
    Return how many modules were asked for, sent and refused.
    """
    testlib.sync(router.broker)
    stats = router.get_stats()
    return stats['get_module_count'], stats['good_load_module_count'], stats['bad_load_module_count']


def counts_of(router, func, *args):
    before = counts(router)
    result = func(*args)
    return result, tuple(b - a for a, b in zip(before, counts(router)))


@pytest.fixture
def context(router):
    """
    A child that already has the functions called in children, so that what it asks for after that can be counted.
    """
    context = router.local()
    assert context.call(child.importable, 'sys') is None
    return context


@pytest.fixture
def worked_out_nothing(monkeypatch):
    """
    The results that other routers of this process have worked out from sources are not there.
    """
    for name in ('_imports_by_source', '_minified_by_source', '_compressed_by_source'):
        monkeypatch.setattr(mitogen.master, name, mitogen.master._BySource())
    monkeypatch.setattr(mitogen.master, '_file_cache', mitogen.master._FileCache(1 << 28))


# ---- a responder by itself

class Stream(object):
    def __init__(self, remote_id=1):
        self.protocol = mock.Mock(remote_id=remote_id, sent_modules=set(['mitogen', 'mitogen.core']))


class FakeRouter(mock.Mock):
    """
    Collects what is sent.
    """
    def sent(self):
        return [call[0][0] for call in self._async_route.call_args_list]

    def tuples(self):
        return [msg.unpickle() for msg in self.sent()]


@pytest.fixture
def stream():
    return Stream()


@pytest.fixture
def responder(stream):
    router = FakeRouter()
    router.stream_by_id = lambda context_id: stream if context_id == 1 else None
    responder = ModuleResponder(router, mitogen.core.ImportPolicy())
    responder.router = router
    return responder


def ask(responder, name, src_id=1):
    responder._on_get_module(mitogen.core.Message(data=name.encode('utf-8'), src_id=src_id))


def test_representation(responder):
    assert repr(responder) == 'ModuleResponder'


def test_a_missing_module_is_refused(responder):
    ask(responder, 'no_such_module')
    message, = responder.router.sent()
    assert message.unpickle() == ('no_such_module', None, None, None, ())
    assert (message.dst_id, message.handle) == (1, mitogen.core.LOAD_MODULE)
    assert (responder.get_module_count, responder.good_load_module_count, responder.bad_load_module_count) == (1, 0, 1)
    assert responder.good_load_module_size == 0
    assert responder.get_module_secs > 0


def test_a_module_is_sent_as_it_is(responder, stream):
    ask(responder, 'lonely')
    message, = responder.router.sent()
    name, present, path, compressed, related = message.unpickle()
    assert (name, present, path, related) == ('lonely', None, os.path.join(places.IMPORTER_DATA, 'lonely.py'), [])
    assert zlib.decompress(compressed) == read('lonely.py')
    assert stream.protocol.sent_modules == set(['mitogen', 'mitogen.core', 'lonely'])
    assert responder.good_load_module_count == 1
    assert responder.good_load_module_size == len(message.data)


def test_a_package_is_sent_with_the_names_in_it(responder):
    ask(responder, 'simple_pkg')
    name, present, path, compressed, related = responder.router.tuples()[0]
    assert (name, present, related) == ('simple_pkg', ['a', 'b', 'c'], [])
    assert zlib.decompress(compressed) == b''


def test_bytes_travel_unchanged(responder):
    ask(responder, 'latin_crlf')
    assert zlib.decompress(responder.router.tuples()[0][3]) == read('latin_crlf.py')


@pytest.mark.usefixtures('worked_out_nothing')
def test_a_marked_module_is_minified(responder):
    ask(responder, 'minify_me')
    source = zlib.decompress(responder.router.tuples()[0][3])
    assert source.startswith(b'# First line stays.\n\n\n\n')
    assert b'does not travel' not in source
    assert source.count(b'\n') == read('minify_me.py').count(b'\n')
    assert responder.minify_secs > 0


@pytest.mark.usefixtures('worked_out_nothing')
def test_a_source_is_worked_on_once_for_all_routers(responder, monkeypatch):
    import mitogen.imports
    import mitogen.minify
    calls = []
    for module, name in ((mitogen.minify, 'minimize_source'), (mitogen.imports, 'codeobj_imports')):
        def counted(*args, name=name, function=getattr(module, name), **kwargs):
            calls.append(name)
            return function(*args, **kwargs)
        monkeypatch.setattr(module, name, counted)
    ask(responder, 'minify_me')
    first = responder.router.sent()[-1].data
    assert sorted(set(calls)) == ['codeobj_imports', 'minimize_source']
    del calls[:]
    other = ModuleResponder(responder.router, mitogen.core.ImportPolicy())
    ask(other, 'minify_me')
    assert (responder.router.sent()[-1].data, calls) == (first, [])


@pytest.mark.usefixtures('worked_out_nothing')
def test_another_source_of_the_same_name_is_worked_on_anew(responder):
    for source in (b'import os  # !mitogen: minify_safe', b'import re  # !mitogen: minify_safe'):
        other = ModuleResponder(responder.router, mitogen.core.ImportPolicy())
        other.add_source_override('minify_me', '/nowhere/minify_me.py', source, False)
        ask(other, 'minify_me')
        assert zlib.decompress(responder.router.tuples()[-1][3]).startswith(source)


@pytest.mark.parametrize('source, minified', [
    (b'x = 1\n# !mitogen: minify_safe\ny = 2  # c\n', True),
    (b'x = 1  #!mitogen:minify_safe\n\ny = 2  # c\n', True),
    (b'# !mitogen: minify_safe\n\n\ny = 2  # c\n', False),
    (b'x = 1\n#! mitogen: minify_safe\ny = 2  # c\n', False),
    (b'x = 1\n# mitogen: minify_safe\ny = 2  # c\n', False),
])
def test_what_counts_as_a_mark(responder, source, minified):
    responder.add_source_override('marked', '/marked.py', source, False)
    ask(responder, 'marked')
    got = zlib.decompress(responder.router.tuples()[0][3])
    assert (got != source) is minified


@pytest.mark.parametrize('source', [
    b'\n# !mitogen: minify_safe\nx = "\xff"\n\n# c\n',
    b'\n# !mitogen: minify_safe\nx = (\n\n# c\n',
    b'\n# !mitogen: minify_safe\nx y\n\n# c\n',
])
def test_what_cannot_be_minified_is_sent_as_it_is(responder, source):
    responder.add_source_override('odd', '/odd.py', source, False)
    ask(responder, 'odd')
    assert zlib.decompress(responder.router.tuples()[0][3]) == source


def test_the_standard_library_is_not_sent(responder, stream):
    ask(responder, 'email.utils')
    assert responder.router.tuples() == [('email.utils', None, None, None, ())]
    assert 'email.utils' in stream.protocol.sent_modules


def test_related_modules_are_sent_first(responder):
    import simple_pkg.a
    assert simple_pkg.a
    ask(responder, 'simple_pkg')
    ask(responder, 'simple_pkg.a')
    assert [tup[0] for tup in responder.router.tuples()] == ['simple_pkg', 'simple_pkg.b', 'simple_pkg.a']
    assert responder.router.tuples()[-1][4] == ['simple_pkg', 'simple_pkg.b']


def test_related_modules_whose_package_the_child_may_have_are_not_sent(responder):
    import simple_pkg.b
    import finder_pkg.a
    assert simple_pkg.b and finder_pkg.a
    ask(responder, 'needs_broken')
    assert [tup[0] for tup in responder.router.tuples()] == ['needs_broken']


def test_a_related_module_that_cannot_be_built_is_skipped(responder, stream):
    import simple_pkg.b
    import finder_pkg.a
    assert simple_pkg.b and finder_pkg.a
    stream.protocol.sent_modules.update(['simple_pkg', 'finder_pkg'])

    def explode(*args):
        raise ValueError('no')

    responder.add_source_modifier('finder_pkg.a', explode)
    ask(responder, 'needs_broken')
    assert [(tup[0], tup[2] is None) for tup in responder.router.tuples()] == [
        ('simple_pkg.b', False), ('needs_broken', False)]


def test_a_related_module_that_does_not_compile_does_no_harm(responder, stream):
    import simple_pkg.b
    import finder_pkg.a
    assert simple_pkg.b and finder_pkg.a
    stream.protocol.sent_modules.update(['simple_pkg', 'finder_pkg'])
    responder.add_source_override('finder_pkg.a', '/a.py', b'print "2"\n', False)
    ask(responder, 'needs_broken')
    assert [tup[0] for tup in responder.router.tuples()] == ['finder_pkg.a', 'simple_pkg.b', 'needs_broken']


def test_failure_is_told_and_not_remembered(responder, stream):
    responder.add_source_modifier('lonely', lambda *args: 1 / 0)
    ask(responder, 'lonely')
    assert responder.router.tuples() == [('lonely', None, None, None, ())]
    assert 'lonely' not in stream.protocol.sent_modules


def test_a_duplicate_request_is_answered(responder):
    ask(responder, 'lonely')
    with testlib.LogCapture('mitogen.responder') as logs:
        ask(responder, 'lonely')
        assert logs.find('duplicate', level=logging.WARNING)
    first, second = responder.router.tuples()
    assert first == second
    assert responder.get_module_count == responder.good_load_module_count == 2


def test_a_second_stream_is_sent_the_same(responder):
    ask(responder, 'lonely')
    first, = responder.router.tuples()
    other = Stream(remote_id=2)
    responder.router.stream_by_id = lambda context_id: other
    ask(responder, 'lonely', src_id=2)
    assert responder.router.tuples() == [first, first]
    assert responder.router.sent()[1].dst_id == 2


def test_what_comes_from_nowhere_is_ignored(responder):
    ask(responder, 'lonely', src_id=99)
    responder._on_get_module(mitogen.core.Message.dead('over'))
    assert responder.router.sent() == []
    assert responder.get_module_count == 0


def test_the_policy_is_asked(responder):
    import simple_pkg.a
    assert simple_pkg.a
    responder.blacklist_prefix('simple_pkg.b')
    assert responder.policy.blocks == set(['simple_pkg.b'])
    for name in ('simple_pkg', 'simple_pkg.a', 'simple_pkg.b'):
        ask(responder, name)
    tuples = responder.router.tuples()
    assert [(tup[0], tup[2] is None) for tup in tuples] == [
        ('simple_pkg', False), ('simple_pkg.a', False), ('simple_pkg.b', True)]
    assert tuples[1][4] == ['simple_pkg']


def test_the_list_of_what_is_served(responder):
    responder.whitelist_prefix('simple_pkg')
    assert responder.policy.overrides == set(['mitogen', 'simple_pkg'])
    responder.whitelist_prefix('finder_pkg')
    assert responder.policy.overrides == set(['mitogen', 'simple_pkg', 'finder_pkg'])
    ask(responder, 'simple_pkg')
    ask(responder, 'lonely')
    assert [tup[2] is None for tup in responder.router.tuples()] == [False, True]


# ---- the main module

GUARDED = b'import x\n\ndef f():\n    pass\n\n'


@pytest.mark.parametrize('guard', [
    b"if __name__ == '__main__':\n    f()\n",
    b'if  __name__=="__main__" :\n    f()\nelse:\n    g()\n',
    b"if (__name__ ==\n        '__main__'):\n    f()\n",
])
def test_the_guarded_part_is_cut_off(responder, guard):
    assert responder.neutralize_main('/m.py', GUARDED + guard) == GUARDED


@pytest.mark.parametrize('source', [
    b"  if __name__ == '__main__':\n    f()\n",
    b"if '__main__' == __name__:\n    f()\n",
    b"if __name__ in ('__main__',):\n    f()\n",
    b'f()\n',
    b"TEXT = '''\nif __name__ == '__main__':\n    f()\n'''\nf()\n",
    b"# With mitogen.main() it would be different.\nf()\n",
    b"print('mitogen.main()')\n",
])
def test_what_is_no_guard(responder, source):
    with testlib.LogCapture('mitogen.responder') as logs:
        with pytest.raises(ImportError):
            responder.neutralize_main('/m.py', GUARDED + source)
        assert [r.getMessage() for r in logs.records if r.levelno == logging.ERROR] == [
            responder.main_guard_msg % ('/m.py',)]


@pytest.mark.parametrize('before', [
    b"TEXT = '''\nif __name__ == '__main__':\n    f()\n'''\n",
    b"# -*- coding: latin-1 -*-\nTEXT = '\xe4\xa0'\n",
    b"TEXT = 1\r\n",
    b"\xef\xbb\xbfTEXT = '\xc3\xa4\x0c'\n\x0c\n",
], ids=['guard in a string', 'latin-1', 'lines of DOS', 'UTF-8 with its mark'])
def test_what_stands_before_the_guard_stays(responder, before):
    source = before + GUARDED
    assert responder.neutralize_main('/m.py', source + b"if __name__ == '__main__':\n    f()\n") == source


def test_each_attempt_to_import_an_unguarded_program_is_told(responder):
    responder.add_source_override('__main__', '/m.py', b'f()\n', False)
    with testlib.LogCapture('mitogen.responder') as logs:
        for _ in range(2):
            ask(responder, '__main__')
        assert len(logs.find(responder.main_guard_msg % ('/m.py',), level=logging.ERROR)) == 2
    assert responder.router.tuples() == [('__main__', None, None, None, ())] * 2
    assert (responder.bad_load_module_count, responder.good_load_module_count) == (2, 0)


def test_the_decorator_is_a_guard(responder):
    source = GUARDED + b'@mitogen.main(log_level="DEBUG")\ndef main(router):\n    pass\n'
    assert responder.neutralize_main('/m.py', source) == source


def run_program(name, python=sys.executable, **variables):
    """
    Run one of the programs in tests/data/importer, return (status, output, errors).
    """
    # Its own directory is on its path, but not on those of its children.
    env = dict(os.environ, PYTHONPATH=PACKAGE_ROOT, **variables)
    env.pop('MITOGEN_LOG_LEVEL', None)
    pythons.keep_bytecode(env, python)
    if python != sys.executable and env.get('MITOGEN_CORE') == 'native':
        # The extension was built for this interpreter alone.
        del env['MITOGEN_CORE']
    proc = subprocess.Popen(
        [python, os.path.join(places.IMPORTER_DATA, name)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, universal_newlines=True)
    out, err = proc.communicate(timeout=60)
    return proc.returncode, out, err


@pytest.mark.parametrize('name', ['main_guarded.py', 'main_decorated.py'])
def test_a_program_calls_its_own_function(name):
    status, out, err = run_program(name)
    assert (status, out) == (0, "('__main__', 1)\n"), err


def test_a_program_without_a_guard_is_told():
    status, out, err = run_program('main_unguarded.py')
    path = os.path.join(places.IMPORTER_DATA, 'main_unguarded.py')
    assert (status, out) == (1, '')
    assert ModuleResponder.main_guard_msg % (path,) in err


def test_a_program_that_forgets_to_shut_down_ends():
    status, out, err = run_program('main_forgets_shutdown.py')
    assert (status, err) == (0, '')
    assert not testlib.is_running(int(out))


# ---- real children

def test_one_module_without_needs(context, router):
    import lonely
    result, asked = counts_of(router, context.call, lonely.add, 1, 2)
    assert (result, asked) == (3, (1, 1, 0))


def test_a_module_of_a_package_brings_what_it_needs(context, router):
    import simple_pkg.a
    result, asked = counts_of(router, context.call, simple_pkg.a.subtract_one_add_two, 3)
    # The child asks for the module, and then for its package unless that has come. If this request comes when all has
    # gone, it is answered once more.
    assert result == 4 and asked in [(1, 3, 0), (2, 3, 0), (2, 4, 0)]
    # Nothing is asked for twice.
    assert counts_of(router, context.call, simple_pkg.a.name) == ('simple_pkg.a', (0, 0, 0))


def test_a_grandchild_is_served_by_its_parent(router):
    import simple_pkg.a
    parent = router.local()
    grandchildren = [router.local(via=parent), router.local(via=parent)]
    before = counts(router)
    for context in grandchildren:
        assert context.call(simple_pkg.a.subtract_one_add_two, 3) == 4
    after = counts(router)
    asked, sent, refused = (b - a for a, b in zip(before, after))
    # The package is asked for, too, unless it has come with what is in it.
    assert (asked, sent, refused) in [(1, 3, 0), (2, 3, 0), (2, 4, 0)]


@pytest.mark.usefixtures('worked_out_nothing')
def test_a_bare_child_needs_one_module_more_to_have_children(router, monkeypatch):
    import lonely
    monkeypatch.setenv('MITOGEN_SHIP', '1')
    assert router.local(via=router.local()).call(lonely.add, 1, 2) == 3
    stats = router.get_stats()
    assert (stats['get_module_count'], stats['good_load_module_count'], stats['bad_load_module_count']) == (2, 2, 0)
    assert 10000 < stats['good_load_module_size'] < 48000
    assert stats['get_module_secs'] >= stats['minify_secs'] > 0


def test_an_absent_module_costs_one_request(context, router):
    for asked in ((1, 0, 1), (0, 0, 0)):
        (kind, text), got = counts_of(router, context.call, child.importable, 'no_such_module')
        assert got == asked
        assert kind in ('ImportError', 'ModuleNotFoundError')
        assert 'no_such_module' in text


def test_a_module_its_package_does_not_list_costs_nothing(context, router):
    assert context.call(child.importable, 'simple_pkg.a') is None
    (kind, _), asked = counts_of(router, context.call, child.importable, 'simple_pkg.zzz')
    assert (kind, asked) == ('ModuleNotFoundError', (0, 0, 0))


def test_tracebacks_show_the_file_of_the_master(context):
    import lonely
    path = os.path.join(places.IMPORTER_DATA, 'lonely.py')
    line = lonely.file_and_line()[1]
    assert context.call(lonely.file_and_line) == ('master:' + path, line)
    with pytest.raises(mitogen.core.CallError) as e:
        context.call(lonely.fail)
    assert 'master:' + path in str(e.value)


def test_a_minified_module_keeps_its_lines(context):
    import minify_me
    source = context.call(minify_me.source)
    assert 'does not travel' not in source
    assert source.count('\n') == read('minify_me.py').count(b'\n')


def test_an_override_is_what_a_child_runs(router):
    import lonely
    router.responder.add_source_override('lonely', '/other.py', b'def add(x, y):\n    return [x, y]\n', False)
    assert router.local().call(lonely.add, 1, 2) == [1, 2]


def test_a_modified_source_is_what_a_child_runs(router):
    import lonely
    router.responder.add_source_modifier(
        'lonely', lambda name, path, source, is_pkg: (path, source.replace(b'x + y', b'x - y'), is_pkg))
    assert router.local().call(lonely.add, 1, 2) == -1
    assert router.responder._finder._found_cache['lonely'][0] == os.path.join(places.IMPORTER_DATA, 'lonely.py')


def test_a_child_does_not_ask_for_what_is_not_served(router):
    router.responder.whitelist_prefix('ansible')
    context = router.local()
    with pytest.raises(mitogen.core.CallError) as e:
        context.call(child.importable, 'lonely')
    assert 'ModuleDeniedByOverridesError' in str(e.value)
    assert counts(router)[0] == 0


def test_a_child_started_before_a_ban_is_refused(context, router):
    router.responder.blacklist_prefix('lonely')
    (kind, text), asked = counts_of(router, context.call, child.importable, 'lonely')
    assert kind in ('ImportError', 'ModuleNotFoundError')
    assert 'lonely' in text
    assert asked == (1, 0, 1)


# ---- forwarding

def test_forwarded_modules_are_not_asked_for(router):
    import simple_pkg.a
    parent = router.local()
    grandchild = router.local(via=parent)
    for context in (parent, grandchild):
        assert context.call(child.importable, 'sys') is None
    router.responder.forward_modules(grandchild, ['simple_pkg.a'])
    result, asked = counts_of(router, grandchild.call, simple_pkg.a.subtract_one_add_two, 3)
    assert (result, asked) == (4, (0, 0, 0))
    assert parent.call(child.loaded_modules, 'simple_pkg') == []


def test_forwarding_again_sends_nothing(responder, stream):
    router = responder.router
    router.broker.defer = lambda func, *args: func(*args)
    context = mitogen.parent.Context(router, 1)
    behind = mitogen.parent.Context(router, 7)
    router.stream_by_id = lambda context_id: stream
    router.context_by_id = lambda context_id, create: None
    for _ in range(2):
        responder.forward_modules(context, ['simple_pkg.b'])
    assert [tup[0] for tup in router.tuples()] == ['simple_pkg', 'simple_pkg.b']
    for _ in range(2):
        responder.forward_modules(behind, ['simple_pkg.b', 'lonely'])
    handles = [(msg.handle, msg.dst_id) for msg in router.sent()[2:]]
    assert handles == [
        (mitogen.core.FORWARD_MODULE, 1), (mitogen.core.FORWARD_MODULE, 1),
        (mitogen.core.LOAD_MODULE, 1), (mitogen.core.FORWARD_MODULE, 1)]
    assert [msg.data for msg in router.sent()[2:] if msg.handle == mitogen.core.FORWARD_MODULE] == [
        b'7\0simple_pkg', b'7\0simple_pkg.b', b'7\0lonely']
    assert responder.get_module_count == 0


def test_forwarding_to_nowhere_is_dropped(router):
    with testlib.LogCapture('mitogen.responder') as logs:
        router.responder.forward_modules(mitogen.parent.Context(router, 123), ['lonely'])
        testlib.sync(router.broker)
        assert logs.find('dropping forward of')
    assert counts(router) == (0, 0, 0)


@pytest.mark.parametrize('name', [None, 5])
def test_what_is_no_name_cannot_be_forwarded(router, name):
    context = router.local()
    with pytest.raises(TypeError):
        router.responder.forward_modules(context, ['lonely', name])
    assert context.call(os.getpid)


def test_names_of_modules_to_forward_may_be_bytes_and_of_any_language(router):
    context = router.local()
    behind = router.local(via=context)
    with testlib.LogCapture('mitogen', logging.ERROR) as logs:
        router.responder.forward_modules(behind, [b'mitogen.utils', u'm\u043e\u0434'])
    assert context.call(os.getpid) != behind.call(os.getpid)
    assert not logs.records
    assert 'mitogen.utils' in router.stream_by_id(context.context_id).protocol.sent_modules


def test_a_forward_that_fails_is_logged_and_the_broker_lives_on(router, monkeypatch):
    def fail(*args):
        raise ValueError('deliberate')

    context = router.local()
    monkeypatch.setattr(router.responder, '_forward_one_module', fail)
    with testlib.LogCapture('mitogen') as logs:
        router.responder.forward_modules(context, ['lonely'])
        assert logs.find("cannot forward ['lonely']", logging.ERROR)
    assert context.call(os.getpid)


# ---- resources

RESOURCES = [('text.txt', True), ('empty', True), ('sub_dir/empty', True), ('sub_pkg/inner.txt', True),
             ('does_not_exist', False), ('sub_dir', False)]


@pytest.mark.parametrize('hops', [1, 2])
def test_resources_in_children(router, hops):
    import resource_user
    context = router.local()
    if hops == 2:
        context = router.local(via=context)
    for name, expected in RESOURCES:
        assert context.call(resource_user.is_resource, name) is expected, name
    for package, name in (('resource_pkg', 'text.txt'), ('resource_pkg', 'binary'), ('resource_pkg', 'empty'),
                          ('resource_pkg.sub_pkg', 'inner.txt')):
        path = package.split('.') + [name]
        assert context.call(resource_user.read, package, name) == read(*path)


@pytest.mark.parametrize('package, name', [
    ('resource_pkg', '../lonely.py'), ('resource_pkg', os.path.join(places.IMPORTER_DATA, 'lonely.py')),
    ('resource_pkg', ''), ('resource_pkg', '.'), ('resource_pkg', 'sub_dir/../text.txt'), ('resource_pkg', 'a\0b'),
    ('no_such_package', 'x'), ('lonely', 'text.txt'), ('', 'x'),
])
def test_what_is_no_resource_is_answered_all_the_same(package, name, stream):
    router = FakeRouter()
    router.stream_by_id = lambda context_id: stream
    responder = mitogen.master.ResourceResponder(router)
    responder._on_get_resource(mitogen.core.Message.pickled((package, name), src_id=1))
    message, = router.sent()
    assert (message.dst_id, message.handle) == (1, mitogen.core.LOAD_RESOURCE)
    assert list(message.unpickle_iter()) == [(package, name), None]


@pytest.mark.parametrize('request_', [(u'resource_pkg', 5), (5, u'x'), u'x', (u'a', u'b', u'c'), None], ids=repr)
def test_what_names_no_resource_is_not_answered(request_, stream):
    router = FakeRouter()
    router.stream_by_id = lambda context_id: stream
    responder = mitogen.master.ResourceResponder(router)
    responder._on_get_resource(mitogen.core.Message.pickled(request_, src_id=1))
    assert list(router.sent()) == []


def test_a_resource_does_not_import_its_package(stream):
    responder = mitogen.master.ResourceResponder(FakeRouter())
    assert responder._get_resource('resource_pkg', 'text.txt') == b'text\n'
    assert 'resource_pkg' not in sys.modules


# ---- ids

def test_ids(router):
    allocator = router.id_allocator
    assert repr(allocator) == 'IdAllocator(%r)' % (router,)
    assert router.local().context_id == 1
    assert allocator.allocate_block() == (2, 1002)
    assert allocator.allocate() == 1002


def test_a_child_takes_a_block(router):
    context = router.local()
    assert router.local(via=context).context_id == 2
    assert router.local(via=context).context_id == 3
    assert router.local().context_id == 1002


# ---- logs

def test_a_record_of_a_child(router):
    context = router.local(name='zed')
    with testlib.LogCapture() as logs:
        context.call(child.log, 'x.y', logging.WARNING, 'hello %s', 5)
        record, = logs.wait('hello 5')
    assert (record.name, record.levelno, record.levelname) == ('x.y.[zed]', logging.WARNING, 'WARNING')
    assert (record.msg, record.args, record.exc_info) == ('hello 5', (), None)
    assert (record.pathname, record.lineno) == ('(unknown file)', 0)
    assert (record.mitogen_message, record.mitogen_name) == ('hello 5', 'x.y')
    assert record.mitogen_context == context


def test_what_a_child_prints(router):
    with testlib.LogCapture() as logs:
        router.local(name='zed').call(child.say, 'ding')
        record, = logs.wait('ding', name='stdout.[zed]')
    assert record.levelno == logging.INFO


def forward(router, data):
    """
    Have a record arrive from the context 1234.
    """
    router.broker.defer_sync(
        lambda: router.log_forwarder._on_forward_log(mitogen.core.Message(data=data, src_id=1234)))


def test_a_record_with_odd_bytes(router):
    router.context_by_id(1234, name=u'odd')
    with testlib.LogCapture() as logs:
        forward(router, b'n\x0099\x00a\x00b\xff')
        record, = logs.find(u'a\\x00b\ufffd')
        assert record.mitogen_message == u'a\0b\ufffd'
        assert (record.name, record.levelno) == ('n.[odd]', 99)
        forward(router, b'no level\x00at all')
        forward(router, b'n\x00NaN\x00text')
        assert len([r for r in logs.records if r.name.endswith('.[odd]')]) == 1


def test_records_are_made_by_the_factory(router):
    made = logging.getLogRecordFactory()

    class Record(logging.LogRecord):
        favourite = 'blue'

    logging.setLogRecordFactory(Record)
    try:
        with testlib.LogCapture() as logs:
            forward(router, b'n\x0030\x00hello')
        record, = logs.find('hello')
        assert record.favourite == 'blue'
    finally:
        logging.setLogRecordFactory(made)


# ---- the router and its broker

def test_handlers_of_a_master(router):
    for handle in (100, 102, 103, 104, 105, 109, 112, 114):
        assert handle in router._handle_map
    assert len(router._handle_map) == 8


def test_the_largest_message_is_handed_down(make_router):
    router = make_router(max_message_size=65536)
    context = router.local()
    for context in (context, router.local(via=context)):
        assert context.call(child.max_message_size) == 65536


def test_disconnecting_all(router):
    contexts = [router.local(), router.local()]
    exits = mitogen.core.Latch()
    for stream in router.get_streams():
        mitogen.core.listen(stream.conn.proc, 'exit', exits.put)
    router.disconnect_all()
    for _ in contexts:
        exits.get(timeout=60)
    for context in contexts:
        with pytest.raises(mitogen.core.ChannelError) as e:
            context.call(os.getpid)
        text = router.no_route_msg % (context.context_id, mitogen.context_id)
        assert str(e.value).startswith(text + ': ') and 'was lost at' in str(e.value)


def test_disconnecting_one(router):
    first, second = router.local(), router.local()
    gone = mitogen.core.Latch()
    mitogen.core.listen(first, 'disconnect', gone.put)
    router.disconnect_stream(router.stream_by_id(first.context_id))
    gone.get(timeout=60)
    assert second.call(os.getpid)


def test_statistics_are_logged_at_the_end(broker):
    router = mitogen.master.Router(broker)
    assert sorted(router.get_stats()) == [
        'bad_load_module_count', 'get_module_count', 'get_module_secs', 'good_load_module_count',
        'good_load_module_size', 'minify_secs', 'pushed_module_count']
    with testlib.LogCapture('mitogen') as logs:
        broker.shutdown()
        broker.join()
    assert logs.find('module requests', level=logging.DEBUG)


DEBUG = """
import os, mitogen.master
if __name__ == '__main__':
    with mitogen.master.Router() as router:
        before = router.local()
        router.enable_debug()
        print(os.getpid(), router.local().call(os.getpid), before.call(os.getpid))
"""


def test_debug_logs_of_a_tree(tmp_path):
    path = tmp_path / 'program.py'
    path.write_text(DEBUG)
    status, out, err = run_program(str(path), XDG_RUNTIME_DIR=str(tmp_path))
    assert status == 0, err
    found = []
    for pid in out.split():
        logs = list(tmp_path.glob('mitogen.%s.*.log' % (pid,)))
        found.append(len(logs))
        for log in logs:
            assert re.match(r'mitogen\.%s\.\d{8}_\d{6}\.log$' % (pid,), log.name)
            assert 'mitogen' in log.read_text()
    # The one that was started before is as it was.
    assert found == [1, 1, 0]


def test_a_router_is_a_context_manager():
    with mitogen.master.Router() as router:
        assert isinstance(router.broker, mitogen.master.Broker)
        assert router.broker._thread.is_alive()
    assert not router.broker._thread.is_alive()


def test_a_broker_without_a_watcher_starts_one_thread():
    before = set(threading.enumerate())
    broker = mitogen.master.Broker(install_watcher=False)
    try:
        assert [t.name for t in set(threading.enumerate()) - before] == ['mitogen.broker']
    finally:
        broker.shutdown()
        broker.join()


def test_a_broker_of_a_master():
    assert mitogen.master.Broker.shutdown_timeout == 5.0
    assert mitogen.master.Broker.poller_class is mitogen.parent.PREFERRED_POLLER
    broker = mitogen.master.Broker()
    try:
        assert isinstance(broker.timers, mitogen.parent.TimerList)
    finally:
        broker.shutdown()
        broker.join()


def test_a_broker_ends_with_the_thread_that_made_it():
    brokers = []
    thread = threading.Thread(target=lambda: brokers.append(mitogen.master.Broker()))
    thread.start()
    thread.join()
    brokers[0].join()
    assert not brokers[0]._thread.is_alive()


def test_one_helper_watches_a_thread_for_many():
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    before = set(threading.enumerate())
    called = mitogen.core.Latch()
    watchers = [
        mitogen.master.ThreadWatcher.watch(thread, lambda number=number: called.put(number)) for number in range(3)]
    assert [t.name for t in set(threading.enumerate()) - before] == ['mitogen.master.join_thread_async']
    watchers[1].remove()
    watchers[1].remove()
    done.set()
    assert [called.get(timeout=60) for _ in range(2)] == [0, 2]
    thread.join()


# ---- the core's source

def test_the_core_travels_without_comments():
    source = mitogen.parent._get_core_source()
    if isinstance(source, bytes):
        source = source.decode('utf-8')
    full = mitogen.master._get_full_core_source()
    if isinstance(full, bytes):
        full = full.decode('utf-8')
    assert source.count('\n') == full.count('\n')
    assert len(source) < len(full) * 0.8
    assert not re.search(r'(?m)^\s*"""', source)
    compile(source, 'core.py', 'exec', 0, True)
    assert mitogen.parent._get_core_source() is mitogen.parent._get_core_source()


# ---- other interpreters

#: A master on another one runs the pure core in any case.
MASTERS = [name if name == pythons.OWN else pytest.param(name, marks=pytest.mark.once) for name in pythons.NAMES]


@pytest.mark.slow
@pytest.mark.parametrize('name', MASTERS)
def test_a_master_on_another_interpreter(name):
    status, out, err = run_program('everywhere.py', pythons.find_python(name))
    assert status == 0, err
    assert 'done' in out


# With a master on the compiled core, tests/connect/test_matrix.py has children and grandchildren of each.
@pytest.mark.pure
@pytest.mark.slow
@pytest.mark.parametrize('name', pythons.NAMES)
def test_a_child_on_another_interpreter(router, name):
    import platform
    import simple_pkg.a
    context = router.local(python_path=pythons.find_python(name))
    # Python 2 has names of type bytes.
    to_text = mitogen.core.to_text
    assert to_text(context.call(platform.python_version)).startswith(name[len('python'):] + '.')
    assert context.call(simple_pkg.a.subtract_one_add_two, 3) == 4
    assert to_text(router.local(via=context).call(simple_pkg.a.name)) == 'simple_pkg.a'
