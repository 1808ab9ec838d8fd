"""
Memory is bounded: the queue for a slow reader is limited, in the process that sends and in each
that forwards, and no pattern of floods ends in a deadlock.
"""

import os
import socket
import threading

import pytest

import flow_targets
import mitogen.core
import testlib

MIB = 1 << 20


def peak_kib(pid):
    with open('/proc/%d/status' % pid) as fp:
        return int([line for line in fp if line.startswith('VmHWM')][0].split()[1])


def test_sender_waits_for_a_reader_that_is_stopped(router):
    """
    The thread that sends is held back at the high-water mark, and goes on when the reader does.
    """
    router.high_water = MIB
    context = router.local()
    pid = context.call(os.getpid)
    sender = context.call(flow_targets.open_inbox)
    testlib.stop_process(pid)
    sent = []

    def send():
        for _ in range(64):
            sender.send(b'x' * 131072)
            sent.append(1)

    thread = threading.Thread(target=send)
    thread.start()
    # The eighth, with its header, is more than a MiB. It waits unless the kernel has taken some of
    # it already.
    testlib.wait_for(lambda: len(sent) >= 7)
    # The kernel's buffers, and a MiB of ours: far from all.
    thread.join(0.5)
    assert len(sent) < 40 and thread.is_alive()
    assert router.stream_by_id(context.context_id).protocol.pending_bytes() <= 2 * MIB
    os.kill(pid, 18)
    thread.join()
    assert context.call(flow_targets.drain_inbox, 64) == 64 * 131072


def test_router_in_the_middle_does_not_grow(router):
    """
    A grandchild floods another one that reads slowly: the child between them stops reading the
    first.
    """
    middle = router.local()
    middle_pid = middle.call(os.getpid)
    source = router.local(via=middle)
    target = router.local(via=middle)
    sender = target.call(flow_targets.open_inbox)
    target_pid = target.call(os.getpid)
    before = peak_kib(middle_pid)
    testlib.stop_process(target_pid)
    done = source.call_async(flow_targets.flood, sender, 768, 131072)
    # The middle goes on serving others, however much waits there.
    for _ in range(200):
        assert middle.call(flow_targets.echo, 7) == 7
    os.kill(target_pid, 18)
    assert target.call(flow_targets.drain_inbox, 768) == 96 * MIB
    done.get().unpickle()
    assert peak_kib(middle_pid) - before < 64 * 1024


def test_two_that_flood_each_other_through_one_router(router):
    one, two = router.local(), router.local()
    check_mutual_flood(one, two)


def test_two_that_flood_each_other_through_two_routers(router):
    check_mutual_flood(router.local(), router.local(via=router.local()))


def test_two_that_flood_each_other_through_three_routers(router):
    left, right = router.local(), router.local()
    check_mutual_flood(router.local(via=left), router.local(via=right))


def check_mutual_flood(one, two):
    to_one, to_two = one.call(flow_targets.open_inbox), two.call(flow_targets.open_inbox)
    first = one.call_async(flow_targets.flood, to_two, 256, 131072)
    second = two.call_async(flow_targets.flood, to_one, 256, 131072)
    first.get().unpickle()
    second.get().unpickle()
    assert one.call(flow_targets.drain_inbox, 256) == 32 * MIB
    assert two.call(flow_targets.drain_inbox, 256) == 32 * MIB


def test_parent_and_child_that_flood_each_other(router):
    context = router.local()
    receiver = mitogen.core.Receiver(router)
    to_child = context.call(flow_targets.open_inbox)
    done = context.call_async(flow_targets.flood, receiver.to_sender(), 256, 131072)
    for _ in range(256):
        to_child.send(b'y' * 131072)
    assert sum(len(receiver.get().unpickle()) for _ in range(256)) == 32 * MIB
    done.get().unpickle()
    assert context.call(flow_targets.drain_inbox, 256) == 32 * MIB


def test_shutdown_while_senders_wait(router):
    """
    A tree whose streams are full ends all the same, and threads that wait go on.
    """
    router.high_water = MIB
    context = router.local()
    pid = context.call(os.getpid)
    sender = context.call(flow_targets.open_inbox)
    testlib.stop_process(pid)
    ended = []

    def send():
        try:
            for _ in range(10000):
                sender.send(b'x' * 131072)
        except mitogen.core.Error:
            pass
        ended.append(1)

    thread = threading.Thread(target=send)
    thread.start()
    testlib.wait_for(lambda: router.stream_by_id(context.context_id).protocol.pending_bytes() > 0)
    os.kill(pid, 9)
    router.broker.shutdown()
    router.broker.join()
    thread.join()
    assert ended


