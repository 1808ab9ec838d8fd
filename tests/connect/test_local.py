"""
local(): starting a child, and every way in which that fails.
"""

import contextlib
import os
import subprocess
import sys
import sysconfig
import threading
import time
import zlib

import pytest

import mitogen.core
import mitogen.parent
from mitogen.core import Latch, StreamError

import targets
import testlib


def test_a_child_is_another_process_and_ours(router):
    child = router.local()
    pid, parent = child.call(targets.main_thread_id_and_pid)
    assert pid != os.getpid()
    assert parent == os.getpid()
    assert router.stream_by_id(child.context_id).conn.proc.pid == pid


def test_ids_count_up_from_one(router):
    assert [router.local().context_id for _ in range(3)] == [1, 2, 3]


def test_a_child_is_named_after_its_process_unless_told(router):
    child = router.local()
    assert child.name == u'local.%d' % child.call(os.getpid)
    assert router.local(name=u'bob').name == u'bob'
    assert router.stream_by_id(2).name == u'bob'


def test_the_context_is_the_canonical_one(router):
    child = router.local()
    assert router.context_by_id(child.context_id) is child
    assert isinstance(child, mitogen.parent.Context)


def test_a_child_runs_the_same_interpreter(router):
    assert router.local().call(targets.sys_attribute, 'executable') == sys.executable
    assert router.local().call(targets.sys_attribute, 'version') == sys.version


def test_a_child_sees_what_it_is(router):
    child = router.local()
    seen = child.call(targets.mitogen_globals)
    assert seen['is_master'] is False
    assert seen['context_id'] == child.context_id
    assert seen['parent_id'] == mitogen.context_id
    assert seen['parent_ids'] == [mitogen.context_id]
    assert tuple(seen['version']) == mitogen.__version__
    assert seen['main'] is True


def test_a_grandchild_sees_its_line(router):
    child = router.local()
    grandchild = router.local(via=child)
    seen = grandchild.call(targets.mitogen_globals)
    assert seen['parent_ids'] == [child.context_id, mitogen.context_id]
    assert seen['parent_id'] == child.context_id


def test_the_bootstrap_leaves_no_trace_in_the_environment(router):
    seen = router.local().call(targets.environ)
    assert 'ARGV0' not in seen
    assert seen['PATH'] == os.environ['PATH']


def test_sys_argv_is_one_empty_string(router):
    assert router.local().call(targets.sys_attribute, 'argv') == ['']


def test_the_command_line_names_the_remote(router):
    child = router.local(remote_name='somebody@somewhere')
    expected = '%s(mitogen:somebody@somewhere)' % sys.executable
    assert child.call(targets.command_line) == expected.encode() + b'\0'


def test_the_command_line_names_us_by_default(router):
    child = router.local()
    expected = '%s(mitogen:%s)' % (sys.executable, mitogen.parent.get_default_remote_name())
    assert child.call(targets.command_line) == expected.encode() + b'\0'


def test_a_fresh_child_has_two_threads(router):
    assert router.local().call(targets.thread_names) == ['MainThread', 'mitogen.broker']


def test_calls_run_on_the_main_thread(router):
    assert router.local().call(targets.current_thread_name) == 'MainThread'


def test_the_standard_streams_block(router):
    assert router.local().call(targets.blocking_modes) == [True, True, True]


def test_a_child_inherits_no_descriptors(router):
    rfp, wfp = os.pipe()
    os.set_inheritable(rfp, True)
    target = os.readlink('/proc/self/fd/%d' % rfp)
    assert target not in router.local().call(targets.descriptors)
    os.close(rfp)
    os.close(wfp)


def test_there_is_one_process_per_child(router):
    def tree():
        found = []
        for name in os.listdir('/proc'):
            if name.isdigit():
                try:
                    with open('/proc/%s/stat' % name) as fp:
                        if int(fp.read().rsplit(')', 1)[1].split()[1]) == os.getpid():
                            found.append(int(name))
                except IOError:
                    pass
        return found

    before = set(tree())
    child = router.local()
    assert set(tree()) - before == set([child.call(os.getpid)])


