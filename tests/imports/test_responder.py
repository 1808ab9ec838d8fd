"""
The modules that a master serves, and how they are forwarded.
"""

import logging
import os
import re
import sys
import zlib

import pytest
import places
import pythons
import testlib
from responders import ask, new_responder, run_program, Stream

import mitogen.core
import mitogen.master
import mitogen.parent
from mitogen.master import ModuleResponder

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
    A child that already has the functions called in children, so that what it asks for after that
    can be counted.
    """
    context = router.local()
    assert context.call(child.importable, 'sys') is None
    return context


@pytest.fixture
def worked_out_nothing(monkeypatch):
    """
    Start without the results that other routers of this process have worked out from sources.
    """
    for name in ('_imports_by_source', '_minified_by_source', '_compressed_by_source'):
        monkeypatch.setattr(mitogen.master, name, mitogen.master._BySource())
    monkeypatch.setattr(mitogen.master, '_file_cache', mitogen.master._FileCache(1 << 28))


# ---- a responder by itself

@pytest.fixture
def stream():
    return Stream()


@pytest.fixture
def responder(stream):
    return new_responder(stream)


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


# ---- real children

def test_one_module_without_needs(context, router):
    import lonely
    result, asked = counts_of(router, context.call, lonely.add, 1, 2)
    assert (result, asked) == (3, (1, 1, 0))


def test_a_module_of_a_package_brings_what_it_needs(context, router):
    import simple_pkg.a
    result, asked = counts_of(router, context.call, simple_pkg.a.subtract_one_add_two, 3)
    # The child asks for the module, and then for its package unless that has come. If this request
    # comes when all has gone, it is answered once more.
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


# With a master on the compiled core, tests/connect/test_matrix.py has children and grandchildren of
# each.
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
