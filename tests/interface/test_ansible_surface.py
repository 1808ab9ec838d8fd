"""
The names, keywords and behaviour of this package that Ansible's integration cannot run without.
Playbooks are run in tests/ansible.
"""

import errno
import logging
import os
import signal
import socket
import subprocess
import sys

import pytest

import mitogen
import mitogen.core
import mitogen.debug
import mitogen.fork
import mitogen.imports
import mitogen.master
import mitogen.parent
import mitogen.select
import mitogen.service
import mitogen.unix
import mitogen.utils
from mitogen.core import Secret

import ansible_targets
import targets
import testlib

ROOT = os.path.dirname(os.path.dirname(mitogen.__file__))


# ---- A1, names

NAMES = {
    'mitogen': '__version__ is_master',
    'mitogen.core': '''BytesType UnicodeType FsPathTypes integer_types iteritems b Blob Secret Kwargs CallError
        ChannelError StreamError Context Sender Receiver Latch CHUNK_SIZE to_text import_module io_op listen set_cloexec
        socketpair enable_profiling _profile_hook takes_econtext''',
    'mitogen.master': 'Broker Router',
    'mitogen.parent': '''CallChain CallSpec POLLER_LIGHTWEIGHT _preexec_hook returncode_to_str upgrade_router Context
        popen''',
    'mitogen.service': '''Service SerializedInvoker Pool FileService PushFileService expose arg_spec AllowParents call
        get_or_create_pool''',
    'mitogen.select': 'Select',
    'mitogen.unix': 'make_socket_path Listener connect ConnectError',
    'mitogen.utils': 'setup_gil log_get_formatter cast PASSTHROUGH _levelname_to_levels',
    'mitogen.fork': 'on_fork _convert_exit_status',
    'mitogen.debug': 'dump_to_logger',
    'mitogen.imports': 'codeobj_imports',
}


@pytest.mark.parametrize('module, name', [
    (module, name) for module in sorted(NAMES) for name in NAMES[module].split()
])
def test_there_is(module, name):
    assert hasattr(mitogen.core.import_module(module), name)


@pytest.mark.parametrize('module, name', [
    ('mitogen.core', 'FsPathTypes'), ('mitogen.core', 'integer_types'), ('mitogen.utils', 'PASSTHROUGH'),
    ('mitogen', '__version__'),
])
def test_a_tuple(module, name):
    assert isinstance(getattr(sys.modules[module], name), tuple)


@pytest.mark.parametrize('method', '''call call_async call_service shutdown default_call_chain context_id name
    router'''.split())
def test_a_context_has(router, method):
    assert hasattr(router.local(), method)


@pytest.mark.parametrize('cls, names', [
    (mitogen.parent.CallChain, 'call_async call call_no_reply reset'),
    (mitogen.service.Pool, 'add stop join size get_service'),
    (mitogen.master.ModuleResponder, 'whitelist_prefix add_source_modifier forward_modules'),
    (mitogen.master.Router, 'disconnect enable_debug local fork'),
], ids=lambda value: getattr(value, '__name__', ''))
def test_members(cls, names):
    for name in names.split():
        assert callable(getattr(cls, name)) or isinstance(getattr(cls, name), property)


def test_sizes():
    assert mitogen.core.CHUNK_SIZE == 131072


def test_the_profile_hook_is_looked_up_when_called(router):
    assert mitogen.core._profile_hook.__name__ == '_profile_hook'
    assert mitogen.core._profile_hook('name', lambda *args: args, 1, 2) == (1, 2)
    called = []

    def hook(name, func, *args):
        called.append(name)
        return func(*args)

    with testlib.attribute(mitogen.core, '_profile_hook', hook):
        pool = mitogen.service.Pool(router=router, size=2)
        pool.stop()
    assert called == ['mitogen.service.pool'] * 2


def test_io_op_returns_the_error():
    assert mitogen.core.io_op(lambda: 1) == (1, None)
    left, right = mitogen.core.socketpair()
    with left, right:
        left.close()
        assert mitogen.core.io_op(os.read, right.fileno(), 1) == (b'', None)
        value, error = mitogen.core.io_op(right.send, b'x')
        assert value is None and error.args[0] == errno.EPIPE


