"""
The parts of `mitogen.parent` one by one, as far as they need no whole tree of contexts.
"""

import errno
import fcntl
import getpass
import logging
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import termios
import threading
import time
import zlib
from unittest import mock

import pytest

import mitogen
import mitogen.core
import mitogen.parent
from mitogen.parent import Argv, CallChain, CallSpec, Connection, Options, Reaper, TimerList

import pythons
import testlib


NAMES = '''
    BROKER_SHUTDOWN_MSG OPENPTY_MSG SYS_EXECUTABLE_MSG SELINUX_ENABLED SC_OPEN_MAX IS_LINUX IS_SOLARIS LINUX_TIOCGPTN
    LINUX_TIOCSPTLCK SIGNAL_BY_NUM POLLERS PREFERRED_POLLER POLLER_LIGHTWEIGHT IM_SELF_ATTR closure_attr _preexec_hook
    _get_core_source get_log_levels get_sys_executable get_core_source_partial get_default_remote_name
    is_immediate_child flags cfmakeraw disable_echo create_socketpair create_best_pipe popen create_child
    tty_create_child hybrid_tty_create_child openpty upgrade_router get_connection_class returncode_to_str get_history
    _proxy_connect _upgrade_broker EofError CancelledError Timer TimerList PartialZlib Argv CallSpec PollPoller
    KqueuePoller EpollPoller LineLoggingProtocolMixin RegexProtocol BootstrapProtocol LogProtocol MitogenProtocol
    Options Connection ChildIdAllocator CallChain Context RouteMonitor Router Reaper Process PopenProcess
    ModuleForwarder ResourceForwarder
'''.split()


@pytest.mark.parametrize('name', NAMES)
def test_the_module_has_the_name(name):
    assert hasattr(mitogen.parent, name)


# ---- small helpers

def test_log_levels_are_effective_levels():
    with testlib.LogCapture(level=logging.INFO):
        assert mitogen.parent.get_log_levels() == [20, 20, 20]


def test_an_unknown_sys_executable_is_guessed_and_warned_of_once(monkeypatch):
    monkeypatch.setattr(sys, 'executable', None)
    monkeypatch.setattr(mitogen.parent, '_warned_sys_executable', False)
    with testlib.LogCapture('mitogen.parent') as log:
        assert mitogen.parent.get_sys_executable() == '/usr/bin/python'
        assert mitogen.parent.get_sys_executable() == '/usr/bin/python'
    assert len(log.find(mitogen.parent.SYS_EXECUTABLE_MSG, logging.WARNING)) == 1


def test_the_default_remote_name_has_no_slashes(monkeypatch):
    monkeypatch.setattr(getpass, 'getuser', lambda: 'ECORP\\Administrator')
    monkeypatch.setattr(socket, 'gethostname', lambda: 'box')
    monkeypatch.setattr(os, 'getpid', lambda: 123)
    assert mitogen.parent.get_default_remote_name() == u'ECORP_Administrator@box:123'


def test_a_uid_without_a_name_still_has_a_remote_name(monkeypatch):
    def getuser():
        raise KeyError('no such uid')
    monkeypatch.setattr(getpass, 'getuser', getuser)
    assert mitogen.parent.get_default_remote_name().startswith('%d@' % os.getuid())


def test_only_the_neighbour_is_an_immediate_child():
    stream = mock.Mock()
    stream.protocol.remote_id = 5
    assert mitogen.parent.is_immediate_child(mock.Mock(src_id=5), stream)
    assert not mitogen.parent.is_immediate_child(mock.Mock(src_id=6), stream)
    assert not mitogen.parent.is_immediate_child(mock.Mock(src_id=5), None)


@pytest.mark.parametrize('code, text', [
    (0, 'exited with return code 0'),
    (3, 'exited with return code 3'),
    (-9, 'exited due to signal 9 (SIGKILL)'),
    (-200, 'exited due to signal 200 (None)'),
])
def test_return_codes_are_described(code, text):
    assert mitogen.parent.returncode_to_str(code) == text


def test_signal_names_are_the_first_of_the_alphabet():
    names = mitogen.parent.SIGNAL_BY_NUM
    assert names[6] == 'SIGABRT'
    assert names[int(signal.SIGCHLD)] == 'SIGCHLD'
    assert names[int(signal.SIGIO)] == 'SIGIO'
    assert not [name for name in names.values() if name.startswith('SIG_')]


def test_unknown_termios_flags_are_skipped_and_logged():
    with testlib.LogCapture('mitogen.parent') as log:
        assert mitogen.parent.flags('ECHO NOPE') == termios.ECHO
    assert len(log.find('NOPE', logging.DEBUG)) == 1


def test_argv_quotes_for_a_shell():
    assert str(Argv(['a b', 'c$d', 'o;p'])) == '"a b" "c\\$d" "o;p"'
    assert str(Argv(['a"b', 'c`', "d'!", '\\', "it's", '', '('])) == (
        '"a\\"b" "c\\`" \'d\'\\\'\'!\' "\\\\" "it\'s" "" "("')
    assert str(Argv(['/usr/bin/python3', '-c', 'a=b', 'user@host:1.0'])) == '/usr/bin/python3 -c a=b user@host:1.0'


def test_argv_means_the_same_to_a_shell():
    argv = ['echo', 'a b', 'c$d', 'back\\slash', 'q"q', 'tick`', 'plain']
    out = subprocess.check_output(['/bin/sh', '-c', str(Argv(argv))])
    assert out.decode() == 'a b c$d back\\slash q"q tick` plain\n'


def test_history_merges_streams_by_time():
    first, second = mock.Mock(), mock.Mock()
    first.protocol.logged_lines = [(1.0, b'one'), (3.0, b'three')]
    second.protocol.logged_lines = [(2.0, b'two\xff')]
    assert mitogen.parent.get_history([first, None, second]) == u'one\ntwo\ufffd\nthree'


def test_a_call_spec_reads_like_the_call():
    assert repr(CallSpec(os.path.join, ('a', 1), {'k': 2})) == "posixpath.join('a', 1, k=2)"
    assert repr(CallSpec(Holder.class_method, (), {})) == __name__ + '.Holder.class_method()'


# ---- options

def test_options_need_only_a_size():
    before = mitogen.core.now()
    options = Options(max_message_size=123)
    assert options.name is None
    assert options.max_message_size == 123
    assert options.python_path == mitogen.parent.get_sys_executable()
    assert options.connect_timeout == 30.0
    assert before + 30 <= options.connect_deadline <= mitogen.core.now() + 30
    assert options.remote_name == mitogen.parent.get_default_remote_name()
    assert (options.debug, options.profiling, options.unidirectional) == (False, False, False)


@pytest.mark.parametrize('name', ['a/b', 'a\\b'])
def test_a_remote_name_with_slashes_is_refused(name):
    with pytest.raises(ValueError):
        Options(max_message_size=1, remote_name=name)


def test_false_values_do_not_replace_defaults():
    options = Options(max_message_size=1, python_path='', connect_timeout=0, old_router=object())
    assert options.python_path == mitogen.parent.get_sys_executable()
    assert options.connect_timeout == 30.0


def test_unknown_options_are_a_type_error():
    with pytest.raises(TypeError):
        Options(max_message_size=1, bogus=1)


# ---- timers

def test_the_next_timer_bounds_the_wait():
    timers = TimerList()
    assert timers.get_timeout() is None
    first = timers.schedule(2, mock.Mock())
    second = timers.schedule(3, mock.Mock())
    timers._now = lambda: 1
    assert timers.get_timeout() == 1
    first.cancel()
    first.cancel()
    timers._now = lambda: 0
    assert timers.get_timeout() == 3
    second.cancel()
    assert timers.get_timeout() is None


