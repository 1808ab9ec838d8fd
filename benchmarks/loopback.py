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
ListenAddress 0.0.0.0:{port}
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
'''

CLIENT = '''
Host h{number}
    HostName 127.0.0.{number}
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


def which(name):
    path = shutil.which(name, path=os.environ.get('PATH', os.defpath) + ':/usr/sbin:/sbin')
    if path is None:
        raise SystemExit('%s is not installed' % (name,))
    return path


@contextlib.contextmanager
def hosts(count, kex=None):
    """Run the server, with one key exchange or those of its own choice.

    Yields the folder of all its files, where `config` is for ssh, `bin` has an ssh that uses it,
    and `known_hosts` knows all hosts; and the id of the server.
    """
    folder = tempfile.mkdtemp(prefix='bench-hosts-')
    proc = None
    try:
        for name in 'host_key', 'user_key':
            subprocess.check_call(
                [which('ssh-keygen'), '-q', '-t', 'ed25519', '-N', '', '-C', '', '-f', os.path.join(folder, name)])
        if os.getuid() == 0 and not os.path.isdir('/run/sshd'):
            os.mkdir('/run/sshd', 0o755)
        with contextlib.closing(socket.socket()) as sock:
            sock.bind(('127.0.0.1', 0))
            port = sock.getsockname()[1]
        names = {'folder': folder, 'port': port, 'user': getpass.getuser()}
        with open(os.path.join(folder, 'config'), 'w') as fp:
            fp.write(''.join(CLIENT.format(number=number) for number in range(1, count + 1)) + ALL.format(**names))
        with open(os.path.join(folder, 'host_key.pub')) as key, open(os.path.join(folder, 'known_hosts'), 'w') as fp:
            text = key.read()
            for number in range(1, count + 1):
                fp.write('[127.0.0.%d]:%d %s' % (number, port, text))
        with open(os.path.join(folder, 'sshd_config'), 'w') as fp:
            fp.write(SERVER.format(**names) + ('KexAlgorithms %s\n' % (kex,) if kex else ''))
        os.mkdir(os.path.join(folder, 'bin'))
        path = os.path.join(folder, 'bin', 'ssh')
        with open(path, 'w') as fp:
            fp.write('#!/bin/sh\nexec %s -F %s/config "$@"\n' % (which('ssh'), folder))
        os.chmod(path, 0o755)
        proc = subprocess.Popen([which('sshd'), '-D', '-e', '-f', os.path.join(folder, 'sshd_config')], stderr=subprocess.PIPE)
        for line in proc.stderr:
            if b'Server listening' in line:
                break
        else:
            raise SystemExit('sshd does not start')
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
    with open('/proc/%d/task/%d/children' % (pid, pid)) as fp:
        while fp.read().strip():
            time.sleep(0.01)
            fp.seek(0)
    with open('/proc/%d/stat' % (pid,)) as fp:
        fields = fp.read().rsplit(')', 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf('SC_CLK_TCK')