# ---- what a peer sends to itself, and what a hook looks at

def test_what_a_peer_sends_to_itself_waits_for_it_to_read(router):
    """
    A frame for a context behind the one that sent it goes back by the same stream, which is not
    read meanwhile.
    """
    router.high_water = MIB
    with testlib.Peer(router, 55) as peer:
        sent = write_until_blocked(peer, [testlib.frame(dst=55, src=55, handle=i + 1, data=b'x' * 65536)
                                          for i in range(512)])
        assert sent < 512 * 65536
        assert peer.stream.protocol.pending_bytes() <= 2 * MIB
        # Once it reads, all of it comes, in order.
        got, rest = 0, b''
        peer.sock.settimeout(60)
        writer = threading.Thread(target=peer.sock.sendall, args=(peer.left,))
        writer.start()
        while got < 512:
            frames, rest = testlib.unframe(rest + peer.sock.recv(1 << 20))
            for each in frames:
                got += 1
                assert each[4] == got
        writer.join()


def write_until_blocked(peer, frames, seconds=0.5):
    """
    Write until the other side takes no more for some time; keep what is left in `peer.left`, and
    return how much went.
    """
    data = b''.join(frames)
    peer.sock.settimeout(seconds)
    sent = 0
    try:
        while sent < len(data):
            sent += peer.sock.send(data[sent:sent + 65536])
    except OSError:
        pass
    peer.left = data[sent:]
    return sent


def test_a_stream_with_a_hook_is_held_back_too(router):
    router.high_water = MIB
    seen = []
    with testlib.Peer(router, 55) as source, testlib.Peer(router, 56) as target:
        source.stream.protocol.on_message = lambda stream, msg: seen.append(msg.handle)
        sent = write_until_blocked(source, [testlib.frame(dst=56, src=55, handle=i + 1, data=b'x' * 65536)
                                            for i in range(512)])
        assert sent < 512 * 65536
        assert target.stream.protocol.pending_bytes() <= 2 * MIB
        writer = threading.Thread(target=source.sock.sendall, args=(source.left,))
        source.sock.settimeout(60)
        writer.start()
        assert [target.receive()[4] for _ in range(512)] == list(range(1, 513))
        writer.join()
        assert seen == list(range(1, 513))


def test_order_holds_for_handlers_of_a_stream_with_a_hook(router):
    """
    Frames for a handler and for a receiver, by turns, are handled in the order in which they were
    sent.
    """
    seen = []
    receiver = mitogen.core.Receiver(router)
    handle = router.add_handler(lambda msg: seen.append((len(msg.data), receiver.size())))
    with testlib.Peer(router, 55) as peer:
        peer.stream.protocol.on_message = lambda stream, msg: None
        for i in range(50):
            peer.send(0, handle=handle, data=b'x' * i)
            peer.send(0, handle=receiver.handle)
        testlib.wait_for(lambda: receiver.size() == 50)
        assert seen == [(i, i) for i in range(50)]
    router.del_handler(handle)
    receiver.close()


# ---- a receiver with a bound

def test_a_receiver_with_a_bound_refuses_and_says_so(router):
    child = router.local()
    with mitogen.core.Receiver(router, max_bytes=MIB) as receiver:
        assert receiver.max_bytes == MIB
        child.call(flow_targets.flood, receiver.to_sender(), 64, 131072)
        testlib.wait_for(lambda: receiver.size() == 8)
        # The messages that fit are there, then the dead message in place of the rest.
        for _ in range(7):
            assert len(receiver.get().unpickle()) == 131072
        with pytest.raises(mitogen.core.ChannelError) as info:
            receiver.get(timeout=60)
        assert info.value.args[0] == router.full_msg % (MIB,)
        assert receiver.size() == 0
        # There is room again.
        child.call(flow_targets.flood, receiver.to_sender(), 2, 131072)
        assert [len(receiver.get(timeout=60).unpickle()) for _ in range(2)] == [131072] * 2
    assert router.stats()['refused'] >= 57