def test_overdue_timers_do_not_give_a_negative_wait():
    timers = TimerList()
    timers.schedule(1, mock.Mock())
    timers._now = lambda: 99
    assert timers.get_timeout() == 0


def test_due_timers_run_in_order_and_inactive():
    ran = []
    timers = TimerList()
    timers._now = lambda: 29
    late = timers.schedule(30, lambda: ran.append('late'))
    second = timers.schedule(29, lambda: ran.append(('second', second.active)))
    first = timers.schedule(28, lambda: ran.append(('first', first.active)))
    cancelled = timers.schedule(27, lambda: ran.append('cancelled'))
    cancelled.cancel()
    timers.expire()
    assert ran == [('first', False), ('second', False)]
    assert late.active and not first.active
    timers.expire()
    assert len(ran) == 2


def test_a_timer_may_schedule_a_due_one():
    ran = []
    timers = TimerList()
    timers._now = lambda: 10
    timers.schedule(9, lambda: timers.schedule(10, lambda: ran.append(1)))
    timers.expire()
    assert ran == [1]


def test_timers_are_ordered_by_time():
    assert mitogen.parent.Timer(1, None) < mitogen.parent.Timer(2, None)
    assert mitogen.parent.Timer(2, None) >= mitogen.parent.Timer(2, None)


# ---- pollers

OWN_POLLERS = [mitogen.parent.PollPoller, mitogen.parent.EpollPoller, mitogen.parent.KqueuePoller]


@pytest.fixture(params=[cls for cls in OWN_POLLERS if cls.SUPPORTED], ids=lambda cls: cls.__name__)
def poller(request):
    poller = request.param()
    yield poller
    poller.close()
    poller.close()


@pytest.fixture
def pair():
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


def test_the_order_of_pollers():
    parent = mitogen.parent
    assert parent.POLLERS[:3] == (parent.EpollPoller, parent.KqueuePoller, parent.PollPoller)
    assert parent.PREFERRED_POLLER.SUPPORTED
    assert all(issubclass(cls, mitogen.core.Poller) for cls in parent.POLLERS)
    assert mitogen.core.Latch.poller_class is parent.POLLER_LIGHTWEIGHT


def test_an_idle_poll_takes_its_time(poller, pair):
    poller.start_receive(pair[0].fileno())
    assert list(poller.poll(0)) == []
    start = mitogen.core.now()
    assert list(poller.poll(0.2)) == []
    assert mitogen.core.now() - start >= 0.2


def test_both_directions_of_one_file_have_their_data(poller, pair):
    fd = pair[0].fileno()
    poller.start_receive(fd, 'read')
    poller.start_transmit(fd, 'write')
    assert poller.readers == [(fd, 'read')]
    assert poller.writers == [(fd, 'write')]
    assert list(poller.poll(0)) == ['write']
    pair[1].send(b'x')
    assert sorted(poller.poll(0)) == ['read', 'write']
    poller.stop_transmit(fd)
    assert list(poller.poll(0)) == ['read']
    poller.stop_receive(fd)
    assert list(poller.poll(0)) == []
    assert poller.readers == poller.writers == []


def test_data_defaults_to_the_descriptor(poller, pair):
    pair[1].send(b'x')
    poller.start_receive(pair[0].fileno())
    assert list(poller.poll()) == [pair[0].fileno()]


def test_registering_again_replaces_the_data(poller, pair):
    pair[1].send(b'x')
    poller.start_receive(pair[0].fileno(), 'old')
    poller.start_receive(pair[0].fileno(), 'new')
    assert list(poller.poll(0)) == ['new']


def test_stopping_an_unknown_file_is_silent(poller, pair):
    poller.stop_receive(pair[0].fileno())
    poller.stop_transmit(pair[0].fileno())
    poller.start_receive(pair[0].fileno())
    poller.stop_receive(pair[0].fileno())
    poller.stop_receive(pair[0].fileno())


def test_a_file_restarted_after_poll_was_called_yields_nothing(poller, pair):
    fd = pair[0].fileno()
    pair[1].send(b'x')
    poller.start_receive(fd)
    events = poller.poll(0)
    poller.stop_receive(fd)
    poller.start_receive(fd)
    assert list(events) == []
    assert list(poller.poll(0)) == [fd]


def test_a_file_stopped_or_restarted_between_two_events_yields_nothing(poller):
    pairs = [socket.socketpair() for _ in range(2)]
    try:
        for ours, theirs in pairs:
            theirs.send(b'x')
            poller.start_receive(ours.fileno())
        fds = set(ours.fileno() for ours, _ in pairs)
        events = poller.poll(0)
        other, = fds - set([next(events)])
        poller.stop_receive(other)
        poller.start_receive(other)
        assert list(events) == []
        events = poller.poll(0)
        other, = fds - set([next(events)])
        poller.stop_receive(other)
        assert list(events) == []
    finally:
        for ours, theirs in pairs:
            ours.close()
            theirs.close()


def test_a_hung_up_terminal_is_readable(poller):
    master, slave = os.openpty()
    try:
        poller.start_receive(master)
        assert list(poller.poll(0)) == []
        os.close(slave)
        assert list(poller.poll(10)) == [master]
        poller.stop_receive(master)
    finally:
        os.close(master)


def test_a_pipe_without_reader_is_writable(poller):
    rfd, wfd = os.pipe()
    os.close(rfd)
    try:
        poller.start_transmit(wfd)
        assert list(poller.poll(10)) == [wfd]
        poller.stop_transmit(wfd)
    finally:
        os.close(wfd)


def test_a_number_closed_and_used_again_can_be_registered(poller):
    first = socket.socketpair()
    fd = first[0].fileno()
    poller.start_receive(fd)
    first[0].close()
    first[1].close()
    assert list(poller.poll(0)) == []
    poller.stop_receive(fd)
    second = socket.socketpair()
    try:
        assert fd in (second[0].fileno(), second[1].fileno())
        for end in second:
            end.send(b'x')
        poller.start_receive(fd)
        assert list(poller.poll(0)) == [fd]
    finally:
        for end in second:
            end.close()


def test_a_number_closed_behind_its_back_does_not_make_poll_spin(pair):
    poller = mitogen.parent.PollPoller()
    fd = os.dup(pair[0].fileno())
    poller.start_receive(fd)
    os.close(fd)
    list(poller.poll(0))
    start = time.time()
    assert list(poller.poll(0.1)) == []
    assert time.time() - start >= 0.1


class FakeKqueue(object):
    """
    As much of select.kqueue() as shows which changes a poller makes.
    """
    def __init__(self):
        self.changes = []
        self.events = []
        self.rfd, self.wfd = os.pipe()

    def fileno(self):
        return self.rfd

    def control(self, changes, count, timeout=None):
        self.changes.extend(changes or ())
        return self.events if count else []

    def close(self):
        for name in 'rfd', 'wfd':
            if getattr(self, name) is not None:
                os.close(getattr(self, name))
                setattr(self, name, None)


