"""
Workers that are killed, and several playbooks at once: nothing remains of them, the others go on,
and the folders of other users are left alone. See docs/ansible.rst.
"""

import os
import re
import socket
import subprocess

import pytest

import accounts
import testlib
from mitogen.ansible import client, wire
from playbooks import Run
from test_ansible import CORES, python_processes, read, wait_for_task, waiting


def workers(run):
    """
    Return the processes that a controller has forked for tasks.
    """
    pid = run.proc.pid
    found = map(int, read('/proc/%d/task/%d/children' % (pid, pid)).split())
    return [child for child in found if b'ansible-playbook' in read('/proc/%d/cmdline' % (child,))]


def told(run):
    """
    Return the lines about a worker.
    """
    return [line for line in run.printed().splitlines() if re.search('dead|worker', line)]


@pytest.mark.seconds(300)
def test_a_worker_that_is_killed_ends_its_run_as_in_plain_ansible_and_no_other(site):
    runs = plain, one, two = [Run(site, 'ends-plain'), Run(site, 'ends-one', 'path', CORES[0]), Run(site, 'ends-two', 'path', CORES[0])]
    home = os.path.join(one.folder, 'ansible')
    # Of one user: both have the same folders.
    two.environ.update(ANSIBLE_HOME=home, ANSIBLE_LOCAL_TEMP=home + '/tmp', ANSIBLE_SSH_CONTROL_PATH_DIR=one.folder + '/cp',
                       ANSIBLE_REMOTE_TEMP=one.target + '/tmp-$USER')
    for run in runs:
        run.start('waits.yml', become=False)
    for run in runs:
        wait_for_task(run)
    assert len(one.sockets()) == 2

    for run in plain, one:
        worker, = workers(run)
        os.kill(worker, 9)
    # `wait` would end the connection that the other run has, too.
    assert one.proc.wait() == plain.proc.wait() != 0
    assert told(one) == told(plain) != []
    testlib.wait_for(lambda: not waiting(one), 20, what='the task of the worker has ended')
    testlib.wait_for(lambda: len(one.sockets()) == 1, what='the socket of its run is gone')
    assert waiting(two) and two.proc.poll() is None

    for run in two, plain:
        os.unlink(os.path.join(run.target, 'waiting'))
    assert two.wait() == 0, two.printed()
    for run in plain, one:
        run.wait()
    assert two.printed().count('changed=1') == 1
    testlib.wait_for(lambda: not one.sockets(), what='the other socket is gone')
    testlib.wait_for(lambda: not python_processes(site.users[0].uid), 20, what='the interpreters on the target have ended')
    assert not one.left() and not two.left()


#: Listens in a folder, and tells who has come and whether it is of the same user.
LISTEN = '''
import socket, sys
from mitogen.ansible import wire
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
import os
os.chmod(sys.argv[1], 0o777)
sock.listen(1)
print("listening", flush=True)
peer, _ = sock.accept()
print(wire.is_same_user(peer), flush=True)
'''


@pytest.fixture
def other():
    accounts.need_root()
    account = accounts.Account()
    yield account
    account.close()


@pytest.mark.once
def test_the_folder_of_another_user_is_not_used(other, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(client, 'launch', lambda *args: started.append(args))
    for name, mode, owner in ('open', 0o755, 0), ('of-another', 0o700, other.uid), ('writable', 0o770, 0):
        folder = tmp_path / name
        folder.mkdir()
        folder.chmod(mode)
        os.chown(str(folder), owner, 0)
        with pytest.raises(client.DaemonError, match='others may enter'):
            client.connect(str(folder), os.getpid(), '')
        assert os.listdir(str(folder)) == []
    assert started == []


@pytest.mark.once
def test_a_daemon_of_another_user_is_not_asked_and_does_not_answer(other):
    path = os.path.join(other.home, client.SOCKET)
    proc = subprocess.Popen(
        [other.python, '-c', LISTEN, path], user=other.uid, group=other.gid, extra_groups=[], cwd='/',
        env={'PYTHONPATH': os.path.dirname(os.path.dirname(os.path.abspath(wire.__file__)))[:-len('/mitogen')]},
        stdout=subprocess.PIPE, text=True)
    with proc:
        assert proc.stdout.readline() == 'listening\n'
        with pytest.raises(client.DaemonError, match='the daemon is not ours'):
            client.connect(other.home, os.getpid(), '')
        assert proc.stdout.readline() == 'False\n'


@pytest.mark.once
def test_the_clients_of_a_worker_share_a_connection_that_is_at_rest(monkeypatch):
    ends = [socket.socketpair() for _ in range(4)]
    for near, _ in ends:
        near.settimeout(10)

    def ask(number, *answer):
        """Have a client ask over a new connection, if there is none, and get this answer."""
        found = client.Client('folder', os.getppid(), '')
        found.sock = found.take_spare() or ends[number][0]
        assert found.sock is ends[number][0]
        wire.send(ends[number][1], answer)
        assert found.ask('greet') == answer
        return found

    monkeypatch.setattr(client.Client, 'spare', None)
    try:
        ask(0, 'done', b'').close()
        assert client.Client.spare
        ask(0, 'done', b'').close()
        # A daemon that has asked waits for more, so this connection is not at rest.
        ask(0, 'prompt', b'Password:').close()
        assert client.Client.spare is None
        ask(1, 'done', b'').close()
        # Another daemon has another folder.
        assert client.Client('another', os.getppid(), '').take_spare() is None
        assert client.Client.spare is None and ends[1][0].fileno() == -1

        # The controller keeps none: its workers would have it open, too.
        mine = client.Client('folder', os.getpid(), '')
        mine.sock = ends[2][0]
        mine.close()
        assert client.Client.spare is None and ends[2][0].fileno() == -1

        # A daemon has ended since.
        client.Client.spare = os.getpid(), 'folder', ends[3][0]
        ends[3][1].close()
        assert client.Client('folder', os.getppid(), '').take_spare() is None
    finally:
        for pair in ends:
            for sock in pair:
                sock.close()


@pytest.mark.once
def test_a_peer_of_the_same_user_is_known():
    pair = socket.socketpair(socket.AF_UNIX)
    with pair[0], pair[1]:
        assert wire.is_same_user(pair[0])
