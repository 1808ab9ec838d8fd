"""
The pollers of `mitogen.parent`, as far as they differ from each other.
"""

import errno
import os
import select
import socket
import time
from unittest import mock

import pytest

import mitogen
import mitogen.core
import mitogen.parent


OWN_POLLERS = [mitogen.parent.PollPoller, mitogen.parent.EpollPoller, mitogen.parent.KqueuePoller]


@pytest.fixture(params=[cls for cls in OWN_POLLERS if cls.SUPPORTED], ids=lambda cls: cls.__name__)
def poller(request):
    poller = request.param()
    yield poller
    poller.close()
    poller.close()


@pytest.fixture
def pair():
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


def test_the_order_of_pollers():
    parent = mitogen.parent
    assert parent.POLLERS[:3] == (parent.EpollPoller, parent.KqueuePoller, parent.PollPoller)
    assert parent.PREFERRED_POLLER.SUPPORTED
    assert all(issubclass(cls, mitogen.core.Poller) for cls in parent.POLLERS)
    assert mitogen.core.Latch.poller_class is parent.POLLER_LIGHTWEIGHT


def test_an_idle_poll_takes_its_time(poller, pair):
    poller.start_receive(pair[0].fileno())
    assert list(poller.poll(0)) == []
    start = mitogen.core.now()
    assert list(poller.poll(0.2)) == []
    assert mitogen.core.now() - start >= 0.2


def test_both_directions_of_one_file_have_their_data(poller, pair):
    fd = pair[0].fileno()
    poller.start_receive(fd, 'read')
    poller.start_transmit(fd, 'write')
    assert poller.readers == [(fd, 'read')]
    assert poller.writers == [(fd, 'write')]
    assert list(poller.poll(0)) == ['write']
    pair[1].send(b'x')
    assert sorted(poller.poll(0)) == ['read', 'write']
    poller.stop_transmit(fd)
    assert list(poller.poll(0)) == ['read']
    poller.stop_receive(fd)
    assert list(poller.poll(0)) == []
    assert poller.readers == poller.writers == []


def test_data_defaults_to_the_descriptor(poller, pair):
    pair[1].send(b'x')
    poller.start_receive(pair[0].fileno())
    assert list(poller.poll()) == [pair[0].fileno()]


def test_registering_again_replaces_the_data(poller, pair):
    pair[1].send(b'x')
    poller.start_receive(pair[0].fileno(), 'old')
    poller.start_receive(pair[0].fileno(), 'new')
    assert list(poller.poll(0)) == ['new']


def test_stopping_an_unknown_file_is_silent(poller, pair):
    poller.stop_receive(pair[0].fileno())
    poller.stop_transmit(pair[0].fileno())
    poller.start_receive(pair[0].fileno())
    poller.stop_receive(pair[0].fileno())
    poller.stop_receive(pair[0].fileno())


def test_a_file_restarted_after_poll_was_called_yields_nothing(poller, pair):
    fd = pair[0].fileno()
    pair[1].send(b'x')
    poller.start_receive(fd)
    events = poller.poll(0)
    poller.stop_receive(fd)
    poller.start_receive(fd)
    assert list(events) == []
    assert list(poller.poll(0)) == [fd]


def test_a_file_stopped_or_restarted_between_two_events_yields_nothing(poller):
    pairs = [socket.socketpair() for _ in range(2)]
    try:
        for ours, theirs in pairs:
            theirs.send(b'x')
            poller.start_receive(ours.fileno())
        fds = set(ours.fileno() for ours, _ in pairs)
        events = poller.poll(0)
        other, = fds - set([next(events)])
        poller.stop_receive(other)
        poller.start_receive(other)
        assert list(events) == []
        events = poller.poll(0)
        other, = fds - set([next(events)])
        poller.stop_receive(other)
        assert list(events) == []
    finally:
        for ours, theirs in pairs:
            ours.close()
            theirs.close()


def test_a_hung_up_terminal_is_readable(poller):
    master, slave = os.openpty()
    try:
        poller.start_receive(master)
        assert list(poller.poll(0)) == []
        os.close(slave)
        assert list(poller.poll(10)) == [master]
        poller.stop_receive(master)
    finally:
        os.close(master)


def test_a_pipe_without_reader_is_writable(poller):
    rfd, wfd = os.pipe()
    os.close(rfd)
    try:
        poller.start_transmit(wfd)
        assert list(poller.poll(10)) == [wfd]
        poller.stop_transmit(wfd)
    finally:
        os.close(wfd)


def test_a_number_closed_and_used_again_can_be_registered(poller):
    first = socket.socketpair()
    fd = first[0].fileno()
    poller.start_receive(fd)
    first[0].close()
    first[1].close()
    assert list(poller.poll(0)) == []
    poller.stop_receive(fd)
    second = socket.socketpair()
    try:
        assert fd in (second[0].fileno(), second[1].fileno())
        for end in second:
            end.send(b'x')
        poller.start_receive(fd)
        assert list(poller.poll(0)) == [fd]
    finally:
        for end in second:
            end.close()


def test_a_number_closed_behind_its_back_does_not_make_poll_spin(pair):
    poller = mitogen.parent.PollPoller()
    fd = os.dup(pair[0].fileno())
    poller.start_receive(fd)
    os.close(fd)
    list(poller.poll(0))
    start = time.time()
    assert list(poller.poll(0.1)) == []
    assert time.time() - start >= 0.1


class FakeKqueue(object):
    """
    As much of select.kqueue() as shows which changes a poller makes.
    """
    def __init__(self):
        self.changes = []
        self.events = []
        self.rfd, self.wfd = os.pipe()

    def fileno(self):
        return self.rfd

    def control(self, changes, count, timeout=None):
        self.changes.extend(changes or ())
        return self.events if count else []

    def close(self):
        for name in 'rfd', 'wfd':
            if getattr(self, name) is not None:
                os.close(getattr(self, name))
                setattr(self, name, None)


def test_kqueue_changes_are_applied_at_once_and_errors_skipped(monkeypatch):
    fake = FakeKqueue()
    for name, value in (
            ('kqueue', lambda: fake), ('kevent', lambda *args: args), ('KQ_EV_ADD', 'add'), ('KQ_EV_DELETE', 'delete'),
            ('KQ_EV_ERROR', 4), ('KQ_FILTER_READ', 'read'), ('KQ_FILTER_WRITE', 'write')):
        monkeypatch.setattr(select, name, value, raising=False)
    poller = mitogen.parent.KqueuePoller()
    try:
        poller.start_receive(5, 'r')
        poller.start_transmit(5, 'w')
        poller.start_receive(6, 'r6')
        assert fake.changes == [(5, 'read', 'add'), (5, 'write', 'add'), (6, 'read', 'add')]
        fake.events = [
            mock.Mock(ident=5, filter='read', flags=0),
            mock.Mock(ident=5, filter='write', flags=0),
            mock.Mock(ident=6, filter='read', flags=4, data=errno.EBADF),
        ]
        assert list(poller.poll(0)) == ['r', 'w']
        del fake.changes[:]
        poller.stop_transmit(5)
        poller.stop_transmit(5)
        assert fake.changes == [(5, 'write', 'delete')]
        assert list(poller.poll(0)) == ['r']
    finally:
        poller.close()
