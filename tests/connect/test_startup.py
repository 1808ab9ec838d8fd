"""
The cost of starting a child: bytes, round trips, imports. Each form in which the core travels is
the whole core.
"""

import ast
import builtins
import dis
import glob
import os
import subprocess
import sys
import threading
import zlib

import pytest

import mitogen._shrink
import mitogen.core
import mitogen.master
import mitogen.parent
import pythons
import startup_target

PACKAGE = os.path.dirname(mitogen.core.__file__)

#: Bytes that a child of this Python is sent.
MOST_SHIPPED = 14200
MOST_INSTALLED = 1500

#: Modules of the interpreter that the core works with. The modules that they import in turn depend
#: on the Python version.
NEEDED = ['binascii', 'gc', 'zlib', 'select', '_pickle', '_socket', '_codecs', 'threading', 'collections', 'struct', 'errno',
          'itertools', 'time', 'os', 'io']
NATIVE_NEEDED = ['types', '_weakrefset', '_mitogen_core']

#: Some of what a child is not sent, but can fetch.
SELDOM = ['PidfulStreamHandler', 'ResourceReader', 'Channel', 'Sender', 'Blob', 'enable_debug_logging']

#: Passes everything on, and says on its last argument's file in which direction.
RELAY = '''
import os, select, subprocess, sys
child = subprocess.Popen([sys.executable] + sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
ways = {0: (child.stdin.fileno(), 'down'), child.stdout.fileno(): (1, 'up')}
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while len(ways) == 2:
    for fd in select.select(list(ways), [], [])[0]:
        out, name = ways[fd]
        chunk = os.read(fd, 1 << 20)
        if not chunk:
            del ways[fd]
            break
        os.write(log, ('%s %d %d\\n' % (name, len(chunk), b'MITO002' in chunk)).encode())
        while chunk:
            try:
                chunk = chunk[os.write(out, chunk):]
            except BlockingIOError:
                select.select([], [out], [])
child.stdin.close()
sys.exit(child.wait())
'''


def modules_of(python, code):
    out = subprocess.check_output([python, '-c', code + ';import sys;print(" ".join(sys.modules))'])
    return set(out.decode().split())


def elsewhere(python=sys.executable):
    """
    A command that starts an interpreter, but is not known to be our own.
    """
    return ['/usr/bin/env', python]


def shipped(router, **kwargs):
    """
    A child that is sent the source.
    """
    os.environ['MITOGEN_SHIP'] = '1'
    try:
        return router.local(**kwargs)
    finally:
        del os.environ['MITOGEN_SHIP']


@pytest.fixture(autouse=True)
def sent(monkeypatch):
    """
    The text for each child that was sent more than its configuration: connection -> bytes.
    """
    found = {}
    finish = mitogen.parent.Connection._finish_preamble

    def note(conn, partial):
        found[conn] = finish(conn, partial)
        return found[conn]

    monkeypatch.setattr(mitogen.parent.Connection, '_finish_preamble', note)
    return found


def preamble_of(router, context, sent):
    return sent[router.stream_by_id(context.context_id).conn]


def check_modules(context, native):
    """
    A fresh child has imported what it works with and nothing else.
    """
    loaded = set(context.call(eval, 'sorted(__import__("sys").modules)'))
    needed = NEEDED + (NATIVE_NEEDED if native else [])
    expected = modules_of(sys.executable, 'import ' + ','.join(needed))
    expected |= set(['mitogen', 'mitogen.core', '__future__'])
    if native:
        expected.add('mitogen._native')
    assert loaded - expected == set()
    # The interpreter is ours, so nothing is packed, and the compiled core has sockets of its own.
    spared = set(['binascii', 'zlib', '_socket']) - modules_of(sys.executable, 'pass') if native else set()
    assert loaded & spared == set()
    for name in 'logging traceback re socket pickle subprocess inspect signal encodings.latin_1'.split():
        assert name not in loaded or name in modules_of(sys.executable, 'pass'), name
    # Where the interpreter itself does not, as in some virtual environments.
    assert native or '__future__' not in loaded - modules_of(sys.executable, 'pass')


def test_an_ordinary_child_imports_what_it_uses(router):
    check_modules(router.local(), mitogen.core.CORE == 'native')


def test_a_child_that_was_sent_the_source_imports_what_it_uses(router, monkeypatch):
    monkeypatch.setenv('MITOGEN_CORE', 'pure')
    check_modules(router.local(python_path=elsewhere()), False)