def test_kqueue_changes_are_applied_at_once_and_errors_skipped(monkeypatch):
    fake = FakeKqueue()
    for name, value in (
            ('kqueue', lambda: fake), ('kevent', lambda *args: args), ('KQ_EV_ADD', 'add'), ('KQ_EV_DELETE', 'delete'),
            ('KQ_EV_ERROR', 4), ('KQ_FILTER_READ', 'read'), ('KQ_FILTER_WRITE', 'write')):
        monkeypatch.setattr(select, name, value, raising=False)
    poller = mitogen.parent.KqueuePoller()
    try:
        poller.start_receive(5, 'r')
        poller.start_transmit(5, 'w')
        poller.start_receive(6, 'r6')
        assert fake.changes == [(5, 'read', 'add'), (5, 'write', 'add'), (6, 'read', 'add')]
        fake.events = [
            mock.Mock(ident=5, filter='read', flags=0),
            mock.Mock(ident=5, filter='write', flags=0),
            mock.Mock(ident=6, filter='read', flags=4, data=errno.EBADF),
        ]
        assert list(poller.poll(0)) == ['r', 'w']
        del fake.changes[:]
        poller.stop_transmit(5)
        poller.stop_transmit(5)
        assert fake.changes == [(5, 'write', 'delete')]
        assert list(poller.poll(0)) == ['r']
    finally:
        poller.close()


# ---- source and first stage

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
    assert command[4:] == ['root@localhost:12345', '.'.join(map(str, mitogen.__version__)), conn._stage_nonce]
    assert all(isinstance(word, str) for word in command)
    assert len(' '.join(command)) < 756
    assert not set(' '.join(command)) & set('\n\t"\'$`\\!')


def test_an_interpreter_of_ours_is_given_the_first_stage_as_it_is(fake_router):
    conn = make_connection(fake_router, python_path=sys.executable, remote_name=u'root@localhost:12345')
    command = conn.get_boot_command()
    assert command[:2] == [sys.executable, '-c']
    assert 'MITO000' in command[2] and 'binascii' not in command[2]
    assert command[4:] == ['root@localhost:12345', '.'.join(map(str, mitogen.__version__)), conn._stage_nonce]


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
        'log_levels': mitogen.parent.get_log_levels(),
        'max_message_size': 1 << 20,
        'version': mitogen.__version__,
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


@pytest.fixture(params=pythons.NAMES)
def python(request):
    return pythons.find_python(request.param)


@pytest.fixture
def installed(tmp_path):
    """
    A folder that holds a package of our name and version.
    """
    package = tmp_path / 'mitogen'
    package.mkdir()
    (package / '__init__.py').write_text('__version__ = %r\n' % (mitogen.__version__,))
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


@pytest.mark.parametrize('how', [{'version': '0.9'}, {'MITOGEN_CORE': 'pure'}])
def test_another_version_or_the_pure_core_claims_nothing(python, installed, how):
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


# ---- starting processes

def run_shell(create, script, **kwargs):
    return create(args=['/bin/sh', '-c', script], **kwargs)


def read_all(fp):
    """
    Return what comes out of a file until it ends; a terminal ends with an error.
    """
    chunks = []
    while True:
        try:
            chunk = os.read(fp.fileno(), 65536)
        except OSError as e:
            assert e.errno == errno.EIO
            chunk = b''
        if not chunk:
            return b''.join(chunks)
        chunks.append(chunk)


def finish(proc):
    """
    Reap a process and close our ends; return its exit status.
    """
    code = testlib.wait_for(lambda: (proc.poll(),) if proc.poll() is not None else None)[0]
    mitogen.parent._close_all(proc.stdin, proc.stdout, proc.stderr)
    return code


STAT = r'''
import fcntl, os, stat, sys, termios
def kind(fd):
    mode = os.fstat(fd).st_mode
    for name in 'SOCK', 'FIFO', 'CHR':
        if getattr(stat, 'S_IS' + name)(mode):
            return name
acc = {os.O_RDONLY: 'r', os.O_WRONLY: 'w', os.O_RDWR: 'rw'}
facts = ['%s:%s' % (kind(fd), acc[fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE]) for fd in (0, 1, 2)]
facts.append(','.join(sorted(os.listdir('/proc/self/fd'))) if os.path.isdir('/proc/self/fd') else '?')
os.write(1, ' '.join(facts).encode() + b'\n')
'''


def stat_child(create, **kwargs):
    proc = create(args=[sys.executable, '-c', STAT], **kwargs)
    out = read_all(proc.stdout).decode().split()
    return proc, out


def test_a_child_talks_over_a_socket():
    proc, facts = stat_child(mitogen.parent.create_child)
    assert facts[:2] == ['SOCK:rw', 'SOCK:rw']
    assert proc.stdin is proc.stdout
    assert proc.stderr is None
    assert proc.pid == proc.proc.pid
    assert finish(proc) == 0


def test_a_child_inherits_nothing_else():
    rfd, wfd = os.pipe()
    try:
        os.set_inheritable(rfd, True)
        proc, facts = stat_child(mitogen.parent.create_child)
        # The fourth is the folder that is being listed.
        assert facts[3] in ('?', '0,1,2,3')
        assert finish(proc) == 0
    finally:
        os.close(rfd)
        os.close(wfd)


def test_merged_stdio_is_one_socket():
    proc, facts = stat_child(mitogen.parent.create_child, merge_stdio=True, stderr_pipe=True)
    assert facts[:3] == ['SOCK:rw'] * 3
    assert proc.stderr is None
    assert finish(proc) == 0


def test_stderr_may_be_a_pipe():
    proc, facts = stat_child(mitogen.parent.create_child, stderr_pipe=True)
    assert facts[:3] == ['SOCK:rw', 'SOCK:rw', 'FIFO:w']
    fd = proc.stderr.fileno()
    assert stat.S_ISFIFO(os.fstat(fd).st_mode)
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert finish(proc) == 0


def test_pipes_stand_in_where_sockets_are_taken_away(monkeypatch):
    monkeypatch.setattr(mitogen.parent, 'SELINUX_ENABLED', True)
    proc, facts = stat_child(mitogen.parent.create_child, escalates_privilege=True)
    assert facts[:2] == ['FIFO:r', 'FIFO:w']
    assert proc.stdin is not proc.stdout
    assert finish(proc) == 0


@pytest.mark.parametrize('create', ['create_child', 'tty_create_child', 'hybrid_tty_create_child'])
def test_a_program_that_cannot_run_leaves_nothing_open(create):
    with pytest.raises(OSError) as caught:
        getattr(mitogen.parent, create)(args=['/nonexistent/program'])
    assert caught.value.errno == errno.ENOENT


def test_the_hook_runs_before_the_function_of_the_caller(monkeypatch):
    def write(text):
        return lambda: os.write(1, text)

    monkeypatch.setattr(mitogen.parent, '_preexec_hook', write(b'hook '))
    proc = run_shell(mitogen.parent.create_child, 'echo child', preexec_fn=write(b'function '))
    assert read_all(proc.stdout) == b'hook function child\n'
    assert finish(proc) == 0


def test_nothing_runs_before_exec_unless_asked_for():
    with mock.patch('subprocess.Popen') as popen:
        mitogen.parent.popen(args=['true'])
    assert popen.call_args[1]['preexec_fn'] is None


def test_a_function_that_raises_before_exec_is_reported():
    def fail():
        raise ValueError('no')
    with pytest.raises(subprocess.SubprocessError):
        mitogen.parent.create_child(args=['/bin/true'], preexec_fn=fail)


def test_a_socketpair_has_the_size_and_mode_asked_for():
    for kwargs, blocking in (({}, True), ({'blocking': False}, False), ({'blocking': True}, True)):
        ends = mitogen.parent.create_socketpair(size=8192, **kwargs)
        for end in ends:
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) in (8192, 16384)
            assert mitogen.core.get_blocking(end.fileno()) is blocking
            end.close()


def test_one_socketpair_is_the_best_pipe():
    parent_r, child_w, child_r, parent_w = mitogen.parent.create_best_pipe()
    assert parent_r is parent_w and child_r is child_w
    parent_r.close()
    child_r.close()


