"""
Names, small functions and options of `mitogen.parent`.
"""

import getpass
import logging
import os
import signal
import socket
import subprocess
import sys
import termios
from unittest import mock

import pytest

import mitogen
import mitogen.core
import mitogen.parent
from mitogen.parent import Argv, Options

import testlib


#: One for each pattern that may look at all that follows, from each place where it may begin.
REPEATED = u'jail ', u'connect to host ', u'connection to '


@pytest.mark.parametrize('word', REPEATED)
def test_a_long_text_of_a_failure_is_searched_at_its_ends_only(word):
    assert mitogen.parent._find_hint(word * 1000000) is None
    for text in u'no such container' + word * 1000000, word * 1000000 + u'no such container':
        assert u'there is no container' in mitogen.parent._find_hint(text)


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
    assert mitogen.parent.is_immediate_child(mock.Mock(src_id=5, auth_id=5), stream)
    assert not mitogen.parent.is_immediate_child(mock.Mock(src_id=6, auth_id=6), stream)
    assert not mitogen.parent.is_immediate_child(mock.Mock(src_id=5, auth_id=7), stream)
    assert not mitogen.parent.is_immediate_child(mock.Mock(src_id=5, auth_id=5), None)


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
