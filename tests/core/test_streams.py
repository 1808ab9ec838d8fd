"""
Sides, streams, and protocols that cut their input into lines.
"""

import errno
import os
import socket

import pytest

import mitogen.core
from mitogen.core import iter_split

import testlib


# ---- iter_split

def split(buf, delim, func=None):
    seen = []
    rest = iter_split(buf, delim, func or seen.append)
    return seen, rest


@pytest.mark.parametrize('buf,chunks,rest', [
    (b'', [], b''),
    (b'x', [], b'x'),
    (b'\n', [b''], b''),
    (b'a\n', [b'a'], b''),
    (b'a\nb', [b'a'], b'b'),
    (b'a\nb\n', [b'a', b'b'], b''),
    (b'a\n\nb\n', [b'a', b'', b'b'], b''),
])
def test_iter_split_calls_for_each_complete_chunk(buf, chunks, rest):
    assert split(buf, b'\n') == (chunks, (rest, True))


def test_iter_split_works_on_text_too():
    assert split(u'a\nb', u'\n') == ([u'a'], (u'b', True))
    assert iter_split('xxxx\nyy', '\n', lambda chunk: False) == ('yy', False)


def test_iter_split_takes_longer_delimiters():
    assert split(b'a--b--c', b'--') == ([b'a', b'b'], (b'c', True))


def test_iter_split_stops_at_false_and_at_nothing_else():
    assert split(b'a\nb\n', b'\n', lambda chunk: False)[1] == (b'b\n', False)
    assert split(b'a\nb\n', b'\n', lambda chunk: None)[1] == (b'', True)
    assert split(b'a\nb\n', b'\n', lambda chunk: 0)[1] == (b'', True)
    assert split(b'a\nb\n', b'\n', lambda chunk: '')[1] == (b'', True)


# ---- sides

def make_side(fp, **kwargs):
    return mitogen.core.Side(mitogen.core.Stream(), fp, **kwargs)


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_side_reads_and_writes(pair):
    side = make_side(pair[0])
    assert side.fd == pair[0].fileno()
    assert side.closed is False
    assert side.keep_alive is True
    assert side.write(b'hello') == 5
    assert pair[1].recv(10) == b'hello'
    pair[1].sendall(b'world')
    assert side.read() == b'world'
    pair[1].sendall(b'world')
    assert side.read(2) == b'wo'


def test_a_side_reads_nothing_at_the_end(pair):
    pair[1].close()
    assert make_side(pair[0]).read() == b''


def test_a_side_whose_peer_is_gone_writes_none(pair):
    pair[1].close()
    assert make_side(pair[0]).write(b'x') is None


def test_a_closed_side_reads_nothing_and_writes_none(pair):
    side = make_side(pair[0])
    fd = side.fd
    side.close()
    side.close()
    assert side.closed
    assert side.fd == fd
    assert side.read() == b''
    assert side.write(b'x') is None


def test_a_full_side_raises(pair):
    pair[0].setblocking(False)
    side = make_side(pair[0])
    with pytest.raises(OSError) as caught:
        while True:
            side.write(b'x' * 65536)
    assert caught.value.errno == errno.EAGAIN


def test_a_side_is_closed_on_exec_unless_told_otherwise(pair):
    os.set_inheritable(pair[0].fileno(), True)
    make_side(pair[0], cloexec=False)
    assert os.get_inheritable(pair[0].fileno())
    make_side(pair[0])
    assert not os.get_inheritable(pair[0].fileno())


def test_keep_alive_can_be_set(pair):
    side = make_side(pair[0], keep_alive=False)
    assert side.keep_alive is False
    side.keep_alive = True
    assert side.keep_alive is True


# ---- streams and protocols

class Recording(mitogen.core.DelimitedProtocol):
    def __init__(self):
        self.lines = []
        self.tails = []

    def on_line_received(self, line):
        self.lines.append(line)

    def on_partial_line_received(self, line):
        self.tails.append(line)


def test_a_stream_and_its_protocol_know_each_other():
    stream = Recording.build_stream()
    first = stream.protocol
    assert first.stream is stream
    second = Recording()
    stream.set_protocol(second)
    assert stream.protocol is second
    assert second.stream is stream
    assert first.stream is None


def test_a_stream_has_these_defaults():
    stream = mitogen.core.Stream()
    assert (stream.receive_side, stream.transmit_side, stream.conn) == (None, None, None)
    assert stream.name == u'default'
    assert stream in set([stream])


def test_accept_wraps_both_files(pair):
    stream = Recording.build_stream()
    stream.accept(pair[0], pair[0])
    assert stream.receive_side.fd == stream.transmit_side.fd == pair[0].fileno()
    assert stream.receive_side.stream is stream


