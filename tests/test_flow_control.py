"""
Memory is bounded: what waits for a slow reader is limited, in the process that sends and in each that forwards, and
no pattern of floods ends in a deadlock.
"""

import os
import threading

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
    os.kill(pid, 19)
    sent = []

    def send():
        for _ in range(64):
            sender.send(b'x' * 131072)
            sent.append(1)

    thread = threading.Thread(target=send)
    thread.start()
    testlib.wait_for(lambda: len(sent) >= 8)
    # Whatever the kernel takes, and a MiB of ours: far from all.
    thread.join(0.5)
    assert len(sent) < 40 and thread.is_alive()
    assert router.stream_by_id(context.context_id).protocol.pending_bytes() <= 2 * MIB
    os.kill(pid, 18)
    thread.join()
    assert context.call(flow_targets.drain_inbox, 64) == 64 * 131072


def test_router_in_the_middle_does_not_grow(router):
    """
    A grandchild floods another one that reads slowly: the child between them stops reading the first.
    """
    middle = router.local()
    middle_pid = middle.call(os.getpid)
    source = router.local(via=middle)
    target = router.local(via=middle)
    sender = target.call(flow_targets.open_inbox)
    target_pid = target.call(os.getpid)
    before = peak_kib(middle_pid)
    os.kill(target_pid, 19)
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
    A tree whose streams are full ends all the same, and those who wait go on.
    """
    router.high_water = MIB
    context = router.local()
    pid = context.call(os.getpid)
    sender = context.call(flow_targets.open_inbox)
    os.kill(pid, 19)
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