@pytest.mark.native
def test_an_installed_child_is_ready_before_it_imports_threading(router):
    loaded = router.local().call(eval, 'list(__import__("sys").modules)')
    before = modules_of(sys.executable, 'pass')
    assert 'threading' in loaded
    assert set(['select', 'struct', '_struct']).intersection(loaded) <= before
    # From Python 3.14 on, `threading` does without the others.
    for name in set(['threading', 'functools', 'collections']).intersection(loaded) - before:
        assert loaded.index(name) > loaded.index('mitogen._native'), name


def test_calls_run_in_what_threading_takes_for_the_main_thread(router):
    context = router.local()
    assert context.call(eval, '(lambda t: t.current_thread() is t.main_thread())(__import__("threading"))')
    names = context.call(eval, 'sorted(t.name for t in __import__("threading").enumerate())')
    assert names == ['MainThread', 'mitogen.broker']


def test_a_start_asks_the_parent_for_no_module(router):
    router.responder.whitelist_prefix('threading')
    assert router.local().call(eval, '__import__("threading").__file__') == threading.__file__


def test_a_program_finds_late_modules_by_their_names_in_the_core(router):
    for name in 'collections', 'threading':
        assert getattr(mitogen.core, name).__name__ == name
    assert router.local().call(eval, '__import__("mitogen.core").core.threading is __import__("threading")')
    with pytest.raises(AttributeError, match="no attribute 'thredding'"):
        mitogen.core.thredding


def test_few_bytes_are_sent(router, monkeypatch, sent):
    monkeypatch.setenv('MITOGEN_CORE', 'pure')
    context = router.local(python_path=elsewhere(), remote_name='root@host:12345')
    context.call(os.getpid)
    assert len(preamble_of(router, context, sent)) <= MOST_SHIPPED


@pytest.mark.native
def test_next_to_nothing_is_sent_where_the_package_is(router, sent):
    context = router.local()
    conn = router.stream_by_id(context.context_id).conn
    assert not sent
    assert len(conn._get_short_preamble()) <= MOST_INSTALLED


@pytest.mark.parametrize('source', [False, True])
def test_one_round_trip_starts_a_child(router, tmp_path, monkeypatch, source):
    if source:
        monkeypatch.setenv('MITOGEN_SHIP', '1')
    relay = tmp_path / 'relay.py'
    relay.write_text(RELAY)
    log = tmp_path / 'log'
    context = router.local(python_path=[sys.executable, str(relay), str(log)])
    assert isinstance(context.call(os.getpid), int)
    ways = []
    for line in log.read_text().splitlines():
        way, _, ready = line.split()
        if ways[-1:] != [way]:
            ways.append(way)
        if ready == '1':
            break
    assert ways == ['up', 'down', 'up']


def test_the_same_interpreter_is_sent_what_is_compiled(router, sent):
    context = shipped(router)
    assert b'__import__("marshal")' in zlib.decompress(preamble_of(router, context, sent))
    assert context.call(startup_target.evaluate, '__import__("mitogen.core").core.CORE') == 'pure'
    source = context.call(startup_target.evaluate, '__import__("mitogen.core").core.get_core_source()')
    compile(source, 'core', 'exec')
    # It can serve children of its own.
    child = router.local(via=context)
    assert isinstance(child.call(os.getpid), int)


def test_what_was_sent_is_not_kept(router):
    conns = [router.stream_by_id(shipped(router).context_id).conn for _ in range(2)]
    kept = [value for conn in conns for value in vars(conn).values() if isinstance(value, bytes)]
    assert sum(map(len, kept)) < 5000


def test_another_interpreter_is_sent_source(router, sent):
    context = shipped(router, python_path=elsewhere())
    text = zlib.decompress(preamble_of(router, context, sent))
    assert b'marshal' not in text
    start = mitogen.parent._EXPAND + mitogen.parent._UNPACK
    assert text.startswith(start)
    text = text[len(start):]
    for code, phrase in enumerate(mitogen.parent._PHRASES, 128):
        text = text.replace(bytes([code]), phrase)
    compile(text, 'core', 'exec')


def core_names(context):
    text = '[getattr(__import__("mitogen.core").core, name).__name__ for name in %r]' % (SELDOM,)
    return context.call(startup_target.evaluate, text)


# With a master on the compiled core, test_matrix.py has children and grandchildren of each version.
@pytest.mark.pure
@pytest.mark.parametrize('name', pythons.NAMES)
def test_what_is_left_out_is_had_when_asked_for(router, name, monkeypatch):
    monkeypatch.setenv('MITOGEN_CORE', 'pure')
    context = router.local(python_path=elsewhere(pythons.find_python(name)))
    names = [mitogen.core.to_text(found) for found in core_names(context)]
    assert names == SELDOM
    with pytest.raises(mitogen.core.CallError) as caught:
        context.call(startup_target.evaluate, '__import__("mitogen.core").core.nonesuch')
    assert 'AttributeError' in caught.value.args[0]


