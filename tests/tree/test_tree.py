"""
A tree and its hosts: from connecting to the end, from any thread.
"""

import copy
import dataclasses
import functools
import os
import signal
import sys
import threading
import time

import pytest

import mitogen
import mitogen._facts
import mitogen._tree.info
import mitogen.core
import mitogen.master
import mitogen.parent
from mitogen._tree import running

import targets
import testlib


def in_a_thread(func):
    """
    Return what a function returns on a thread that has ended since.
    """
    found = []
    thread = threading.Thread(target=lambda: found.append(func()))
    thread.start()
    thread.join()
    return found[0]


def test_a_tree_is_a_router_and_a_host_a_context(tree, host):
    assert isinstance(tree, mitogen.master.Router)
    assert isinstance(host, mitogen.parent.Context)
    assert host.tree is tree and host.router is tree
    assert host in tree.hosts
    assert host.call(targets.add, 1, 2) == 3
    assert host.call_async(targets.add, 1, 2).get().unpickle() == 3


def test_the_older_ways_to_connect_make_hosts(tree):
    for child in (tree.local(), tree.connect('local'), tree.connect('local', name='bob')):
        assert type(child) is mitogen.Host
    assert child.name == 'bob'


def test_a_tree_outlives_the_thread_that_made_it():
    tree = in_a_thread(mitogen.Tree)
    with tree:
        host = in_a_thread(tree.connect)
        assert host.call(os.getpid) == in_a_thread(lambda: host.call(os.getpid))


def test_a_host_of_its_own_ends_with_its_block():
    with mitogen.connect() as host:
        pid = host.call(os.getpid)
    assert not testlib.is_running(pid)
    with pytest.raises(mitogen.core.Error):
        host.call(os.getpid)
    # A second end is none.
    host.close()


def test_a_chain_starts_each_host_by_the_one_before(tree):
    child = tree.connect('local:/local:')
    assert child.call(os.getppid) == child.via.call(os.getpid)
    below = child.connect('local:')
    assert below.via is child


def test_a_host_that_is_closed_tells_later_calls_why(tree):
    child = tree.connect()
    with child:
        pid = child.call(os.getpid)
    testlib.wait_for(lambda: not testlib.is_running(pid))
    assert child not in tree.hosts
    with pytest.raises(mitogen.ConnectionLost) as info:
        child.call(os.getpid)
    assert info.value.host == child.name
    assert 'closed by the other side' in info.value.detail
    assert isinstance(info.value, ConnectionError) and isinstance(info.value, mitogen.core.ChannelError)
    with pytest.raises(mitogen.ConnectionLost, match='closed by the other side'):
        child.submit(os.getpid).result()
    child.close()


# ---- futures and errors

def test_a_future_has_the_result(host):
    future = host.submit(targets.add, 1, 2)
    assert future.result(testlib.patience()) == 3
    assert future.done()


def test_a_remote_error_tells_of_itself_and_of_the_host(host):
    for call in (host.call, lambda *args: host.submit(*args).result()):
        with pytest.raises(mitogen.RemoteError) as info:
            call(os.stat, '/nothing/here')
        error = info.value
        assert isinstance(error, mitogen.core.CallError)
        assert (error.errno, error.host) == (2, 'shared')
        assert error.type.endswith('.FileNotFoundError')
        assert error.reason.startswith(error.type)


def test_causes_are_remote_errors_too(host):
    import error_targets
    with pytest.raises(mitogen.RemoteError) as info:
        host.call(error_targets.fails_from_a_cause)
    assert type(info.value.cause) is mitogen.RemoteError
    assert info.value.cause.host == 'shared'


def test_a_callback_may_call_the_host_again(host):
    found, done = [], threading.Event()

    def callback(future):
        found.append(host.call(targets.add, future.result(), 1))
        done.set()

    host.submit(targets.add, 1, 1).add_done_callback(callback)
    assert done.wait(testlib.patience())
    assert found == [3]


