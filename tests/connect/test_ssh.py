"""
ssh(): OpenSSH's client, and a server of the tests' own on the loopback interface that lets a
throw-away user in.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import tempfile
import time

import pytest

import mitogen
import mitogen.aio
import mitogen.core
import mitogen.parent
import mitogen.ssh
import mitogen._tree.python
from mitogen.core import ChannelError, Latch, Secret, StreamError

import accounts
import pythons
import sshd
import targets
import testlib

#: Fixtures.
account = accounts.account
running_server, server, pam_server, ssh = sshd.running_server, sshd.server, sshd.pam_server, sshd.ssh


def stderr_of_client(router, context):
    return os.readlink('/proc/%d/fd/2' % router.stream_by_id(context.context_id).conn.proc.pid)


# ---- being let in

def test_a_key(router, server, ssh):
    child = ssh()
    assert child.name == u'ssh.127.0.0.1:%d' % server.port
    assert child.call(os.geteuid) == server.account.uid
    assert child.call(os.getcwd) == server.account.home
    assert child.call(targets.identity, b'\0\n\xff' * 99999) == b'\0\n\xff' * 99999
    assert stderr_of_client(router, child).startswith('pipe:')
    child.shutdown(wait=True)


@pytest.mark.parametrize('kind', [str, Secret])
def test_a_password(router, server, ssh, kind):
    child = ssh(password=kind(server.account.password))
    assert child.call(os.geteuid) == server.account.uid
    assert stderr_of_client(router, child).startswith('/dev/pts/')


def test_the_password_is_nowhere_in_the_log(server, ssh):
    with testlib.LogCapture('') as logs:
        ssh(password=server.account.password, ssh_debug_level=3).call(targets.identity, 1)
        logs.wait('typing the password')
    assert not logs.find(server.account.password)


def test_a_wrong_password(ssh):
    with pytest.raises(mitogen.ssh.PasswordError) as caught:
        ssh(password='wrong')
    assert caught.value.args[0] == mitogen.ssh.password_incorrect_msg


def test_no_password_where_nobody_can_be_asked(server, ssh):
    with pytest.raises(mitogen.ssh.PasswordError) as caught:
        ssh(identity_file=server.path('other_key'))
    assert caught.value.args[0] == mitogen.ssh.password_required_msg


def test_no_password_where_somebody_is_asked(server, ssh):
    with pytest.raises(mitogen.ssh.PasswordError) as caught:
        ssh(identity_file=server.path('other_key'), check_host_keys='accept')
    assert caught.value.args[0] == mitogen.ssh.password_required_msg


def test_a_wrong_key(server, ssh):
    for options in {}, {'check_host_keys': 'accept'}:
        with pytest.raises(mitogen.ssh.PasswordError) as caught:
            ssh(identity_file=server.path('other_key'), port=server.key_port, **options)
        assert caught.value.args[0] == mitogen.ssh.auth_incorrect_msg


def test_a_password_where_none_is_taken(server, ssh):
    with pytest.raises(mitogen.ssh.PasswordError) as caught:
        ssh(password=server.account.password, port=server.key_port)
    assert caught.value.args[0] == mitogen.ssh.auth_incorrect_msg


def test_a_question_of_the_server(router, pam_server):
    options = pam_server.options(password=pam_server.account.password)
    child = router.ssh(**options)
    assert child.call(os.geteuid) == pam_server.account.uid
    child.shutdown(wait=True)
    assert 'Accepted keyboard-interactive' in pam_server.log()


def test_a_wrong_answer_is_given_once(router, pam_server):
    with pytest.raises(mitogen.ssh.PasswordError) as caught:
        router.ssh(**pam_server.options(password='wrong'))
    assert caught.value.args[0] == mitogen.ssh.password_incorrect_msg
    pam_server.wait_until_left()
    assert pam_server.log().count('PAM: Authentication failure') == 1


def takes_connections(path):
    """
    Tell whether a program listens at a socket: the file is there before that.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(path) == 0


