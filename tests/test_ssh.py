"""
ssh(): OpenSSH's client, and a server of the tests' own on the loopback interface that lets a throw-away user in.
connect.md 14.1.
"""

import os
import signal
import socket
import subprocess
import threading
import time

import pytest

import mitogen.core
import mitogen.parent
import mitogen.ssh
from mitogen.core import ChannelError, Latch, Secret, StreamError

import accounts
import pythons
import targets
import testlib

account = accounts.account

BANNER = 'Never tell anybody your password: nobody asks.\nEntry is denied.\n'

CONFIG = '''
{listen}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized
AllowUsers {user}
Banner {folder}/banner
PidFile none
StrictModes no
UsePAM no
UseDNS no
MaxAuthTries 20
PasswordAuthentication yes
KbdInteractiveAuthentication no
Match LocalPort {key_port}
    PasswordAuthentication no
'''


def make_key(path):
    accounts.run(accounts.need_program('ssh-keygen', 'openssh-client'), '-q', '-t', 'ed25519', '-N', '', '-f', path)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(('127.0.0.1', 0))
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def children_of(pid):
    found = []
    for name in os.listdir('/proc'):
        if name.isdigit():
            try:
                with open('/proc/%s/stat' % name) as fp:
                    fields = fp.read().rsplit(')', 1)[1].split()
            except (IOError, OSError):
                continue
            if int(fields[1]) == pid and fields[0] != 'Z':
                found.append(int(name))
    return found


def name_of(pid):
    with open('/proc/%d/comm' % pid) as fp:
        return fp.read()


class Server(object):
    """
    A server that runs until `close`.

    :ivar port: takes keys and passwords.
    :ivar key_port: takes keys only.
    """

    def __init__(self, account):
        self.account = account
        self.folder = os.path.join(account.folder, 'ssh')
        os.mkdir(self.folder)
        make_key(self.path('host_key'))
        make_key(self.path('other_key'))
        make_key(self.path('user_key'))
        os.rename(self.path('user_key.pub'), self.path('authorized'))
        with open(self.path('banner'), 'w') as fp:
            fp.write(BANNER)
        # Of the package, made when the system starts. Left there: other servers may use it by now.
        if not os.path.isdir('/run/sshd'):
            os.mkdir('/run/sshd', 0o755)
        self.start()
        with open(self.path('known'), 'w') as fp:
            fp.write(self.known_host('host_key.pub'))

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self):
        sshd = accounts.need_program('sshd', 'openssh-server')
        for _ in range(5):
            # Somebody else may take a port before the server does.
            self.port, self.key_port = ports = free_ports(2)
            with open(self.path('config'), 'w') as fp:
                fp.write(CONFIG.format(
                    folder=self.folder, user=self.account.name, key_port=self.key_port,
                    listen='\n'.join('ListenAddress 127.0.0.1:%d' % port for port in ports)))
            with open(self.path('log'), 'wb') as log:
                self.proc = subprocess.Popen([sshd, '-D', '-e', '-f', self.path('config')], stderr=log)
            testlib.wait_for(lambda: self.log().count('Server listening') == 2 or self.proc.poll() is not None)
            if self.proc.poll() is None:
                return
        pytest.fail('sshd does not start: ' + self.log())

    def log(self):
        with open(self.path('log')) as fp:
            return fp.read()

    def known_host(self, name):
        with open(self.path(name)) as fp:
            key = ' '.join(fp.read().split()[:2])
        return ''.join('[127.0.0.1]:%d %s\n' % (port, key) for port in (self.port, self.key_port))

    def options(self, **options):
        """
        Return keywords that let the user in by key, or with others.
        """
        known = options.pop('known', self.path('known'))
        options.setdefault('ssh_args', [])
        # Nothing of the configuration of whoever runs the tests.
        options['ssh_args'] = [
            '-F', '/dev/null', '-o', 'IdentityAgent=none', '-o', 'UserKnownHostsFile=%s' % known,
            '-o', 'GlobalKnownHostsFile=/dev/null'] + options['ssh_args']
        if 'password' not in options:
            options.setdefault('identity_file', self.path('user_key'))
        merged = {
            'hostname': '127.0.0.1', 'port': self.port, 'username': self.account.name,
            'python_path': self.account.python,
        }
        merged.update(options)
        return merged

    def wait_until_left(self):
        testlib.wait_for(
            lambda: not children_of(self.proc.pid) and not accounts.processes_of(self.account.uid),
            what='everybody has logged out of the server')

    def cut(self):
        """
        End every connection, with no time for a farewell.
        """
        pids = children_of(self.proc.pid)
        for pid in list(pids):
            pids += [child for child in children_of(pid) if name_of(child).startswith('sshd')]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def close(self):
        self.proc.terminate()
        self.proc.wait()


@pytest.fixture(scope='module')
def running_server(account):
    accounts.need_program('ssh', 'openssh-client')
    server = Server(account)
    yield server
    server.close()


@pytest.fixture
def server(running_server):
    """
    The server. At the end of the test nobody is logged in any more.
    """
    yield running_server
    running_server.wait_until_left()


@pytest.fixture
def ssh(server, broker, router):
    """
    A function that connects; keyword arguments are options.
    """
    # Before the server waits for the end of all connections.
    yield lambda **options: router.ssh(**server.options(**options))
    broker.shutdown()
    broker.join()


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


def test_no_server_there(ssh):
    with pytest.raises(mitogen.parent.EofError) as caught:
        ssh(port=free_ports(1)[0])
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
    # The parent of the login shell is the server's process for this connection, and runs as the user.
    path = server.account.script('cutter', '''
        echo "MITO000"
        parent=$(ps -o ppid= -p $PPID 2>/dev/null || cut -d" " -f4 /proc/$PPID/stat)
        kill -9 $PPID $parent
        exec sleep 60
    ''')
    with pytest.raises(mitogen.parent.EofError):
        ssh(python_path=path)
    for pid in accounts.processes_of(server.account.uid):
        os.kill(pid, signal.SIGKILL)


def test_a_connection_that_is_cut_while_a_call_waits(router, server, ssh):
    child = ssh()
    gone = Latch()
    mitogen.core.listen(child, 'disconnect', gone.put)
    receiver = child.call_async(time.sleep, 60)
    testlib.wait_for(lambda: children_of(server.proc.pid))
    server.cut()
    with pytest.raises(ChannelError):
        receiver.get(timeout=10)
    gone.get(timeout=10)
    with pytest.raises(ChannelError):
        child.call(targets.identity, 1)
    # The far end has no parent any more, but sleeps.
    for pid in accounts.processes_of(server.account.uid):
        os.kill(pid, signal.SIGKILL)
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