def test_callbacks_run_if_a_broker_crashes_as_it_ends(caplog):
    ran = []
    with mitogen.Tree(output=None) as tree:
        host = tree.connect('local:')
        for word in 'first', 'second':
            host.submit(targets.sleep, 600).add_done_callback(lambda future, word=word: ran.append(word))
        tree.broker._broker_shutdown = None
    assert sorted(ran) == ['first', 'second']
    assert 'broker crashed' in caplog.text


def test_a_callback_that_raises_harms_nobody(host, caplog):
    def callback(future):
        raise ValueError('of the callback')

    future = host.submit(targets.add, 1, 1)
    future.add_done_callback(callback)
    assert future.result() == 2
    assert host.submit(targets.add, 1, 2).result() == 3


def test_what_has_no_name_is_not_submitted(host):
    with pytest.raises(TypeError):
        host.submit(lambda: None)
    assert host.call(targets.add, 1, 2) == 3


def test_a_future_of_a_host_that_is_lost_fails(tree):
    child = tree.connect()
    future = child.submit(time.sleep, 60)
    child.close()
    with pytest.raises(mitogen.ConnectionLost):
        future.result(testlib.patience())


# ---- failures to connect

def test_an_interpreter_that_is_not_there(tree):
    with pytest.raises(mitogen.NoPython) as info:
        tree.connect('local:/nothing/here')
    error = info.value
    assert isinstance(error, ConnectionError) and isinstance(error, mitogen.parent.ConnectError)
    assert (error.host, error.stage) == ('local:/nothing/here', 'starting the process')
    assert 'python_path' in error.hint and error.reason == error.hint