def test_what_an_agent_has_is_offered_on_request(router, server, ssh, monkeypatch):
    agent = subprocess.Popen(
        [accounts.need_program('ssh-agent', 'openssh-client'), '-D', '-a', server.path('agent')],
        stdout=subprocess.DEVNULL)
    try:
        testlib.wait_for(lambda: takes_connections(server.path('agent')))
        accounts.run(accounts.need_program('ssh-add', 'openssh-client'), '-q', server.path('user_key'),
                     env=dict(os.environ, SSH_AUTH_SOCK=server.path('agent')))
        options = server.options(identity_file=server.path('other_key'), port=server.key_port)
        options['ssh_args'] = [
            'IdentityAgent=' + server.path('agent') if arg == 'IdentityAgent=none' else arg
            for arg in options['ssh_args']]
        assert router.ssh(identities_only=False, **options).call(os.geteuid) == server.account.uid
        with pytest.raises(mitogen.ssh.PasswordError) as caught:
            router.ssh(**options)
        assert caught.value.args[0] == mitogen.ssh.auth_incorrect_msg
    finally:
        agent.terminate()
        agent.wait()


# ---- the connection

@pytest.mark.parametrize('compression', [True, False])
def test_compression(server, ssh, compression):
    with testlib.LogCapture('mitogen.ssh') as logs:
        child = ssh(compression=compression, ssh_debug_level=1)
        assert bool(logs.find('ompression at level')) is compression
        assert bool(logs.find('compression: zlib@openssh.com')) is compression
    data = b'all the same ' * 500000
    assert child.call(targets.identity, data) == data


@pytest.mark.parametrize('enabled', [True, False])
def test_a_server_that_falls_silent(router, server, ssh, enabled):
    child = ssh(keepalive_enabled=enabled, keepalive_interval=1, keepalive_count=1)
    assert child.call(targets.identity, 1) == 1
    gone = Latch()
    mitogen.core.listen(child, 'disconnect', gone.put)
    pids = server.of_connections()
    for pid in pids:
        testlib.stop_process(pid)
    try:
        if enabled:
            gone.get(timeout=60)
            with pytest.raises(ChannelError):
                child.call(targets.identity, 1)
        else:
            # With keepalive the client would be gone after two seconds.
            with pytest.raises(mitogen.core.TimeoutError):
                gone.get(timeout=8)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    if not enabled:
        assert child.call(targets.identity, 2) == 2


@pytest.mark.parametrize('upwards', [True, False])
def test_a_connection_that_is_cut_in_the_middle_of_much_data(router, server, ssh, upwards):
    child = ssh(compression=False)
    pid = child.call(os.getpid)
    receiver = mitogen.core.Receiver(router)
    if upwards:
        answer = child.call_async(targets.send_bytes, receiver.to_sender(), 1000000, 3000)
        assert len(receiver.get(timeout=60).data) == 1000000
    else:
        answer = child.call_async(targets.receive_until_closed, receiver.to_sender())
        sender = receiver.get(timeout=60).unpickle()
        for _ in range(5):
            sender.send(b'z' * 1000000)
    server.cut()
    with pytest.raises(ChannelError):
        answer.get(timeout=60)
    testlib.wait_for(lambda: not testlib.is_running(pid), what='the child ends with its connection')
    assert ssh().call(targets.identity, 1) == 1


@pytest.mark.parametrize('waits', [True, False])
@pytest.mark.parametrize('password', [True, False])
def test_a_client_is_not_kept_by_a_child_that_has_left(broker, router, server, ssh, waits, password):
    child = ssh(**({'password': server.account.password} if password else {}))
    conn = router.stream_by_id(child.context_id).conn
    ended = Latch()
    mitogen.core.listen(conn.proc, 'exit', ended.put)
    with mitogen.core.Receiver(router) as receiver:
        child.call_no_reply(targets.detach, receiver.to_sender())
        pid = receiver.get(timeout=60).unpickle()
    testlib.wait_for(lambda: conn.detached)
    with testlib.LogCapture('mitogen', logging.WARNING) as logs:
        if not waits:
            broker.shutdown()
        ended.get(timeout=60)
        if not waits:
            broker.join()
    assert not logs.records
    assert testlib.is_running(pid)
    os.kill(pid, signal.SIGKILL)


# ---- host keys

def test_an_unknown_host_is_refused(ssh, tmp_path):
    with pytest.raises(mitogen.ssh.HostKeyError) as caught:
        ssh(known=tmp_path / 'known')
    assert caught.value.args[0] == mitogen.ssh.hostkey_failed_msg