def test_children_start_in_parallel(router):
    children = testlib.in_threads([router.local] * 6)
    pids = [child.call(os.getpid) for child in children]
    assert len(set(pids)) == 6
    assert len(set(child.context_id for child in children)) == 6


def test_python_path_may_be_a_list(router):
    child = router.local(python_path=['/usr/bin/env', 'VARIABLE=value', sys.executable])
    assert child.call(targets.environ, 'VARIABLE') == 'value'


def test_profiling_and_debug_default_to_the_routers(router):
    options = router.stream_by_id(router.local().context_id).conn.options
    assert (options.debug, options.profiling, options.unidirectional) == (False, False, False)


# ---- noise before the start

@pytest.fixture
def make_python(tmp_path):
    """
    A function that makes an executable shell script to stand for the interpreter.
    """
    def make(text):
        path = tmp_path / 'python'
        path.write_text('#!/bin/sh\n' + text.replace('PYTHON', sys.executable))
        path.chmod(0o755)
        return str(path)
    return make


def test_a_child_that_prints_a_banner_still_connects(router, make_python):
    path = make_python('for i in 1 2 3 4 5; do echo "banner $i"; done\nexec PYTHON "$@"\n')
    assert router.local(python_path=path).call(targets.identity, 1) == 1


def test_a_banner_without_a_line_end_is_tolerated(router, make_python):
    path = make_python('printf "last login: "\nexec PYTHON "$@"\n')
    assert router.local(python_path=path).call(targets.identity, 1) == 1


def test_a_child_without_the_package_is_sent_the_source(router, make_python, tmp_path):
    # -I: neither PYTHONPATH nor the current directory; the site packages go with it.
    path = make_python('exec PYTHON -I -S "$@"\n')
    child = router.local(python_path=path)
    assert child.call(targets.identity, 1) == 1
    assert child.call(targets.module_file, 'mitogen.core') == 'x/mitogen/core.py'
    assert router.local(via=child, python_path=path).call(targets.identity, 2) == 2


def test_a_child_without_the_package_runs_the_pure_core(router, make_python):
    path = make_python('exec PYTHON -I -S "$@"\n')
    assert router.local(python_path=path).call(targets.core_name) == 'pure'


def test_a_child_with_the_package_runs_the_same_core(router):
    assert router.local().call(targets.core_name) == mitogen.core.CORE


def test_a_child_with_the_package_is_sent_no_source(router):
    child = router.local()
    if mitogen.core.CORE == 'pure':
        # Forced by the environment, which a child inherits; it then says that it has nothing.
        assert child.call(targets.module_file, 'mitogen.core') == 'x/mitogen/core.py'
    else:
        assert child.call(targets.module_file, 'mitogen.core') == mitogen.core.__file__


def test_a_slow_start_is_waited_for(router, make_python):
    path = make_python('sleep 0.5\nexec PYTHON "$@"\n')
    assert router.local(python_path=path).call(targets.identity, 1) == 1


@pytest.mark.parametrize('flags', ['', '-I -S'], ids=['installed', 'shipped'])
def test_a_child_that_is_started_without_a_stderr_gets_one(router, make_python, flags):
    path = make_python('exec PYTHON %s "$@" 2>&-\n' % flags)
    with testlib.LogCapture() as logs:
        child = router.local(python_path=path)
        child.call(targets.write_fd, 2, b'by number\n')
        child.call(targets.call_method, 'sys', 'stderr', 'write', u'by name\n')
        logs.wait('by number')
        logs.wait('by name')
    assert router.local(via=child, python_path=path).call(targets.identity, 1) == 1


@contextlib.contextmanager
def own_stderr_stays_here():
    """
    Programs that are started in this block do not inherit this process's stderr. Ansible wants it
    so.
    """
    os.set_inheritable(2, False)
    yield
    os.set_inheritable(2, True)


def test_children_do_without_our_stderr(router):
    with own_stderr_stays_here(), testlib.LogCapture() as logs:
        child = router.local()
        child.call(targets.write_fd, 2, b'on stderr\n')
        logs.wait('on stderr')
    assert router.local(via=child).call(targets.identity, 1) == 1