def test_a_program_of_a_method_that_is_not_there(tree, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(mitogen.NoPython) as info:
        tree.connect('podman:web')
    # The command that was to be run says what is said where no Python is found.
    assert info.value.hint.startswith('podman is not there. ') and 'No Python' not in info.value.hint


@pytest.mark.parametrize('way', ['', 'local:/'])
def test_a_failure_tells_what_the_program_said(tree, way, tmp_path):
    program = tmp_path / 'python'
    program.write_text('#!/bin/sh\necho "ssh: connect to host web1 port 22: Connection refused"\nexit 255\n')
    program.chmod(0o755)
    with pytest.raises(mitogen.HostDown) as info:
        tree.connect(way + 'local:' + str(program))
    error = info.value
    assert error.returncode == 255
    assert error.stage == 'waiting for the interpreter to start'
    assert 'Connection refused' in error.output


@pytest.mark.parametrize('text,cls', [
    ('Host key verification failed.', mitogen.HostKeyError),
    ('bob@web1: Permission denied (publickey).', mitogen.AuthError),
    ('ssh: Could not resolve hostname web1', mitogen.HostDown),
    ('nonsense', mitogen.ConnectError),
])
def test_failures_have_classes(tree, text, cls, tmp_path):
    program = tmp_path / 'python'
    program.write_text('#!/bin/sh\necho "%s"\nexit 1\n' % (text,))
    program.chmod(0o755)
    with pytest.raises(mitogen.ConnectError) as info:
        tree.connect('local:' + str(program))
    assert type(info.value) is cls


@pytest.mark.parametrize('way', ['', 'local:/'])
def test_a_host_that_says_nothing_in_time(tree, way, tmp_path):
    program = tmp_path / 'python'
    program.write_text('#!/bin/sh\nexec sleep 60\n')
    program.chmod(0o755)
    with pytest.raises(mitogen.ConnectTimeout) as info:
        # Long enough for the first hop of the chain.
        tree.connect(way + 'local:' + str(program), timeout=3 if way else 0.2)
    assert isinstance(info.value, mitogen.core.TimeoutError) and isinstance(info.value, TimeoutError)


def test_no_time_at_all(tree):
    with pytest.raises(mitogen.ConnectTimeout):
        tree.connect('local:', timeout=0)


def test_what_is_no_target_is_refused_before_anything_starts(tree):
    with pytest.raises(ValueError):
        tree.connect_all(['local:', 'telnet:web1'])


# ---- groups

@pytest.fixture(scope='module')
def group(whole):
    return whole.connect_all(['local:', 'local:/nothing/here', 'local:/local:'])


def test_a_group_has_those_that_are_down(group):
    assert len(group) == 3
    assert [type(member) for member in group] == [mitogen.Host, mitogen.DownHost, mitogen.Host]
    assert list(group.failed) == ['local:/nothing/here']
    assert group.alive == [group[0], group[2]]
    assert list(group[:1]) == [group[0]]
    with pytest.raises(mitogen.NoPython):
        group[1].call(os.getpid)
    with pytest.raises(mitogen.NoPython):
        group[1].submit(os.getpid).result()


@pytest.mark.parametrize('concurrency', [None, 1])
def test_a_map_has_a_result_for_each(group, concurrency):
    results = list(group.options(concurrency=concurrency).map(targets.add, 1, 2))
    assert sorted((result.host, result.ok) for result in results) == sorted(
        (member.name, isinstance(member, mitogen.Host)) for member in group)
    for result in results:
        if result.ok:
            assert (result.unwrap(), result.error) == (3, None)
        else:
            assert result.value is None
            with pytest.raises(mitogen.NoPython):
                result.unwrap()


def test_a_map_goes_on_where_the_function_raises(group):
    results = list(group.map(os.stat, '/nothing/here'))
    assert [type(result.error) for result in results if result.host != 'local:/nothing/here'] == [mitogen.RemoteError] * 2


def test_the_way_that_targets_share_is_connected_once(tree):
    group = tree.connect_all(['local:/local:', 'local:/local:'])
    assert group[0].via is group[1].via and group[0] is not group[1]
    assert group.failed == {}


def test_a_way_that_fails_fails_for_each_that_shares_it(tree):
    names = ['local:/nothing/here/local:', 'local:/nothing/here/su:bob']
    failed = tree.connect_all(names).failed
    assert [failed[name].host for name in names] == names


def test_limits_are_options_of_a_tree():
    with mitogen.Tree(limits={'service_calls': 5}) as tree:
        assert tree.limits.service_calls == 5


def test_names_that_a_package_does_not_have():
    with pytest.raises(AttributeError):
        mitogen.nothing


def test_a_bare_host_imports_the_modules_that_a_program_of_a_tree_imports(tree):
    # A function of the program's main module has that imported over there, with all that it
    # imports.
    host = tree.connect('local:', python_path=[sys.executable, '-I', '-S'])
    names = [('mitogen.aio', 'Tree'), ('mitogen.otel', 'observe'), ('mitogen.prometheus', 'Collector')]
    assert host.call(targets.find_owners, names) == [
        'mitogen._tree.aio', 'mitogen._tree.tracing', 'mitogen._tree.figures']


@pytest.mark.once
def test_records_are_what_dataclasses_would_be():
    done = running.Completed(['x'], 1, 'out', '', 'web1')
    assert repr(done) == "Completed(args=['x'], returncode=1, stdout='out', stderr='', host='web1')"
    assert done == running.Completed(['x'], 1, 'out', '', 'web1') != running.Completed(['x'], 2, 'out', '', 'web1')
    assert dataclasses.is_dataclass(done) and dataclasses.asdict(done) == vars(done)
    assert dataclasses.replace(done, returncode=2).returncode == 2 and done.__match_args__[:2] == ('args', 'returncode')
    result = mitogen.Result('web1', True, 7, None, 0.5)
    assert [field.name for field in dataclasses.fields(result)] == ['host', 'ok', 'value', 'error', 'seconds']
    options = mitogen.CallOptions(timeout=5)
    assert options.changed({'window': 2}) == mitogen.CallOptions(5, window=2) != options
    assert len({options, mitogen.CallOptions(timeout=5)}) == 1 and copy.copy(options) == options
    for change in lambda: setattr(options, 'timeout', 1), lambda: delattr(options, 'timeout'):
        with pytest.raises(AttributeError, match='make new ones'):
            change()
    with pytest.raises(TypeError):
        options.changed({'nothing': 1})


def test_facts_about_a_host_and_its_link(host, monkeypatch):
    info = host.info
    assert isinstance(info, mitogen.HostInfo) and host.info is info
    assert (info.pid, info.core) == host.call(eval, '__import__("os").getpid(), __import__("mitogen.core").core.CORE')
    assert info.python == '%d.%d.%d' % sys.version_info[:3] and info.executable == sys.executable
    assert info.hostname and info.user and info.platform and '_host' not in repr(info)
    assert 0 < info.link.round_trip and 0 < info.link.bytes_per_second and info.link is info.link
    facts = {name: value for name, value in vars(info).items() if name not in ('_host', 'link')}
    assert mitogen._tree.info.ask(host) == info
    for lie in (None, {}, {'pid': 'x'}, dict(facts, pid=True), dict(facts, user='x' * 1001), dict(facts, core=5),
                dict(facts, core=None)):
        monkeypatch.setattr(mitogen._facts, 'about', functools.partial(targets.identity, lie))
        with pytest.raises(mitogen.core.StreamError, match='does not describe the host'):
            mitogen._tree.info.ask(host)


def test_a_host_that_is_lost_tells_no_facts(tree):
    host = tree.connect()
    host.close()
    with pytest.raises(mitogen.ConnectionLost):
        host.info


@pytest.mark.parametrize('status', [3, -9])
def test_a_loss_has_the_end_of_the_process(status):
    before, said = int(time.time()), threading.Event()
    with mitogen.Tree(output=lambda host, line: said.set()) as tree:
        host = tree.connect(name='web')
        below = host.connect('local:', name='below')
        host.call(os.write, 2, b'last words\n')
        assert said.wait(testlib.patience())
        with pytest.raises(mitogen.ConnectionLost):
            host.call(*((os._exit, status) if status > 0 else (os.kill, host.info.pid, -status)))
        for other in host, below:
            # The process may end after its link.
            testlib.wait_for(lambda: lost_of(other).returncode is not None)
            lost = lost_of(other)
            assert (lost.host, lost.link, lost.returncode) == (other.name, 'web', status)
            assert before <= lost.when <= time.time()
        assert lost_of(host).output == 'last words' and lost_of(below).output == ''


def test_a_host_that_was_never_there_has_no_end():
    unknown = mitogen.ConnectionLost('never there')
    assert (unknown.link, unknown.when, unknown.returncode, unknown.output) == (None, None, None, '')


@pytest.mark.parametrize('detail', [
    " was lost at 99:99:99, with the connection 'x; the process exited due to signal " + '9' * 10000,
    # To search each of these for its end would take hours.
    " was lost at 1, with the connection '" * 500000,
    'x' * 10000 + " was lost at 12:00:00, with the connection 'web': x; the process exited due to signal 9"])
def test_a_loss_that_another_context_made_up_has_no_end(detail):
    lost = mitogen.ConnectionLost('lost\n' + detail)
    assert (lost.link, lost.when, lost.returncode, lost.output) == (None, None, None, '')


def lost_of(host):
    with pytest.raises(mitogen.ConnectionLost) as caught:
        host.call(len, '')
    return caught.value


def test_a_value_that_may_not_be_sent_is_refused(tree, host):
    for call in host.call, host.submit, host.options(timeout=60).call:
        with pytest.raises(mitogen.ValueRefused) as caught:
            call(len, slice(1))
        error = caught.value
        assert isinstance(error, (TypeError, mitogen.core.CallError)) and not isinstance(error, mitogen.RemoteError)
        assert error.where == 'argument 1 of builtins.len' and 'type slice' in str(error)
    assert host.call(len, 'ab') == 2


def test_an_interrupt_ends_the_wait_for_many_hosts_and_lets_those_go_that_come(tmp_path):
    program, begun = tmp_path / 'python', tmp_path / 'begun'
    program.write_text('#!/bin/sh\ntouch %s\nexec sleep 600\n' % (begun,))
    program.chmod(0o755)
    main = threading.get_ident()

    def interrupt():
        testlib.wait_for(begun.exists)
        signal.pthread_kill(main, signal.SIGINT)
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    try:
        with mitogen.Tree(output=None) as tree:
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                tree.connect_all(['local:', 'local:' + str(program)], timeout=600)
            thread.join()
            testlib.wait_for(lambda: not tree.hosts)
    finally:
        signal.signal(signal.SIGINT, old)
