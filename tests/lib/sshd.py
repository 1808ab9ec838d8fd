"""
An OpenSSH server of the tests' own on the loopback interface, that lets a throw-away user in.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile

import pytest

import accounts
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
UsePAM {pam}
UseDNS no
MaxAuthTries 20
PermitUserEnvironment yes
PasswordAuthentication {password}
KbdInteractiveAuthentication {pam}
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

    With `pam` the password is asked for by the system's own means, as the answer to a question of
    the server, which the client repeats without a word if it was wrong.

    :ivar port: takes keys and passwords.
    :ivar key_port: takes keys only.
    """
    keys = 0

    def __init__(self, account, pam=False, address='127.0.0.1'):
        self.account = account
        self.pam = pam
        self.address = address
        self.folder = tempfile.mkdtemp(prefix='ssh-', dir=account.folder)
        os.chmod(self.folder, 0o755)
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
                    pam='yes' if self.pam else 'no', password='no' if self.pam else 'yes',
                    listen='\n'.join('ListenAddress %s:%d' % (self.address, port) for port in ports)))
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
        return ''.join('[%s]:%d %s\n' % (self.address, port, key) for port in (self.port, self.key_port))

    def options(self, **options):
        """
        Return keywords that let the user in by key, or with others.
        """
        known = options.pop('known', self.path('known'))
        options.setdefault('ssh_args', [])
        # Without the configuration of the user who runs the tests.
        options['ssh_args'] = [
            '-F', '/dev/null', '-o', 'IdentityAgent=none', '-o', 'UserKnownHostsFile=%s' % known,
            '-o', 'GlobalKnownHostsFile=/dev/null'] + options['ssh_args']
        if 'password' not in options:
            options.setdefault('identity_file', self.path('user_key'))
        merged = {
            'hostname': self.address, 'port': self.port, 'username': self.account.name,
            'python_path': self.account.python,
        }
        merged.update(options)
        return merged

    def let_in(self, path):
        """
        Let the user in by a new key, too, for a login with this PATH; return the options for that.
        """
        self.keys += 1
        key = self.path('key_%d' % self.keys)
        make_key(key)
        with open(key + '.pub') as fp:
            line = 'environment="PATH=%s" %s' % (path, fp.read())
        with open(self.path('authorized'), 'a') as fp:
            fp.write(line)
        return self.options(identity_file=key, port=self.key_port)

    def wait_until_left(self):
        testlib.wait_for(
            lambda: not children_of(self.proc.pid) and not accounts.processes_of(self.account.uid),
            what='everybody has logged out of the server')

    def of_connections(self):
        """
        Return the server's processes for single connections.
        """
        pids = children_of(self.proc.pid)
        for pid in list(pids):
            pids += [child for child in children_of(pid) if name_of(child).startswith('sshd')]
        return pids

    def cut(self):
        """
        End every connection, with no time for a farewell.
        """
        for pid in self.of_connections():
            testlib.send_signal(pid, signal.SIGKILL)

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
def pam_server(account):
    """
    A server with questions of its own.
    """
    accounts.need_program('ssh', 'openssh-client')
    server = Server(account, pam=True)
    yield server
    server.wait_until_left()
    server.close()
    shutil.rmtree(server.folder)


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