def test_a_tty_child_has_a_raw_controlling_terminal():
    proc = run_shell(mitogen.parent.tty_create_child, 'read x; echo "$x"; echo hi > /dev/tty; test -t 0 -a -t 1 -a -t 2')
    assert proc.stdin is proc.stdout
    assert proc.stderr is None
    assert os.isatty(proc.stdin.fileno())
    os.write(proc.stdin.fileno(), b'typed\n')
    # Neither echoed, nor with a carriage return.
    assert read_all(proc.stdout) == b'typed\nhi\n'
    assert finish(proc) == 0


def test_a_hybrid_child_has_a_terminal_as_stderr_alone():
    proc, facts = stat_child(mitogen.parent.hybrid_tty_create_child)
    assert facts[:3] == ['SOCK:rw', 'SOCK:rw', 'CHR:rw']
    assert finish(proc) == 0
    proc = run_shell(mitogen.parent.hybrid_tty_create_child, 'echo hi > /dev/tty; echo out')
    assert read_all(proc.stderr) == b'hi\n'
    assert read_all(proc.stdout) == b'out\n'
    assert finish(proc) == 0


@pytest.mark.parametrize('create', ['tty_create_child', 'hybrid_tty_create_child'])
def test_a_child_ends_with_its_terminal_even_under_nohup(create):
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        proc = getattr(mitogen.parent, create)(args=['sleep', '600'])
    finally:
        signal.signal(signal.SIGHUP, old)
    for fp in set([proc.stdin, proc.stdout, proc.stderr]) - set([None]):
        fp.close()
    try:
        assert proc.proc.wait(timeout=60) == -signal.SIGHUP
    finally:
        proc.proc.kill()
        proc.proc.wait()


def test_raw_mode_does_not_echo():
    master, slave = mitogen.parent.openpty()
    try:
        os.write(master.fileno(), b'in\n')
        assert os.read(slave.fileno(), 10) == b'in\n'
        os.write(slave.fileno(), b'out\n')
        assert os.read(master.fileno(), 10) == b'out\n'
        assert mitogen.core.get_blocking(slave.fileno())
    finally:
        master.close()
        slave.close()


def test_the_lack_of_a_pty_is_explained():
    error = OSError(errno.ENXIO, 'none left')
    with mock.patch('os.openpty', side_effect=error):
        with pytest.raises(mitogen.core.StreamError) as caught:
            mitogen.parent.openpty()
    assert caught.value.args[0] == mitogen.parent.OPENPTY_MSG % (error,)
    assert 'kern.tty.ptmx_max' in caught.value.args[0] and 'kernel.pty.max' in caught.value.args[0]


@pytest.mark.skipif(not mitogen.parent.IS_LINUX, reason='about Linux')
def test_a_wrongly_mounted_devpts_is_worked_around():
    with mock.patch('os.openpty', side_effect=OSError(errno.EPERM, 'no')):
        master, slave = mitogen.parent.openpty()
    try:
        assert os.major(os.fstat(master.fileno()).st_rdev) == 5
        assert os.major(os.fstat(slave.fileno()).st_rdev) == 136
        os.write(master.fileno(), b'in\n')
        assert os.read(slave.fileno(), 10) == b'in\n'
    finally:
        master.close()
        slave.close()


# ---- processes and their end

def test_a_process_describes_itself():
    proc = mitogen.parent.Process(12, None, None)
    assert repr(proc) == 'Process None pid 12'
    proc.name = u'local.12'
    assert repr(proc) == 'Process local.12 pid 12'
    with pytest.raises(NotImplementedError):
        proc.poll()


def test_a_process_takes_signals():
    for method, code in (('terminate', -15), ('kill', -9)):
        proc = run_shell(mitogen.parent.create_child, 'exec sleep 60')
        assert proc.poll() is None
        getattr(proc, method)()
        assert finish(proc) == code


class FakeBroker(object):
    _alive = True
    _exitted = False

    def __init__(self):
        self.timers = TimerList()


def make_reaper(poll=None, kill=True, wait_on_shutdown=True):
    proc = mock.Mock()
    proc.poll.return_value = poll
    broker = FakeBroker()
    return Reaper(broker, proc, kill, wait_on_shutdown), broker, proc


def test_the_reapers_delays_grow():
    reaper, _, _ = make_reaper()
    assert [int(1000 * reaper._calc_delay(n)) for n in range(7)] == [50, 86, 147, 254, 437, 752, 1294]


def test_a_lingering_process_is_asked_and_then_killed():
    reaper, _, proc = make_reaper()
    seen = []
    for _ in range(8):
        reaper.reap()
        seen.append([args[0][0] for args in proc.send_signal.call_args_list])
    term, kill = signal.SIGTERM, signal.SIGKILL
    assert seen == [[], [term], [term], [term], [term], [term, kill], [term, kill], [term, kill]]


def test_a_process_that_may_live_gets_no_signal():
    reaper, _, proc = make_reaper(kill=False)
    for _ in range(8):
        reaper.reap()
    assert not proc.send_signal.called


def test_a_process_of_another_user_is_left_alone():
    reaper, _, proc = make_reaper()
    proc.send_signal.side_effect = OSError(errno.EPERM, 'no')
    reaper.reap()
    reaper.reap()
    proc.send_signal.side_effect = OSError(errno.EINVAL, 'bad')
    for _ in range(3):
        reaper.reap()
    with pytest.raises(OSError):
        reaper.reap()


def test_a_process_that_is_gone_already_takes_no_signal():
    reaper, _, proc = make_reaper()
    proc.send_signal.side_effect = OSError(errno.ESRCH, 'gone')
    reaper.reap()
    reaper.reap()
    assert proc.send_signal.called


def test_the_reaper_gives_up_in_the_end():
    reaper, broker, proc = make_reaper(kill=False)
    with testlib.LogCapture('mitogen.parent') as log:
        for _ in range(21):
            reaper.reap()
    assert len([r for r in log.records if r.levelno == logging.WARNING]) == 1


def test_a_gone_process_fires_exit_and_leaves_no_listener():
    reaper, broker, proc = make_reaper(wait_on_shutdown=False)
    fired = []
    mitogen.core.listen(proc, 'exit', lambda: fired.append(1))
    reaper.reap()
    assert broker.timers.get_timeout() is not None
    assert broker.__dict__['_signals']['shutdown']
    proc.poll.return_value = -15
    reaper.reap()
    assert fired == [1]
    assert broker.timers.get_timeout() is None
    assert not broker.__dict__['_signals'].get('shutdown')


def test_a_process_that_ends_soon_is_noticed_soon():
    reaper, broker, proc = make_reaper()
    fired = []
    mitogen.core.listen(proc, 'exit', lambda: fired.append(1))
    reaper.reap()
    broker.timers._now = lambda: mitogen.core.now() + 0.01
    broker.timers.expire()
    assert fired == [] and not proc.send_signal.called
    proc.poll.return_value = 0
    broker.timers._now = lambda: mitogen.core.now() + 0.045
    broker.timers.expire()
    assert fired == [1]
    assert broker.timers.get_timeout() is None


def test_peeks_end_before_the_second_look():
    assert sum(Reaper.peeks) < 0.05
    reaper, broker, proc = make_reaper()
    reaper.reap()
    start = mitogen.core.now()
    for ms in range(40):
        broker.timers._now = lambda: start + ms / 1000.0
        broker.timers.expire()
    assert proc.poll.call_count <= 1 + len(Reaper.peeks)
    assert not proc.send_signal.called


@pytest.mark.parametrize('wait', [True, False])
def test_only_a_reaper_that_should_delays_shutdown(wait):
    reaper, broker, _ = make_reaper(wait_on_shutdown=wait)
    reaper.reap()
    mitogen.core.fire(broker, 'shutdown')
    assert (broker.timers.get_timeout() is not None) is wait


