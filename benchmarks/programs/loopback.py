"""A server of ssh on the loopback interface that stands for many hosts: each has an address of its
own, 127.0.0.N, and a name, hN, in a configuration for the client."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time

SERVER = '''
ListenAddress {address}:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 1000
Subsystem sftp internal-sftp
SetEnv HOME={home} PATH={path}
'''

CLIENT = '''
Host {name}
    HostName {address}
'''

ALL = '''
Host *
    Port {port}
    User {user}
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    IdentityAgent none
    StrictHostKeyChecking no
    UserKnownHostsFile {folder}/known_hosts
    LogLevel ERROR
'''

#: Of what hosts run, as where only the system is installed: no settings of the user's shell, and no
#: Python that a program of the user's own has to find first.
PATH = '/usr/bin:/bin:/usr/sbin:/sbin'

#: Names of one key exchange: OpenSSH and paramiko call it differently.
ALIASES = {'curve25519-sha256': 'curve25519-sha256,curve25519-sha256@libssh.org'}

#: Seconds in which the processes of connections that were closed end.
ENDS_WITHIN = 60


class Unavailable(SystemExit):
    """There can be no server here; the text says why."""


def which(name):
    path = shutil.which(name, path=os.environ.get('PATH', os.defpath) + ':/usr/sbin:/sbin')
    if path is None:
        raise Unavailable('%s is not installed' % (name,))
    return path


def address_of(number):
    return '127.0.0.%d' % (number,)


class Files(object):
    """The files of servers and of their clients, in a folder: `config` is for ssh, `known_hosts`
    knows all hosts, and `bin` has an ssh that uses both.

    names: name of each host. Their addresses are 127.0.0.1, 127.0.0.2 and so on.
    user: the name that is logged in as.
    """
    def __init__(self, folder, names, user=None):
        self.folder = folder
        with contextlib.closing(socket.socket()) as sock:
            sock.bind(('127.0.0.1', 0))
            self.port = sock.getsockname()[1]
        for name in 'host_key', 'user_key':
            subprocess.check_call(
                [which('ssh-keygen'), '-q', '-t', 'ed25519', '-N', '', '-C', '', '-f', self.path(name)])
        # Of the package, made when the system starts.
        if os.getuid() == 0 and not os.path.isdir('/run/sshd'):
            os.mkdir('/run/sshd', 0o755)
        addresses = [address_of(number) for number in range(1, len(names) + 1)]
        self.write('config', ''.join(map(CLIENT.format_map, (
            {'name': name, 'address': address} for name, address in zip(names, addresses)
        ))) + ALL.format(folder=folder, port=self.port, user=user or getpass.getuser()))
        with open(self.path('host_key.pub')) as fp:
            key = fp.read()
        self.write('known_hosts', ''.join('[%s]:%d %s' % (address, self.port, key) for address in addresses))
        os.mkdir(self.path('bin'))
        self.program('ssh', [which('ssh'), '-F', self.path('config')])

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, text):
        with open(self.path(name), 'w') as fp:
            fp.write(text)
        return fp.name

    def program(self, name, words):
        """Make a program in `bin` that runs another one."""
        os.chmod(self.write(os.path.join('bin', name), '#!/bin/sh\nexec %s "$@"\n' % (' '.join(words),)), 0o755)

    def server(self, name, address, home=None, kex=None):
        """Write the configuration of a server, and return the command that runs it."""
        text = SERVER.format(
            folder=self.folder, port=self.port, address=address, home=home or self.folder, path=PATH)
        if kex:
            text += 'KexAlgorithms %s\n' % (ALIASES.get(kex, kex),)
        return [which('sshd'), '-D', '-e', '-f', self.write(name, text)]


@contextlib.contextmanager
def hosts(count, kex=None):
    """Run the server, with one key exchange or those of its own choice.

    Yields the folder of all its files, see `Files`, and the id of the server.
    """
    folder = tempfile.mkdtemp(prefix='bench-hosts-')
    proc = None
    try:
        files = Files(folder, ['h%d' % (number,) for number in range(1, count + 1)])
        proc = subprocess.Popen(files.server('sshd_config', '0.0.0.0', kex=kex), stderr=subprocess.PIPE)
        for line in proc.stderr:
            if b'Server listening' in line:
                break
        else:
            raise Unavailable('sshd does not start')
        # Nobody reads what it tells of each connection.
        subprocess.Popen(['cat'], stdin=proc.stderr, stdout=subprocess.DEVNULL)
        yield folder, proc.pid
    finally:
        if proc is not None:
            proc.terminate()
            proc.stderr.close()
            proc.wait()
        shutil.rmtree(folder)


def spent(pid):
    """Return the seconds of the processors that a server's processes have had, when all but it have
    ended."""
    until = time.monotonic() + ENDS_WITHIN
    with open('/proc/%d/task/%d/children' % (pid, pid)) as fp:
        while True:
            left = fp.read().split()
            if not left:
                break
            if time.monotonic() > until:
                raise SystemExit('connections of the server did not end within %d seconds: processes %s' % (
                    ENDS_WITHIN, ' '.join(left)))
            time.sleep(0.01)
            fp.seek(0)
    with open('/proc/%d/stat' % (pid,)) as fp:
        fields = fp.read().rsplit(')', 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf('SC_CLK_TCK')
