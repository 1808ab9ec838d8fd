"""
Many threads at once, for interpreters without a GIL: first each with objects of its own beside all
others, then all with the same ones, which are changed and replaced meanwhile.

    python tests/load/many_threads.py --seconds 60

A wrong answer, an exception that is not due, a thread that hangs, or a GIL that came back is a
finding, and the exit status is 1. --parts chooses among `apart`, `together` and `ordered`.
"""

import argparse
import collections
import faulthandler
import gc
import os
import random
import sys
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'targets'))

import many_threads_targets as targets  # noqa: E402

import mitogen.core  # noqa: E402
import mitogen.master  # noqa: E402
import mitogen.select  # noqa: E402
import mitogen.service  # noqa: E402
from mitogen.core import ChannelError, Latch, LatchError, Message, Receiver, TimeoutError  # noqa: E402

#: Seconds after which a thread that should have ended hangs.
PATIENCE = 120.0


class Part(object):
    """
    Threads that each repeat one method of ours, those whose names begin with `do_`, until the time
    is over.
    """
    def __init__(self, router):
        self.router = router
        self.contexts = [router.local(), router.local()]
        self.contexts.append(router.local(via=self.contexts[0]))
        self.counts = collections.Counter()
        self.findings = []
        self.go = threading.Event()
        self.end = 0.0

    def context(self):
        return random.choice(self.contexts)

    def _repeat(self, name):
        count = 0
        self.go.wait()
        try:
            while time.time() < self.end:
                getattr(self, name)()
                count += 1
        except Exception:
            self.findings.append('%s: %s' % (name, traceback.format_exc()))
        self.counts[name] = count

    def run(self, seconds):
        names = [name for name in dir(self) if name.startswith('do_')]
        threads = [threading.Thread(target=self._repeat, args=(name,), name=name, daemon=True) for name in names]
        for thread in threads:
            thread.start()
        self.end = time.time() + seconds
        self.go.set()
        for thread in threads:
            thread.join(max(0.0, self.end - time.time()) + PATIENCE)
            if thread.is_alive():
                faulthandler.dump_traceback(all_threads=True)
                self.findings.append('%s hangs' % (thread.name,))


class Apart(Part):
    """
    Threads that share the router, its children, a latch, a receiver, and values that change while
    they are written.
    """
    def __init__(self, router):
        super().__init__(router)
        self.latch = Latch()
        self.receiver = Receiver(router)
        self.sender = self.receiver.to_sender()
        self.items = list(range(50))
        self.by_number = {i: str(i) for i in range(50)}

    def do_calls(self):
        n = random.randint(0, 1000)
        assert self.context().call(targets.add, n, 1) == n + 1

    def do_rows_of_calls(self):
        context = self.context()
        select = mitogen.select.Select([context.call_async(targets.add, i, 1) for i in range(20)])
        assert sorted(msg.unpickle() for msg in select) == list(range(1, 21))

    def do_large_values(self):
        data = b'x' * random.randint(1, 300000)
        assert self.context().call(targets.echo, data) == data

    def do_put(self):
        if self.latch.size() < 1000:
            self.latch.put(1)

    def do_get(self):
        try:
            assert self.latch.get(timeout=0.001) == 1
        except TimeoutError:
            pass

    def do_send(self):
        values = self.items, self.by_number
        if mitogen.core.CORE == 'pure':
            # The pickle of CPython 3.13 crashes if another thread changes what it reads.
            values = list(self.items), dict(self.by_number)
        try:
            self.sender.send(values)
        except RuntimeError as e:
            # As pickle says it.
            assert 'changed size' in str(e)

    def do_receive(self):
        try:
            items, by_number = self.receiver.get(timeout=0.01).unpickle()
        except TimeoutError:
            return
        assert all(isinstance(item, int) for item in items)
        assert all(isinstance(value, str) for value in by_number.values())

    def do_streams(self):
        receiver = Receiver(self.router)
        self.context().call(targets.feed, receiver.to_sender(), 10)
        assert [msg.unpickle() for msg in receiver] == list(range(10))

    def do_connect(self):
        context = self.router.local()
        assert context.call(targets.add, 1, 1) == 2
        context.shutdown(wait=True)

    def do_change(self):
        self.items[random.randint(0, 30):] = range(random.randint(0, 60))
        self.by_number[random.randint(0, 60)] = 'x' * random.randint(0, 30)
        if len(self.by_number) > 55:
            self.by_number.pop(random.choice(list(self.by_number)))
        time.sleep(0.0001)