# ---- line protocols

class Prompter(mitogen.parent.RegexProtocol):
    def __init__(self):
        super(Prompter, self).__init__()
        self.seen = []

    def _on_hello(self, line, match):
        self.seen.append(('hello', line))

    def _on_prompt(self, line, match):
        self.seen.append(('prompt', line))

    def _on_not_yet(self, line, match):
        self.seen.append(('not yet', line))
        return self.NOT_ANSWERED

    import re
    PATTERNS = [(re.compile(b'hello'), _on_hello), (re.compile(b'h'), None)]
    PARTIAL_PATTERNS = [(re.compile(b'^denied'), _on_not_yet), (re.compile(b'word:'), _on_prompt)]


@pytest.fixture
def prompter():
    stream = Prompter.build_stream()
    return stream.protocol


def feed(protocol, *chunks):
    for chunk in chunks:
        protocol.on_receive(mock.Mock(), chunk)


def test_lines_are_matched_anywhere_and_the_first_pattern_wins(prompter):
    feed(prompter, b'say hel', b'lo now\nmore\n')
    assert prompter.seen == [('hello', b'say hello now')]
    assert [line for _, line in prompter.logged_lines] == [b'say hello now', b'more']


def test_a_prompt_is_answered_once_however_it_arrives(prompter):
    feed(prompter, *[bytes([c]) for c in b'password: '])
    assert prompter.seen == [('prompt', b'password:')]
    feed(prompter, b'\nwrong\npassword: ')
    assert prompter.seen == [('prompt', b'password:'), ('prompt', b'password: ')]


def test_a_prompt_can_be_left_for_later(prompter):
    feed(prompter, b'denied', b'denied word: x')
    assert prompter.seen == [('not yet', b'denied'), ('not yet', b'denieddenied word: x')]


def test_the_last_hundred_lines_and_the_unfinished_one_are_kept(prompter):
    feed(prompter, b''.join(b'%d\n' % i for i in range(150)) + b'tail')
    assert len(prompter.logged_lines) == 100
    assert prompter.logged_lines[0][1] == b'50'
    assert prompter.logged_partial == b'tail'
    stream = mock.Mock(protocol=prompter)
    assert mitogen.parent.get_history([stream]).endswith('149\ntail')


class FakeConnection(object):
    STAGE_SENT = Connection.STAGE_SENT
    _stage_nonce, _ready_nonce = 'ab12', 'cd34'
    completed = 0
    _stage = None

    def _enter_stage(self, stage):
        self.stage = self._stage = stage

    def get_preamble(self):
        return b'long'

    def _get_preamble_for(self, python, func):
        func(b'for %-4.4s' % {0x20712f0: b'2.7.', 0x30b07f0: b'3.11', 0x3060ff0: b'3.6.'}[python])

    def _get_short_preamble(self):
        return b'short'

    def _complete_connection(self):
        self.completed += 1
        self.stream.set_protocol(self.next_protocol)


@pytest.fixture
def bootstrap(monkeypatch):
    monkeypatch.delenv('MITOGEN_SHIP', raising=False)
    stream = mitogen.parent.BootstrapProtocol.build_stream(broker=mock.Mock())
    stream.conn = FakeConnection()
    stream.conn.stream = stream
    stream.conn.next_protocol = mock.Mock()
    stream.protocol._writer = mock.Mock()
    return stream


def written(stream):
    return b''.join(args[0][0] for args in stream.protocol._writer.write.call_args_list)


@pytest.mark.parametrize('line, sent', [
    (b'MITO000 0 20712f0 ab12\n', b'S00000008for 2.7.'),
    (b'MITO000 0 30b07f0 ab12\n', b'S00000008for 3.11'),
    (b'MITO000 1 30b07f0 ab12\n', b'C00000005short'),
    (b'\x1b[0mMITO000 1 30b07f0 ab12\r\n', b'C00000005short'),
    (b'MITO000 1 30b07f0 MITO000 1 30b07f0 MITO000 0 20712f0 ab12\n', b'S00000008for 2.7.'),
])
def test_the_answer_depends_on_what_the_target_has(bootstrap, line, sent):
    feed(bootstrap.protocol, b'banner\nmore of it\n', line)
    assert written(bootstrap) == sent
    assert bootstrap.conn.stage is Connection.STAGE_SENT


def test_shipping_can_be_forced(bootstrap, monkeypatch):
    monkeypatch.setenv('MITOGEN_SHIP', '1')
    feed(bootstrap.protocol, b'MITO000 1 30b07f0 ab12\n')
    assert written(bootstrap) == b'S00000008for 3.11'


def test_bytes_after_the_last_marker_go_to_the_next_protocol(bootstrap):
    feed(bootstrap.protocol, b'MITO000 0 3060ff0 ab12\nMITO001\nMITO002 cd34\nframes')
    assert bootstrap.conn.completed == 1
    (_, data), _ = bootstrap.conn.next_protocol.on_receive.call_args
    assert bytes(data) == b'frames'


def test_lines_of_diagnostics_are_logged():
    stream = mitogen.parent.LogProtocol.build_stream()
    stream.name = u'ssh.host'
    with testlib.LogCapture('mitogen.parent') as log:
        feed(stream.protocol, b'one\ntw\xff\nrest')
    assert [(r.levelno, r.getMessage()) for r in log.records if r.levelno == logging.INFO] == [
        (logging.INFO, 'ssh.host: one'), (logging.INFO, u'ssh.host: tw\ufffd')]


def test_a_long_line_of_diagnostics_is_logged_whole():
    # However small the pieces it comes in; what has no end at all is logged in parts.
    stream = mitogen.parent.LogProtocol.build_stream()
    stream.name = u'ssh.host'
    line = b''.join(b'%07d ' % i for i in range(10000))
    endless = b''.join(b'%07d ' % i for i in range(mitogen.core.CHUNK_SIZE))
    with testlib.LogCapture('mitogen.parent') as log:
        for data in line, b'\n', endless, b'\n':
            for at in range(0, len(data), 5000):
                feed(stream.protocol, data[at:at + 5000])
                assert len(stream.protocol._trailer) <= stream.protocol.max_tail
    lines = [r.getMessage()[len('ssh.host: '):] for r in log.records if r.levelno == logging.INFO]
    assert lines[0] == line.decode()
    assert ''.join(lines[1:]) == endless.decode()


# ---- calls

class Holder(object):
    @classmethod
    def class_method(cls):
        pass

    def method(self):
        pass


class Child(Holder):
    pass


def plain(*args, **kwargs):
    pass


def made_closure():
    value = 1
    return lambda: value


@pytest.fixture
def chain():
    return CallChain(mitogen.core.Context(None, 7, u'x'))


def test_a_chain_names_its_context(chain):
    class Other(CallChain):
        pass

    assert repr(chain) == "CallChain(%r)" % (chain.context,)
    assert repr(Other(chain.context)).startswith('Other(')
    assert chain.chain_id is None


@pytest.mark.parametrize('function, message', [
    (lambda: None, CallChain.lambda_msg),
    (made_closure(), CallChain.closures_msg),
    (Holder().method, CallChain.method_msg),
    ([].append, CallChain.method_msg),
], ids=['lambda', 'closure', 'method', 'built-in-method'])
def test_what_has_no_name_elsewhere_is_refused(chain, function, message):
    with pytest.raises(TypeError) as caught:
        chain.make_msg(function)
    assert caught.value.args[0] == message


