"""
The source that a child is sent, its configuration, and the first stage.
"""

import os
import socket
import subprocess
import sys
import threading
import zlib
from unittest import mock

import pytest

import mitogen
import mitogen.core
import mitogen.parent
from mitogen.parent import Connection, Options

import pythons
import testlib


def test_partial_zlib_makes_whole_streams():
    partial = mitogen.parent.PartialZlib(b'base' * 1000)
    for end in b'', b'one', b'two' * 500:
        assert zlib.decompress(partial.append(end)) == b'base' * 1000 + end


def test_the_core_source_is_compressed_once_for_each_source(monkeypatch):
    calls = []

    def source():
        calls.append(1)
        return u'x = 1\n'

    monkeypatch.setattr(mitogen.parent, '_get_core_source', source)
    results = testlib.in_threads([mitogen.parent.get_core_source_partial] * 8)
    assert all(result is results[0] for result in results)
    assert calls == [1]
    assert zlib.decompress(results[0].append(b'!')) == mitogen.parent._UNPACK + b'x = 1\n!'


@pytest.fixture
def fake_router():
    router = mock.Mock()
    router.responder.policy = mitogen.core.ImportPolicy(blocks=['b'], overrides=['a', 'mitogen'])
    router.importer.policy = router.responder.policy
    router.limits = mitogen.core._Limits()
    router._shows_output = False
    return router


def make_connection(router, **kwargs):
    kwargs.setdefault('max_message_size', 1 << 20)
    conn = Connection(Options(**kwargs), router=router)
    conn.context = mitogen.core.Context(None, 1234)
    return conn


def test_the_boot_command_is_small_and_needs_no_escapes(fake_router):
    conn = make_connection(fake_router, python_path='/usr/bin/python3', remote_name=u'root@localhost:12345')
    command = conn.get_boot_command()
    assert command[:2] == ['/usr/bin/python3', '-c']
    assert command[4:] == ['root@localhost:12345', mitogen.__build__, conn._stage_nonce]
    assert all(isinstance(word, str) for word in command)
    assert len(' '.join(command)) < 756
    assert not set(' '.join(command)) & set('\n\t"\'$`\\!')


def test_an_interpreter_of_ours_is_given_the_first_stage_as_it_is(fake_router):
    conn = make_connection(fake_router, python_path=sys.executable, remote_name=u'root@localhost:12345')
    command = conn.get_boot_command()
    assert command[:2] == [sys.executable, '-c']
    assert 'MITO000' in command[2] and 'binascii' not in command[2]
    assert command[4:] == ['root@localhost:12345', mitogen.__build__, conn._stage_nonce]


def test_a_method_that_wraps_the_command_gets_one_without_quotes(fake_router):
    class WrappingConnection(Connection):
        pass

    conn = WrappingConnection(Options(max_message_size=1 << 20, python_path=sys.executable, remote_name=u'name'),
                              router=fake_router)
    assert not set(' '.join(conn.get_boot_command())) & set('\n\t"\'$`\\!')


def test_a_list_begins_the_command(fake_router):
    conn = make_connection(fake_router, python_path=['/usr/bin/env', 'python3'])
    assert conn.get_boot_command()[:3] == ['/usr/bin/env', 'python3', '-c']


def test_the_preamble_is_the_source_and_its_invocation(fake_router):
    conn = make_connection(fake_router)
    preamble = conn.get_preamble()
    lines = zlib.decompress(preamble).splitlines()
    assert b"'context_id': 1234" in lines[-1]
    assert lines[-1].startswith(b'ExternalContext({') and lines[-1].endswith(b'}).main()')
    assert conn.get_preamble() is preamble
    assert eval(conn._get_short_preamble()) == conn.get_econtext_config()


def test_the_preamble_does_not_follow_log_levels(fake_router):
    conn = make_connection(fake_router)
    preamble = conn.get_preamble()
    with testlib.LogCapture(level=1234):
        assert conn.get_preamble() == preamble


def test_the_configuration_is_complete(fake_router):
    conn = make_connection(fake_router, debug=True, remote_name=u'm\xfcller')
    assert conn.get_econtext_config() == {
        'parent_ids': [mitogen.context_id] + mitogen.parent_ids,
        'context_id': 1234,
        'debug': True,
        'profiling': False,
        'unidirectional': False,
        'log_levels': mitogen.parent.get_log_levels(mitogen.core._LOGGERS),
        'max_message_size': 1 << 20,
        'version': mitogen.__version__,
        'build': mitogen.__build__,
        'import_blocks': ['b'],
        'import_overrides': ['a', 'mitogen'],
        'remote_name': u'm\xfcller',
        'marker': ' ' + conn._ready_nonce,
    }


def test_a_size_is_needed(fake_router):
    with pytest.raises(AssertionError):
        make_connection(fake_router, max_message_size=None).get_econtext_config()


FAKE_CORE = b'''
import os, sys
import mitogen, mitogen.core
class ExternalContext(object):
    def __init__(self, config):
        self.config = config
    def main(self):
        rest = os.read(0, 100)
        facts = (
            mitogen.core.ExternalContext is ExternalContext, mitogen.__path__ == [], _core_source.endswith(b'#end'),
            __name__, __file__, self.config['x'], rest == b'REST', [p for p in sys.path if not p], sys.argv[2],
        )
        os.write(1, ('MITO002 %r\\n' % (facts,)).encode())
#end'''

