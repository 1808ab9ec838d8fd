"""
A program with streams, protocols, writers, pollers and timers of its own on a broker: a server that
answers lines, and turns into one that shouts.
"""

import logging
import os
import socket
import threading

import mitogen.core
import mitogen.master
import mitogen.parent
from mitogen.core import BufferedWriter, DelimitedProtocol, Latch, Protocol, listen, unlisten

events = Latch()


class AnsweringProtocol(DelimitedProtocol):
    """
    Answers each line, until one says to switch.
    """

    def __init__(self, broker):
        self.writer = BufferedWriter(broker, self)
        self.tails = []

    def on_line_received(self, line):
        if line == b'switch':
            self.stream.set_protocol(ShoutingProtocol(self.writer))
            return False
        self.writer.write(b'<' + line + b'>')

    def on_partial_line_received(self, line):
        self.tails.append(line)

    def on_transmit(self, broker):
        self.writer.on_transmit(broker)

    def on_disconnect(self, broker):
        events.put('end of the first protocol')
        super(AnsweringProtocol, self).on_disconnect(broker)


class ShoutingProtocol(Protocol):
    read_size = 8

    def __init__(self, writer):
        self.writer = writer

    def on_receive(self, broker, buf):
        os.write(self.stream.transmit_side.fd, buf.upper())

    def on_disconnect(self, broker):
        events.put('end of the second protocol')
        super(ShoutingProtocol, self).on_disconnect(broker)


class FailingProtocol(Protocol):
    def on_receive(self, broker, buf):
        raise ValueError('what is that?')

    def on_disconnect(self, broker):
        events.put('end of what failed')
        super(FailingProtocol, self).on_disconnect(broker)


class LingeringProtocol(Protocol):
    """
    Does not end when the broker does.
    """

    def on_shutdown(self, broker):
        events.put('asked to end')

    def on_receive(self, broker, buf):
        events.put(buf)

    def on_disconnect(self, broker):
        events.put('ended')
        super(LingeringProtocol, self).on_disconnect(broker)


class WatchedPoller(mitogen.parent.PollPoller):
    polls = 0

    def poll(self, timeout=None):
        self.polls += 1
        return super(WatchedPoller, self).poll(timeout)


def attach(broker, stream):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream.accept(ours, ours)
    broker.start_receive(stream)
    return theirs


def read(sock, size):
    data = b''
    while len(data) < size:
        data += sock.recv(size - len(data))
    return data


def talk(broker):
    stream = AnsweringProtocol.build_stream(broker)
    stream.name = 'server'
    heard = []
    listen(stream, 'disconnect', lambda: heard.append('disconnect'))
    client = attach(broker, stream)
    print(type(stream) is mitogen.core.Stream, stream.conn, stream.receive_side.keep_alive, stream.receive_side.closed)
    client.sendall(b'one\ntwo\n')
    print(read(client, 10))
    client.sendall(b'thr')
    while not broker.defer_sync(lambda: list(stream.protocol.tails)):
        pass
    client.sendall(b'ee\nswitch\nrest')
    print(read(client, 11))
    print(type(stream.protocol).__name__)
    client.sendall(b'more than eight bytes')
    print(read(client, 21))
    client.close()
    print(events.get(timeout=10), heard)
    broker.defer_sync(lambda: None)
    print(stream.receive_side.closed, stream.receive_side.read(), stream.transmit_side.write(b'x'))


def fill(broker):
    # More than the kernel takes at once.
    stream = AnsweringProtocol.build_stream(broker)
    client = attach(broker, stream)
    chunks = [b'%06d ' % i * 10000 for i in range(20)]

    def write():
        for chunk in chunks:
            stream.protocol.writer.write(chunk)
        return stream.protocol.writer._len

    def writes():
        return [data[0].stream for _, data in broker.poller.writers]

    print(broker.defer_sync(write) > 0, stream in broker.defer_sync(writes))
    print(read(client, sum(map(len, chunks))) == b''.join(chunks))
    while stream in broker.defer_sync(writes):
        pass
    print(broker.defer_sync(lambda: stream.protocol.writer._len))
    broker.stop_receive(stream)
    print(stream in [data[0].stream for _, data in broker.defer_sync(lambda: broker.poller.readers)])
    broker.defer(stream.on_disconnect, broker)
    print(events.get(timeout=10), client.recv(1))
    client.close()


