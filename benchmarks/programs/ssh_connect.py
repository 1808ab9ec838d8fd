"""What does a context behind ssh cost, beyond what ssh itself takes?

A server of this program's own listens on the loopback interface and lets the user that runs it
in, by a key.
"""

import contextlib
import getpass
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile

import harness
import remote

CONFIG = '''
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
PermitRootLogin prohibit-password
'''


def which(name):
    path = shutil.which(name, path=os.environ.get('PATH', os.defpath) + ':/usr/sbin:/sbin')
    if path is None:
        raise harness.Skip('no %s here' % (name,))
    return path


def free_port():
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def running_server():
    """Run an sshd in a folder of its own; yields (folder, port)."""
    sshd, keygen = which('sshd'), which('ssh-keygen')
    folder = tempfile.mkdtemp(prefix='bench-ssh-')
    proc = None
    try:
        for name in 'host_key', 'user_key':
            subprocess.check_call([keygen, '-q', '-t', 'ed25519', '-N', '', '-f', os.path.join(folder, name)])
        if os.getuid() == 0 and not os.path.isdir('/run/sshd'):
            os.mkdir('/run/sshd', 0o755)
        port = free_port()
        with open(os.path.join(folder, 'config'), 'w') as fp:
            fp.write(CONFIG.format(folder=folder, port=port))
        proc = subprocess.Popen([sshd, '-D', '-e', '-f', fp.name], stderr=subprocess.PIPE)
        for line in proc.stderr:
            if b'Server listening' in line:
                break
        else:
            raise harness.Skip('sshd does not start')
        yield folder, port
    finally:
        if proc is not None:
            proc.terminate()
            proc.stderr.close()
            proc.wait()
        shutil.rmtree(folder)


def with_mitogen(bench):
    with bench.figure('ssh_call', 'ssh_connect_more'), running_server() as (folder, port):
        key = os.path.join(folder, 'user_key')
        plain = ['-F', '/dev/null', '-o', 'IdentityAgent=none']
        ssh_true = [which('ssh')] + plain + [
            '-i', key, '-p', str(port), '-l', getpass.getuser(), '-o', 'StrictHostKeyChecking=no',
            '-o', 'UserKnownHostsFile=/dev/null', '-o', 'LogLevel=ERROR', '-o', 'Compression=yes', '127.0.0.1', 'true']
        with harness.mitogen_router() as router:
            def connect():
                context = router.ssh(
                    hostname='127.0.0.1', port=port, username=getpass.getuser(), identity_file=key,
                    check_host_keys='ignore', ssh_args=plain, python_path=sys.executable)
                context.call(os.getpid)
                return context

            child = connect()
            harness.report_time(bench, 'ssh_call', lambda: child.call(remote.nothing))
            more, alone = [], []
            for _ in range(5 if bench.quick else 15):
                began = harness.clock()
                subprocess.check_call(ssh_true)
                between = harness.clock()
                child = connect()
                ended = harness.clock()
                alone.append((between - began) * 1e3)
                more.append((ended - between) * 1e3 - alone[-1])
                child.shutdown(wait=True)
            bench.emit('ssh_connect_more', statistics.median(more), ssh_true=statistics.median(alone), all=more)


if __name__ == '__main__':
    harness.main(globals())
