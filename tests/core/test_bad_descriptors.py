"""
No descriptor left, and numbers that are no descriptor: each is an OSError where it happens, and
never the end of the process.
"""

import errno
import fcntl
import os
import socket
import subprocess
import sys

import pytest

import mitogen.core
import testlib

#: Makes a broker with so many descriptors left, and tells what came of it.
FEW_LEFT = '''
import os
import resource
import sys

import mitogen.core
import mitogen.master

highest = max(int(name) for name in os.listdir('/proc/self/fd'))
resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, highest + 20))
taken = []
try:
    while True:
        taken.append(os.open('/dev/null', os.O_RDONLY))
except OSError:
    pass
for _ in range(int(sys.argv[1])):
    os.close(taken.pop())
try:
    broker = mitogen.master.Broker()
except OSError as error:
    print('OSError', error.errno)
else:
    broker.shutdown()
    broker.join()
    print('made')
'''


def make_broker(left):
    """
    Return what a program prints that makes a broker with so many descriptors left.
    """
    env = dict(os.environ, MITOGEN_CORE=mitogen.core.CORE)
    done = subprocess.run([sys.executable, '-c', FEW_LEFT, str(left)], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=testlib.patience(), check=False, cwd='/')
    return done.stdout.decode().strip()


@pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='needs /proc')
def test_a_broker_for_which_there_are_no_descriptors_is_an_oserror():
    results = [make_broker(left) for left in range(6)]
    assert results[0] == 'OSError 24' and results[-1] == 'made'
    assert set(results) == {'OSError 24', 'made'}
    assert results == sorted(results)  # from some number on there are enough


@pytest.fixture
def poller(broker):
    """
    As a broker has one.
    """
    poller = type(broker.poller)()
    yield poller
    poller.close()


def closed_number():
    reader, writer = os.pipe()
    os.close(writer)
    os.close(reader)
    return reader


def check_goes_on(poller):
    """
    Check that the poller still hears of a descriptor.
    """
    reader, writer = os.pipe()
    poller.start_receive(reader, 'data')
    os.write(writer, b'x')
    assert list(poller.poll(testlib.patience())) == ['data']
    poller.stop_receive(reader)
    os.close(reader)
    os.close(writer)


def test_a_number_that_is_no_descriptor_is_refused(poller):
    """
    At once, or by the next poll.
    """
    number = closed_number()
    with pytest.raises(OSError):
        poller.start_receive(number)
        list(poller.poll(0.01))
    poller.stop_receive(number)
    check_goes_on(poller)


def test_a_descriptor_that_is_closed_before_the_first_poll_does_no_harm(poller):
    reader, writer = os.pipe()
    poller.start_receive(reader)
    os.close(reader)
    try:
        assert not list(poller.poll(0.01))
    except OSError:
        pass
    poller.stop_receive(reader)
    os.close(writer)
    check_goes_on(poller)


def test_a_stream_of_frames_on_a_number_that_is_none_is_an_oserror(router):
    low, theirs = socket.socketpair()
    # A number that no other thread gets when it opens something meanwhile.
    ours = socket.socket(fileno=fcntl.fcntl(low.fileno(), fcntl.F_DUPFD, 700))
    low.close()
    ours.setblocking(False)
    stream = mitogen.core.MitogenProtocol.build_stream(router, 77)
    stream.accept(ours, ours)
    os.close(ours.detach())
    with theirs, pytest.raises(OSError) as info:
        router.broker.defer_sync(lambda: router.register(mitogen.core.Context(router, 77), stream))
    assert info.value.errno == errno.EBADF
    assert router.broker.defer_sync(lambda: 42) == 42


def test_a_broker_outlives_a_descriptor_that_is_closed_behind_its_back(router):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    came = mitogen.core.Latch()

    class ClosingProtocol(mitogen.core.Protocol):
        def on_receive(self, broker, buf):
            os.close(ours.detach())
            came.put(buf)

    stream = ClosingProtocol.build_stream()
    stream.accept(ours, ours)
    router.broker.start_receive(stream)
    with theirs:
        theirs.send(b'x')
        assert came.get(timeout=testlib.patience()) == b'x'
        for _ in range(3):
            assert router.broker.defer_sync(lambda: 42) == 42