@pytest.mark.parametrize('option', ['debug', 'profiling'])
def test_what_a_child_needs_at_once_is_not_left_out(router, option, tmp_path, monkeypatch):
    monkeypatch.setenv('MITOGEN_PROFILE_FMT', str(tmp_path / 'p.%(pid)s.%(identity)s.%(now)s.%(ext)s'))
    monkeypatch.setenv('MITOGEN_CORE', 'pure')
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(tmp_path))
    text = 'enable_profiling' if option == 'profiling' else 'PidfulStreamHandler'
    context = router.local(python_path=elsewhere(), **{option: True})
    assert context.call(startup_target.evaluate, '%r in __import__("mitogen.core").core.__dict__' % (text,)) is True
    assert (len(list(tmp_path.glob('mitogen.*.log'))) > 0) == (option == 'debug')


# With a master on the compiled core, test_matrix.py has children and grandchildren of each version.
@pytest.mark.pure
@pytest.mark.parametrize('middle', ['python2.7', 'python3.8'])
def test_a_child_starts_children_of_every_version(router, middle, monkeypatch):
    monkeypatch.setenv('MITOGEN_CORE', 'pure')
    first = router.local(python_path=elsewhere(pythons.find_python(middle)))
    for name in filter(pythons.is_here, pythons.NAMES):
        second = router.local(via=first, python_path=pythons.find_python(name))
        version = second.call(startup_target.evaluate, '"python%d.%d" % __import__("sys").version_info[:2]')
        assert mitogen.core.to_text(version) == name
        names = [mitogen.core.to_text(found) for found in core_names(second)]
        assert names == SELDOM, name


def test_a_core_that_could_not_be_reduced_is_passed_on_to_another_version(router, monkeypatch):
    """As a master on PyPy does, which has no symbol tables."""
    monkeypatch.setenv('MITOGEN_CORE', 'pure')
    monkeypatch.delattr(mitogen._shrink, 'shrink_source')
    monkeypatch.delattr(mitogen._shrink, 'divide_source')
    monkeypatch.setattr(mitogen.parent, '_partials', {})
    first = router.local(python_path=elsewhere(pythons.find_python('python3.8')))
    second = router.local(via=first, python_path=pythons.find_python('python2.7'))
    # In a package, an import of Python 2 looks for a neighbour first, unless told not to.
    name = second.call(startup_target.evaluate, '__import__("mitogen.select").select.Select.__name__')
    assert mitogen.core.to_text(name) == 'Select'


# ---- what makes the text small relies on this

CONSTANTS = {'PY3': True, '_REDUCED': True}


def global_names(code):
    """
    The names that a code object and those in it look up among the globals.
    """
    names = set(ins.argval for ins in dis.get_instructions(code) if ins.opname in ('LOAD_GLOBAL', 'LOAD_NAME'))
    for const in code.co_consts:
        if isinstance(const, type(code)):
            names |= global_names(const)
    return names


def test_what_is_sent_needs_no_name_that_it_lacks():
    with open(os.path.join(PACKAGE, 'core.py'), 'rb') as fp:
        boot, late = mitogen._shrink.divide_source(fp.read(), CONSTANTS)
    names = {'__name__': 'mitogen.core', '_core_source': boot.encode()}
    exec(compile(boot, 'boot', 'exec'), names)
    known = set(names) | set(dir(builtins)) | set(['__module__', '__qualname__'])
    used = global_names(compile(boot, 'boot', 'exec'))
    # Used with a profile or a debug log only, when a child has everything; and after a look whether
    # it is there.
    used -= set(['enable_profiling', 'enable_debug_logging', '_HookLoader'])
    members = set()
    for node in ast.parse(boot).body:
        if isinstance(node, ast.ClassDef):
            members |= set(name for name in vars(names[node.name]))
    assert used - known - members == set()
    before = dict((name, value) for name, value in names.items() if isinstance(value, type))
    exec(compile(late, 'late', 'exec'), names)
    for cls in before.values():
        assert not [key for key, value in vars(cls).items() if isinstance(value, names['_Late'])], cls
    public = set(name for name in vars(mitogen.core) if name[0] != '_') - set(['CORE', 'fcntl', 'imp'])
    assert public - set(names) == set()