def test_an_unknown_host_is_accepted_and_remembered(router, server, ssh, tmp_path):
    known = tmp_path / 'known'
    child = ssh(known=known, check_host_keys='accept')
    assert child.call(os.geteuid) == server.account.uid
    assert stderr_of_client(router, child).startswith('/dev/pts/')
    assert known.exists()
    assert ssh(known=known).call(os.geteuid) == server.account.uid


def test_an_unknown_host_asks_for_a_password(server, ssh, tmp_path):
    child = ssh(known=tmp_path / 'known', check_host_keys='accept', password=server.account.password)
    assert child.call(os.geteuid) == server.account.uid


@pytest.mark.parametrize('check', ['enforce', 'accept'])
def test_a_host_with_another_key_is_refused(server, ssh, tmp_path, check):
    known = tmp_path / 'known'
    known.write_text(server.known_host('other_key.pub'))
    with pytest.raises(mitogen.ssh.HostKeyError) as caught:
        ssh(known=known, check_host_keys=check)
    assert caught.value.args[0] == mitogen.ssh.hostkey_failed_msg


def test_a_host_with_another_key_is_ignored(server, ssh, tmp_path):
    known = tmp_path / 'known'
    known.write_text(server.known_host('other_key.pub'))
    assert ssh(known=known, check_host_keys='ignore').call(os.geteuid) == server.account.uid
    assert known.read_text() == server.known_host('other_key.pub')


# ---- what the client and the host say

def test_a_banner_is_no_prompt(server, ssh):
    # The client shows it, since it is told to say more.
    with testlib.LogCapture('mitogen') as logs:
        assert ssh(ssh_debug_level=1).call(os.geteuid) == server.account.uid
        assert ssh(ssh_debug_level=1, password=server.account.password).call(os.geteuid) == server.account.uid
    assert len(logs.find('Entry is denied.')) == 2


def test_the_debug_log_of_the_client(server, ssh):
    with testlib.LogCapture('mitogen.ssh') as logs:
        child = ssh(ssh_debug_level=3)
    lines = [r.getMessage() for r in logs.records]
    for level in 1, 2, 3:
        assert [line for line in lines if line.startswith('%s: debug%d: ' % (child.name, level))]


def test_a_noisy_login(server, ssh):
    path = server.account.script(
        'noisy', 'echo welcome\nprintf "password: "\necho oops >&2\nexec %s "$@"\n' % server.account.python)
    assert ssh(python_path=path).call(os.geteuid) == server.account.uid


def test_a_shell_command_before_python(server, ssh):
    path = server.account.script('activate', 'export ACTIVATED=yes\n')
    child = ssh(python_path=['.', path, '&&', server.account.python])
    assert child.call(targets.environ, 'ACTIVATED') == 'yes'


# ---- failures

def test_no_python_there(ssh):
    with pytest.raises(mitogen.parent.EofError) as caught:
        ssh(python_path='/nothing/here')
    assert '/nothing/here: not found' in str(caught.value)


def test_a_coroutine_connects(server):
    async def main():
        async with mitogen.aio.Tree() as tree:
            options = server.options()
            host = await tree.ssh(options.pop('hostname'), **options)
            return await host.call(os.geteuid)
    assert asyncio.run(main()) == server.account.uid


def test_a_tree_finds_the_python_that_is_there(server, monkeypatch):
    top = tempfile.mkdtemp(dir=server.account.folder)
    os.chmod(top, 0o755)
    in_path, elsewhere = os.path.join(top, 'in path'), os.path.join(top, 'elsewhere')
    monkeypatch.setattr(mitogen._tree.python, 'PLACES', ['/nothing/there', elsewhere])
    options = dict(server.let_in(in_path), python_path=None)
    before = server.log().count('Accepted publickey')
    with mitogen.Tree() as tree:
        with pytest.raises(mitogen.NoPython) as caught:
            tree.ssh(**options)
        for text in 'python3, python3.N, platform-python, python, python2', in_path + ':/nothing/there':
            assert text in str(caught.value)
        assert caught.value.returncode == 127 and 'option python_path' in caught.value.hint

        # Each one is better than those before it. A folder is none.
        found, names = [], ['pypy3', 'python2.7', 'python', 'platform-python', 'python3.11']
        os.makedirs(os.path.join(in_path, 'python3'))
        os.mkdir(elsewhere)
        for path in [os.path.join(elsewhere, 'python3')] + [os.path.join(in_path, name) for name in names]:
            with open(path, 'w') as fp:
                fp.write('#!/bin/sh\nNAME=%s exec %s "$@"\n' % (os.path.basename(path), server.account.python))
            os.chmod(path, 0o755)
            with tree.ssh(**options) as host:
                found.append(host.call(os.getenv, 'NAME'))
        assert found == ['python3'] + names
    assert server.log().count('Accepted publickey') - before == 1 + len(found), 'nobody has asked first'