@pytest.mark.parametrize('function, names', [
    (plain, (__name__, None, 'plain')),
    (os.path.join, ('posixpath', None, 'join')),
    (os.getpid, ('posix', None, 'getpid')),
    (Holder.class_method, (__name__, 'Holder', 'class_method')),
    (Child.class_method, (__name__, 'Child', 'class_method')),
])
def test_what_has_a_name_is_sent_by_it(chain, function, names):
    msg = chain.make_msg(function, 1, u'two', three=3)
    assert msg.handle == mitogen.core.CALL_FUNCTION
    assert msg.unpickle() == (None,) + names + ((1, u'two'), {'three': 3})
    assert type(msg.unpickle()[5]) is mitogen.core.Kwargs


def test_calls_without_keywords_carry_empty_ones(chain):
    assert chain.make_msg(plain).unpickle() == (None, __name__, None, 'plain', (), {})


def test_pipelined_chains_have_ids_of_their_own():
    context = mitogen.core.Context(None, 7)
    ids = [CallChain(context, pipelined=True).chain_id for _ in range(1000)]
    assert len(set(ids)) == 1000
    host, pid, thread, usec = ids[0].rsplit('-', 3)
    assert (host, int(pid)) == (socket.gethostname(), os.getpid())
    assert int(thread, 16) == threading.get_ident()
    int(usec, 16)


def test_a_reset_is_sent_outside_of_the_chain():
    sent = []
    context = mock.Mock(send=sent.append)
    CallChain(context).reset()
    assert sent == []
    with CallChain(context, pipelined=True) as chain:
        kept = chain.chain_id
    msg, = sent
    assert chain.chain_id == kept
    assert not msg.reply_to
    assert msg.unpickle() == (None, 'mitogen.core', 'Dispatcher', 'forget_chain', (kept,), {})


def test_a_call_is_one_message_and_one_wait():
    context = mock.Mock()
    context.send_async.return_value.get.return_value.unpickle.return_value = 'result'
    chain = CallChain(context)
    assert chain.call(plain, 1) == 'result'
    assert chain.call_async(plain, 1) is context.send_async.return_value
    assert context.send_async.call_count == 2
    chain.call_no_reply(plain, 2)
    msg, = context.send.call_args[0]
    assert msg.unpickle()[4] == (2,)


def test_a_subclass_may_replace_the_asynchronous_call():
    class Recorder(CallChain):
        def call_async(self, fn, *args, **kwargs):
            self.seen = fn, args, kwargs
            return mock.Mock()

    chain = Recorder(mock.Mock())
    chain.call(plain, 1, k=2)
    assert chain.seen == (plain, (1,), {'k': 2})


def test_contexts_are_equal_by_router_and_id():
    one, other = object(), object()
    context = mitogen.parent.Context(one, 1, u'a')
    same = mitogen.parent.Context(one, 1, u'b')
    assert context == same and hash(context) == hash(same)
    assert context != mitogen.parent.Context(one, 2)
    assert context != mitogen.parent.Context(other, 1)
    assert context != 1
    assert context.via is None


# ---- routes

class FakeRouter(object):
    """
    The tables of a router, and nothing else.
    """
    def __init__(self):
        self.handlers = {}
        self.routes = {}
        self.contexts = self._context_by_id = {}

    def _note_loss(self, context, how):
        pass

    def _tell_lost(self, context):
        context.on_disconnect()

    def add_handler(self, fn, handle, persist=True, policy=None, respondent=None, overwrite=False):
        self.handlers[handle] = fn, policy

    def stream_by_id(self, target_id):
        return self.routes.get(target_id) or self.routes.get(mitogen.parent_id)

    def context_by_id(self, target_id, create=True, **kwargs):
        if create:
            self.contexts.setdefault(target_id, mitogen.core.Context(None, target_id))
        return self.contexts.get(target_id)

    def add_route(self, target_id, stream):
        self.routes[target_id] = stream

    def del_route(self, target_id):
        self.routes.pop(target_id, None)

    def get_streams(self):
        return sorted(set(self.routes.values()), key=id)


class FakeStream(object):
    def __init__(self, router, remote_id):
        self.name = u'stream%d' % (remote_id,)
        self.sent = []
        self.protocol = mock.Mock(remote_id=remote_id, egress_ids=set())
        self.protocol.send = lambda msg: self.sent.append((msg.handle, msg.dst_id, msg.data))
        router.routes[remote_id] = self

    def take(self):
        sent, self.sent = self.sent, []
        return sent


ADD, DEL = mitogen.core.ADD_ROUTE, mitogen.core.DEL_ROUTE


@pytest.fixture
def tree(monkeypatch):
    """
    Context 5, whose parent is 0, with the children 10 and 11.
    """
    monkeypatch.setattr(mitogen, 'context_id', 5)
    monkeypatch.setattr(mitogen, 'parent_id', 0)
    monkeypatch.setattr(mitogen, 'parent_ids', [0])

    class Tree(object):
        pass

    tree = Tree()
    tree.router = FakeRouter()
    tree.parent = FakeStream(tree.router, 0)
    tree.monitor = mitogen.parent.RouteMonitor(tree.router, mitogen.core.Context(None, 0))
    tree.ten = FakeStream(tree.router, 10)
    tree.eleven = FakeStream(tree.router, 11)
    tree.monitor.notice_stream(tree.ten)
    tree.monitor.notice_stream(tree.eleven)

    def receive(handle, src_id, data):
        func, policy = tree.router.handlers[handle]
        msg = mitogen.core.Message(handle=handle, src_id=src_id, data=data)
        assert policy(msg, tree.router.routes[src_id])
        with testlib.LogCapture('mitogen.route_monitor') as log:
            func(msg)
        return [r for r in log.records if r.levelno == logging.ERROR]

    tree.receive = receive
    return tree


def disconnects(tree, target_id):
    fired = []
    mitogen.core.listen(tree.router.context_by_id(target_id), 'disconnect', lambda: fired.append(target_id))
    return fired


def test_new_children_are_announced_upwards(tree):
    assert tree.parent.take() == [(ADD, 0, b'10:stream10'), (ADD, 0, b'11:stream11')]
    assert tree.monitor.get_routes(tree.ten) == set([10])
    assert tree.monitor.get_routes(tree.parent) == set()


def test_a_childs_route_is_recorded_and_passed_on(tree):
    tree.parent.take()
    assert tree.receive(ADD, 10, u'20:n\xe4me'.encode('utf-8')) == []
    assert tree.router.routes[20] is tree.ten
    assert tree.router.contexts[20].name == u'n\xe4me'
    assert tree.monitor.get_routes(tree.ten) == set([10, 20])
    assert tree.parent.take() == [(ADD, 0, u'20:n\xe4me'.encode('utf-8'))]
    assert tree.receive(ADD, 10, b'21') == []
    assert tree.parent.take() == [(ADD, 0, b'21')]


@pytest.mark.parametrize('src_id, data', [
    (10, b'11:stolen'),    # the child of somebody else
    (10, b'0'),            # our parent
    (10, b'5'),            # ourselves
    (0, b'30'),            # a parent is no child
    (10, b'junk'),
    (10, b''),
    (10, b'-3'),
])
def test_bad_routes_are_logged_and_ignored(tree, src_id, data):
    before = dict(tree.router.routes)
    tree.parent.take()
    assert len(tree.receive(ADD, src_id, data)) == 1
    assert tree.router.routes == before
    assert tree.parent.take() == []


def test_a_route_is_removed_by_its_own_stream_alone(tree):
    tree.receive(ADD, 10, b'20:x')
    tree.parent.take()
    assert len(tree.receive(DEL, 11, b'20')) == 1
    assert tree.router.routes[20] is tree.ten
    fired = disconnects(tree, 20)
    assert tree.receive(DEL, 10, b'20') == []
    assert 20 not in tree.router.routes
    assert tree.monitor.get_routes(tree.ten) == set([10])
    assert fired == [20]
    assert tree.parent.take() == [(DEL, 0, b'20')]