def test_socketpair_is_two_blocking_sockets():
    left, right = mitogen.core.socketpair()
    with left, right:
        assert isinstance(left, socket.socket)
        assert left.gettimeout() is None and right.gettimeout() is None
        mitogen.core.set_cloexec(left.fileno())
        left.send(b'1')
        assert right.recv(1) == b'1'
        left.shutdown(socket.SHUT_WR)
        assert right.recv(1) == b''


def test_a_latch_is_a_listener_of_signals(broker):
    latch = mitogen.core.Latch()
    mitogen.core.listen(broker, 'exit', latch.put)
    broker.shutdown()
    assert latch.get(timeout=60) is None


def test_a_receiver_that_starts_a_job(router):
    with mitogen.core.Receiver(router) as receiver:
        router.local().call_async(targets.send_numbers, receiver.to_sender(), 1, None)
        assert receiver.get().unpickle() == 0


def test_a_broker_with_a_poller_of_its_own():
    class Broker(mitogen.master.Broker):
        poller_class = mitogen.parent.POLLER_LIGHTWEIGHT

    assert issubclass(mitogen.parent.POLLER_LIGHTWEIGHT, mitogen.core.Poller)
    broker = Broker(install_watcher=False)
    try:
        router = mitogen.master.Router(broker=broker, max_message_size=4096 * 1048576)
        assert router.broker is broker
        assert router.max_message_size == 2 ** 32
        router.max_message_size = 2 ** 32
        assert router.local().call(targets.router_size_limit) == 2 ** 32
    finally:
        broker.shutdown()
        broker.join()


def test_the_preexec_hook_runs_in_every_child_that_is_started(router, tmp_path):
    path = tmp_path / 'ran'

    def hook():
        os.environ['MITOGEN_TEST_HOOK'] = 'yes'
        with open(str(path), 'a') as fp:
            fp.write('%d\n' % os.getpid())

    with testlib.attribute(mitogen.parent, '_preexec_hook', hook):
        child = router.local()
        other = mitogen.parent.popen(args=['true'])
        assert other.wait() == 0
    assert path.read_text().split() == [str(child.call(os.getpid)), str(other.pid)]
    assert 'MITOGEN_TEST_HOOK' not in os.environ


