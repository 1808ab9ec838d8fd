"""
The manual: its programs run, its tables agree with the code, and each name of the interface is
explained.
"""

import ast
import glob
import importlib
import inspect
import os
import re
import struct

import pytest

import doc_blocks
import places
import mitogen
import mitogen.core
import mitogen.master
import mitogen.parent

ROOT = places.ROOT
DOCS = os.path.join(ROOT, 'docs')

pytestmark = pytest.mark.skipif(not os.path.isdir(DOCS), reason='needs the source tree')

PAGES = ['tutorial.rst'] + sorted(os.path.relpath(path, DOCS) for path in glob.glob(os.path.join(DOCS, 'guides', '*.rst')))


@pytest.mark.parametrize('page', PAGES)
def test_the_programs_of_a_page_print_what_it_says(page, tmp_path):
    count = doc_blocks.follow(os.path.join(DOCS, page), tmp_path)
    assert count >= {'tutorial.rst': 7, os.path.join('guides', 'index.rst'): 0}.get(page, 1)


def test_a_wrong_page_is_noticed(tmp_path):
    page = tmp_path / 'page.rst'
    page.write_text('.. file: x.py\n\n.. code-block:: python\n\n   print(1)\n\n'
                    '.. code-block:: console\n\n   $ python x.py\n   2\n')
    with pytest.raises(AssertionError, match='expected'):
        doc_blocks.follow(str(page), tmp_path)


# ---- tables

def table(page, name):
    """
    Return the rows of a simple table, each a dict.
    """
    lines = doc_blocks.read(os.path.join(DOCS, page)).splitlines()
    start = lines.index('.. table:: ' + name) + 2
    ruler = lines[start]
    assert re.match(r' +=', ruler)
    spans = [match.span() for match in re.finditer('=+', ruler)]
    spans[-1] = (spans[-1][0], None)
    rows = []
    for line in lines[start + 1:]:
        if line == ruler:
            if len(rows) > 1:
                break
            continue
        cells = [line[a:b].strip().replace('``', '') for a, b in spans]
        if cells[0]:
            rows.append(cells)
        else:
            # The row goes on here.
            rows[-1] = [' '.join(parts).strip() for parts in zip(rows[-1], cells)]
    assert len(rows) > 1
    return [dict(zip(rows[0], row)) for row in rows[1:]]


def test_the_header():
    rows = table('protocol.rst', 'header')
    assert [row['field'] for row in rows] == [
        'magic', 'dst_id', 'src_id', 'auth_id', 'handle', 'reply_to', 'length']
    assert sum(int(row['size']) for row in rows) == mitogen.core.Message.HEADER_LEN == 26
    message = mitogen.core.Message(
        dst_id=0x01020304, src_id=0x05060708, auth_id=0x090a0b0c, handle=0x0d0e0f10, reply_to=0x11121314, data=b'xyz')
    packed = message.pack()
    for row in rows:
        data = packed[int(row['offset']):int(row['offset']) + int(row['size'])]
        value = struct.unpack({2: '>h', 4: '>L'}[int(row['size'])], data)[0]
        assert value == {'magic': message.enc, 'length': 3}.get(row['field'], getattr(message, row['field'], None))
    assert packed[26:] == b'xyz'


def test_the_encodings():
    rows = table('protocol.rst', 'encodings')
    assert dict((row['name'], int(row['value'], 16)) for row in rows) == dict(
        (name, getattr(mitogen.core.Message, name)) for name in ('ENC_MGC', 'ENC_PKL', 'ENC_BIN'))
    assert set(int(row['value'], 16) for row in rows) == set(mitogen.core.Message.ENCS)


def test_the_size_limit_is_the_one_on_the_page():
    size = int(re.search(r'max_message_size`` \(bytes; (\d+) MiB', doc_blocks.read(os.path.join(DOCS, 'protocol.rst'))).group(1))
    assert mitogen.core.Router.max_message_size == size << 20


def test_the_handles():
    rows = table('protocol.rst', 'handles')
    named = dict((row['name'], int(row['value'])) for row in rows)
    core = dict((name, value) for name, value in vars(mitogen.core).items()
                if name.isupper() and type(value) is int and 100 <= value < 1000)
    core = dict((name, value) for name, value in core.items() if name != 'CHUNK_SIZE')
    assert named == core
    header = os.path.join(ROOT, '_mitogen_core', 'engine', 'base', 'well_known.h')
    engine = dict((name, int(value)) for name, value in re.findall(r'MG_(\w+) = (\d+)', doc_blocks.read(header)))
    assert engine.pop('FIRST_HANDLE') == 1000
    assert named == engine