def test_only_those_who_wrote_to_a_lost_context_hear_of_it(tree):
    tree.receive(ADD, 10, b'20:x')
    tree.eleven.protocol.egress_ids.add(20)
    tree.parent.protocol.egress_ids.add(20)
    tree.parent.take()
    tree.receive(DEL, 10, b'20')
    assert tree.eleven.take() == [(DEL, 11, b'20')]
    assert tree.ten.take() == []
    # The parent hears of it as the parent, not for having written.
    assert tree.parent.take() == [(DEL, 0, b'20')]


def test_a_loss_told_by_the_parent_is_told_downwards_only(tree):
    tree.eleven.protocol.egress_ids.add(99)
    fired = disconnects(tree, 99)
    tree.parent.take()
    assert tree.receive(DEL, 0, b'99') == []
    assert fired == [99]
    assert tree.parent.take() == []
    assert tree.eleven.take() == [(DEL, 11, b'99')]


def test_a_lost_stream_takes_its_routes_with_it_once(tree):
    tree.receive(ADD, 10, b'20:x')
    tree.eleven.protocol.egress_ids.update([10, 20])
    fired = disconnects(tree, 20)
    tree.parent.take()
    mitogen.core.fire(tree.ten, 'disconnect')
    mitogen.core.fire(tree.ten, 'disconnect')
    assert sorted(tree.router.routes) == [0, 11]
    assert tree.parent.take() == [(DEL, 0, b'10'), (DEL, 0, b'20')]
    assert tree.eleven.take() == [(DEL, 11, b'10'), (DEL, 11, b'20')]
    assert fired == [20]


def test_dead_messages_are_ignored(tree):
    tree.parent.take()
    for handle in ADD, DEL:
        func, _ = tree.router.handlers[handle]
        func(mitogen.core.Message.dead('bye'))
    assert tree.parent.take() == []


def test_ids_come_from_the_masters_blocks():
    router = mock.Mock()
    blocks = iter([(2, 4), (10, 12)])
    router.context_by_id.return_value.send_await = lambda msg: next(blocks)
    allocator = mitogen.parent.ChildIdAllocator(router)
    assert [allocator.allocate() for _ in range(4)] == [2, 3, 10, 11]


# ---- connections, over local children

class TtyConnection(Connection):
    """
    All of the child's files are one terminal, as with su.
    """
    create_child = staticmethod(mitogen.parent.tty_create_child)
    name_prefix = u'tty'


class HybridConnection(Connection):
    """
    Diagnostics and questions are on a terminal, as with sudo.
    """
    create_child = staticmethod(mitogen.parent.hybrid_tty_create_child)
    name_prefix = u'hybrid'


def shell_connection(script, base=Connection, **attributes):
    """
    Return a Connection class that runs a shell script, whose "$@" is the boot command.
    """
    class ShellConnection(base):
        def get_boot_command(self):
            command = super(ShellConnection, self).get_boot_command()
            return ['/bin/sh', '-c', script, 'sh'] + command

    for name, value in attributes.items():
        setattr(ShellConnection, name, value)
    return ShellConnection


@pytest.mark.parametrize('klass, prefix', [(TtyConnection, 'tty.'), (HybridConnection, 'hybrid.')])
def test_children_work_over_terminals(router, klass, prefix):
    context = router._connect(klass)
    conn = router.stream_by_id(context.context_id).conn
    assert context.name == '%s%d' % (prefix, conn.proc.pid)
    assert context.call(os.getpid) == conn.proc.pid
    data = bytes(bytearray(range(256))) * 1000
    assert context.call(len, data) == len(data)


def test_what_the_child_says_on_stderr_is_logged(router):
    klass = shell_connection('for i in 1 2 3; do echo junk $i; done; echo diagnosis >&2; exec "$@"',
                             create_child_args={'stderr_pipe': True})
    with testlib.LogCapture('mitogen.parent', logging.INFO) as log:
        context = router._connect(klass)
        log.wait('%s: diagnosis' % context.name, logging.INFO)
    assert context.call(os.getpid)


def test_a_missed_deadline_keeps_its_details(router):
    klass = shell_connection('echo so far; exec sleep 60', create_child_args={'stderr_pipe': True})
    with pytest.raises(mitogen.core.StreamError) as caught:
        router._connect(klass, connect_timeout=0.3)
    assert caught.value.args[0] == 'Connection timed out.'
    for word in '0.30 seconds', 'no MITO000 seen', 'Command was: /bin/sh', 'so far':
        assert word in caught.value.detail
    assert str(caught.value) == 'Connection timed out.\n\n' + caught.value.detail


def test_a_deadline_missed_by_a_bare_connection_is_a_timeout(router):
    conn = shell_connection('exec sleep 60')(
        Options(max_message_size=1, connect_timeout=0.3), router)
    with pytest.raises(mitogen.core.TimeoutError) as caught:
        conn.connect(mitogen.parent.Context(router, 1234))
    assert '0.30 seconds' in str(caught.value)
    assert conn.exception is caught.value


def test_an_early_end_shows_both_outputs_in_order_and_the_advice_last(router):
    klass = shell_connection('echo one; sleep 0.1; echo two >&2; sleep 0.1; printf three',
                             create_child_args={'stderr_pipe': True}, eof_error_hint='Read the manual.')
    with pytest.raises(mitogen.parent.EofError) as caught:
        router._connect(klass)
    text = caught.value.args[0]
    assert text.startswith(Connection.eof_error_msg + 'one\ntwo\nthree\n')
    assert 'no MITO000 seen' in text and '/bin/sh' in text
    assert text.endswith('\n\nRead the manual.')


def test_the_advice_is_added_to_any_failure(router):
    class Absent(Connection):
        eof_error_hint = 'Read the manual.'

    with pytest.raises(mitogen.core.StreamError) as caught:
        router._connect(Absent, python_path='/nonexistent/python')
    text, = caught.value.args
    assert text.startswith('Child start failed: [Errno 2] No such file or directory')
    assert text.endswith('\n\nRead the manual.')


def test_other_errors_at_the_start_reach_the_caller_as_they_are(router):
    def fail(args):
        raise ZeroDivisionError('in create_child')

    class Failing(Connection):
        create_child = staticmethod(fail)

    with pytest.raises(ZeroDivisionError):
        router._connect(Failing)


def test_a_failure_between_process_and_streams_leaves_nothing(router):
    class Failing(Connection):
        def stderr_stream_factory(self):
            raise ZeroDivisionError('no stream')
        create_child_args = {'stderr_pipe': True}

    with pytest.raises(ZeroDivisionError):
        router._connect(Failing)


def test_an_interrupted_caller_abandons_the_child(router):
    conn = shell_connection('exec sleep 60')(Options(max_message_size=1), router)

    class Interrupted(mitogen.core.Latch):
        def get(self, *args, **kwargs):
            testlib.wait_for(lambda: conn.proc)
            raise KeyboardInterrupt()

    with mock.patch('mitogen.core.Latch', Interrupted):
        with pytest.raises(KeyboardInterrupt):
            conn.connect(mitogen.parent.Context(router, 1234))
    testlib.wait_for(lambda: conn.proc.proc.poll() is not None)
    assert isinstance(conn.exception, mitogen.parent.CancelledError)