@pytest.mark.parametrize('parts,lines,tails', [
    ([b'one\ntwo\n'], [b'one', b'two'], []),
    ([b'one', b'\n'], [b'one'], [b'one']),
    ([b'o', b'n', b'e\nt'], [b'one'], [b'o', b'on', b't']),
    ([b'\n\n'], [b'', b''], []),
])
def test_delimited_input_is_cut_into_lines(parts, lines, tails):
    stream = Recording.build_stream()
    for part in parts:
        stream.protocol.on_receive(None, part)
    assert stream.protocol.lines == lines
    assert stream.protocol.tails == tails


def test_what_follows_a_switch_of_protocol_reaches_the_new_one():
    class Switching(Recording):
        def on_line_received(self, line):
            self.lines.append(line)
            self.stream.set_protocol(Recording())
            return False

    stream = Switching.build_stream()
    first = stream.protocol
    first.on_receive(None, b'one\ntwo\nthree\nta')
    assert first.lines == [b'one']
    assert stream.protocol.lines == [b'two', b'three']
    assert stream.protocol.tails == [b'ta']


def test_build_stream_uses_the_class_of_stream_and_passes_arguments():
    class Stream(mitogen.core.Stream):
        pass

    class Protocol(mitogen.core.Protocol):
        stream_class = Stream

        def __init__(self, a, b=None):
            self.args = a, b

    stream = Protocol.build_stream(1, b=2)
    assert type(stream) is Stream
    assert type(stream.protocol) is Protocol
    assert stream.protocol.args == (1, 2)
    assert stream.protocol.stream is stream
    assert mitogen.core.Protocol.stream_class is mitogen.core.Stream


def test_a_stream_reads_as_much_as_its_protocol_wants(pair):
    class Protocol(mitogen.core.Protocol):
        read_size = 3

        def on_receive(self, broker, buf):
            got.append(buf)

    got = []
    assert mitogen.core.Protocol.read_size == mitogen.core.CHUNK_SIZE
    stream = Protocol.build_stream()
    stream.accept(*pair)
    pair[1].sendall(b'abcd')
    stream.on_receive(None)
    stream.on_receive(None)
    assert got == [b'abc', b'd']


def test_a_delimiter_may_be_of_any_length():
    class Protocol(mitogen.core.DelimitedProtocol):
        delimiter = b'--'

        def on_line_received(self, line):
            lines.append(line)

    lines = []
    protocol = Protocol.build_stream().protocol
    assert mitogen.core.DelimitedProtocol.delimiter == b'\n'
    for part in b'a-', b'-b\n--c':
        protocol.on_receive(None, part)
    assert lines == [b'a', b'b\n']


class Stubborn(object):
    """
    A file that is closed, and says that it could not be.
    """

    def __init__(self, fp):
        self._fp = fp
        self.fileno = fp.fileno

    def close(self):
        self._fp.close()
        raise OSError(errno.EIO, 'cannot close')


@pytest.mark.parametrize('frames', [False, True])
def test_a_side_that_cannot_be_closed_does_not_keep_the_other_open(router, frames):
    if frames:
        stream = mitogen.core.MitogenProtocol.build_stream(router, 1234)
    else:
        stream = Recording.build_stream()
    files = socket.socketpair() + socket.socketpair()
    stream.accept(Stubborn(files[0]), files[2])

    def disconnect():
        with pytest.raises(OSError, match='cannot close'):
            stream.on_disconnect(router.broker)

    router.broker.defer_sync(disconnect)
    assert stream.receive_side.closed and stream.transmit_side.closed
    assert [fp.fileno() < 0 for fp in files] == [True, False, True, False]
    for fp in files:
        fp.close()


def test_what_a_peer_sent_before_it_left_is_read_though_it_is_written_to(router):
    """
    A child that ends may have logged something, while an answer to it is on its way.
    """
    with testlib.Peer(router, 101) as peer:
        gone = mitogen.core.Latch()
        mitogen.core.listen(peer.stream, 'disconnect', gone.put)
        receiver = mitogen.core.Receiver(router)

        def end():
            # On the broker's thread, which reads nothing meanwhile.
            for number in range(3):
                peer.send(0, handle=receiver.handle, data=b'%d' % (number,))
            peer.sock.close()
            router._async_route(mitogen.core.Message(dst_id=101, handle=1000, data=b'late'))
        router.broker.defer_sync(end)
        gone.get(timeout=testlib.patience())
        assert [receiver.get(timeout=testlib.patience()).data for _ in range(3)] == [b'0', b'1', b'2']