def test_no_server_there(ssh):
    with pytest.raises(mitogen.parent.EofError) as caught:
        ssh(port=sshd.free_ports(1)[0])
    assert 'Connection refused' in str(caught.value)


def test_a_server_that_does_not_speak(ssh):
    sock = socket.socket()
    sock.bind(('127.0.0.1', 0))
    sock.listen(1)
    with pytest.raises(StreamError) as caught:
        ssh(port=sock.getsockname()[1], connect_timeout=0.5)
    assert caught.value.args[0] == 'Connection timed out.'
    sock.close()


def test_a_client_that_is_not_there(ssh):
    with pytest.raises(StreamError) as caught:
        ssh(ssh_path='/nothing/here')
    assert str(caught.value).startswith('Child start failed: ')


def test_a_connection_that_is_cut_while_the_child_starts(server, ssh):
    # The parent of the login shell is the server's process for this connection, and runs as the
    # user.
    path = server.account.script('cutter', '''
        for token; do :; done
        echo "MITO000 0 30b07f0 $token"
        parent=$(ps -o ppid= -p $PPID 2>/dev/null || cut -d" " -f4 /proc/$PPID/stat)
        kill -9 $PPID $parent
        exec sleep 60
    ''')
    with pytest.raises(mitogen.parent.EofError):
        ssh(python_path=path)
    for pid in accounts.processes_of(server.account.uid):
        testlib.send_signal(pid, signal.SIGKILL)


def test_a_connection_that_is_cut_while_a_call_waits(router, server, ssh):
    child = ssh()
    gone = Latch()
    mitogen.core.listen(child, 'disconnect', gone.put)
    receiver = child.call_async(time.sleep, 60)
    testlib.wait_for(lambda: sshd.children_of(server.proc.pid))
    server.cut()
    with pytest.raises(ChannelError):
        receiver.get(timeout=60)
    gone.get(timeout=60)
    with pytest.raises(ChannelError):
        child.call(targets.identity, 1)
    # The far end has no parent any more, but sleeps.
    for pid in accounts.processes_of(server.account.uid):
        testlib.send_signal(pid, signal.SIGKILL)
    assert ssh().call(targets.identity, 2) == 2


# ---- chains

def test_beyond_a_local_child(router, server, ssh):
    middle = router.local(name='middle')
    child = router.ssh(via=middle, **server.options(password=server.account.password))
    assert child.name == u'middle.ssh.127.0.0.1:%d' % server.port
    assert child.call(os.geteuid) == server.account.uid
    with pytest.raises(StreamError) as caught:
        router.ssh(via=middle, **server.options(password='wrong'))
    assert str(caught.value).startswith('error occurred on host ')
    assert caught.value.args[0].endswith(mitogen.ssh.password_incorrect_msg)


def test_a_local_child_beyond(router, server, ssh):
    middle = ssh()
    child = router.local(via=middle, python_path=server.account.python)
    assert child.call(os.getppid) == middle.call(os.getpid)
    assert child.call(os.geteuid) == server.account.uid
    assert child.name.startswith(middle.name + '.local.')


@pytest.mark.parametrize('version', ['python2.7', 'python3.6'])
def test_beyond_an_old_python(router, server, ssh, version):
    middle = router.local(python_path=pythons.find_python(version))
    child = router.ssh(via=middle, **server.options(password=server.account.password))
    assert child.call(os.geteuid) == server.account.uid


def test_several_at_once(router, server, ssh):
    children = testlib.in_threads([ssh] * 4)
    assert [child.call(os.geteuid) for child in children] == [server.account.uid] * 4
    assert len(set(child.call(os.getpid) for child in children)) == 4