class Together(Part):
    """
    Threads that read, change, close and replace the same message, latch and receiver.
    """
    def __init__(self, router):
        super().__init__(router)
        self.msg = Message.pickled(list(range(30)))
        self.latch = Latch()
        self.receiver = Receiver(router)
        self.select = mitogen.select.Select(oneshot=False)
        self.members = Receiver(router)
        self.told = []

    def do_read_message(self):
        msg = self.msg
        msg.unpickle()
        for name in 'dst_id src_id auth_id handle reply_to enc router receiver is_dead'.split():
            getattr(msg, name)
        if mitogen.core.CORE == 'native':
            msg._size
        assert isinstance(msg.data, bytes)
        repr(msg)

    do_read_message_too = do_read_message

    def do_change_message(self):
        msg = self.msg
        msg.data = Message.pickled([1] * random.randint(1, 2000)).data
        msg.dst_id, msg.handle = random.randint(0, 5), random.randint(0, 1 << 30)
        msg.reply_to, msg.src_id = 2000, 0
        msg.receiver = object()

    def do_send_message(self):
        """The child has no such handle, and says so; or it never leaves, having none of ours."""
        msg = self.msg
        msg.reply_to = 0
        self.contexts[1].send(msg)
        time.sleep(0.001)

    def do_replace_message(self):
        self.msg = Message.pickled({'a': [1] * 50, 'b': 'x' * random.randint(1, 5000)})

    def do_put(self):
        try:
            self.latch.put(object())
        except LatchError:
            pass

    def do_get(self):
        try:
            self.latch.get(timeout=0.001)
        except (TimeoutError, LatchError):
            pass

    do_get_too = do_get

    def do_replace_latch(self):
        time.sleep(0.002)
        old, self.latch = self.latch, Latch()
        old.notify = self.told.append
        old.close()
        repr(old)
        del self.told[:]

    def do_send(self):
        try:
            self.receiver.to_sender().send([1, 'abc', b'z' * random.randint(0, 3000)])
        except TypeError:
            # Closed: it has no handle any more.
            pass

    def do_receive(self):
        try:
            self.receiver.get(timeout=0.001)
        except (TimeoutError, ChannelError, LatchError):
            pass

    do_receive_too = do_receive

    def do_notify(self):
        receiver = self.receiver
        receiver.notify = lambda receiver: None
        receiver.notify = None
        repr(receiver)
        receiver._latch
        try:
            receiver.empty()
        except LatchError:
            pass

    def do_replace_receiver(self):
        time.sleep(0.003)
        old, self.receiver = self.receiver, Receiver(self.router)
        old.close()

    def do_select(self):
        """Members come and go, and each is dropped while it has something to tell."""
        member = Receiver(self.router)
        self.select.add(member)
        self.contexts[0].call(targets.feed, member.to_sender(), 3)
        self.select.remove(member)

    def do_take_from_select(self):
        try:
            self.select.get(timeout=0.001)
        except (TimeoutError, ChannelError, mitogen.select.Error):
            pass

    def do_drop_receiver(self):
        """Nobody refers to it, and its `notify` is called all the same."""
        told = threading.Event()
        receiver = Receiver(self.router)
        receiver.notify = lambda receiver: told.set()
        sender_to(self.router, receiver).send('x')
        del receiver
        assert told.wait(PATIENCE)

    def do_handlers(self):
        handle = self.router.add_handler(lambda msg: None)
        self.router.del_handler(handle)

    def do_look(self):
        context = self.contexts[0]
        stream = self.router.stream_by_id(context.context_id)
        assert stream.protocol.remote_id == context.context_id
        self.router.stats()
        assert self.router.context_by_id(context.context_id) is context

    def do_calls(self):
        assert self.context().call(targets.add, 1, 1) == 2

    def do_collect(self):
        gc.collect()
        time.sleep(0.01)

    def do_defer(self):
        self.router.broker.defer(lambda: None)
        assert self.router.broker.defer_sync(lambda: 1) == 1


def sender_to(router, receiver):
    return mitogen.core.Sender(router.myself(), receiver.handle)


class Ordered(Part):
    """
    A service that keeps the order of each caller's calls.
    """
    class Service(mitogen.service.Service):
        invoker_class = mitogen.service.SerializedInvoker
        order = ()

        @mitogen.service.expose(mitogen.service.AllowAny())
        @mitogen.service.arg_spec({'i': int})
        def go(self, i):
            self.order.append(i)

    def run(self, seconds):
        self.service = self.Service(self.router)
        pool = mitogen.service.Pool(self.router, services=[self.service], size=4)
        super().run(seconds)
        pool.stop()

    def do_rounds(self):
        self.service.order = []
        me = self.router.myself()
        for receiver in [me.call_service_async(self.Service, 'go', i=i) for i in range(8)]:
            receiver.get(timeout=PATIENCE).unpickle()
        assert self.service.order == list(range(8)), self.service.order


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=60, help='of each part')
    parser.add_argument('--parts', nargs='+', default=['apart', 'together', 'ordered'])
    options = parser.parse_args()
    faulthandler.enable()
    faulthandler.dump_traceback_later(options.seconds * 3 + 3 * PATIENCE, exit=True)
    findings = []
    for kind in [Apart, Together, Ordered]:
        if kind.__name__.lower() in options.parts:
            with mitogen.master.Router() as router:
                part = kind(router)
                part.run(options.seconds)
            print(kind.__name__, dict(part.counts))
            findings += part.findings
    has_gil = getattr(sys, '_is_gil_enabled', lambda: True)()
    print(mitogen.core.CORE, 'with' if has_gil else 'without', 'a GIL')
    if has_gil and 'free-threading' in sys.version:
        findings.append('the GIL came back')
    for finding in findings:
        print('FINDING:', finding)
    return 1 if findings else 0


if __name__ == '__main__':
    sys.exit(main())