def test_who_wants_an_answer_of_a_full_receiver_gets_one(router):
    child = router.local()
    with mitogen.core.Receiver(router, max_bytes=100) as receiver:
        assert child.call(flow_targets.ask_until_refused, receiver.to_sender()) == router.full_msg % (100,)
        receiver.get(timeout=60)
        # Of this process, too.
        receiver.max_bytes = 1
        for _ in range(2):
            answer = router.myself().send_async(mitogen.core.Message(handle=receiver.handle, data=b'x' * 50))
        with pytest.raises(mitogen.core.ChannelError):
            answer.get(timeout=60)


def test_one_message_is_always_taken(router):
    child = router.local()
    with mitogen.core.Receiver(router, max_bytes=1) as receiver:
        for _ in range(3):
            child.call(flow_targets.flood, receiver.to_sender(), 1, 1000)
            assert len(receiver.get(timeout=60).unpickle()) == 1000
        receiver.max_bytes = None
        child.call(flow_targets.flood, receiver.to_sender(), 20, 1000)
        testlib.wait_for(lambda: receiver.size() == 20)


@pytest.mark.parametrize('bad', [0, -1])
def test_a_bound_is_positive(router, bad):
    with pytest.raises((ValueError, OverflowError)):
        mitogen.core.Receiver(router, max_bytes=bad)


# ---- others during a flood

def test_others_get_through_a_flood(router):
    """
    Calls, imports, new children and the end of one, by way of the context that the flood fills.
    """
    router.high_water = MIB
    middle = router.local()
    source, target = router.local(via=middle), router.local(via=middle)
    bystander = router.local(via=middle)
    sender = target.call(flow_targets.open_inbox)
    target_pid = target.call(os.getpid)
    testlib.stop_process(target_pid)
    flood = source.call_async(flow_targets.flood, sender, 256, 131072)
    try:
        pid = bystander.call(os.getpid)
        assert bystander.call(flow_targets.echo, 1) == 1
        assert router.local(via=middle).call(flow_targets.echo, 2) == 2
        bystander.shutdown(wait=True)
        testlib.wait_for(lambda: not testlib.is_running(pid))
        # The source is busy, and hears all the same.
        assert middle.call(flow_targets.echo, 3) == 3
    finally:
        os.kill(target_pid, 18)
    assert target.call(flow_targets.drain_inbox, 256) == 32 * MIB
    flood.get().unpickle()


if mitogen.core.CORE == 'native':
    def test_a_refusal_is_told_to_who_reads_slowly(router):
        """A large message on its way there is no reason to let a caller wait for ever."""
        peer = testlib.Peer(router, 101)
        size = 40 * MIB
        big = mitogen.core.Message(dst_id=101, handle=50, data=b'x' * size, enc=mitogen.core.Message.ENC_BIN)
        thread = threading.Thread(target=router.route, args=(big,))
        thread.start()
        testlib.wait_for(lambda: peer.stream.protocol.pending_bytes() > size // 2)
        peer.send(handle=77777, reply_to=4242)
        # The answer is queued behind it, whether the message is looked at now or later.
        testlib.sync(router.broker)
        left, buf = size + 26, bytearray(MIB)
        while left:
            left -= peer.sock.recv_into(buf, min(left, MIB))
        fields = testlib.unframe(peer.sock.recv(65536))[0][0]
        assert (fields[4], fields[5]) == (4242, mitogen.core.IS_DEAD)
        thread.join()

    def test_the_end_of_a_peer_is_seen_though_nobody_reads_what_it_sends(router):
        """It feeds another one that does not read, so it is not read either."""
        feeder, reader = testlib.Peer(router, 101), testlib.Peer(router, 102)
        waiting = mitogen.core.Receiver(router, respondent=router.context_by_id(101))
        data = testlib.frame(102, 101, handle=9, data=b'y' * MIB)

        def feed():
            try:
                for _ in range(30):
                    feeder.sock.sendall(data)
            except EnvironmentError:
                pass

        thread = threading.Thread(target=feed)
        thread.start()
        testlib.wait_for(lambda: reader.stream.protocol.pending_bytes() > router.high_water)
        feeder.sock.shutdown(socket.SHUT_RDWR)
        feeder.sock.close()
        thread.join()
        with pytest.raises(mitogen.core.ChannelError):
            waiting.get(timeout=60)
        reader.sock.close()
