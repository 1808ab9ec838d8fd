"""
Joining a tree by way of a UNIX socket.
"""

import errno
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys

import accounts
import pytest
import targets
import testlib

import mitogen
import mitogen.core
import mitogen.master
import mitogen.unix
from mitogen.unix import ConnectError, Listener, connect, is_path_dead

account = accounts.account

ROOT = os.path.dirname(os.path.dirname(mitogen.__file__))


@pytest.fixture
def listener(router, tmp_path):
    return Listener.build_stream(router, path=str(tmp_path / 'sock'))


def run_client(program, *args):
    env = dict(os.environ, PYTHONPATH=ROOT)
    proc = subprocess.Popen(
        [sys.executable, '-c', 'import os, sys, mitogen, mitogen.core, mitogen.unix\n' + program] +
        [str(arg) for arg in args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, universal_newlines=True, cwd=ROOT)
    out, err = proc.communicate(timeout=60)
    assert proc.returncode == 0, err
    return out.splitlines()


# ---- paths

def test_dead_paths(tmp_path):
    path = str(tmp_path / 'sock')
    assert is_path_dead(path)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(1)
    assert not is_path_dead(path)
    sock.close()
    assert os.path.exists(path)
    assert is_path_dead(path)


def test_a_path_that_fails_otherwise_is_not_dead(tmp_path):
    assert not is_path_dead(str(tmp_path / ('x' * 300)))


def test_made_up_paths():
    path = mitogen.unix.make_socket_path()
    assert os.path.basename(path).startswith('mitogen_unix_')
    assert path.endswith('.sock')
    assert not os.path.exists(path)


# ---- the listener

def test_only_the_owner_may_connect(listener):
    assert stat.S_IMODE(os.stat(listener.protocol.path).st_mode) == 0o600


def test_the_path_is_gone_after_shutdown(make_router):
    router = make_router()
    path = Listener.build_stream(router).protocol.path
    assert os.path.exists(path)
    router.broker.shutdown()
    router.broker.join()
    assert not os.path.exists(path)


def test_shutdown_does_not_mind_a_missing_path(make_router):
    router = make_router()
    path = Listener.build_stream(router).protocol.path
    os.unlink(path)
    with testlib.LogCapture() as logs:
        router.broker.shutdown()
        router.broker.join()
    assert [r for r in logs.records if r.levelname in ('WARNING', 'ERROR')] == []


def test_a_stale_socket_is_replaced(router, tmp_path):
    path = str(tmp_path / 'sock')
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.close()
    Listener.build_stream(router, path=path)
    assert not is_path_dead(path)


def test_a_live_socket_is_not(router, listener):
    with pytest.raises(OSError) as e:
        Listener.build_stream(router, path=listener.protocol.path)
    assert e.value.errno == errno.EADDRINUSE


def test_a_file_that_is_no_socket_is_not(router, tmp_path):
    path = tmp_path / 'file'
    path.write_text('precious')
    with pytest.raises(OSError) as e:
        Listener.build_stream(router, path=str(path))
    assert e.value.errno == errno.EADDRINUSE
    assert path.read_text() == 'precious'


# ---- the handshake

@pytest.fixture
def raw(listener):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(listener.protocol.path)
    yield sock
    sock.close()


def test_the_bytes_of_the_handshake(raw, router):
    raw.sendall(struct.pack('>L', 4321))
    reply = b''
    while len(reply) < 12:
        reply += raw.recv(12 - len(reply))
    context_id, parent_id, pid = struct.unpack('>LLL', reply)
    assert (parent_id, pid) == (mitogen.context_id, os.getpid())
    testlib.sync(router.broker)
    stream = router.stream_by_id(context_id)
    assert stream.name == 'unix_client.4321'
    assert stream.protocol.remote_id == context_id
    assert stream.protocol.auth_id == mitogen.context_id
    assert stream.protocol.is_privileged


def test_the_handshake_byte_by_byte_and_frames_behind_it(raw, router):
    with mitogen.core.Receiver(router) as recv:
        hello = struct.pack('>L', 4321)
        for index in range(3):
            raw.sendall(hello[index:index + 1])
            testlib.sync(router.broker)
        # The id is the next one; a message follows at once.
        context_id = router.id_allocator._unused
        raw.sendall(hello[3:] + testlib.frame(0, context_id, handle=recv.handle, data=b'early'))
        msg = recv.get(timeout=60)
        assert (msg.src_id, msg.auth_id, bytes(msg.data)) == (context_id, mitogen.context_id, b'early')


@pytest.mark.parametrize('data', [b'', b'abc'])
def test_a_client_that_leaves_is_no_trouble(listener, router, data):
    with testlib.LogCapture('mitogen.unix') as logs:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(listener.protocol.path)
        sock.sendall(data)
        sock.close()
        logs.wait('disconnected after %d bytes' % len(data))
    assert not is_path_dead(listener.protocol.path)


def test_a_client_that_leaves_before_it_is_welcomed(listener, router):
    latch = mitogen.core.Latch()
    leave = mitogen.core.Latch()
    router.broker.defer(lambda: (latch.put(), leave.get(timeout=60)))
    latch.get(timeout=60)
    with testlib.LogCapture('mitogen.unix') as logs:
        # All of it while nobody listens.
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(listener.protocol.path)
        sock.sendall(struct.pack('>L', 4321))
        sock.close()
        leave.put()
        logs.wait('cannot welcome the client with pid 4321')
    assert not is_path_dead(listener.protocol.path)
    assert router.get_streams() == []


def test_a_silent_client_is_cut_off(listener, router, monkeypatch):
    monkeypatch.setattr(mitogen.unix.HandshakeProtocol, 'timeout', 0.1)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(listener.protocol.path)
    with testlib.LogCapture('mitogen.unix') as logs:
        # Others are served meanwhile.
        assert router.broker.defer_sync(lambda: 5) == 5
        assert sock.recv(1) == b''
        assert logs.find('sent nothing')
    sock.close()


def test_a_client_without_an_id_is_cut_off(raw, router, monkeypatch):
    def allocate():
        raise mitogen.core.Error('none left')

    monkeypatch.setattr(router.id_allocator, 'allocate', allocate)
    with testlib.LogCapture('mitogen.unix') as logs:
        raw.sendall(struct.pack('>L', 4321))
        assert raw.recv(1) == b''
        assert logs.find('no id for the client with pid 4321: none left')
    testlib.sync(router.broker)
    assert router.get_streams() == []


def test_a_client_whose_id_comes_after_the_end_is_cut_off(make_router):
    router = make_router()
    asked, answer = mitogen.core.Latch(), mitogen.core.Latch()
    router.id_allocator.allocate = lambda: (asked.put(), answer.get(timeout=60))[1]
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(Listener.build_stream(router).protocol.path)
    sock.sendall(struct.pack('>L', 4321))
    asked.get(timeout=60)
    # Others are served meanwhile.
    assert router.broker.defer_sync(lambda: 5) == 5
    router.broker.shutdown()
    router.broker.join()
    answer.put(77)
    assert sock.recv(1) == b''
    sock.close()


# ---- clients

def test_connecting_to_nobody(tmp_path):
    path = str(tmp_path / 'sock')
    with pytest.raises(ConnectError) as e:
        connect(path)
    assert e.value.errno == errno.ENOENT
    assert path in str(e.value)
    assert mitogen.context_id == 0


def test_connecting_to_a_path_that_is_too_long(tmp_path):
    with pytest.raises(ConnectError) as e:
        connect(str(tmp_path / ('x' * 300)))
    assert e.value.errno is None
    assert 'too long' in str(e.value)


def test_a_listener_that_hangs_up(tmp_path):
    path = str(tmp_path / 'sock')
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)

    def hang_up():
        sock, _ = listener.accept()
        sock.recv(4)
        sock.sendall(b'short')
        sock.close()

    error = testlib.in_threads([lambda: connect(path), hang_up])[0]
    listener.close()
    assert isinstance(error, ConnectError)
    assert error.errno is None
    assert mitogen.context_id == 0


