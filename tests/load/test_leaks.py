"""
Nothing grows: descriptors, threads, objects and memory, over many connects, calls and shutdowns.

Each test runs a program in an interpreter of its own, so that what other tests left in caches does
not matter.
"""

import os
import subprocess
import sys

import pytest

import places

PROLOGUE = '''
import ctypes, gc, os, sys, threading, time
sys.path[:0] = [%r, %r]
import mitogen.core, mitogen.master, targets

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                'arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost'.split()]

mallinfo = getattr(ctypes.CDLL(None), 'mallinfo2', lambda: Mallinfo())
mallinfo.restype = Mallinfo

def measure():
    mitogen.core.Latch._on_fork()
    # Attributes that were looked up lately: Python keeps their names, up to some thousands.
    getattr(sys, '_clear_type_cache', int)()
    for _ in range(3):
        gc.collect()
    # What has just ended may still be about to close one: no leak goes away.
    fds = len(os.listdir('/proc/self/fd'))
    for _ in range(50):
        time.sleep(0.01)
        fds = min(fds, len(os.listdir('/proc/self/fd')))
    with open('/proc/self/statm') as fp:
        resident = int(fp.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
    info = mallinfo()
    return (fds, len(os.listdir('/proc/self/task')), len(gc.get_objects()), resident, sys.getallocatedblocks(),
            info.uordblks + info.hblkhd)

def compare(name, step, warm, rounds, objects_each, bytes_each, blocks_each=0, allocated_each=0):
    for _ in range(warm):
        step()
    before = measure()
    for _ in range(rounds):
        step()
    after = measure()
    fds, threads, objects, resident, blocks, allocated = [b - a for a, b in zip(before, after)]
    print(name, 'descriptors', fds, 'threads', threads, 'objects', objects, 'resident', resident,
          'blocks', blocks, 'allocated', allocated)
    assert fds == 0
    assert threads == 0
    assert objects <= objects_each * rounds + 50, objects
    assert resident <= bytes_each * rounds + (2 << 20), resident
    # Counted, so a little more each time shows after few rounds: blocks of Python's, and bytes of malloc().
    assert blocks <= blocks_each * rounds + rounds // 2 + 500, blocks
    assert allocated <= allocated_each * rounds + (64 << 10), allocated
''' % (places.TARGETS, places.LIB)


# Without a cache of freed chunks for each thread, which mallinfo() counts as allocated.
TUNABLES = 'glibc.malloc.tcache_count=0'


def run(program, seconds=115):
    # Not in a checkout, whose package would be imported in place of the one that is installed.
    proc = subprocess.run([sys.executable, '-c', PROLOGUE + program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=seconds, cwd=places.LIB, env=dict(os.environ, GLIBC_TUNABLES=TUNABLES))
    print(proc.stdout)
    assert proc.returncode == 0, proc.stdout


@pytest.mark.slow
def test_connect_call_and_shutdown_lose_nothing():
    run('''
# The last losses are remembered, for the errors of later calls; here fewer than happen before the measurement.
mitogen.parent._Losses.count_max = 4
router = mitogen.master.Router()

def step():
    child = router.local()
    assert child.call(targets.identity, b'x' * 1000) == b'x' * 1000
    exited = mitogen.core.Latch()
    mitogen.core.listen(router.stream_by_id(child.context_id).conn.proc, 'exit', exited.put)
    child.shutdown(wait=True)
    exited.get(timeout=60)

# What is known of a context stays as long as its router, for signals and for the names of its log records.
compare('connect', step, 5, 60, 12, 20000, 20, 500)
router.broker.shutdown()
router.broker.join()
''')


@pytest.mark.slow
def test_calls_lose_nothing():
    run('''
router = mitogen.master.Router()
child = router.local()

def step():
    assert child.call(targets.identity, [1, u'two', b'three', {u'four': 5}]) is not None
    try:
        child.call(targets.fail)
    except mitogen.core.CallError:
        pass
    child.call_no_reply(targets.identity, 1)

compare('calls', step, 200, 1600, 0, 30)
router.broker.shutdown()
router.broker.join()
''')


@pytest.mark.slow
def test_large_messages_lose_nothing():
    run('''
router = mitogen.master.Router()
child = router.local()
data = os.urandom(1 << 20)

def step():
    assert child.call(targets.identity, data) == data

compare('large', step, 20, 100, 0, 20000)
router.broker.shutdown()
router.broker.join()
''')


@pytest.mark.slow
def test_routers_lose_nothing():
    run('''
def step():
    with mitogen.master.Router() as router:
        with mitogen.core.Receiver(router) as receiver:
            receiver.to_sender().send(1)
            assert receiver.get(timeout=60).unpickle() == 1

compare('routers', step, 20, 300, 0, 2000)
''')


@pytest.mark.slow
def test_streams_that_end_badly_lose_nothing():
    run('''
import testlib
# The last losses are remembered, for the errors of later calls; here fewer than happen before the measurement.
mitogen.parent._Losses.count_max = 10
router = mitogen.master.Router()

def step():
    with testlib.Peer(router, 101) as peer:
        gone = mitogen.core.Latch()
        mitogen.core.listen(peer.stream, 'disconnect', gone.put)
        peer.write(testlib.frame(0, 101, handle=31337, reply_to=5))
        assert peer.receive()
        peer.write(b'x' * 100)
        gone.get(timeout=60)
        testlib.sync(router.broker)

import logging
logging.getLogger('mitogen').setLevel(logging.CRITICAL)
compare('streams', step, 20, 300, 2, 2000)
router.broker.shutdown()
router.broker.join()
''')


@pytest.mark.slow
def test_latches_and_messages_lose_nothing():
    run('''
def step():
    latch = mitogen.core.Latch()
    latch.put(latch)
    latch.get()
    msg = mitogen.core.Message.pickled([1, {u'a': b'b'}, mitogen.core.Blob(b'x'), mitogen.core.Secret(u'y')])
    msg.unpickle()
    repr(msg)
    msg.note = msg
    latch.note = latch
    try:
        mitogen.core.Message(data=b'\\x80\\x02c__builtin__\\nset\\n.').unpickle()
    except mitogen.core.StreamError:
        pass

import logging
logging.getLogger('mitogen').setLevel(logging.CRITICAL)
compare('objects', step, 1000, 6000, 0, 5)
''')


@pytest.mark.slow
def test_receivers_and_failed_calls_lose_nothing():
    run('''
router = mitogen.master.Router()

def step():
    receiver = mitogen.core.Receiver(router)
    sender = receiver.to_sender()
    sender.send(1)
    sender.close()
    assert [m.unpickle() for m in receiver] == [1]
    receiver.notify = lambda r: None
    receiver.close()
    try:
        router.myself().send_async(mitogen.core.Message(handle=31337)).get(timeout=60)
    except mitogen.core.ChannelError:
        pass

compare('receivers', step, 200, 1300, 0, 50)
router.broker.shutdown()
router.broker.join()
''')
