"""
Connection, over local children.
"""

import logging
import os
import signal
import subprocess
import sys
from unittest import mock

import pytest

import mitogen
import mitogen.core
import mitogen.parent
from mitogen.parent import Connection, Options

import testlib


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
    assert text.startswith(Connection.eof_error_msg + 'one\ntwo\nthree\n\n')
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