CLIENT = '''
router, context = mitogen.unix.connect(sys.argv[1])
print(mitogen.context_id, mitogen.parent_id, mitogen.parent_ids, context.context_id, context.name)
stream = router.stream_by_id(context.context_id)
print(stream.name)
router.broker.shutdown()
router.broker.join()
print(mitogen.context_id, mitogen.parent_id, mitogen.parent_ids)
'''


def test_a_client_is_a_context_until_it_disconnects(listener, router):
    expected = router.id_allocator._unused
    assert run_client(CLIENT, listener.protocol.path) == [
        '%d 0 [0] 0 None' % expected, 'unix_listener.%d' % os.getpid(), '0 None []']


def test_a_client_without_a_router_is_what_it_was(listener):
    assert run_client(
        """
import mitogen.master
def refuse(*args, **kwargs):
    raise OSError(24, 'Too many open files')
real, mitogen.master.Router = mitogen.master.Router, refuse
before = sorted(os.listdir('/proc/self/fd'))
for _ in range(3):
    try:
        mitogen.unix.connect(sys.argv[1])
    except OSError as e:
        print(e.errno, mitogen.context_id, mitogen.parent_id, mitogen.parent_ids)
print(sorted(os.listdir('/proc/self/fd')) == before)
mitogen.master.Router = real
router, context = mitogen.unix.connect(sys.argv[1])
print(mitogen.context_id > 0)
router.broker.shutdown()
router.broker.join()
""", listener.protocol.path) == ['24 0 None []'] * 3 + ['True', 'True']