def test_who_serves_a_handle(router):
    rows = table('protocol.rst', 'handles')
    served = dict((int(row['value']), row['served by']) for row in rows)
    known = set(handle for handle in router._handle_map if handle < 1000)
    assert known == set(handle for handle, who in served.items() if who in ('parents', 'master', 'everyone')) - {
        mitogen.core.FORWARD_MODULE}
    plain = router.local().call(handles_here)
    assert set(plain) == set(handle for handle, who in served.items() if who.startswith(('children', 'everyone')))
    upgraded = router.local()
    router.local(via=upgraded)
    assert set(upgraded.call(handles_here)) == set(plain) | set(
        handle for handle, who in served.items() if who == 'parents')


@mitogen.core.takes_router
def handles_here(router):
    return sorted(handle for handle in router._handle_map if handle < 1000)


def test_the_tuples(router):
    counts = dict((row['name'], len(row['elements'].split(','))) for row in table('protocol.rst', 'tuples'))
    context = router.local()
    message = context.default_call_chain.make_msg(len, 'x')
    assert len(message.unpickle(throw=False)) == counts['CALL_FUNCTION']
    assert message.handle == mitogen.core.CALL_FUNCTION
    assert context.call(shape_of_module) == counts['LOAD_MODULE']
    assert context.call(shape_of_service_call) == counts['CALL_SERVICE']


@mitogen.core.takes_econtext
def shape_of_module(econtext):
    return len(econtext.importer._cache[__name__])


@mitogen.core.takes_econtext
def shape_of_service_call(econtext):
    sent = []
    context = mitogen.core.Context(econtext.router, mitogen.context_id)
    context.send_async = lambda message: sent.append(message)
    context.call_service_async('a', 'b', c=1)
    return len(sent[0].unpickle())


def test_the_globals():
    rows = table('protocol.rst', 'globals')
    find = mitogen.core.Message()._find_global
    for row in rows:
        assert callable(find(row['module'], row['name']))
    text = inspect.getsource(mitogen.core).split('def _find_global', 1)[1].split('\n    def ', 1)[0]
    for row in rows:
        if row['module'] == 'mitogen.core':
            assert row['name'] in text or row['name'].lstrip('_') in inspect.getsource(mitogen.core)
    for module, name in (('builtins', 'set'), ('os', 'system'), ('mitogen.core', 'Router'), ('mitogen.core', 'Error')):
        with pytest.raises(mitogen.core.StreamError, match='cannot unpickle'):
            find(module, name)


def test_the_start():
    for row in table('protocol.rst', 'markers'):
        assert getattr(mitogen.parent.BootstrapProtocol, row['constant']) == row['line'].encode()
    kinds = set(row['kind'] for row in table('protocol.rst', 'starts'))
    assert kinds == {'C', 'S'}
    source = inspect.getsource(mitogen.parent)
    for kind in kinds:
        assert "_answer(b'%s'" % kind in source


def test_the_configuration(router):
    keys = [row['key'] for row in table('protocol.rst', 'configuration')]
    assert sorted(keys) == sorted(router.local().call(config_keys))


@mitogen.core.takes_econtext
def config_keys(econtext):
    return sorted(econtext.config)


# ---- names

def test_the_places_of_the_architecture_are_there():
    rows = table('architecture.rst', 'way') + table('architecture.rst', 'places')
    for row in rows:
        path = os.path.join(ROOT, row['file'])
        name = row.get('function') or row['name']
        assert re.search(r'(^|[ *])(def |class )?%s( =|\(|:)' % re.escape(name), doc_blocks.read(path), re.M), row


def public_names():
    for path in sorted(glob.glob(os.path.join(os.path.dirname(mitogen.__file__), '*.pyi'))):
        stem = os.path.basename(path)[:-4]
        module = mitogen if stem == '__init__' else importlib.import_module('mitogen.' + stem)
        for node in ast.parse(doc_blocks.read(path)).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_'):
                yield '%s.%s' % (stem, node.name), getattr(module, node.name)
                for item in node.body if isinstance(node, ast.ClassDef) else ():
                    if isinstance(item, ast.FunctionDef) and not item.name.startswith('_'):
                        yield '%s.%s.%s' % (stem, node.name, item.name), getattr(getattr(module, node.name), item.name)


@pytest.mark.pure
def test_each_public_name_has_a_docstring():
    missing = [name for name, obj in public_names() if not inspect.getdoc(obj)]
    assert missing == []


def test_no_page_is_left_out():
    # Those that the index does not name are taken in by its pattern.
    index = doc_blocks.read(os.path.join(DOCS, 'index.rst'))
    assert re.search(r'^   \*$', index, re.M)
    for folder in ('guides', 'reference'):
        listed = doc_blocks.read(os.path.join(DOCS, folder, 'index.rst'))
        for path in glob.glob(os.path.join(DOCS, folder, '*.rst')):
            name = os.path.basename(path)[:-4]
            assert name == 'index' or re.search(r'^   %s$' % name, listed, re.M), name
