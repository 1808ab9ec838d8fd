"""
What the system does to a program: no descriptors, no space, a clock that jumps, a network that is cut.
"""

import os
import random
import re
import resource
import shutil
import subprocess
import time

import pytest

import mitogen.core
import mitogen.parent
import mitogen.select
import mitogen.service
from mitogen.core import CallError, ChannelError, Latch, Receiver, StreamError

import accounts
import service_targets
import sshd
import targets
import testlib

HERE = os.path.dirname(os.path.abspath(__file__))
account = accounts.account


# ---- no descriptors

def test_connect_without_descriptors(router):
    """
    However many are left, too few of them is an error that says so, which costs nothing; and the router goes on.
    """
    other = router.local()
    # What the first connection makes for all.
    router.local().shutdown(wait=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    testlib.wait_for(lambda: len(sshd.children_of(os.getpid())) == 1)
    before = len(os.listdir('/proc/self/fd'))
    outcomes = []
    for left in range(9):
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + left, hard))
        try:
            child = router.local()
        except StreamError as error:
            outcomes.append(str(error))
        else:
            outcomes.append('')
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            child.shutdown(wait=True)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        testlib.wait_for(lambda: len(os.listdir('/proc/self/fd')) == before, what='the descriptors there were')
    failed = outcomes[:outcomes.index('')]
    assert len(failed) > 1 and 'Too many open files' in failed[0]
    # A process of 3.13 needs fewer for a new one, which has the same limit and may lack them then.
    assert all('Too many open files' in text or 'ended before it was ready' in text for text in failed)
    assert outcomes[-1] == ''
    assert other.call(targets.add, 1, 2) == router.local().call(targets.add, 1, 2) == 3


def test_connect_by_way_of_a_context_without_descriptors(router):
    interm = router.local()
    child = router.local(via=interm)
    limit = interm.call(resource.getrlimit, resource.RLIMIT_NOFILE)
    interm.call(resource.setrlimit, resource.RLIMIT_NOFILE, (8, limit[1]))
    with pytest.raises(StreamError) as caught:
        router.local(via=interm)
    assert 'Too many open files' in str(caught.value)
    interm.call(resource.setrlimit, resource.RLIMIT_NOFILE, limit)
    assert child.call(targets.add, 1, 2) == router.local(via=interm).call(targets.add, 1, 2) == 3


# ---- no space

def test_a_file_for_which_there_is_no_space(router, tmp_path):
    """
    The error of the disk is that of the call; others get their files meanwhile and afterwards.
    """
    service = mitogen.service.FileService(router)
    pool = mitogen.service.Pool(router, services=[service], size=2)
    path = tmp_path / 'file'
    path.write_bytes(os.urandom(1 << 16) * 40)
    service.register(str(path))
    children = [router.local() for _ in range(2)]
    calls = [child.call_async(service_targets.fetch_to, router.myself(), str(path), to)
             for child, to in ((children[0], '/dev/full'), (children[1], '/dev/null'))]
    with pytest.raises(CallError) as caught:
        calls[0].get().unpickle()
    assert 'No space left on device' in str(caught.value)
    assert calls[1].get().unpickle() is True
    assert children[0].call(service_targets.fetch_to, router.myself(), str(path), '/dev/null') is True
    pool.stop()


def test_a_pushed_file_that_cannot_be_read(router, tmp_path):
    service = mitogen.service.PushFileService(router=router)
    pool = mitogen.service.Pool(router, services=[service])
    child = router.local()
    path = str(tmp_path / 'file')
    with pytest.raises((IOError, OSError)):
        service.propagate_to(context=child, path=path)
    with open(path, 'wb') as fp:
        fp.write(b'now')
    service.propagate_to(context=child, path=path)
    assert child.call(service_targets.pushed_file, path) == b'now'
    pool.stop()


# ---- a clock that jumps

def test_no_deadline_is_of_the_wall_clock():
    folder = os.path.dirname(mitogen.core.__file__)
    found = []
    for name in sorted(os.listdir(folder)):
        if name.endswith('.py'):
            with open(os.path.join(folder, name)) as fp:
                found += ['%s: %s' % (name, line.strip()) for line in fp if re.search(r'\btime\.time\b', line)]
    # That of Python 2.7, which has no other.
    assert found == ['core.py: now = time.time']
    assert mitogen.core.now is time.monotonic