def test_a_client_of_a_child_is_a_context_too(router, tmp_path):
    path = str(tmp_path / 'sock')
    child = router.local()
    # Its first id it has to ask the master for.
    child.call(targets.listen_at, path)
    lines = run_client(CLIENT, path)
    assert lines[0].split()[1:4] == [str(child.context_id), '[%d]' % child.context_id, str(child.context_id)]
    assert lines[1:] == ['unix_listener.%d' % child.call(os.getpid), '0 None []']


RECONNECT = '''
import mitogen.master
broker = mitogen.master.Broker()
for path in sys.argv[1:]:
    router, context = mitogen.unix.connect(path, broker)
    print(mitogen.context_id > 0)
    router.disconnect(context)
    print(mitogen.context_id, mitogen.parent_ids)
broker.shutdown()
broker.join()
'''


def test_a_client_may_go_elsewhere_with_the_same_broker(listener, router):
    other = Listener.build_stream(router)
    assert run_client(RECONNECT, listener.protocol.path, other.protocol.path) == ['True', '0 []'] * 2


CALLS = '''
router, _ = mitogen.unix.connect(sys.argv[1])
target = router.context_by_id(int(sys.argv[2]))
gone = mitogen.core.Latch()
mitogen.core.listen(target, 'disconnect', gone.put)
print(target.call(os.getpid))
sys.stdout.flush()
recv = target.call_async(__import__('time').sleep, 60)
print(target.context_id)
target.call_no_reply(os.getpid)
os.kill(int(sys.argv[3]), 9)
try:
    recv.get(timeout=60)
except mitogen.core.ChannelError as e:
    print(e.args[0] == router.respondent_disconnect_msg)
gone.get(timeout=60)
print('gone')
router.broker.shutdown()
router.broker.join()
'''


def test_a_client_reaches_every_context_and_learns_of_its_end(listener, router):
    context = router.local()
    pid = context.call(os.getpid)
    assert run_client(CALLS, listener.protocol.path, context.context_id, pid) == [
        str(pid), str(context.context_id), 'True', 'gone']


GIVEN = '''
sys.path.append(sys.argv[5])
import targets, tree_targets
router, _ = mitogen.unix.connect(sys.argv[1])
target, sibling = [router.context_by_id(int(arg)) for arg in sys.argv[2:4]]
below = target.call(tree_targets.make_child)
print(below.call(os.getppid) == int(sys.argv[4]))
forged = target.call(targets.identity, mitogen.core.Sender(sibling, mitogen.core.CALL_FUNCTION))
reply = mitogen.core.Receiver(router)
forged.context.send(mitogen.core.Message.pickled(
    (None, 'os', None, 'getpid', (), mitogen.core.Kwargs({})), handle=mitogen.core.CALL_FUNCTION, reply_to=reply.handle))
try:
    print(reply.get(timeout=60).unpickle())
except mitogen.core.ChannelError as e:
    print(e.args[0] == router.refused_msg)
router.broker.shutdown()
router.broker.join()
'''


def test_a_client_uses_what_a_context_gave_it_with_the_authority_of_that_context(listener, router):
    """
    That is enough for a child of the context, and too little for its sibling.
    """
    context, sibling = router.local(), router.local()
    assert run_client(GIVEN, listener.protocol.path, context.context_id, sibling.context_id,
                      context.call(os.getpid), os.path.dirname(targets.__file__)) == ['True', 'True']


SENDS = '''
router, context = mitogen.unix.connect(sys.argv[1])
context.send(mitogen.core.Message(handle=int(sys.argv[2]), data=b'hello'))
print(mitogen.context_id)
router.broker.shutdown()
router.broker.join()
'''


def test_messages_of_a_client_carry_the_authority_of_the_listener(listener, router):
    with mitogen.core.Receiver(router, policy=mitogen.core.has_parent_authority) as recv:
        context_id, = run_client(SENDS, listener.protocol.path, recv.handle)
        msg = recv.get(timeout=60)
        assert (msg.src_id, msg.auth_id, bytes(msg.data)) == (int(context_id), 0, b'hello')


