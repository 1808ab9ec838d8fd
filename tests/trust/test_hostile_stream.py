"""
Bad bytes on a stream cost that stream and nothing else; good bytes in any pieces are the same
messages.
"""

import os
import random
import struct
from unittest import mock

import pytest

import mitogen.core
from mitogen.core import Latch, Message

import targets
import testlib


@pytest.fixture
def peer(router):
    with testlib.Peer(router, 101) as peer:
        yield peer


def frames(handle, count, seed=0):
    """
    Return (bytes of many frames, the payloads), of sizes from nothing to more than one read.
    """
    rnd = random.Random(seed)
    payloads = [os.urandom(rnd.choice([0, 0, 1, 5, 26, 100, 5000, 131072, 200000])) for _ in range(count)]
    return b''.join(testlib.frame(0, 101, handle=handle, data=p) for p in payloads), payloads


def collect(router):
    """
    Return (handle, function that waits for so many payloads).
    """
    latch = Latch()
    handle = router.add_handler(lambda msg: latch.put(msg.data) if not msg.is_dead else None)
    return handle, lambda count: [latch.get(timeout=60) for _ in range(count)]


# ---- framing

def test_many_frames_in_one_piece(router, peer):
    handle, take = collect(router)
    data, payloads = frames(handle, 40)
    peer.write(data)
    assert take(40) == payloads


def test_many_frames_one_byte_at_a_time(router, peer):
    handle, take = collect(router)
    payloads = [b'', b'x', b'yz' * 20, b'']
    for payload in payloads:
        for byte in testlib.frame(0, 101, handle=handle, data=payload):
            peer.write(bytes(bytearray([byte])))
            testlib.sync(router.broker)
    assert take(4) == payloads


@pytest.mark.parametrize('seed', range(3))
def test_many_frames_in_random_pieces(router, peer, seed):
    handle, take = collect(router)
    data, payloads = frames(handle, 25, seed)
    rnd = random.Random(seed)
    position = 0
    while position < len(data):
        size = rnd.choice([1, 2, 25, 26, 27, 1000, 65536, 200000])
        peer.write(data[position:position + size])
        position += size
    assert take(25) == payloads


def test_pieces_handed_to_the_protocol_by_hand():
    """
    The protocol is a machine for bytes: no socket is needed to feed it.
    """
    payloads = [b'', b'abc', b'x' * 1000]
    data = b''.join(testlib.frame(0, 101, handle=5, data=p) for p in payloads)

    def feed(pieces):
        seen = []
        router = mock.Mock()
        router.max_message_size = 1 << 20
        router._async_route = lambda msg, stream=None: seen.append((msg.src_id, msg.handle, msg.data))
        stream = mitogen.core.MitogenProtocol.build_stream(router, remote_id=101)
        for piece in pieces:
            stream.protocol.on_receive(mock.Mock(), piece)
        return seen

    whole = feed([data])
    assert whole == [(101, 5, p) for p in payloads]
    assert feed([data[i:i + 1] for i in range(len(data))]) == whole
    assert feed([data[:26], data[26:40], data[40:]]) == whole


def test_every_header_field_arrives(router, peer):
    latch = Latch()
    handle = router.add_handler(latch.put)
    peer.send(dst=0, handle=handle, reply_to=2 ** 32 - 1, data=b'd', magic=0x4d4b)
    msg = latch.get(timeout=60)
    assert (msg.dst_id, msg.src_id, msg.auth_id, msg.handle, msg.reply_to, msg.data, msg.enc, msg.router) == (
        0, 101, 101, handle, 2 ** 32 - 1, b'd', Message.ENC_BIN, router)


def test_an_unset_reply_to_arrives_falsy(router, peer):
    latch = Latch()
    peer.send(dst=0, handle=router.add_handler(latch.put))
    assert not latch.get(timeout=60).reply_to


# ---- corruption

def test_26_bytes_of_rubbish_disconnect_once_and_are_logged():
    router = mock.Mock()
    router.max_message_size = 1 << 20
    broker = mock.Mock()
    junk = b'x' * 26
    stream = mitogen.core.MitogenProtocol.build_stream(router, remote_id=101)
    stream.name = 'the stream'
    stream.on_disconnect = mock.Mock()
    with testlib.LogCapture('mitogen') as logs:
        stream.protocol.on_receive(broker, junk)
    assert stream.on_disconnect.call_count == 1
    expected = stream.protocol.corrupt_msg % (stream.name, junk)
    assert [r.getMessage() for r in logs.records if r.levelname == 'ERROR'] == [expected]
    assert router._async_route.call_count == 0


def test_the_text_of_a_corruption_says_so():
    text = mitogen.core.MitogenProtocol.corrupt_msg % ('name', b'bytes')
    assert 'name' in text
    assert repr(b'bytes') in text
    assert 'corrupt' in text.lower() or 'signature' in text.lower()


def test_rubbish_costs_its_own_stream_only(router, peer):
    child = router.local()
    with testlib.LogCapture('mitogen') as logs:
        peer.write(b'x' * 26)
        assert peer.is_closed()
        records = logs.wait(peer.stream.protocol.corrupt_msg % (peer.stream.name, b'x' * 26))
    assert len(records) == 1
    assert router.stream_by_id(101) is None
    assert child.call(targets.identity, 1) == 1


def test_what_was_good_before_the_rubbish_is_delivered(router, peer):
    handle, take = collect(router)
    peer.write(testlib.frame(0, 101, handle=handle, data=b'good') + b'\0' * 500)
    assert take(1) == [b'good']
    assert peer.is_closed()