def test_a_clock_that_jumps(router, monkeypatch):
    real, rng = time.time, random.Random(1)
    monkeypatch.setattr(time, 'time', lambda: real() + rng.choice((-10 ** 7, 0, 10 ** 7)))
    with pytest.raises(mitogen.core.TimeoutError):
        Latch().get(timeout=0.05)
    child = router.local()
    assert child.call(targets.add, 1, 2) == 3
    receiver = child.call_async(targets.sleep, 0.2)
    with pytest.raises(mitogen.core.TimeoutError):
        mitogen.select.Select([receiver], oneshot=False).get(timeout=0.05)
    assert receiver.get(timeout=20).unpickle() == 0.2
    fired = Latch()
    router.broker.defer_sync(lambda: router.broker.timers.schedule(mitogen.core.now() + 0.05, fired.put))
    fired.get(timeout=20)
    pool = mitogen.service.Pool(router, services=[service_targets.Plain(router)], size=2)
    assert router.myself().call_service(service_targets.Plain, 'unprivileged') == 'unprivileged'
    pool.stop()
    child.shutdown(wait=True)


# ---- a network that is cut

class Network(object):
    """
    A network namespace, and a link to it from ours.
    """
    def __init__(self):
        accounts.need_root()
        self.ip = accounts.need_program('ip', 'iproute2')
        number = os.getpid() % 60000
        self.name = 'mitogen-%d' % number
        self.ours, self.theirs = 'mg%da' % number, 'mg%db' % number
        base = '10.203.%d.%d' % (number >> 6 & 255, (number & 63) << 2)
        prefix, _, last = base.rpartition('.')
        self.address = '%s.%d' % (prefix, int(last) + 1)
        if subprocess.call([self.ip, 'netns', 'add', self.name], stderr=subprocess.DEVNULL):
            pytest.skip('no network namespace can be made here')
        try:
            self.run('link', 'add', self.ours, 'type', 'veth', 'peer', 'name', self.theirs, 'netns', self.name)
            self.run('addr', 'add', self.address + '/30', 'dev', self.ours)
            self.run('link', 'set', self.ours, 'up')
            self.run('-n', self.name, 'addr', 'add', '%s.%d/30' % (prefix, int(last) + 2), 'dev', self.theirs)
            self.run('-n', self.name, 'link', 'set', self.theirs, 'up')
        except subprocess.CalledProcessError:
            self.close()
            pytest.skip('no pair of network devices can be made here')

    def run(self, *args):
        subprocess.check_call((self.ip,) + args, stderr=subprocess.DEVNULL)

    def cut(self):
        self.run('link', 'set', self.ours, 'down')

    def mend(self):
        self.run('link', 'set', self.ours, 'up')

    def close(self):
        # Its devices end with it.
        subprocess.call([self.ip, 'netns', 'del', self.name])


@pytest.fixture
def network():
    network = Network()
    yield network
    network.close()


def test_ssh_over_a_network_that_is_cut(broker, router, network, account, tmp_path):
    """
    No packet says that the network is cut. ssh's questions find it out; who waits is told, and all else goes on.
    """
    ssh = accounts.need_program('ssh', 'openssh-client')
    script = tmp_path / 'ssh'
    script.write_text('#!/bin/sh\nexec %s netns exec %s %s "$@"\n' % (network.ip, network.name, ssh))
    script.chmod(0o755)
    server = sshd.Server(account, address=network.address)
    try:
        options = server.options(ssh_path=str(script), keepalive_interval=1, keepalive_count=1)
        here = router.local()
        there = router.ssh(**options)
        below = router.local(via=there, python_path=account.python)
        gone = Latch()
        mitogen.core.listen(below, 'disconnect', gone.put)
        calls = [there.call_async(targets.sleep, 600), below.call_async(targets.sleep, 600)]
        network.cut()
        for call in calls:
            with pytest.raises(ChannelError) as caught:
                call.get(timeout=30)
            assert 'was lost' in str(caught.value)
        gone.get(timeout=10)
        with pytest.raises(StreamError):
            router.ssh(**dict(options, connect_timeout=1))
        assert here.call(targets.add, 1, 2) == 3
        # The server has not heard of it.
        server.cut()
        network.mend()
        assert router.ssh(**options).call(targets.add, 1, 2) == 3
    finally:
        broker.shutdown()
        broker.join()
        server.cut()
        server.wait_until_left()
        server.close()
        shutil.rmtree(server.folder)


def test_a_receiver_of_a_context_behind_a_stopped_one_waits(router):
    """
    A process that is stopped is not lost: what was sent arrives when it goes on.
    """
    interm = router.local()
    child = router.local(via=interm)
    pids = [context.call(os.getpid) for context in (interm, child)]
    with Receiver(router) as receiver:
        child.call_no_reply(targets.say, receiver.to_sender(), 1)
        assert receiver.get(timeout=20).unpickle() == 1
        for pid in pids:
            testlib.stop_process(pid)
            try:
                child.call_no_reply(targets.say, receiver.to_sender(), 2)
                with pytest.raises(mitogen.core.TimeoutError):
                    receiver.get(timeout=0.05)
            finally:
                os.kill(pid, 18)
            assert receiver.get(timeout=20).unpickle() == 2
