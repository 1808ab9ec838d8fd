"""
A program for test_native_faults.py, over an extension that was built for it: does each thing again
and again, while the first, the second, ... allocation fails.

    python native_faults.py engine|python NAME...

``engine`` has the engine's allocations fail, ``python`` CPython's. Prints how many failures there
were.
"""

import ctypes
import faulthandler
import gc
import logging
import os
import socket
import sys
import threading
import time

import _mitogen_core

import mitogen.core
import mitogen.debug
import mitogen.master
import mitogen.parent
import mitogen.select
from mitogen.core import Message

import testlib

PEER = 7

#: Permitted errors instead of a result, when memory is out: it says so, or the stream or the broker
#: ends.
OUTCOMES = (MemoryError, mitogen.core.Error, OSError)

#: Longer than anything takes.
PATIENCE = 40.0

#: After so many seconds without traffic a loop drops what it keeps for large messages (spares.c).
IDLE = 1.0


class EngineSwitch(object):
    def __init__(self):
        self.lib = ctypes.CDLL(_mitogen_core.__file__)
        self.lib.mg_alloc_fail_at.argtypes = [ctypes.c_long]
        self.lib.mg_alloc_fail_at.restype = None

    def arm(self, n):
        self.lib.mg_alloc_fail_at(n)

    def disarm(self):
        """
        Switch it off, and return whether there was a failure.
        """
        failed = bool(self.lib.mg_alloc_failed())
        self.lib.mg_alloc_fail_at(0)
        return failed


class PythonSwitch(object):
    """
    The switch of CPython's own tests. It does not tell whether there was a failure, so a number of
    tries is given.
    """
    tries = 80

    def __init__(self):
        import _testcapi
        self.set, self.unset = _testcapi.set_nomemory, _testcapi.remove_mem_hooks

    def arm(self, n):
        self.n = n
        self.set(n, n + 1)

    def disarm(self):
        self.unset()
        return self.n < self.tries


def serve(listener, until):
    """
    The neighbour: sends each message that wants an answer back as the answer, until a pipe is
    closed.
    """
    def talk(sock):
        rest = b''
        try:
            while True:
                frames, rest = testlib.unframe(rest + (sock.recv(1 << 20) or sys.exit()))
                for magic, dst, src, auth, handle, reply_to, payload in frames:
                    if reply_to and reply_to != mitogen.core.IS_DEAD:
                        sock.sendall(testlib.frame(src, dst, handle=reply_to, data=payload, magic=magic))
        except OSError:
            # It is lost at the other end, where memory was out.
            sock.close()
    def accept():
        while True:
            threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    os.read(until, 1)
    os._exit(0)


class World(object):
    """
    A router, and a neighbour in another process; made anew where memory that was out has cost one
    of them.
    """
    def __init__(self, address):
        self.address = address
        self.router = None
        self.mend()

    def mend(self):
        if self.router is not None and not self.router.broker._alive:
            self.router.broker.join()
            self.router = None
        if self.router is None:
            self.router = mitogen.master.Router(mitogen.master.Broker())
        if self.router.stream_by_id(PEER) is None:
            self.context = self.connect(PEER)
        try:
            testlib.sync(self.router.broker)
        except mitogen.core.Error:
            # Lost just now.
            return self.mend()

    def connect(self, context_id):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self.address)
            sock.setblocking(False)
            rfp, wfp = os.fdopen(os.dup(sock.fileno()), 'rb', 0), os.fdopen(os.dup(sock.fileno()), 'wb', 0)
        try:
            stream = mitogen.core.MitogenProtocol.build_stream(self.router, remote_id=context_id)
        except MemoryError:
            rfp.close()
            wfp.close()
            raise
        stream.name = u'peer.%d' % (context_id,)
        stream.accept(rfp, wfp)
        try:
            context = self.router.context_class(self.router, context_id, name=stream.name)
            self.router.register(context, stream)
        except MemoryError:
            self.disconnect(stream)
            raise
        return context

    def disconnect(self, stream):
        broker = self.router.broker
        try:
            while True:
                try:
                    return broker.defer_sync(lambda: stream.on_disconnect(broker))
                except MemoryError:
                    # Once only.
                    continue
        except mitogen.core.Error:
            # The broker is gone, and has done it.
            pass

    def is_well(self):
        try:
            testlib.sync(self.router.broker)
            return self.ask(1) == 1 and self.router.stream_by_id(PEER) is not None
        except mitogen.core.Error:
            return False

    def ask(self, value):
        msg = Message.pickled(value, handle=5)
        receiver = self.context.send_async(msg)
        try:
            return receiver.get(timeout=PATIENCE).unpickle()
        except mitogen.core.TimeoutError:
            hangs('no answer')
        finally:
            receiver.close()

    def end(self):
        self.router.broker.shutdown()
        self.router.broker.join()


def hangs(what):
    sys.stderr.write('hangs: %s\n' % (what,))
    faulthandler.dump_traceback(all_threads=True)
    os.write(2, mitogen.debug.describe().encode())
    os._exit(1)


# ---- what is done. Each checks its result.

VALUE = [1, u'text', b'bytes' * 10, {u'key': (None, True, 1.5, 1 << 80)}, mitogen.core.Blob(b'b'), mitogen.core.Secret(u's')]
LARGE = b'\xff' * 300000


def router(world):
    broker = mitogen.master.Broker()
    try:
        with mitogen.master.Router(broker) as router:
            assert router.allocate_id() == 1
    finally:
        broker.shutdown()
        broker.join()


def latch(world):
    latch, other = mitogen.core.Latch(), mitogen.core.Latch()
    latch.notify = other.put
    for number in range(10):
        latch.put(number)
    assert [latch.get(block=False) for _ in range(10)] == list(range(10))
    latch.close()