def test_a_broker_that_shuts_down_cancels_the_attempt(broker, router):
    conn = shell_connection('exec sleep 60')(Options(max_message_size=1), router)

    def attempt():
        conn.connect(mitogen.parent.Context(router, 1234))

    def shut_down():
        testlib.wait_for(lambda: conn.stdio_stream)
        broker.shutdown()

    error, _ = testlib.in_threads([attempt, shut_down])
    assert type(error) is mitogen.parent.CancelledError
    assert error.args[0] == mitogen.parent.BROKER_SHUTDOWN_MSG


def test_a_listener_that_raises_does_not_hold_a_failure_up(broker, router):
    class Failing(shell_connection('exec sleep 60', create_child_args={'stderr_pipe': True})):
        def on_stdio_disconnect(self):
            super(Failing, self).on_stdio_disconnect()
            raise ValueError('deliberate')

    conn = Failing(Options(max_message_size=1), router)

    def attempt():
        conn.connect(mitogen.parent.Context(router, 1234))

    def fail():
        testlib.wait_for(lambda: conn._pending)
        broker.defer(lambda: conn._fail_connection(mitogen.core.StreamError('too late')))

    with testlib.LogCapture('mitogen') as logs:
        error, _ = testlib.in_threads([attempt, fail])
        assert [r for r in logs.records if r.exc_info and str(r.exc_info[1]) == 'deliberate']
    assert isinstance(error, mitogen.core.StreamError)
    testlib.sync(broker)
    assert broker._alive and not conn._stderr_open
    assert router.local().call(os.getpid)


def test_complaints_after_the_start_do_not_end_a_connection(broker, router):
    context = router.local()
    conn = router.stream_by_id(context.context_id).conn
    broker.defer_sync(lambda: conn._fail_connection(mitogen.core.StreamError('late')))
    assert conn.exception is None
    assert context.call(os.getpid) == conn.proc.pid


def test_a_process_that_holds_stderr_does_not_keep_the_child_from_being_reaped(router):
    # As the master process of an ssh connection that is shared does.
    klass = shell_connection('sleep 60 >/dev/null </dev/null & echo $! >&2; exec "$@"',
                             create_child_args={'stderr_pipe': True}, stderr_linger=0.1)
    with testlib.LogCapture('mitogen.parent', logging.INFO) as log:
        context = router._connect(klass)
        record = log.wait('%s: ' % (context.name,), logging.INFO)[0]
    holder = int(record.getMessage().split()[-1])
    try:
        conn = router.stream_by_id(context.context_id).conn
        gone = mitogen.core.Latch()
        mitogen.core.listen(conn.proc, 'exit', gone.put)
        context.shutdown(wait=True)
        gone.get(timeout=60)
        assert testlib.is_running(holder)
    finally:
        os.kill(holder, signal.SIGKILL)


class PromptProtocol(mitogen.parent.BootstrapProtocol):
    asked = 0

    def _on_prompt(self, line, match):
        self.asked += 1
        self._writer.write(b'secret\n')

    import re
    PARTIAL_PATTERNS = [(re.compile(b'word:'), _on_prompt)]


def test_a_prompt_written_byte_by_byte_is_answered_once(router):
    script = r'''
        for c in p a s s w o r d : ' '; do printf "%s" "$c"; sleep 0.02; done
        read answer; test "$answer" = secret || exit 1
        echo; exec "$@"
    '''
    protocols = []

    class Recording(PromptProtocol):
        def __init__(self, broker):
            super(Recording, self).__init__(broker)
            protocols.append(self)

    context = router._connect(shell_connection(script, TtyConnection, stream_protocol_class=Recording))
    assert context.call(os.getpid)
    assert [protocol.asked for protocol in protocols] == [1]


def test_disconnecting_a_context_that_is_not_ours_returns(router):
    child = router.local()
    router.disconnect(mitogen.parent.Context(router, 12345))
    assert child.call(os.getpid)
    router.disconnect(child)
    assert router.stream_by_id(child.context_id) is None
    router.disconnect(child)


def test_waiting_for_the_end_of_a_lost_context_returns(router):
    child = router.local()
    child.shutdown(wait=True)
    child.shutdown(wait=True)
    assert child.shutdown().get(timeout=60) is None


def test_an_unknown_method_is_an_import_error(router):
    with pytest.raises(ImportError):
        router.connect('nonesuch')


def test_shipping_by_force_reaches_a_child_that_has_the_package(router, monkeypatch):
    folder = os.path.dirname(os.path.dirname(os.path.abspath(mitogen.__file__)))
    monkeypatch.setenv('PYTHONPATH', folder)
    monkeypatch.setenv('MITOGEN_SHIP', '1')
    shipped = []
    finish = mitogen.parent.Connection._finish_preamble
    monkeypatch.setattr(mitogen.parent.Connection, '_finish_preamble',
                        lambda conn, partial: shipped.append(conn) or finish(conn, partial))
    context = router.local()
    assert context.call(os.getppid) == os.getpid()
    assert shipped == [router.stream_by_id(context.context_id).conn]


#
# Waiting on one core
#

@pytest.fixture
def yields(monkeypatch, tmp_path):
    """
    One core, on which nothing else wants to run. Return a list that gets an entry with each yield.
    """
    cls = mitogen.parent._YieldingSleeper
    given = []
    monkeypatch.setattr(cls, 'LOADAVG', str(tmp_path / 'loadavg'))
    monkeypatch.setattr(cls, '_looked_at', float('-inf'))
    monkeypatch.setattr(cls, '_pays', False)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {1})
    monkeypatch.setattr(os, 'sched_yield', lambda: given.append(None))
    tmp_path.joinpath('loadavg').write_text('0.00 0.01 0.05 2/89 4711\n')
    return given


def wait_in_vain():
    sleeper = mitogen.parent._YieldingSleeper()
    sleeper.sleep(0.001)
    assert not sleeper.awake


def test_who_waits_on_one_core_gives_way(yields):
    wait_in_vain()
    wait_in_vain()
    assert len(yields) == 2


def test_who_may_use_two_cores_just_sleeps(yields, monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {0, 1})
    wait_in_vain()
    assert not yields


@pytest.mark.parametrize('text', ['1.00 0.70 0.30 3/90 4712\n', '', 'none of it\n', '1 2 3 x/y\n'])
def test_nobody_gives_way_unless_little_is_known_to_run(yields, tmp_path, text):
    tmp_path.joinpath('loadavg').write_text(text)
    wait_in_vain()
    assert not yields


def test_nobody_gives_way_where_nothing_tells_what_runs(yields, tmp_path):
    tmp_path.joinpath('loadavg').unlink()
    wait_in_vain()
    assert not yields


def test_the_machine_is_looked_at_every_so_often(yields, tmp_path, monkeypatch):
    monkeypatch.setattr(mitogen.parent._YieldingSleeper, 'FRESH', 3600)
    wait_in_vain()
    tmp_path.joinpath('loadavg').unlink()
    wait_in_vain()
    assert len(yields) == 2
    monkeypatch.setattr(mitogen.parent._YieldingSleeper, 'FRESH', -1)
    wait_in_vain()
    assert len(yields) == 2


@pytest.mark.pure
@pytest.mark.parametrize('spin, class_name', [('', '_YieldingSleeper'), ('0', '_Sleeper'), ('50', '_YieldingSleeper')])
def test_the_latch_of_a_parent_gives_way_unless_told_not_to(spin, class_name):
    out = subprocess.check_output([sys.executable, '-c', 'import mitogen.parent; print(mitogen.core._Sleeper.__name__)'],
                                  env=dict(os.environ, MITOGEN_SPIN=spin))
    kept = not hasattr(os, 'sched_yield') or sys.platform != 'linux' or sys.version_info < (3, 10, 7)
    assert out.decode().strip() == ('_Sleeper' if kept else class_name)