def test_what_a_failing_interpreter_complains_of_is_in_the_error_if_nowhere_else(router, make_python):
    path = make_python('echo "a complaint" >&2\nexit 3\n')
    with own_stderr_stays_here(), pytest.raises(mitogen.parent.EofError) as caught:
        router.local(python_path=path)
    assert 'a complaint' in str(caught.value)


WITHOUT_STDERR = '''
import os, sys
assert sys.stderr is None
import mitogen.master
router = mitogen.master.Router()
child = router.local()
child = router.local(via=child)
print(child.call(os.getppid) > 1)
router.broker.shutdown()
router.broker.join()
'''


def test_a_master_and_its_children_do_without_any_stderr(make_python):
    path = make_python('exec PYTHON "$@" 2>&-\n')
    assert subprocess.check_output([path, '-c', WITHOUT_STDERR]) == b'True\n'


# ---- failures

def test_an_interpreter_that_does_not_exist(router):
    with pytest.raises(StreamError) as caught:
        router.local(python_path='derp')
    assert str(caught.value).startswith('Child start failed: [Errno 2] No such file or directory')
    assert 'Command was: ' in str(caught.value)


def test_an_interpreter_that_ends_at_once(router):
    with pytest.raises(mitogen.parent.EofError) as caught:
        router.local(python_path='true')
    assert str(caught.value).startswith(mitogen.parent.Connection.eof_error_msg)


def test_what_a_failing_interpreter_said_is_in_the_error(router, make_python):
    path = make_python('echo "one thing"\necho "another thing"\nexit 3\n')
    with pytest.raises(mitogen.parent.EofError) as caught:
        router.local(python_path=path)
    assert 'one thing\nanother thing' in str(caught.value)


def test_an_interpreter_that_never_speaks_times_out(router, make_python, tmp_path):
    pid_file = tmp_path / 'pid'
    path = make_python('echo $$ > %s\nexec sleep 3600\n' % pid_file)
    start = time.time()
    with pytest.raises(StreamError) as caught:
        router.local(python_path=path, connect_timeout=0.5)
    assert caught.value.args == (router.connection_timeout_msg,) == ('Connection timed out.',)
    # Less than the time that it has unless told.
    assert 0.5 <= time.time() - start < mitogen.parent.Options.connect_timeout
    pid = int(pid_file.read_text())
    testlib.wait_for(lambda: not testlib.is_running(pid))


def test_an_interpreter_that_dies_after_its_first_word(router, make_python):
    path = make_python('for token; do :; done\necho "MITO000 0 30b07f0 $token"\nexit 1\n')
    with pytest.raises(mitogen.parent.EofError):
        router.local(python_path=path)


def test_a_bad_remote_name(router):
    for name in ('a/b', 'a\\b'):
        with pytest.raises(ValueError):
            router.local(remote_name=name)


def test_an_unknown_option(router):
    with pytest.raises(TypeError):
        router.local(bogus=1)


def test_a_failed_start_leaves_the_router_usable(router):
    for _ in range(3):
        with pytest.raises(StreamError):
            router.local(python_path='derp')
        with pytest.raises(StreamError):
            router.local(python_path='true')
    assert router.local().call(targets.identity, 1) == 1


def test_shutting_down_while_connecting_cancels_it(make_router, make_python):
    router = make_router()
    path = make_python('exec sleep 3600\n')
    started = threading.Event()

    def connect():
        started.set()
        return router.local(python_path=path)

    def shut_down():
        started.wait(60)
        testlib.wait_for(lambda: [p for p in os.listdir('/proc') if p.isdigit() and is_sleep(p)])
        router.broker.shutdown()

    def is_sleep(pid):
        try:
            with open('/proc/%s/cmdline' % pid) as cmd, open('/proc/%s/stat' % pid) as stat:
                return cmd.read() == 'sleep\x003600\x00' and ' %d ' % os.getpid() in stat.read()
        except IOError:
            return False

    error = testlib.in_threads([connect, shut_down])[0]
    assert type(error) is mitogen.parent.CancelledError
    assert error.args[0] == mitogen.parent.BROKER_SHUTDOWN_MSG
    router.broker.join()