@pytest.mark.parametrize('status, code', [(0, 0), (3 << 8, 3), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_wait_status_is_converted(status, code):
    assert mitogen.fork._convert_exit_status(status) == code


def test_a_return_code_that_is_a_signal():
    assert 'SIGKILL' in mitogen.parent.returncode_to_str(-signal.SIGKILL)


def test_level_names():
    levels = mitogen.utils._levelname_to_levels('DEBUG', default=logging.WARNING)
    assert levels == (logging.DEBUG, logging.DEBUG, logging.INFO)
    assert mitogen.utils._levelname_to_levels('BOGUS', default=logging.WARNING) == (logging.WARNING,) * 3
    assert mitogen.utils._levelname_to_levels('IO') == (logging.DEBUG,) * 3


def test_imports_of_code_at_the_top():
    code = compile('import a.b\nfrom . import c, d as e\nfrom ..f import *\ndef g():\n  import h\n', 'x', 'exec')
    assert [(level, name, tuple(names)) for level, name, names in mitogen.imports.codeobj_imports(code)] == [
        (0, 'a.b', ()), (1, '', ('c', 'd')), (2, 'f', ('*',))]


def test_a_select_over_calls(router):
    children = [router.local(), router.local()]
    receivers = [child.call_async(os.getpid) for child in children]
    found = dict((message.receiver, message.unpickle()) for message in mitogen.select.Select(receivers))
    assert found == dict(zip(receivers, [child.call(os.getpid) for child in children]))
    calls = (child.call_async(targets.identity, 1) for child in children)
    assert mitogen.select.Select.all(calls) == [1, 1]


def test_cast_of_types_of_their_own():
    class Text(type(u'')):
        pass

    cast = mitogen.utils.cast([{Text(u'a'): (Text(u'b'), 1, None, True)}])
    assert cast == [{u'a': [u'b', 1, None, True]}]
    assert type(list(cast[0])[0]) is type(cast[0][u'a'][0]) is type(u'')
    with pytest.raises(TypeError):
        mitogen.utils.cast(4j)


# ---- A2, router and responder

def test_an_unknown_method_is_an_attribute_error(router):
    with pytest.raises(AttributeError):
        router.teleport


def test_a_child_of_the_integration(router):
    # As its own service makes one.
    parent = getattr(router, 'local')(via=None, unidirectional=True, python_path=[sys.executable])
    child = getattr(router, 'local')(via=parent, unidirectional=True, python_path=[sys.executable])
    assert child.call(targets.add, 1, 2) == 3
    assert child.call(targets.mitogen_globals)['is_master'] is False


def test_isolation_on_a_target(router):
    pid, pids = router.local().call(ansible_targets.start_helpers)
    assert len(set(pids + [pid])) == 4


def test_a_broken_module_of_the_targets_is_not_used(router, tmp_path, monkeypatch):
    ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
    for folder in ours, theirs:
        folder.mkdir()
    (ours / 'ansible').mkdir()
    (ours / 'ansible' / '__init__.py').write_text('here = "controller"\n')
    (ours / 'ansible' / 'release.py').write_text('VALUE = 1\n')
    (theirs / 'ansible.py').write_text('raise RuntimeError("broken")\n')
    (ours / 'elsewhere.py').write_text('')
    monkeypatch.syspath_prepend(str(ours))
    for prefix in 'ansible', 'ansible_collections', 'ansible_mitogen':
        router.responder.whitelist_prefix(prefix)
    # targets is ours, not of the three.
    router.responder.whitelist_prefix('targets')
    child = router.local(python_path=['env', 'PYTHONPATH=%s' % theirs, sys.executable])
    assert child.call(targets.attribute_of_module, 'ansible', 'here') == 'controller'
    assert child.call(targets.attribute_of_module, 'ansible.release', 'VALUE') == 1
    assert child.call(targets.import_error, 'elsewhere')
    assert child.call(targets.attribute_of_module, 'mitogen.service', '__name__') == 'mitogen.service'


def test_modules_that_targets_need_are_served_as_source(router):
    child = router.local(python_path=[sys.executable, '-I', '-S'])
    router.responder.forward_modules(child, ['mitogen.fork', 'mitogen.service'])
    assert 'class FileService' in child.call(targets.source_of, 'mitogen.service')
    assert 'def on_fork' in child.call(targets.source_of, 'mitogen.fork')


def test_disconnect(router):
    child = router.local()
    child.call(targets.identity, 1)
    lost = mitogen.core.Latch()
    mitogen.core.listen(child, 'disconnect', lost.put)
    router.disconnect(child)
    lost.get(timeout=60)
    with pytest.raises(mitogen.core.ChannelError):
        child.call(targets.identity, 1)


# ---- A3, keywords

KEYWORDS = {
    'local': {},
    'ssh': dict(
        check_host_keys='ignore', hostname='h', username=None, compression=True, password=None, port=None,
        identity_file=None, identities_only=False, ssh_path=None, ssh_args=None, ssh_debug_level=None,
        keepalive_count=10, keepalive_interval=30),
    'su': dict(username=None, password=None, su_path=None),
    'sudo': dict(username=None, password=None, sudo_path=None, sudo_args=None),
    'doas': dict(username=None, password=None, doas_path=None),
    'docker': dict(username=None, container='c'),
    'podman': dict(username=None, container='c'),
    'buildah': dict(username=None, container='c'),
    'jail': dict(username=None, container='c'),
    'kubectl': dict(pod='p', kubectl_path=None, kubectl_args=None),
    'lxc': dict(container='c', lxc_attach_path=None),
    'lxd': dict(container='c', lxc_path=None),
    'incus': dict(container='c', incus_path=None),
    'setns': dict(container='c', username=None, kind='docker', docker_path=None, lxc_path=None, lxc_info_path=None,
                  machinectl_path=None),
}

#: Values that are given instead of None, by the end of the keyword.
FULL = {
    'args': ['-E'], 'level': 1, 'port': 2222, 'path': '/bin/prog', 'username': 'u', 'password': Secret(u'p'),
    'identity_file': '/key',
}


def full(keyword, value):
    for end, other in FULL.items():
        if value is None and keyword.endswith(end):
            return other
    return value


@pytest.mark.parametrize('given', ['none', 'all'])
@pytest.mark.parametrize('method', sorted(KEYWORDS))
def test_the_keywords_of_a_method(router, method, given):
    assert callable(getattr(router, method))
    keywords = dict(KEYWORDS[method], python_path=['/usr/bin/python3'], unidirectional=True)
    if method not in ('local', 'setns'):
        keywords.update(connect_timeout=None, remote_name=None)
    if given == 'all':
        keywords = dict((keyword, full(keyword, value)) for keyword, value in keywords.items())
    if method in ('local', 'setns'):
        pass
    elif given == 'all':
        keywords.update(connect_timeout=10, remote_name='ansible')
    cls = mitogen.parent.get_connection_class(method)
    connection = cls(cls.options_class(max_message_size=1 << 32, **keywords), router)
    command = connection.get_boot_command()
    assert '/usr/bin/python3' in ' '.join(command)
    assert 'None' not in command


@pytest.mark.parametrize('method', sorted(KEYWORDS))
def test_another_keyword_is_refused(router, method):
    cls = mitogen.parent.get_connection_class(method)
    with pytest.raises(TypeError):
        cls.options_class(max_message_size=1, bogus=1, **KEYWORDS[method])


# ---- A4, signals and behaviour

def test_a_context_from_a_message_finds_what_is_stored_for_the_original(router):
    child = router.local()
    copy = router.local().call(targets.identity, child)
    assert copy == child and hash(copy) == hash(child)
    assert {child: 1}[copy] == 1
    signals = []
    mitogen.core.listen(child, 'disconnect', lambda: signals.append(1))
    child.shutdown(wait=True)
    # Once for the stream and once for the route.
    assert signals


VALUES = [
    None, True, 1.5, 2 ** 70, u'text \u20ac', b'bytes\xff', (1, (2,)), [1, [2]], {u'a': {u'b': [None, (1,)]}},
]


def test_values_survive_service_calls(router):
    child = router.local()
    for value in VALUES:
        answer = child.call_service(ansible_targets.Echo, 'echo', value=value)
        assert answer == value
        assert type(answer) is type(value)


def test_an_object_of_another_type_does_not(router):
    child = router.local()
    with pytest.raises((TypeError, mitogen.core.Error)):
        child.call_service(ansible_targets.Echo, 'echo', value=slice(1))
    assert child.call_service(ansible_targets.Echo, 'echo', value=1) == 1


def test_a_chain_fails_until_it_is_reset(router):
    chain = mitogen.parent.CallChain(router.local(), pipelined=True)
    chain.call_no_reply(targets.fail, u'the first')
    for _ in range(2):
        with pytest.raises(mitogen.core.CallError) as caught:
            chain.call(targets.identity, 1)
        assert 'the first' in str(caught.value)
    chain.reset()
    assert chain.call(targets.identity, 1) == 1


def test_a_chain_may_be_derived_from(router):
    class Chain(mitogen.parent.CallChain):
        def call_async(self, func, *args, **kwargs):
            return mitogen.parent.CallChain.call_async(self, func, *args, **kwargs)

        def call(self, func, *args, **kwargs):
            return mitogen.parent.CallChain.call(self, func, *args, **kwargs)

    with Chain(context=router.local(), pipelined=True) as chain:
        assert chain.call(targets.add, 1, b=2) == 3
        assert chain.call_async(targets.add, 1, b=2).get().unpickle() == 3


def test_forwarded_records_name_where_they_come_from(router):
    with testlib.LogCapture() as logs:
        # Children are told at their start what is of interest here.
        child = router.local()
        child.call(targets.log, 'some.logger', logging.WARNING, 'a warning')
        child.call(targets.write_fd, 1, b'a line on stdout\n')
        child.call(targets.write_fd, 2, b'a line on stderr\n')
        for text, name in ('a warning', 'some.logger'), ('a line on stdout', 'stdout'), ('a line on stderr', 'stderr'):
            # The call is logged here, too, with its arguments.
            forwarded = testlib.wait_for(lambda: [r for r in list(logs.records) if r.getMessage() == text])
            assert [record.mitogen_name for record in forwarded] == [name]


CLIENT = '''
import os, sys, time
import mitogen.core, mitogen.fork, mitogen.master, mitogen.parent, mitogen.unix
sys.path.insert(0, sys.argv[2])
import targets

class Broker(mitogen.master.Broker):
    poller_class = mitogen.parent.POLLER_LIGHTWEIGHT

def work():
    broker = Broker(install_watcher=False)
    router, mux = mitogen.unix.connect(path=sys.argv[1], broker=broker)
    router.max_message_size = 2 ** 32
    contexts = [router.context_by_id(int(i)) for i in sys.argv[3:]]
    return broker, router, contexts

def leave(broker):
    broker.shutdown()
    broker.join()
    # Without a fork: a connection that is reset does that in the controller itself.
    mitogen.fork.on_fork()
'''


def run_client(program, path, *contexts):
    script = CLIENT + program
    args = [sys.executable, '-c', script, path, os.path.dirname(targets.__file__)]
    args += [str(context.context_id) for context in contexts]
    return subprocess.Popen(args, stdout=subprocess.PIPE, universal_newlines=True, env=dict(os.environ, PYTHONPATH=ROOT))


@pytest.fixture
def mux(router, tmp_path):
    """
    A router that takes clients at a socket; the path of it.
    """
    path = str(tmp_path / 'sock')
    mitogen.unix.Listener.build_stream(router=router, path=path, backlog=5)
    return path


def test_a_client_calls_contexts_that_the_listener_made(router, mux):
    children = [router.local(unidirectional=True), router.local(unidirectional=True)]
    client = run_client('''
for _ in range(3):
    broker, router, contexts = work()
    print([c.call(os.getpid) for c in contexts])
    chain = mitogen.parent.CallChain(contexts[0], pipelined=True)
    chain.call_no_reply(targets.note, 1)
    print(len(chain.call(targets.notes)))
    router.disconnect(contexts[0])
    leave(broker)
''', mux, *children)
    out, _ = client.communicate(timeout=60)
    pids = [child.call(os.getpid) for child in children]
    assert client.returncode == 0
    assert out.splitlines() == [str(pids), '1', str(pids), '2', str(pids), '3']


def test_a_client_hears_of_the_loss_of_a_target_at_once(router, mux):
    doomed, other = router.local(unidirectional=True), router.local(unidirectional=True)
    pid = doomed.call(os.getpid)
    client = run_client('''
broker, router, (doomed, other) = work()
receiver = doomed.call_async(targets.sleep, 600)
print('waiting', flush=True)
try:
    receiver.get().unpickle()
except mitogen.core.ChannelError as error:
    print('lost', flush=True)
print(other.call(targets.identity, 5))
try:
    doomed.call(targets.identity, 1)
except mitogen.core.ChannelError as error:
    print('still lost')
leave(broker)
''', mux, doomed, other)
    assert client.stdout.readline() == 'waiting\n'
    os.kill(pid, signal.SIGKILL)
    out, _ = client.communicate(timeout=60)
    assert client.returncode == 0
    assert out.splitlines() == ['lost', '5', 'still lost']


def test_an_unreachable_listener(tmp_path, broker):
    with pytest.raises(mitogen.unix.ConnectError):
        mitogen.unix.connect(path=str(tmp_path / 'nobody'), broker=broker)


def test_a_job_outlives_its_parent_and_ends_itself(router, tmp_path):
    path = str(tmp_path / 'out')
    parent = router.local()
    job = router.local(via=parent)
    pid = job.call(os.getpid)
    job.call_no_reply(ansible_targets.prepare, path)
    testlib.wait_for(lambda: os.path.exists(path) and open(path).read())
    assert int(open(path).read()) == pid
    testlib.wait_for(lambda: not testlib.is_running(pid))


@pytest.mark.parametrize('remote_name, expected', [(None, '(mitogen:%s)'), ('ansible', '(mitogen:ansible)')])
def test_titles_of_processes(router, remote_name, expected):
    child = router.local(remote_name=remote_name)
    if remote_name is None:
        expected %= mitogen.parent.get_default_remote_name()
    assert expected in child.call(targets.command_line).decode()


@pytest.mark.parametrize('module, attribute, text', [
    ('mitogen.sudo', 'password_incorrect_msg', 'sudo password is incorrect'),
    ('mitogen.su', 'password_incorrect_msg', 'su password is incorrect'),
    ('mitogen.sudo', 'password_required_msg', 'password is required'),
    ('mitogen.su', 'password_required_msg', 'password is required'),
    ('mitogen.ssh', 'password_required_msg', 'SSH password was requested, but none specified'),
    ('mitogen.ssh', 'password_incorrect_msg', 'SSH password is incorrect'),
])
def test_words_that_are_looked_for(module, attribute, text):
    assert text in getattr(mitogen.core.import_module(module), attribute)


def test_the_words_of_a_timeout(router):
    assert router.connection_timeout_msg == 'Connection timed out.'


def test_an_unknown_flag_of_sudo(router):
    with pytest.raises(mitogen.core.StreamError) as caught:
        router.sudo(sudo_args=['--derps'])
    assert 'sudo: no such option: --derps' in str(caught.value)


CONTROLLER = '''
import os, sys
import mitogen.core, mitogen.fork, mitogen.master, mitogen.parent, mitogen.service, mitogen.unix
sys.path.insert(0, sys.argv[2])
import targets

# The multiplexer is forked before any broker exists, tells that it is ready, and ends when its socket does.
ours, theirs = mitogen.core.socketpair()
mux = os.fork()
if mux == 0:
    ours.close()
    broker = mitogen.master.Broker(install_watcher=False)
    router = mitogen.master.Router(broker=broker, max_message_size=4096 * 1048576)
    mitogen.unix.Listener.build_stream(router=router, path=sys.argv[1], backlog=5)
    pool = mitogen.service.Pool(router=router, size=4)
    mitogen.core.listen(broker, 'shutdown', lambda: pool.stop(join=False))
    mitogen.core.listen(broker, 'exit', pool.join)
    contexts = [router.local(unidirectional=True) for _ in range(2)]
    theirs.send(b'%d %d' % tuple(c.context_id for c in contexts))
    theirs.recv(1)
    broker.shutdown()
    broker.join()
    os._exit(0)

theirs.close()
ids = [int(word) for word in ours.recv(100).split()]

def work(number):
    broker = mitogen.master.Broker(install_watcher=False)
    router, _ = mitogen.unix.connect(path=sys.argv[1], broker=broker)
    assert mitogen.parent.Context(router, ids[number % 2]).call(targets.identity, number) == number
    broker.shutdown()
    broker.join()

for round in range(2):
    workers = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                work(number)
            finally:
                os._exit(0 if sys.exc_info()[0] is None else 1)
        workers.append(pid)
    for pid in workers:
        assert os.waitpid(pid, 0)[1] == 0
    # A connection that is reset is made in the controller itself, which forks again afterwards.
    work(7)
    mitogen.fork.on_fork()

ours.shutdown(1)
assert ours.recv(1) == b''
assert mitogen.fork._convert_exit_status(os.waitpid(mux, 0)[1]) == 0
print('well', os.path.exists(sys.argv[1]))
'''


def test_the_processes_of_a_run(tmp_path):
    proc = subprocess.Popen(
        [sys.executable, '-c', CONTROLLER, str(tmp_path / 'sock'), os.path.dirname(targets.__file__)],
        stdout=subprocess.PIPE, universal_newlines=True, env=dict(os.environ, PYTHONPATH=ROOT))
    out, _ = proc.communicate(timeout=60)
    assert (proc.returncode, out) == (0, 'well False\n')


def test_stacks_are_logged_on_a_target(router):
    with testlib.LogCapture() as logs:
        child = router.local()
        child.call(mitogen.debug.dump_to_logger, secs=1)
        logs.wait('PERIODIC DUMP', name='mitogen.debug.[%s]' % child.name)
