"""
Every poller keeps the same contract.
"""

import os
import pty
import socket
import time

import pytest

import mitogen.core
import mitogen.parent

CLASSES = [cls for cls in mitogen.parent.POLLERS if cls.SUPPORTED]


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def poller(request):
    poller = request.param()
    yield poller
    poller.close()


@pytest.fixture
def pair():
    first, second = socket.socketpair()
    for sock in (first, second):
        sock.setblocking(False)
    yield first, second
    first.close()
    second.close()


def poll(poller, timeout=0):
    return list(poller.poll(timeout))


def fill(sock):
    try:
        while True:
            sock.send(b'x' * 65536)
    except BlockingIOError:
        pass


def test_the_order_of_preference():
    assert mitogen.parent.POLLERS[-1] is mitogen.core.Poller
    assert mitogen.parent.PREFERRED_POLLER is [cls for cls in mitogen.parent.POLLERS if cls.SUPPORTED][0]
    assert mitogen.core.Poller.SUPPORTED is True
    for cls in CLASSES:
        assert issubclass(cls, mitogen.core.Poller)


def test_nothing_registered_nothing_ready(poller):
    assert poll(poller) == []
    assert poller.readers == []
    assert poller.writers == []


def test_an_idle_poller_waits_as_long_as_asked(poller, pair):
    poller.start_receive(pair[0].fileno())
    start = time.time()
    assert poll(poller, 0.2) == []
    assert time.time() - start >= 0.199


def test_a_poll_without_time_does_not_wait(poller, pair):
    poller.start_receive(pair[0].fileno())
    # Had it any time to wait, it would wait for ever.
    assert poll(poller, 0) == []


def test_what_is_readable_yields_its_data(poller, pair):
    poller.start_receive(pair[0].fileno(), 'data')
    pair[1].send(b'x')
    assert poll(poller, 5) == ['data']
    assert poll(poller, None) == ['data']
    pair[0].recv(10)
    assert poll(poller) == []


def test_what_is_writable_yields_its_data(poller, pair):
    poller.start_transmit(pair[0].fileno(), 'data')
    assert poll(poller, 5) == ['data']
    fill(pair[0])
    assert poll(poller) == []


def test_data_defaults_to_the_descriptor(poller, pair):
    fd = pair[0].fileno()
    poller.start_transmit(fd)
    assert poll(poller) == [fd]
    assert poller.writers == [(fd, fd)]


def test_registrations_can_be_listed(poller, pair):
    poller.start_receive(pair[0].fileno(), 'reader')
    poller.start_transmit(pair[1].fileno(), 'writer')
    assert poller.readers == [(pair[0].fileno(), 'reader')]
    assert poller.writers == [(pair[1].fileno(), 'writer')]


def test_both_directions_of_one_descriptor_yield_their_own_data(poller, pair):
    poller.start_receive(pair[0].fileno(), 'reader')
    poller.start_transmit(pair[0].fileno(), 'writer')
    pair[1].send(b'x')
    assert sorted(poll(poller)) == ['reader', 'writer']
    poller.stop_receive(pair[0].fileno())
    assert poll(poller) == ['writer']
    poller.start_receive(pair[0].fileno(), 'reader')
    poller.stop_transmit(pair[0].fileno())
    assert poll(poller) == ['reader']


def test_registering_again_replaces_the_data(poller, pair):
    poller.start_transmit(pair[0].fileno(), 'first')
    poller.start_transmit(pair[0].fileno(), 'second')
    assert poll(poller) == ['second']
    assert poller.writers == [(pair[0].fileno(), 'second')]


def test_stopping_ends_it(poller, pair):
    pair[1].send(b'x')
    poller.start_receive(pair[0].fileno())
    poller.stop_receive(pair[0].fileno())
    assert poll(poller) == []
    assert poller.readers == []


def test_stopping_what_is_absent_is_silent(poller, pair):
    for _ in range(2):
        poller.stop_receive(pair[0].fileno())
        poller.stop_transmit(pair[0].fileno())
        poller.stop_receive(12345)


def test_a_hang_up_is_readable(poller, pair):
    poller.start_receive(pair[0].fileno(), 'data')
    pair[1].close()
    assert poll(poller, 5) == ['data']


def test_a_hang_up_of_a_terminal_is_readable(poller):
    master, slave = pty.openpty()
    poller.start_receive(master, 'data')
    assert poll(poller) == []
    os.close(slave)
    assert poll(poller, 5) == ['data']
    poller.stop_receive(master)
    os.close(master)


def test_a_registration_stopped_while_iterating_is_not_yielded(poller, pair):
    poller.start_transmit(pair[0].fileno(), 'a')
    poller.start_transmit(pair[1].fileno(), 'b')
    seen = []
    for data in poller.poll(0):
        seen.append(data)
        poller.stop_transmit(pair[0].fileno())
        poller.stop_transmit(pair[1].fileno())
    assert len(seen) == 1


def test_a_registration_made_again_before_iterating_is_not_yielded(poller, pair):
    poller.start_receive(pair[0].fileno(), 'old')
    pair[1].send(b'x')
    events = poller.poll(0)
    poller.stop_receive(pair[0].fileno())
    poller.start_receive(pair[0].fileno(), 'new')
    assert [data for data in events if data == 'old'] == []
    assert poll(poller) == ['new']


def test_a_descriptor_used_again_while_iterating_is_not_yielded(poller, pair):
    poller.start_transmit(pair[0].fileno(), 'a')
    poller.start_transmit(pair[1].fileno(), 'b')
    numbers = {'a': pair[0].fileno(), 'b': pair[1].fileno()}
    seen = []
    for data in poller.poll(0):
        seen.append(data)
        if len(seen) == 1:
            other = 'b' if data == 'a' else 'a'
            poller.stop_transmit(numbers[other])
            poller.start_transmit(numbers[other], 'again')
    assert len(seen) == 1


def test_many_descriptors(poller):
    pairs = [socket.socketpair() for _ in range(100)]
    for i, (ours, theirs) in enumerate(pairs):
        poller.start_receive(ours.fileno(), ('pair', i))
        theirs.send(b'x')
    seen = set()
    deadline = time.time() + 10
    while len(seen) < 100 and time.time() < deadline:
        for _, i in poller.poll(1):
            seen.add(i)
            pairs[i][0].recv(1)
    assert seen == set(range(100))
    for ours, theirs in pairs:
        poller.stop_receive(ours.fileno())
        ours.close()
        theirs.close()


def test_close_can_be_repeated(poller):
    poller.close()
    poller.close()


def test_a_brokers_poller_may_be_any_of_them(poller):
    import mitogen.master

    class Broker(mitogen.master.Broker):
        poller_class = type(poller)

    broker = Broker()
    with mitogen.master.Router(broker) as router:
        assert router.local().call(os.getpid) != os.getpid()