def test_connecting_after_the_brokers_exit_raises(make_router):
    router = make_router()
    router.broker.shutdown()
    router.broker.join()
    with pytest.raises(mitogen.core.Error):
        router.local()


# ---- the preamble

def make_connection(router):
    options = mitogen.parent.Options(max_message_size=router.max_message_size)
    connection = mitogen.parent.Connection(options, router)
    connection.context = mitogen.core.Context(router, 4321)
    return connection


def test_the_preamble_ends_with_a_line_that_names_the_context(router):
    text = zlib.decompress(make_connection(router).get_preamble())
    assert b'4321' in text.rstrip().split(b'\n')[-1]
    # The line that unpacks the rest, and the rest.
    for part in text.split(b'\n', 1):
        compile(part, 'preamble', 'exec')


def test_the_boot_command_is_short(router):
    assert len(' '.join(make_connection(router).get_boot_command())) < 2500


# ---- options and connections of an application

def test_a_connection_class_of_an_application(router):
    class Connection(mitogen.parent.Connection):
        create_child_args = {'stderr_pipe': True}
        name_prefix = u'own'

    options = mitogen.parent.Options(max_message_size=router.max_message_size)
    connection = Connection(options, router)
    context = mitogen.parent.Context(router, router.allocate_id())
    with testlib.LogCapture('mitogen') as logs:
        connection.connect(context)
        assert context.name.startswith(u'own.')
        assert connection.proc.stderr is not None
    assert logs is not None
    context.shutdown(wait=True)


def test_a_process_says_who_it_is(router):
    child = router.local(name=u'bob')
    proc = router.stream_by_id(child.context_id).conn.proc
    assert proc.name == u'bob'
    assert proc.poll() is None
    assert repr(proc) == 'PopenProcess %s pid %d' % (u'bob', proc.pid)


def test_a_process_can_be_terminated(router):
    child = router.local()
    proc = router.stream_by_id(child.context_id).conn.proc
    latch = Latch()
    mitogen.core.listen(proc, 'exit', latch.put)
    proc.kill()
    latch.get(timeout=60)
    assert proc.poll() == -9


@pytest.mark.skipif(sys.version_info >= (3, 13) and not sysconfig.get_config_var('Py_GIL_DISABLED'),
                    reason='this Python does not start with that')
def test_another_interpreter_does_not_inherit_whether_there_is_a_gil(router, monkeypatch, tmp_path):
    other = tmp_path / 'python'
    other.symlink_to(sys.executable)
    monkeypatch.setenv('PYTHON_GIL', '0')
    inherited = '__import__("os").environ.get("PYTHON_GIL")'
    assert router.local().call(eval, inherited) == '0'
    assert router.local(python_path=str(other)).call(eval, inherited) is None


def fails_with_a_traceback():
    import traceback
    import warnings
    try:
        mitogen.core.io_op(os.read, 12345, 1)
    except OSError:
        traceback.format_exc()
    # warnings looks up the module's source by its loader.
    warnings.warn_explicit('text', UserWarning, 'mitogen/core.py', 1, module_globals=vars(mitogen.core))


@pytest.mark.parametrize('ship', ['1', 'source'])
def test_a_child_whose_warnings_are_errors_knows_where_its_core_came_from(router, monkeypatch, ship):
    monkeypatch.setenv('MITOGEN_SHIP', ship)
    context = router.local(python_path=[sys.executable, '-W', 'error', '-W', 'ignore::UserWarning'])
    context.call(fails_with_a_traceback)
    for name, is_package in ('mitogen', True), ('mitogen.core', False):
        module = '__import__("sys").modules[%r]' % (name,)
        assert context.call(eval, '%s.__spec__.loader is %s.__loader__' % (module, module))
        assert context.call(eval, '%s.__spec__.submodule_search_locations' % (module,)) == ([] if is_package else None)
