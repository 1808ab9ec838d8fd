"""
A Slurm cluster of the tests' own: a controller and one node, which is this machine.
"""

import os
import socket
import subprocess
import tempfile

import pytest

import accounts
import sshd
import testlib

#: The name of the node.
NODE = 'mitogen-node'

CONFIG = '''
ClusterName=mitogen
SlurmctldHost={machine}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmctldPort={controller_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SlurmdParameters=config_overrides
NodeName={node} NodeHostname={machine} NodeAddr=127.0.0.1 Port={node_port} CPUs=16 State=UNKNOWN
PartitionName=all Nodes={node} Default=YES State=UP
'''


class Cluster(object):
    """
    A cluster that runs until `close`.
    """
    def __init__(self):
        # A path that is short enough for a socket, in which nobody else may write.
        self.folder = tempfile.mkdtemp(prefix='mitogen-slurm-')
        self.config = self.path('slurm.conf')
        self._procs = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def path(self, name):
        return os.path.join(self.folder, name)

    def _start(self):
        for name in 'state', 'spool':
            os.mkdir(self.path(name), 0o755)
        with open(self.path('munge.key'), 'wb') as fp:
            os.fchmod(fp.fileno(), 0o400)
            fp.write(os.urandom(128))
        self._run('munged', 'munge', '--foreground', '--force', *[
            '--%s=%s' % (option, self.path('munge.' + name)) for option, name in (
                ('socket', 'sock'), ('key-file', 'key'), ('pid-file', 'pid'), ('log-file', 'log'), ('seed-file', 'seed'))])
        testlib.wait_for(lambda: os.path.exists(self.path('munge.sock')), what='munged listens')
        for _ in range(5):
            # Somebody else may take a port before the servers do.
            self._configure(*sshd.free_ports(2))
            self._run('slurmctld', 'slurmctld', '-D', '-i', '-f', self.config)
            self._run('slurmd', 'slurmd', '-D', '-f', self.config, '-N', NODE)
            testlib.wait_for(lambda: self._is_ready() or self._has_ended(), what='the node is ready')
            if not self._has_ended():
                return
            self._end(1)
        pytest.fail('Slurm does not start: ' + self.log())

    def _configure(self, controller_port, node_port):
        with open(self.config, 'w') as fp:
            fp.write(CONFIG.format(
                folder=self.folder, machine=socket.gethostname().split('.')[0], node=NODE,
                controller_port=controller_port, node_port=node_port))

    def _run(self, name, package, *args):
        program = accounts.need_program(name, package)
        with open(self.path(name + '.out'), 'wb') as log:
            self._procs.append(subprocess.Popen([program] + list(args), stdout=log, stderr=subprocess.STDOUT))

    def _is_ready(self):
        return self.ask('sinfo', '--noheader', '--format=%T') == 'idle'

    def _has_ended(self):
        return any(proc.poll() is not None for proc in self._procs)

    def ask(self, *words):
        """
        Return what a program of Slurm says.
        """
        program = accounts.need_program(words[0], 'slurm-client')
        done = subprocess.run(
            [program] + list(words[1:]), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=dict(os.environ, SLURM_CONF=self.config))
        return done.stdout.decode().strip()

    def log(self):
        found = []
        for name in 'munged', 'slurmctld', 'slurmd':
            with open(self.path(name + '.out')) as fp:
                found.append(fp.read())
        return '\n'.join(found)

    def jobs(self):
        """
        Return the numbers of the jobs that have not ended.
        """
        return self.ask('squeue', '--noheader', '--format=%A').split()

    def wait_until_idle(self):
        testlib.wait_for(lambda: not self.jobs(), what='all jobs have ended')

    def _end(self, kept):
        """
        End all servers but the first ones.
        """
        while len(self._procs) > kept:
            proc = self._procs.pop()
            proc.terminate()
            proc.wait()

    def close(self):
        self._end(0)


@pytest.fixture(scope='module')
def running_cluster():
    accounts.need_root()
    cluster = Cluster()
    yield cluster
    cluster.close()
    subprocess.call(['rm', '-r', cluster.folder])


@pytest.fixture
def cluster(running_cluster, monkeypatch):
    """
    The cluster, for the programs that the test starts. At its end no job is there any more.
    """
    monkeypatch.setenv('SLURM_CONF', running_cluster.config)
    for name in list(os.environ):
        # The tests may be run by Slurm themselves.
        if name.startswith('SLURM') and name != 'SLURM_CONF':
            monkeypatch.delenv(name)
    yield running_cluster
    running_cluster.wait_until_idle()
