"""
The small functions of mitogen.core, sides and streams.
"""

import errno
import os
import select
import socket

import pytest

import mitogen.core
from mitogen.core import io_op, iter_split


class Failing(object):
    """
    Raises some exceptions, one a call, and then returns.
    """

    def __init__(self, errors, result='result'):
        self.errors = list(errors)
        self.result = result
        self.calls = []

    def __call__(self, *args):
        self.calls.append(args)
        if self.errors:
            raise self.errors.pop(0)
        return self.result


# ---- io_op

def test_io_op_returns_the_result():
    function = Failing([])
    assert io_op(function, 1, 2) == ('result', None)
    assert function.calls == [(1, 2)]


@pytest.mark.parametrize('cls', [OSError, IOError, select.error])
def test_io_op_tries_again_when_interrupted(cls):
    function = Failing([cls(errno.EINTR, 'x')] * 3)
    assert io_op(function) == ('result', None)
    assert len(function.calls) == 4


def test_io_op_looks_at_the_first_argument_of_the_error():
    function = Failing([OSError(errno.EINTR)] * 3)
    assert io_op(function) == ('result', None)
    assert len(function.calls) == 4


@pytest.mark.parametrize('number', [errno.EIO, errno.ECONNRESET, errno.EPIPE])
@pytest.mark.parametrize('cls', [OSError, IOError, select.error])
def test_io_op_gives_errors_of_a_disconnect_back(cls, number):
    error = cls(number, 'x')
    assert io_op(Failing([error])) == (None, error)


@pytest.mark.parametrize('number', [errno.EAGAIN, errno.EBADF, errno.ENOENT])
def test_io_op_raises_other_errors(number):
    with pytest.raises(OSError) as caught:
        io_op(Failing([OSError(number, 'x')]))
    assert caught.value.errno == number


def test_io_op_leaves_other_exceptions_alone():
    with pytest.raises(ValueError):
        io_op(Failing([ValueError()]))


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


# ---- partition

@pytest.mark.parametrize('function,args,result', [
    ('str_partition', (u'dave', u'x'), (u'dave', u'', u'')),
    ('str_partition', (u'a.b.c', u'.'), (u'a', u'.', u'b.c')),
    ('str_rpartition', (u'dave', u'x'), (u'', u'', u'dave')),
    ('str_rpartition', (u'a.b.c', u'.'), (u'a.b', u'.', u'c')),
    ('bytes_partition', (b'dave', b'x'), (b'dave', b'', b'')),
    ('bytes_partition', (b'a.b.c', b'.'), (b'a', b'.', b'b.c')),
])
def test_partitions(function, args, result):
    found = getattr(mitogen.core, function)(*args)
    assert found == result
    assert [type(v) for v in found] == [type(v) for v in result]


# ---- text and names

def test_to_text():
    for value, text in ((b'\xc3\xa9', u'\xe9'), (u'x', u'x'), (5, u'5'), (mitogen.core.Secret(u's'), u's')):
        found = mitogen.core.to_text(value)
        assert found == text
        assert type(found) is mitogen.core.UnicodeType


def test_b():
    assert mitogen.core.b('abc') == b'abc'
    assert type(mitogen.core.b('abc')) is bytes
    assert mitogen.core.b(u'\u20ac') == b'\xe2\x82\xac'
    assert mitogen.core.b(u'\xe9', 'latin-1') == b'\xe9'


def test_module_lineage():
    assert list(mitogen.core.module_lineage('a.b.c')) == ['a', 'a.b', 'a.b.c']
    assert list(mitogen.core.module_lineage('a')) == ['a']


def test_import_module_returns_the_leaf():
    assert mitogen.core.import_module('os.path') is os.path
    assert mitogen.core.import_module('email.utils').__name__ == 'email.utils'


def test_now_never_runs_backwards():
    times = [mitogen.core.now() for _ in range(1000)]
    assert times == sorted(times)


def test_constants():
    names = {
        'GET_MODULE': 100, 'CALL_FUNCTION': 101, 'FORWARD_LOG': 102, 'ADD_ROUTE': 103, 'DEL_ROUTE': 104,
        'ALLOCATE_ID': 105, 'SHUTDOWN': 106, 'LOAD_MODULE': 107, 'FORWARD_MODULE': 108, 'DETACHING': 109,
        'CALL_SERVICE': 110, 'STUB_CALL_SERVICE': 111, 'GET_RESOURCE': 112, 'LOAD_RESOURCE': 113, 'IS_DEAD': 999,
        'CHUNK_SIZE': 131072,
    }
    assert dict((name, getattr(mitogen.core, name)) for name in names) == names


def test_compatibility_names():
    core = mitogen.core
    assert core.BytesType is bytes
    assert core.UnicodeType is str
    assert set(core.AnyTextType) == set((bytes, str))
    assert isinstance(core.FsPathTypes, tuple)
    assert isinstance(core.integer_types, tuple)
    assert core.PY3 is True
    assert core.PY24 is False
    assert isinstance(core.IS_WSL, bool)
    assert core.ModuleNotFoundError is ModuleNotFoundError
    assert core.BaseException is BaseException
    assert core.select is select
    assert core.mitogen is __import__('mitogen')
    assert core.thread.get_ident() == __import__('threading').get_ident()
    assert core.threading__current_thread().name == core.threading__thread_name(core.threading__current_thread())
    assert core.LOGGERS == ('', 'mitogen', 'mitogen.io')
    assert core.LOG.name == 'mitogen'
    assert core.IOLOG.name == 'mitogen.io'
    assert bytes(core.BufferType(b'abc', 1)) == b'bc'
    assert core.next(iter([1])) == 1
    assert list(core.iteritems({1: 2})) == [(1, 2)]
    assert core._profile_hook.__name__ == '_profile_hook'


# ---- descriptors

def test_blocking_modes():
    rfp, wfp = mitogen.core.pipe()
    for value in (False, True, False):
        mitogen.core.set_blocking(rfp.fileno(), value)
        assert mitogen.core.get_blocking(rfp.fileno()) is value
    rfp.close()
    wfp.close()


@pytest.mark.parametrize('function', ['pipe', 'socketpair'])
@pytest.mark.parametrize('blocking', [None, True, False])
def test_pipes_and_socket_pairs_have_the_mode_asked_for(function, blocking):
    for fp in getattr(mitogen.core, function)(blocking=blocking):
        if blocking is not None:
            assert mitogen.core.get_blocking(fp.fileno()) is blocking
        fp.close()


def test_a_pipe_is_unbuffered():
    rfp, wfp = mitogen.core.pipe()
    wfp.write(b'x')
    assert os.read(rfp.fileno(), 10) == b'x'
    rfp.close()
    wfp.close()


def test_set_cloexec():
    rfp, wfp = mitogen.core.pipe()
    os.set_inheritable(rfp.fileno(), True)
    mitogen.core.set_cloexec(rfp.fileno())
    assert not os.get_inheritable(rfp.fileno())
    rfp.close()
    wfp.close()


def test_set_cloexec_refuses_the_standard_streams():
    with pytest.raises(AssertionError):
        mitogen.core.set_cloexec(2)


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


def test_dictionaries_are_walked_by_functions():
    d = {1: 2}
    assert list(mitogen.core.iterkeys(d)) == [1]
    assert list(mitogen.core.itervalues(d)) == [2]
    assert list(mitogen.core.iteritems(d)) == [(1, 2)]