def fail(broker):
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger('mitogen').addHandler(handler)
    client = attach(broker, FailingProtocol.build_stream())
    client.send(b'x')
    print(events.get(timeout=10), client.recv(1))
    client.close()
    logging.getLogger('mitogen').removeHandler(handler)
    print([(record.levelname, bool(record.exc_info)) for record in records if record.levelno >= logging.ERROR])
    for outcome in lambda: 5, lambda: {}['absent'], lambda: KeyError('returned'):
        try:
            print(broker.defer_sync(outcome))
        except KeyError as error:
            print('KeyError', error)


def schedule(broker):
    def start():
        now = mitogen.core.now()
        timers = [broker.timers.schedule(now + delay, lambda delay=delay: events.put(delay))
                  for delay in (0.04, 0.02, 0.03)]
        timers[2].cancel()
        timers[2].cancel()
        return timers, broker.timers.get_timeout()

    timers, timeout = broker.defer_sync(start)
    print(timers[1] < timers[0], [timer.active for timer in timers][2], timeout <= 0.02)
    print([events.get(timeout=10), events.get(timeout=10)])
    print(broker.defer_sync(lambda: (broker.timers.get_timeout(), [timer.active for timer in timers])))

    ours = mitogen.parent.TimerList()
    ours._now = lambda: 29
    due = []
    ours.schedule(29, lambda: due.append('first'))
    ours.schedule(29, lambda: due.append('second'))
    later = ours.schedule(31, lambda: due.append('later'))
    print(ours.get_timeout())
    ours.expire()
    print(sorted(due), ours.get_timeout())
    later.cancel()
    print(ours.get_timeout())


def poll():
    for cls in mitogen.parent.POLLERS + (WatchedPoller,):
        if not cls.SUPPORTED:
            continue
        poller = cls()
        rfd, wfd = os.pipe()
        poller.start_receive(rfd, 'data')
        poller.start_transmit(wfd)
        print(poller.readers == [(rfd, 'data')], poller.writers == [(wfd, wfd)], list(poller.poll(0)) == [wfd])
        poller.stop_transmit(wfd)
        poller.stop_transmit(wfd)
        os.write(wfd, b'x')
        print(list(poller.poll(10)))
        # A descriptor that is watched again while the result is looked at waits for the next call.
        ready = iter(poller.poll(0))
        poller.stop_receive(rfd)
        poller.start_receive(rfd, 'again')
        print(list(ready), list(poller.poll(0)))
        poller.stop_receive(rfd)
        print(list(poller.poll(0.01)), getattr(poller, 'polls', None))
        poller.close()
        poller.close()
        os.close(rfd)
        os.close(wfd)


def end(broker):
    client = attach(broker, LingeringProtocol.build_stream())
    heard = []

    def removed():
        heard.append('removed')

    listen(broker, 'shutdown', removed)
    for name in 'before_shutdown', 'shutdown', 'exit':
        listen(broker, name, lambda name=name: heard.append((name, threading.current_thread().name)))
    unlisten(broker, 'shutdown', removed)
    broker.shutdown()
    broker.shutdown()
    print(events.get(timeout=10))
    client.send(b'still there')
    print(events.get(timeout=10))
    client.close()
    print(events.get(timeout=10))
    broker.join()
    print(heard)
    for defer in broker.defer, broker.defer_sync:
        try:
            defer(int)
        except mitogen.core.Error as error:
            print(error.args[0] == mitogen.core.Waker.broker_shutdown_msg)


if __name__ == '__main__':
    logging.getLogger('mitogen').addHandler(logging.NullHandler())
    logging.getLogger('mitogen').propagate = False
    master_broker = mitogen.master.Broker()
    talk(master_broker)
    fill(master_broker)
    fail(master_broker)
    schedule(master_broker)
    poll()
    end(master_broker)