def test_what_is_good_after_the_rubbish_is_not(router, peer):
    handle, _ = collect(router)
    seen = []
    router.add_handler(seen.append, handle=handle, overwrite=True)
    peer.write(b'\0' * 26 + testlib.frame(0, 101, handle=handle, data=b'late'))
    assert peer.is_closed()
    testlib.sync(router.broker)
    assert seen == []


@pytest.mark.parametrize('magic', [0x4d48, 0x4d4c, 0, -1, 0x494d])
def test_a_wrong_signature_disconnects(router, peer, magic):
    peer.send(dst=0, handle=5, magic=magic)
    assert peer.is_closed()


def test_the_log_of_a_corruption_is_bounded(router, peer):
    with testlib.LogCapture('mitogen') as logs:
        peer.write(b'x' * 100000)
        assert peer.is_closed()
        testlib.wait_for(lambda: logs.records)
    assert all(len(r.getMessage()) < 10000 for r in logs.records)


def test_the_disconnect_of_a_corrupt_stream_reaches_its_context(router, peer):
    latch = Latch()
    mitogen.core.listen(peer.context, 'disconnect', latch.put)
    peer.write(b'x' * 26)
    latch.get(timeout=60)


# ---- size

def test_an_oversize_header_disconnects_before_the_payload_comes(make_router):
    router = make_router(max_message_size=4096)
    with testlib.Peer(router, 101) as peer, testlib.LogCapture('mitogen') as logs:
        peer.write(testlib.frame(0, 101, handle=5, length=4097))
        assert peer.is_closed()
        testlib.wait_for(lambda: [
            r for r in logs.records
            if r.levelname == 'ERROR' and '4096' in r.getMessage() and '4097' in r.getMessage()])


def test_a_payload_at_the_limit_passes(make_router):
    router = make_router(max_message_size=4096)
    with testlib.Peer(router, 101) as peer:
        handle, take = collect(router)
        peer.send(dst=0, handle=handle, data=b'x' * 4096)
        assert take(1) == [b'x' * 4096]


def test_a_header_that_announces_four_gigabytes_costs_no_memory(router, peer):
    def resident():
        with open('/proc/self/statm') as fp:
            return int(fp.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')

    before = resident()
    peer.write(testlib.frame(0, 101, handle=5, length=2 ** 32 - 1))
    assert peer.is_closed()
    assert resident() - before < 64 << 20


def test_a_header_that_announces_much_and_sends_nothing_costs_no_memory(router, peer):
    def virtual():
        with open('/proc/self/statm') as fp:
            return int(fp.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')

    before = virtual()
    peer.write(testlib.frame(0, 101, handle=5, length=router.max_message_size))
    testlib.sync(router.broker)
    peer.write(b'x' * 1000)
    testlib.sync(router.broker)
    assert virtual() - before < 64 << 20


# ---- ends

def test_a_stream_that_ends_inside_a_frame_delivers_nothing(router):
    seen = []
    with testlib.Peer(router, 101) as peer:
        handle = router.add_handler(seen.append)
        peer.write(testlib.frame(0, 101, handle=handle, data=b'x' * 100)[:-1])
        gone = Latch()
        mitogen.core.listen(peer.stream, 'disconnect', gone.put)
        peer.close()
        gone.get(timeout=60)
    testlib.sync(router.broker)
    assert seen == []


def test_frames_before_the_end_of_a_stream_are_delivered(router):
    handle, take = collect(router)
    with testlib.Peer(router, 101) as peer:
        peer.write(b''.join(testlib.frame(0, 101, handle=handle, data=b'%d' % i) for i in range(500)))
    assert take(500) == [b'%d' % i for i in range(500)]


def test_writing_to_a_stream_that_ended_harms_nobody(router, peer):
    peer.close()
    for _ in range(200):
        router.route(Message(dst_id=101, handle=5, data=b'x' * 100000))
    testlib.wait_for(lambda: router.stream_by_id(101) is None)
    testlib.sync(router.broker)


# ---- hostile payloads of well-formed frames

@pytest.mark.parametrize('handle', [100, 102, 103, 104, 105, 109, 112])
@pytest.mark.parametrize('payload', [b'', b'\0', b'\xff' * 40, b'x' * 5000, b'\x80\x02N.', b'a\0b\0c\0d'],
                         ids=lambda p: repr(p)[:12])
def test_nonsense_to_a_handler_of_the_master_harms_nobody(router, peer, handle, payload):
    peer.send(dst=0, handle=handle, data=payload, reply_to=7)
    peer.send(dst=0, handle=31337, reply_to=9)
    while True:
        reply = peer.receive()
        assert reply is not None
        if reply[4] == 9:
            break


def test_random_frames_harm_nobody(router, peer):
    rnd = random.Random(1)
    for _ in range(500):
        handle = rnd.choice([100, 102, 103, 104, 105, 109, 112, 999, 0, 1001, 2 ** 32 - 1])
        peer.write(struct.pack(
            testlib.HEADER, rnd.choice([0x4d49, 0x4d4a, 0x4d4b]), rnd.choice([0, 101, 102, 2 ** 32 - 1]),
            rnd.choice([0, 101, 102]), rnd.choice([0, 101, 102]), handle, rnd.choice([0, 999]), 8) + os.urandom(8))
    testlib.sync(router.broker)
    assert router.local().call(targets.identity, 1) == 1