FAKE_FACTS = b"MITO002 (True, True, True, 'mitogen.core', 'x/mitogen/core.py', 1, True, [], 'remote')\n"


def packed(kind, payload):
    return kind + b'%08x' % len(payload) + payload


def run_first_stage(python, data, blocking=True, version=None, **env):
    """
    Run the first stage with `data` on its standard input; return (status, stdout, stderr).
    """
    argv = [
        python, '-c', mitogen.parent._DECODER, mitogen.parent._get_first_stage_blob(), 'remote',
        version or mitogen.parent._version_str(), 'ab12',
    ]
    clean = dict((k, v) for k, v in os.environ.items() if k not in ('MITOGEN_CORE', 'PYTHONPATH'))
    clean.update(env)
    ours, theirs = mitogen.parent.create_socketpair(size=4096)
    theirs.setblocking(blocking)
    proc = subprocess.Popen(argv, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean)
    theirs.close()

    def feed():
        try:
            ours.sendall(data)
            ours.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        out, err = proc.communicate(timeout=60)
    finally:
        proc.kill()
        thread.join()
        ours.close()
    return proc.returncode, out, err


# The first stage, run by hand, meets no core.
@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.once) for name in pythons.NAMES])
def python(request):
    return pythons.find_python(request.param)


@pytest.fixture
def installed(tmp_path):
    """
    A folder that holds a package of our name and build.
    """
    package = tmp_path / 'mitogen'
    package.mkdir()
    (package / '__init__.py').write_text('__build__ = %r\n' % (mitogen.__build__,))
    (package / 'core.py').write_text(
        'import os\n'
        'class ExternalContext(object):\n'
        '    def __init__(self, config): self.config = config\n'
        '    def main(self): os.write(1, ("installed %r %r" % (self.config["x"], os.read(0, 9) == b"REST")).encode())\n')
    return str(tmp_path)


SHIPPED = packed(b'S', zlib.compress(
    mitogen.parent._UNPACK + FAKE_CORE + b"\nExternalContext({'x': 1}).main()\n")) + b'REST'


@pytest.mark.parametrize('blocking', [True, False])
def test_shipped_source_runs_and_nothing_more_is_read(python, blocking):
    status, out, err = run_first_stage(python, SHIPPED, blocking)
    marker, _, rest = out.partition(b'\n')
    assert marker.startswith(b'MITO000 0 ')
    assert marker.endswith(b' ab12')
    assert (status, rest, err) == (0, FAKE_FACTS, b'')


def test_an_installed_package_gets_its_configuration_alone(python, installed):
    status, out, err = run_first_stage(python, packed(b'C', b"{'x': 1}") + b'REST', PYTHONPATH=installed)
    marker, _, rest = out.partition(b'\n')
    assert marker.startswith(b'MITO000 1 ')
    assert (status, rest, err) == (0, b'installed 1 True', b'')


def test_an_installed_package_gives_way_to_shipped_source(python, installed):
    status, out, err = run_first_stage(python, SHIPPED, PYTHONPATH=installed)
    assert out.startswith(b'MITO000 1 ')
    assert (status, out.partition(b'\n')[2], err) == (0, FAKE_FACTS, b'')


@pytest.mark.parametrize('how', [
    {'version': '0.9'}, {'version': '.'.join(map(str, mitogen.__version__)) + '+0123456789ab'}, {'MITOGEN_CORE': 'pure'},
])
def test_another_build_or_the_pure_core_claims_nothing(python, installed, how):
    status, out, err = run_first_stage(python, SHIPPED, PYTHONPATH=installed, **how)
    assert out.startswith(b'MITO000 0 ')
    assert (status, out.partition(b'\n')[2], err) == (0, FAKE_FACTS, b'')


def test_a_broken_package_claims_nothing(python, tmp_path):
    (tmp_path / 'mitogen.py').write_text('raise RuntimeError("broken")\n')
    status, out, err = run_first_stage(python, SHIPPED, PYTHONPATH=str(tmp_path))
    assert out.startswith(b'MITO000 0 ')
    assert (status, out.partition(b'\n')[2], err) == (0, FAKE_FACTS, b'')


@pytest.mark.parametrize('data, error', [
    (b'', b'mitogen: EOF on stdin\n'),
    (SHIPPED[:100], b'mitogen: EOF on stdin\n'),
    (b'\0' * 100000, b'mitogen: bad header'),
    (packed(b'S', zlib.compress(mitogen.parent._UNPACK + FAKE_CORE)[:100]), b'Error -5 while decompressing data'),
    (packed(b'S', b'\0' * 100), b'Error -3 while decompressing data'),
], ids=['nothing', 'truncated', 'zeros', 'truncated-zlib', 'bad-zlib'])
def test_bad_input_ends_the_first_stage_with_a_reason(python, data, error):
    status, out, err = run_first_stage(python, data)
    assert status == 1
    assert out.startswith(b'MITO000 0 ') and out.count(b'\n') == 1
    assert error in err