LINGERS = '''
router, context = mitogen.unix.connect(sys.argv[1])
gone = mitogen.core.Latch()
mitogen.core.listen(router.stream_by_id(context.context_id), 'disconnect', gone.put)
context.send(mitogen.core.Message(handle=int(sys.argv[2]), data=b'ready'))
gone.get(timeout=60)
print(mitogen.context_id)
router.broker.shutdown()
router.broker.join()
'''


def test_a_client_does_not_delay_the_end_of_the_listener(make_router):
    router = make_router()
    path = Listener.build_stream(router).protocol.path
    recv = mitogen.core.Receiver(router)

    def end():
        recv.get(timeout=60)
        start = mitogen.core.now()
        router.broker.shutdown()
        router.broker.join()
        return mitogen.core.now() - start

    lines, seconds = testlib.in_threads([lambda: run_client(LINGERS, path, recv.handle), end])
    assert lines == ['0']
    assert seconds < mitogen.master.Broker.shutdown_timeout
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN


# ---- other users

NOBODY = 65534

LISTENS = """
import mitogen.master
with mitogen.master.Router() as router:
    path = mitogen.unix.Listener.build_stream(router, sys.argv[1]).protocol.path
    # The check of the credentials is to be the only one.
    os.chmod(path, 0o666)
    print(path)
    sys.stdout.flush()
    sys.stdin.read()
"""

CONNECTS = """
try:
    router, context = mitogen.unix.connect(sys.argv[1])
except mitogen.unix.ConnectError as e:
    print(e.errno == 1, mitogen.context_id)
else:
    print('connected')
    router.broker.shutdown()
    router.broker.join()
"""


@pytest.fixture
def start_as(account):
    """
    A function that starts a program with a copy of the package as some user; all are ended after
    the test.
    """
    folder = os.path.join(account.folder, 'package')
    shutil.copytree(os.path.dirname(mitogen.__file__), os.path.join(folder, 'mitogen'),
                    ignore=shutil.ignore_patterns('__pycache__'), copy_function=shutil.copyfile)
    procs = []

    def start(uid, program, *args):
        # Not every interpreter that others may run has the extension.
        env = dict(os.environ, PYTHONPATH=folder, MITOGEN_CORE='pure', PYTHONDONTWRITEBYTECODE='1')
        proc = subprocess.Popen(
            [account.python, '-c', 'import os, sys, mitogen, mitogen.core, mitogen.unix\n' + program] + list(args),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd='/', text=True,
            user=uid, group=uid, extra_groups=[])
        procs.append(proc)
        return proc

    yield start
    for proc in procs:
        _, err = proc.communicate(timeout=60)
        assert proc.returncode == 0, err
    shutil.rmtree(folder)


def test_a_listener_refuses_other_users(start_as, router, account):
    path = Listener.build_stream(router, os.path.join(account.folder, 'sock')).protocol.path
    os.chmod(path, 0o666)
    expected = router.id_allocator._unused
    with testlib.LogCapture('mitogen.unix') as logs:
        assert start_as(account.uid, CONNECTS, path).stdout.readline() == 'False 0\n'
        logs.wait('refusing a client of user %d' % (account.uid,))
    assert router.id_allocator._unused == expected
    # The listener goes on to serve others.
    assert run_client(CONNECTS, path) == ['connected']


def test_a_client_trusts_itself_and_root_only(start_as, account):
    path = start_as(account.uid, LISTENS, os.path.join(account.home, 'sock')).stdout.readline().strip()
    assert start_as(NOBODY, CONNECTS, path).stdout.readline() == 'True 0\n'
    assert start_as(account.uid, CONNECTS, path).stdout.readline() == 'connected\n'
    # Root knows what it does, and may connect to anybody.
    assert run_client(CONNECTS, path) == ['connected']


def test_where_the_system_does_not_tell_the_mode_of_the_file_must_do(listener, monkeypatch):
    monkeypatch.setattr(mitogen.unix, '_peer_uid', lambda sock: None)
    assert run_client(CONNECTS, listener.protocol.path) == ['connected']


def test_the_user_at_the_other_end():
    one, two = socket.socketpair()
    assert mitogen.unix._peer_uid(one) == mitogen.unix._peer_uid(two) == os.geteuid()
    one.close()
    two.close()
    assert mitogen.unix._peer_uid(one) is None