def test_what_is_left_out_comes_with_the_first_module(router, monkeypatch):
    monkeypatch.setenv('MITOGEN_CORE', 'pure')
    context = router.local(python_path=elsewhere())
    conn = router.stream_by_id(context.context_id).conn
    context.call(os.getpid)
    assert conn._lacks_core
    before = router.get_stats()['get_module_count']
    # Had on the broker's thread, too: that cannot wait for it.
    assert context.call(startup_target.on_broker, 'mitogen.core.Channel.__name__') == 'Channel'
    assert not conn._lacks_core and router.get_stats()['get_module_count'] == before + 1


def test_what_is_left_out_is_not_had_by_a_broker_that_would_have_to_wait(router, monkeypatch):
    monkeypatch.setenv('MITOGEN_CORE', 'pure')
    context = router.local(python_path=elsewhere())
    code = ('(lambda c, l: (c.Importer._loader.__self__._router.broker.defer('
            'lambda: l.put((hasattr(c, "Channel"), hasattr(c.Latch, "size"), repr(l)[:15]))), l.get())[1])'
            '(__import__("mitogen.core").core, __import__("mitogen.core").core.Latch())')
    assert context.call(eval, code) == (False, False, '<mitogen.core.L')
    # Others wait for it.
    assert context.call(eval, '__import__("mitogen.core").core.Channel.__name__') == 'Channel'


def test_a_child_with_logging_from_the_start_forwards_records(router, tmp_path, monkeypatch):
    monkeypatch.setenv('MITOGEN_CORE', 'pure')
    (tmp_path / 'sitecustomize.py').write_text('import logging\n')
    context = router.local(python_path=['/usr/bin/env', 'PYTHONPATH=%s' % tmp_path, sys.executable])
    handlers = context.call(eval, '[type(h).__name__ for h in __import__("logging").getLogger().handlers]')
    assert handlers == ['LogHandler']


@pytest.mark.once
def test_nobody_gives_an_argument_of_a_private_function_of_the_core_by_name():
    with open(os.path.join(PACKAGE, 'core.py')) as fp:
        private = dict(
            (node.name, [arg.arg for arg in node.args.args])
            for node in ast.walk(ast.parse(fp.read()))
            if isinstance(node, ast.FunctionDef) and node.name[0] == '_' and node.name[1] != '_'
        )
    with open(os.path.join(PACKAGE, 'core.py'), 'rb') as fp:
        reduced = mitogen._shrink.shrink_source(fp.read(), CONSTANTS)
    kept = dict(
        (node.name, [arg.arg for arg in node.args.args])
        for node in ast.walk(ast.parse(reduced)) if isinstance(node, ast.FunctionDef)
    )
    for path in glob.glob(os.path.join(PACKAGE, '*.py')):
        with open(path) as fp:
            tree = ast.parse(fp.read())
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, 'attr', getattr(node.func, 'id', None))
            for keyword in node.keywords:
                if name in private and keyword.arg in private[name]:
                    assert keyword.arg in kept[name], (path, node.lineno)


def core_text():
    with open(os.path.join(PACKAGE, 'core.py'), 'rb') as fp:
        return fp.read()


@pytest.fixture(scope='module')
def checksums():
    """
    Checksums of the texts to which this interpreter reduces the core.
    """
    texts = mitogen._shrink.divide_source(core_text(), CONSTANTS)
    texts += (mitogen._shrink.shrink_source(core_text(), dict(CONSTANTS, PY3=False)),)
    return [zlib.crc32(text.encode('utf-8')) & 0xffffffff for text in texts]


@pytest.mark.once
@pytest.mark.parametrize('name', pythons.NAMES)
def test_every_interpreter_reduces_the_core_to_the_same_text(name, checksums):
    code = ('import sys, zlib; sys.path[:0] = [%r]; import mitogen._shrink; '
            's = open(%r, "rb").read(); '
            'c = {"PY3": True, "_REDUCED": True}; '
            'boot, late = mitogen._shrink.divide_source(s, c); '
            'whole = mitogen._shrink.shrink_source(s, dict(c, PY3=False)); '
            'print([zlib.crc32(t.encode("utf-8")) & 0xffffffff for t in (boot, late, whole)])' % (os.path.dirname(PACKAGE), os.path.join(PACKAGE, 'core.py')))
    env = dict(os.environ, MITOGEN_CORE='pure')
    out = subprocess.check_output([pythons.find_python(name), '-c', code], env=env)
    assert ast.literal_eval(out.decode().replace('L', '')) == checksums
