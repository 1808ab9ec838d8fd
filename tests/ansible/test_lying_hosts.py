"""
The daemon of a run reads the answers of hosts without trust, and tells workers of them in words for
a terminal.
"""

import collections
import os
import socket
import subprocess
import sys

import pytest

import mitogen.core
from mitogen.ansible import answers, client, daemon, hub, target, wire

Owner = collections.namedtuple('Owner', 'targets')


def endless():
    """
    Return a small value that has no end once it is marshalled.
    """
    value = ()
    for _ in range(60):
        value = (value, value)
    return value


class Context(object):
    """
    Stands for that of a host which answers all calls alike.
    """
    def __init__(self, value):
        self.value = value

    def call(self, func, *args):
        return self.value

    call_no_reply = call


def a_target(value):
    made = target.RemoteTarget.__new__(target.RemoteTarget)
    made.context = Context(value)
    return made


@pytest.mark.parametrize('value', [
    endless(), (0, endless()), (0,), (0, u'x', 1), (0, b'x'), (True, u'x'), (1 << 31, u'x'), [0, u'x'], u'', 0],
    ids=lambda value: type(value).__name__)
def test_the_outcome_of_a_fragment_has_its_shape(value):
    with pytest.raises(answers.DamagedError):
        a_target(value).fragment(('remove', 'x'))


@pytest.mark.parametrize('value', [None, (0, u''), (-1, u'out\udc80')])
def test_an_outcome_of_a_fragment_is_taken(value):
    assert a_target(value).fragment(('remove', 'x')) == value


@pytest.mark.parametrize('value', [
    None, (), (1,), (1, 2, 3), (1, -1), (-1, 1), (u'1', u'2'), (1 << 70, 0), (True, 0), endless(), 5],
    ids=lambda value: type(value).__name__)
def test_what_a_host_says_of_a_file_is_two_numbers(value, tmp_path):
    with pytest.raises(answers.DamagedError):
        a_target(value).get('/any', str(tmp_path / 'local'))
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize('value', [1 << 40, [1, 2], u'text', None])
def test_content_is_bytes(value):
    with pytest.raises(answers.DamagedError):
        answers.content(value)
    assert answers.content(mitogen.core.Blob(b'x')) == b'x'


def test_the_answers_of_a_job_that_wait_have_a_bound(router):
    class Target(object):
        context = None

    Target.router = router
    job = target.RemoteJob(Target, 'key', 1)
    assert job.receiver.max_bytes == 2 * router.max_message_size
    job.close()


def test_the_words_of_a_host_in_a_failure_are_escaped(monkeypatch):
    def lie(self):
        return 'fail', 'start', u'a\x1b[2J\nfatal: \u202e', True

    def fail(self):
        raise mitogen.core.ChannelError(u'\x9b')

    monkeypatch.setattr(daemon.Worker, 'on_lie', lie, raising=False)
    monkeypatch.setattr(daemon.Worker, 'on_fail', fail, raising=False)
    worker = daemon.Worker(Owner(None), None)
    assert worker.answer('lie') == ('fail', 'start', u'a\\x1b[2J\n    fatal: \\u202e', True)
    assert worker.answer('fail') == ('fail', 'gone', u'\\x9b', False)


PROGRAM = '''
import marshal, queue, sys
from mitogen.ansible import hub
found = queue.Queue()
hub.Hub(b'').request(found.put, 'user x', (['/bin/sh', '-c', sys.argv[1]], False), 1, b'')
while True:
    answer = marshal.loads(found.get())
    assert len(answer[1]) < 2 * hub.MOST_OUTPUT
    if answer[0] == 'fail':
        assert len(answer[2]) < 5000
        print(answer[1], answer[2].splitlines()[-1])
        break
'''


@pytest.mark.parametrize('script, expected', [
    ('yes', 'start it says too much'),
    # A long frame is announced, once the zygote has been told what to do.
    ("printf %s; head -c 8 >/dev/null; printf '\\000\\000\\000\\001\\377\\377\\377\\377'; cat >/dev/null" % (hub.READY.decode(),),
     'gone its answer is too long')])
def test_a_zygote_that_says_too_much_is_given_up(script, expected):
    found = subprocess.check_output([sys.executable, '-c', PROGRAM, script], timeout=100)
    assert found.decode().strip() == expected


# ---- the socket of the daemon

def test_no_daemon_is_started_where_others_may_enter(tmp_path):
    os.chmod(str(tmp_path), 0o750)
    with pytest.raises(client.DaemonError, match='others may enter'):
        client.connect(str(tmp_path), os.getpid(), '')
    assert os.listdir(str(tmp_path)) == []


def test_a_daemon_or_a_worker_of_another_user_is_not_talked_to(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / client.SOCKET))
        listener.listen(1)
        client.connect(str(tmp_path), os.getpid(), '').close()
        accepted, _ = listener.accept()
        with accepted, monkeypatch.context() as patch:
            patch.setattr(os, 'geteuid', lambda: 54321)
            assert not wire.is_same_user(accepted)
            with pytest.raises(client.DaemonError, match='not ours'):
                client.connect(str(tmp_path), os.getpid(), '')


def test_a_daemon_without_descriptors_or_threads_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(daemon, 'PAUSE', 0)
    served = []

    class Worker(object):
        def __init__(self, owner, sock):
            self.sock = sock

        def start(self):
            if not served:
                served.append(None)
                raise RuntimeError("can't start new thread")
            served.append(self.sock)

    class Listener(object):
        def __init__(self, sock):
            self.sock, self.starved = sock, True

        def accept(self):
            if self.starved:
                self.starved = False
                raise OSError(24, 'Too many open files')
            return self.sock.accept()

    monkeypatch.setattr(daemon, 'Worker', Worker)
    made = daemon.Daemon.__new__(daemon.Daemon)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / 'socket'))
        sock.listen(2)
        made.listener = Listener(sock)
        with socket.socket(socket.AF_UNIX) as worker:
            worker.connect(str(tmp_path / 'socket'))
            # Without a descriptor it waits. Without a thread the end of its connection tells it.
            made.accept()
            assert not served
            made.accept()
            assert worker.recv(1) == b''
        with socket.socket(socket.AF_UNIX) as worker:
            worker.connect(str(tmp_path / 'socket'))
            made.accept()
    assert len(served) == 2
    served[1].close()


@pytest.mark.parametrize('terminal', [False, True])
def test_a_zygote_that_cannot_be_started_leaves_no_descriptor(terminal):
    before = set(os.listdir('/proc/self/fd'))
    with pytest.raises(OSError):
        hub.start_process(['/missing/sudo'], terminal)
    # Those of earlier tests may be closed meanwhile.
    assert not set(os.listdir('/proc/self/fd')) - before


def test_a_log_that_cannot_be_written_is_named_with_its_variable(tmp_path, monkeypatch):
    monkeypatch.setenv('MITOGEN_ANSIBLE_LOG', str(tmp_path / 'missing' / 'log'))
    tmp_path.chmod(0o700)
    with pytest.raises(client.DaemonError, match="MITOGEN_ANSIBLE_LOG is '.*/missing/log', and that file cannot be written"):
        client.connect(str(tmp_path), os.getpid(), '')