def message(world):
    msg = Message.pickled(VALUE, LARGE)
    assert bytes(msg.data)[-1:] == b'.'
    assert msg.unpickle() == VALUE
    plain = Message(dst_id=1, handle=2, data=b'x' * 100, enc=Message.ENC_BIN)
    assert plain.decode() == b'x' * 100
    assert Message.dead(u'why').is_dead
    repr(msg)


def receiver(world):
    with mitogen.core.Receiver(world.router) as receiver:
        sender = receiver.to_sender()
        for number in range(6):
            sender.send(number)
        sender.close()
        assert [msg.unpickle() for msg in receiver] == list(range(6))


def select(world):
    receivers = [mitogen.core.Receiver(world.router) for _ in range(2)]
    select = mitogen.select.Select(receivers, oneshot=False)
    for receiver in receivers:
        receiver.to_sender().send(3)
    assert [select.get(timeout=PATIENCE).unpickle() for _ in receivers] == [3, 3]
    select.close()
    for receiver in receivers:
        receiver.close()


def handler(world):
    handle = world.router.add_handler(lambda msg: None, persist=False, respondent=world.context)
    world.router._handle_map
    world.router.del_handler(handle)
    world.router.stats()


def link(world):
    world.connect(8)
    stream = world.router.stream_by_id(8)
    assert world.router.route_monitor and not stream.protocol.pending_bytes()
    world.disconnect(stream)


def call(world):
    assert world.ask(VALUE) == VALUE


def large(world):
    assert world.ask(LARGE) == LARGE


def calls(world):
    receivers = []
    try:
        for number in range(20):
            receivers.append(world.context.send_async(Message.pickled(number, handle=5)))
        assert [receiver.get(timeout=PATIENCE).unpickle() for receiver in receivers] == list(range(20))
    except mitogen.core.TimeoutError:
        hangs('no answer')
    finally:
        for receiver in receivers:
            receiver.close()


def python_handler(world):
    """
    The answers go to Python functions, on the broker's thread.
    """
    handles = []
    heard = mitogen.core.Latch()
    try:
        for number in range(3):
            handles.append(world.router.add_handler(heard.put, persist=False, respondent=world.context))
            world.context.send(Message.pickled(number, handle=5, reply_to=handles[-1]))
        for number in range(3):
            msg = heard.get(timeout=PATIENCE)
            assert msg.is_dead or msg.unpickle() == number
            handles.pop(0)
    except mitogen.core.TimeoutError:
        hangs('the handler was not called')
    finally:
        for handle in handles:
            try:
                world.router.del_handler(handle)
            except KeyError:
                pass


def nobody(world):
    """
    A message for a handle that nobody has is answered.
    """
    receiver = world.router.myself().send_async(Message.pickled(1, handle=31337))
    try:
        receiver.get(timeout=PATIENCE)
    except mitogen.core.ChannelError:
        return
    except mitogen.core.TimeoutError:
        hangs('no answer')
    finally:
        receiver.close()
    raise AssertionError('a message from nobody')


def allocated():
    """
    Return the bytes that malloc() has given out.
    """
    class Info(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in
                    'arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost'.split()]
    mallinfo2 = getattr(ctypes.CDLL(None), 'mallinfo2', None)
    if mallinfo2 is None:
        return 0
    mallinfo2.restype = Info
    gc.collect()
    info = mallinfo2()
    return info.uordblks + info.hblkhd


def sweep(switch, func, world):
    """
    Do it with the first allocation failing, then the second, and so on, until none fails; return
    how many did.
    """
    n = 0
    failed = True
    while failed:
        n += 1
        switch.arm(n)
        try:
            func(world)
        except OUTCOMES:
            pass
        except SystemError as error:
            # CPython 3.11 says so of a call of a function in Python for whose frame there is no
            # memory.
            if str(error) != 'error return without exception set':
                raise
        finally:
            failed = switch.disarm()
        if not world.is_well():
            world.mend()
            assert world.is_well()
    return n - 1


def main(which, names):
    logging.disable(logging.CRITICAL)
    folder = os.path.join(os.environ['FAULTS_FOLDER'], 'peer')
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(folder)
    listener.listen(10)
    until, end = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(end)
        serve(listener, until)
    listener.close()
    os.close(until)
    faulthandler.dump_traceback_later(100, exit=True)
    world = World(folder)
    switch = EngineSwitch() if which == 'engine' else PythonSwitch()
    try:
        for name in names:
            func = globals()[name]
            func(world)
            # Twice, since caches fill.
            count = sweep(switch, func, world)
            world.mend()
            before = allocated(), len(os.listdir('/proc/self/fd')), threading.active_count()
            routers = [world.router]
            sweep(switch, func, world)
            world.mend()

            def grown():
                # References that were dropped without the GIL end when it is next held.
                world.is_well()
                return allocated() - before[0]

            def as_it_was():
                # The router of a broker that crashed, as memory was out, is not collected
                # (docs/limits.rst).
                if world.router not in routers or grown() < 100000:
                    return True
                # A loop keeps a place for the next large message until it has been idle for a
                # second: ask rarely.
                time.sleep(2 * IDLE)

            testlib.wait_for(as_it_was, what='memory as it was')
            after = allocated(), len(os.listdir('/proc/self/fd')), threading.active_count()
            print('%s: %d failures, %d bytes' % (name, count, after[0] - before[0]))
            sys.stdout.flush()
            assert after[1:] == before[1:], (before, after)
        world.end()
    finally:
        os.close(end)
        os.waitpid(pid, 0)


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2:])
