"""
Faults of the system: no descriptors, no space, a clock that jumps, a network that is cut.
"""

import glob
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
import network
import process_targets
import service_targets
import sshd
import targets
import testlib

account = accounts.account


# ---- no descriptors

def test_connect_without_descriptors(router):
    """
    However many are left, too few of them is an error that says so, which costs nothing; and the
    router goes on.
    """
    other = router.local()
    # The tests before this one may have left servers that live as long as the session.
    children = set(sshd.children_of(os.getpid()))
    # The first connection makes threads and files that all use.
    router.local().shutdown(wait=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    testlib.wait_for(lambda: set(sshd.children_of(os.getpid())) <= children)
    # The name of a pipe, or of a socket, has a number of its own.
    before = set(process_targets.descriptors())
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
        # Files that earlier tests of this process have left may be closed meanwhile.
        testlib.wait_for(lambda: before.issuperset(process_targets.descriptors()), what='nothing new that is open')
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
    for path in sorted(glob.glob(os.path.join(folder, '**', '*.py'), recursive=True)):
        with open(path) as fp:
            name = os.path.relpath(path, folder)
            found += ['%s: %s' % (name, line.strip()) for line in fp if re.search(r'\btime\.time\b', line)]
    # The clock of a host beside ours, twice; a time that a person reads, in three lines; the age of
    # a file, which is told by that clock, twice.
    old = [line for line in found if line.endswith(': now = time.time')]
    assert [line.partition(':')[0] for line in found if line not in old] == [
        '_cli/doctor.py', '_cli/doctor.py', '_facts.py', '_kept_archives.py', '_private_folder.py', '_tree/errors.py',
        '_tree/errors.py']
    # Python 2.7 has no other clock. In a checkout the core is in parts.
    assert old in (['core.py: now = time.time'], ['_core/pythons.py: now = time.time'])
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
    assert receiver.get(timeout=60).unpickle() == 0.2
    fired = Latch()
    router.broker.defer_sync(lambda: router.broker.timers.schedule(mitogen.core.now() + 0.05, fired.put))
    fired.get(timeout=60)
    pool = mitogen.service.Pool(router, services=[service_targets.Plain(router)], size=2)
    assert router.myself().call_service(service_targets.Plain, 'unprivileged') == 'unprivileged'
    pool.stop()
    child.shutdown(wait=True)


# ---- a network that is cut

@pytest.fixture
def make_network():
    """
    A function that makes a network of a class, with its arguments.
    """
    made = []

    def make(cls, *args):
        made.append(cls(*args))
        return made[-1]

    yield make
    for net in made:
        net.close()


@pytest.fixture
def make_server(account, broker):
    """
    A function that makes an ssh server at an address, whose clients leave with the broker at the
    end of the test.
    """
    made = []

    def make(address):
        made.append(sshd.Server(account, address=address))
        return made[-1]

    yield make
    broker.shutdown()
    broker.join()
    for server in made:
        server.cut()
        server.wait_until_left()
        server.close()
        shutil.rmtree(server.folder)


def test_ssh_over_a_network_that_is_cut(router, make_network, make_server, account, tmp_path):
    """
    No packet says that the network is cut. ssh's questions find it out, threads that wait are told,
    and all else goes on.
    """
    net = make_network(network.Network)
    server = make_server(net.address)
    options = server.options(ssh_path=net.ssh(tmp_path), keepalive_interval=1, keepalive_count=1)
    here = router.local()
    there = router.ssh(**options)
    below = router.local(via=there, python_path=account.python)
    gone = Latch()
    mitogen.core.listen(below, 'disconnect', gone.put)
    calls = [there.call_async(targets.sleep, 600), below.call_async(targets.sleep, 600)]
    net.cut()
    for call in calls:
        with pytest.raises(ChannelError) as caught:
            call.get(timeout=60)
        assert 'was lost' in str(caught.value)
    gone.get(timeout=60)
    with pytest.raises(StreamError):
        router.ssh(**dict(options, connect_timeout=1))
    assert here.call(targets.add, 1, 2) == 3
    # The server has not heard of it.
    server.cut()
    net.mend()
    assert router.ssh(**options).call(targets.add, 1, 2) == 3


def test_ssh_over_a_network_that_delays_and_loses(router, make_network, make_server, tmp_path):
    """
    A loss of the network costs nothing but time: each answer is right, the order is kept, and so it
    is when nothing at all arrives for a while.
    """
    net = make_network(network.BadNetwork, (0.002, 0.015), 0.03)
    server = make_server(net.address)
    options = server.options(ssh_path=net.ssh(tmp_path))
    there = router.ssh(**options)
    below = router.local(via=there, python_path=options['python_path'])
    data = os.urandom(200000)
    for context in there, below:
        assert context.call(targets.identity, data) == data
    receiver = Receiver(router)
    sending = [context.call_async(targets.say_all, receiver.to_sender(), 500) for context in (there, below)]
    net.loss = 1.0
    lost = net.counts[1]
    calls = [context.call_async(targets.add, number, 1) for number in range(20) for context in (there, below)]
    # The first ones, and some that were sent again.
    testlib.wait_for(lambda: net.counts[1] > lost + 3, testlib.patience(), 'packets are lost')
    net.loss = 0.03
    heard = {there.context_id: [], below.context_id: []}
    for _ in range(1000):
        msg = receiver.get(timeout=testlib.patience())
        heard[msg.src_id].append(msg.unpickle())
    assert list(heard.values()) == [list(range(500))] * 2
    assert [call.get(timeout=testlib.patience()).unpickle() for call in calls] == [
        number + 1 for number in range(20) for _ in range(2)]
    for call in sending:
        call.get(timeout=testlib.patience())


def test_a_receiver_of_a_context_behind_a_stopped_one_waits(router):
    """
    A process that is stopped is not lost: messages sent to it arrive when it goes on.
    """
    interm = router.local()
    child = router.local(via=interm)
    pids = [context.call(os.getpid) for context in (interm, child)]
    with Receiver(router) as receiver:
        child.call_no_reply(targets.say, receiver.to_sender(), 1)
        assert receiver.get(timeout=60).unpickle() == 1
        for pid in pids:
            testlib.stop_process(pid)
            try:
                child.call_no_reply(targets.say, receiver.to_sender(), 2)
                with pytest.raises(mitogen.core.TimeoutError):
                    receiver.get(timeout=0.05)
            finally:
                os.kill(pid, 18)
            assert receiver.get(timeout=60).unpickle() == 2
