# SPDX-License-Identifier: BSD-3-Clause
"""
The pure core by itself, without `mitogen.parent` and `mitogen.master`: a
child is started by hand over a socket pair, from the shipped text and from
the installed package.

Runs under pytest, and as a plain script on any supported interpreter:
``python tests/core/test_core_pure_smoke.py``.
"""

from __future__ import absolute_import

import errno
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time

os.environ['MITOGEN_CORE'] = 'pure'
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

import mitogen  # noqa: E402
import mitogen.core  # noqa: E402


def b(s):
    return s if isinstance(s, bytes) else s.encode('latin-1')

PY3 = mitogen.core.PY3

# The bootstrap, cut down: package objects, the text, the start.
SHIPPED = r'''
import os, sys
path, config = sys.argv[1], eval(sys.argv[2])
sys.path = [p for p in sys.path if p]
source = open(path, 'rb').read()
kind = type(sys)
package = sys.modules['mitogen'] = kind('mitogen')
package.__path__ = []
core = package.core = sys.modules['mitogen.core'] = kind('mitogen.core')
core.__file__ = 'x/mitogen/core.py'
core._core_source = source
exec(compile(source, core.__file__, 'exec', 0, 1), core.__dict__)
core.ExternalContext(config).main()
'''

INSTALLED = r'''
import os, sys
sys.path.insert(0, os.path.dirname(os.path.dirname(sys.argv[1])))
config = eval(sys.argv[2])
import mitogen.core
mitogen.core.ExternalContext(config).main()
'''

REMOTE = b(r'''
import os, sys, threading, time
import mitogen, mitogen.core

def add(a, b=1): return a + b
def echo(*args, **kwargs): return args, sorted(kwargs.items())
def fails(): raise ValueError('on purpose')
def unpicklable(): return threading.Lock()
def local_function(): return lambda: 1
def a_slice(): return slice(1)
def long_error(): raise ValueError('x' * 200000)
def sleep(n): time.sleep(n)
def say_and_sleep(n):
    log_error('asleep')
    time.sleep(n)
def whoami(): return mitogen.is_master, mitogen.context_id, mitogen.parent_ids
def modules(): return sorted(sys.modules)
def blob(n): return mitogen.core.Blob(b'\x00\xff' * n)
def spew(n):
    os.write(1, b'y' * n + b'\n')
    print('printed')
def log_error(text):
    import logging
    logging.getLogger('some.name').error('%s!', text)
    return type(logging.getLogger().handlers[0]).__name__
def lazy_log(text):
    mitogen.core.LOG.error('lazy %s', text)
    return 'logging' in sys.modules
def source_of_core():
    import inspect
    return inspect.getsource(mitogen.core.Latch)
def use_sender(sender):
    for i in range(5): sender.send(i)
    sender.close()
    return 10
def same_context(ctx): return ctx
def upper(n): return mitogen.core.import_module('no_such_module_%d' % n)
def environment(): return sys.argv, sys.stdin.fileno(), sys.stdout.fileno()
def cmdline(): return open('/proc/self/cmdline', 'rb').read()
@mitogen.core.takes_econtext
def detach(path, econtext):
    econtext.detach()
    while not econtext.stream.receive_side.closed:
        time.sleep(0.01)
    try:
        import not_there_and_nobody_to_ask
    except ImportError:
        open(path, 'w').close()
@mitogen.core.takes_econtext
def log_from_broker(econtext):
    def func():
        import logging
        logging.error('on the broker thread')
    before = 'logging' in sys.modules
    econtext.broker.defer_sync(func)
    return before
@mitogen.core.takes_router
def router_of(router): return repr(type(router).__name__)
@mitogen.core.takes_econtext
def threads(econtext):
    return sorted(t.name for t in threading.enumerate())
''')


class Child(object):
    """A router, and one child of it."""

    def __init__(self, program=SHIPPED, log_level=20, **config):
        self.broker = mitogen.core.Broker()
        self.router = mitogen.core.Router(self.broker)
        self.requests = []
        self.logs = []
        self.router.add_handler(self.on_get_module, mitogen.core.GET_MODULE)
        self.router.add_handler(self.on_log, mitogen.core.FORWARD_LOG)
        self.router.add_handler(
            lambda msg: msg.is_dead or msg.reply(None),
            mitogen.core.DETACHING)
        ours, theirs = socket.socketpair()
        # Python 2 has descriptors inherited unless told otherwise.
        mitogen.core.set_cloexec(ours.fileno())
        second = os.dup(theirs.fileno())
        values = {
            'parent_ids': [0], 'context_id': 1, 'version': (1, 0, 0, 'dev0'),
            'log_levels': (log_level, log_level, log_level), 'debug': False,
            'profiling': False, 'unidirectional': False,
            'max_message_size': 64 << 20, 'import_overrides': [],
            'import_blocks': [], 'in_fd': theirs.fileno(), 'out_fd': second,
            'core_src_fd': None, 'setup_stdio': False, 'send_ec2': False,
        }
        values.update(config)
        kwargs = {}
        if PY3:
            kwargs['pass_fds'] = (theirs.fileno(), second)
        path = mitogen.core.__file__.replace('.pyc', '.py')
        self.proc = subprocess.Popen(
            [sys.executable, '-c', program, path, repr(values)], **kwargs)
        theirs.close()
        os.close(second)
        self.sock = ours
        stream = mitogen.core.MitogenProtocol.build_stream(
            self.router, 1, local_id=0, parent_ids=[])
        stream.name = u'child'
        if values['send_ec2']:
            got = b('')
            while not got.endswith(b('MITO002\n')):
                got += ours.recv(1)
        ours.setblocking(False)
        stream.accept(ours, ours)
        self.stream = stream
        self.context = mitogen.core.Context(self.router, 1, 'child')
        self.router.register(self.context, stream)

    def on_get_module(self, msg):
        if msg.is_dead:
            return
        import zlib
        name = mitogen.core.to_text(msg.data)
        self.requests.append(name)
        tup = (name, None, None, None, ())
        if name == 'remote_mod':
            tup = (name, None, u'/src/remote_mod.py',
                   mitogen.core.Blob(zlib.compress(REMOTE)), ())
        elif name == 'remote_pkg':
            tup = (name, [u'sub'], u'/src/remote_pkg/__init__.py',
                   mitogen.core.Blob(zlib.compress(b('X = 1\n'))), ())
        elif name == 'remote_pkg.sub':
            tup = (name, None, u'/src/remote_pkg/sub.py',
                   mitogen.core.Blob(zlib.compress(
                       b('import sys\nfrom remote_pkg import X\n'
                         'def f(): return X, __file__, __package__\n'))), ())
        self.router._async_route(mitogen.core.Message.pickled(
            tup, dst_id=1, handle=mitogen.core.LOAD_MODULE))

    def on_log(self, msg):
        if not msg.is_dead:
            self.logs.append(
                msg.data.decode('utf-8', 'replace').split(u'\0', 2))

    def call_async(self, func, *args, **kwargs):
        module = kwargs.pop('module', u'remote_mod')
        chain = kwargs.pop('chain', None)
        return self.context.send_async(mitogen.core.Message.pickled(
            (chain, module, None, func, args, mitogen.core.Kwargs(kwargs)),
            handle=mitogen.core.CALL_FUNCTION))

    def call(self, *args, **kwargs):
        return self.call_async(*args, **kwargs).get(20).unpickle()

    def close(self):
        self.stream.protocol.send(mitogen.core.Message(
            dst_id=1, handle=mitogen.core.SHUTDOWN))
        status = wait(self.proc)
        self.broker.shutdown()
        self.broker.join()
        return status

    def __enter__(self):
        return self

    def __exit__(self, kind, _exc, _tb):
        if kind is not None and self.proc.poll() is None:
            self.proc.kill()
        self.status = self.close()


def wait(proc, seconds=60):
    end = time.time() + seconds
    while proc.poll() is None and time.time() < end:
        time.sleep(0.01)
    if proc.poll() is None:
        proc.kill()
        proc.wait()
        raise AssertionError('the child did not end')
    return proc.returncode


def until(func, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        if func():
            return
        time.sleep(0.01)
    raise AssertionError('it did not happen')


def raises(exc, func, *args, **kwargs):
    try:
        func(*args, **kwargs)
    except exc:
        return sys.exc_info()[1]
    raise AssertionError('no %s raised' % (exc.__name__,))


class Broken(object):
    """A router and its broker, to be used in a `with`."""
    def __enter__(self):
        self.broker = mitogen.core.Broker()
        self.router = mitogen.core.Router(self.broker)
        return self.router

    def __exit__(self, *_):
        self.broker.shutdown()
        self.broker.join()


running_router = Broken


# -- values ---------------------------------------------------------------

def roundtrip(*objs):
    msg = mitogen.core.Message.pickled(*objs)
    got = list(msg.unpickle_iter(find_class=msg._find_global))
    return got


def test_top_level_bytes_need_no_lookup():
    msg = mitogen.core.Message.pickled(b('abc'))
    if PY3:
        assert msg.data == b('\x80\x02T\x03\x00\x00\x00abc.')
    msg = mitogen.core.Message.pickled((u'a', u'b'), b('xyz'))
    assert b('_codecs') not in msg.data and b('latin1') not in msg.data
    assert list(msg.unpickle_iter()) == [(u'a', u'b'), b('xyz')]


def test_values_survive():
    objs = [None, True, 1, 1 << 70, 1.5, u'\u20ac', b('\x00\xff'), b(''),
            [1, (2,)], {u'a': b('b')}]
    assert roundtrip(objs) == [objs]
    assert roundtrip(*objs) == objs
    for obj in (mitogen.core.Blob(b('x')), mitogen.core.Secret(u's'),
                mitogen.core.Blob(b('')),
                mitogen.core.Kwargs({u'a': 1})):
        got, = roundtrip(obj)
        assert type(got) is type(obj) and got == obj
    assert repr(mitogen.core.Blob(b('x') * 128)) == '[blob: 128 bytes]'
    assert repr(mitogen.core.Secret(u'p')) == '[secret]'
    assert mitogen.core.Kwargs({b('key'): 1}) == {'key': 1}


def test_hand_made_pickles_of_other_pythons():
    def load(data):
        return mitogen.core.Message(
            data=data, enc=mitogen.core.Message.ENC_PKL).unpickle()
    # BINSTRING and SHORT_BINSTRING, nested.
    assert load(b('\x80\x02]q\x00(U\x02\x00\xffT\x01\x00\x00\x00\xfee.')) == \
        [b('\x00\xff'), b('\xfe')]
    assert load(b('\x80\x02c_codecs\nencode\nX\x02\x00\x00\x00\xc3\xbf'
                  'X\x06\x00\x00\x00latin1\x86R.')) == b('\xff')
    assert load(b('\x80\x02c__builtin__\nbytes\n)R.')) == b('')
    assert load(b('(dp0\nS\'a\'\np1\nI1\ns.')) == {b('a'): 1}
    assert load(b('cmitogen.core\nBlob\n(S\'ab\'\ntR.')) == b('ab')
    ctx = load(b('cmitogen.core\n_unpickle_context\n(I5\nVnam\ntR.'))
    assert (ctx.context_id, ctx.name, ctx.router) == (5, u'nam', None)


def test_lookups_are_refused():
    for obj in (slice(1), threading.Lock, collections_like()):
        msg = mitogen.core.Message.pickled(obj)
        raises(mitogen.core.StreamError, msg.unpickle)
    msg = mitogen.core.Message.pickled(slice(1))
    e = raises(mitogen.core.StreamError, msg.unpickle)
    assert str(e) == "cannot unpickle '__builtin__'/'slice'"
    msg = mitogen.core.Message.pickled(mitogen.core.Blob(b('x')))
    raises(mitogen.core.UnpicklingError, lambda: list(msg.unpickle_iter()))
    raises(mitogen.core.StreamError, mitogen.core.Message(
        data=b('cmitogen.core\n_unpickle_context\n(I-5\nNtR.')).unpickle)


def collections_like():
    import collections
    return collections.defaultdict()


class NotPicklable(object):
    def __reduce__(self):
        raise mitogen.core.PicklingError('nope')


def test_pickling_error_travels_in_place():
    # The value that failed had already memoized objects, which the next pickle
    # must not refer to.
    shared = [u'x' * 10]
    msg = mitogen.core.Message.pickled(
        shared, [mitogen.core.CallError('a'), NotPicklable()], shared)
    got = list(msg.unpickle_iter(throw=False, find_class=msg._find_global))
    assert got[0] == shared and got[2] == shared
    assert isinstance(got[1], mitogen.core.CallError)
    assert 'nope' in got[1].args[0]


def test_call_error_text():
    e = mitogen.core.CallError(SystemExit('eek'))
    assert e.args[0].endswith('.SystemExit: eek')
    try:
        raise ValueError(u'caf\xe9')
    except ValueError:
        e = mitogen.core.CallError(sys.exc_info()[1])
    assert 'test_call_error_text' in e.args[0]
    assert pickle.loads(pickle.dumps(e, 2)).args == e.args
    big = mitogen.core.CallError('%s', 'y' * 50000)
    assert len(roundtrip_no_throw(big).args[0]) < 10000


def roundtrip_no_throw(obj):
    return mitogen.core.Message.pickled(obj).unpickle(throw=False)


def test_message_frame_and_errors():
    M = mitogen.core.Message
    frame = M(dst_id=123, handle=123).pack()
    assert len(frame) == 26 and frame[:2] == b('MI')
    raises(AssertionError, M, data=u'text')
    raises(ValueError, M, enc=1)
    for args in (u'abc', M.ENC_BIN), (42, M.ENC_BIN):
        raises(Exception, M.encoded, *args)
    raises(ValueError, M.encoded, b('x'), M.ENC_MGC)
    e = raises(mitogen.core.ChannelError,
               M.pickled('x', reply_to=mitogen.core.IS_DEAD).unpickle)
    assert e.args
    assert M.dead(u'why').is_dead
    assert 'Message(' in repr(M(data=b('z') * 100))


def test_small_functions():
    core = mitogen.core
    assert core.iter_split('xxxx\nyy', '\n', lambda s: False) == ('yy', False)
    assert core.iter_split('a\nb\nc', '\n', lambda s: None) == ('c', True)
    assert core.str_rpartition(u'dave', u'x') == (u'', u'', u'dave')
    assert core.Error('e%s').args[0] == 'e%s'
    assert core.Error('e%s', 1).args[0] == 'e1'
    assert isinstance(core.Error(b('x')).args[0], core.UnicodeType)
    left = [3]
    def func():
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EINTR, 'again')
        return 'done'
    assert core.io_op(func) == ('done', None)
    policy = core.ImportPolicy(['pkg'])
    assert policy.denied('other.mod') is core.ModuleDeniedByOverridesError
    assert policy.denied('builtins') and not policy.denied('pkg.mod')
    assert core.ImportPolicy(blocks=['pkg']).denied('pkg.x') is \
        core.ModuleDeniedByBlocksError
    assert core.ImportPolicy().denied('builtins') is core.ModuleUnsuitableError
    source = core.get_core_source()
    assert b('class Latch') in source


# -- latch, receiver, router ----------------------------------------------

def test_latch_is_fair_and_complete():
    latch = mitogen.core.Latch()
    got = []
    threads = [threading.Thread(target=lambda: got.append(latch.get()))
               for _ in range(5)]
    for t in threads:
        t.start()
    until(lambda: len(latch._sleepers) == 5)
    for i in range(5):
        latch.put(i)
    for t in threads:
        t.join(60)
    assert sorted(got) == list(range(5)) and latch.empty()
    errors = []

    def closed():
        try:
            latch.get()
        except mitogen.core.LatchError:
            errors.append(1)
    threads = [threading.Thread(target=closed) for _ in range(5)]
    for t in threads:
        t.start()
    until(lambda: len(latch._sleepers) == 5)
    latch.close()
    for t in threads:
        t.join(60)
    assert len(errors) == 5
    raises(mitogen.core.LatchError, latch.put, 1)
    raises(mitogen.core.LatchError, latch.size)


def test_latch_timeouts_and_notify():
    latch = mitogen.core.Latch()
    raises(mitogen.core.TimeoutError, latch.get, timeout=0)
    raises(mitogen.core.TimeoutError, latch.get, block=False)
    t0 = time.time()
    raises(mitogen.core.TimeoutError, latch.get, timeout=0.1)
    assert time.time() - t0 > 0.09
    called = []
    latch.notify = called.append
    latch.put(1)
    assert called == [latch] and latch.size() == 1
    assert latch.get(timeout=0) == 1
    assert not latch._sleepers


def test_interrupted_get_leaves_no_sleeper():
    latch = mitogen.core.Latch()
    def ring():
        until(lambda: latch._sleepers)
        os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=ring)
    thread.start()
    raises(KeyboardInterrupt, latch.get)
    thread.join()
    latch.put('x')
    assert latch.get(timeout=1) == 'x'
    mitogen.core.Latch._on_fork()


def test_local_messages():
    with running_router() as router:
        assert router.add_handler(lambda m: None, 1234) == 1234
        e = raises(mitogen.core.Error, router.add_handler, None, 1234)
        assert str(e) == router.duplicate_handle_msg
        router.del_handler(1234)
        raises(KeyError, router.del_handler, 1234)
        with mitogen.core.Receiver(router) as recv:
            sender = recv.to_sender()
            sender.send([1])
            assert recv.get(5).unpickle() == [1]
            router.max_message_size = 4096
            sender.send(b('x') * 4097, enc=mitogen.core.Message.ENC_BIN)
            e = raises(mitogen.core.ChannelError, recv.get, 5)
            assert str(e) == router.too_large_msg % 4096
            router.max_message_size = 128 << 20
            sender.close()
            e = raises(mitogen.core.ChannelError, recv.get, 5)
            assert str(e) == sender.explicit_close_msg
        raises(mitogen.core.ChannelError, recv.get)
        # Non-persistent, and its message has come: close is fine.
        recv = mitogen.core.Receiver(router, persist=False)
        recv.to_sender().send(1)
        assert recv.get(5).unpickle() == 1
        recv.close()
        # A policy that fails refuses.
        recv = mitogen.core.Receiver(router, policy=lambda m, s: 1 / 0)
        e = raises(mitogen.core.ChannelError, router.myself().send_await,
                   mitogen.core.Message(handle=recv.handle))
        assert str(e) in (router.refused_msg,)
        # Nothing to go to, too large: dropped.
        router.max_message_size = 1
        router.route(mitogen.core.Message(data=b('xx')))
        router.max_message_size = 128 << 20
        router.route(mitogen.core.Message(data=b('xx')))
        assert router.broker.defer_sync(lambda: 1) == 1
        e = raises(mitogen.core.ChannelError,
                   mitogen.core.Context(router, 77).send_await,
                   mitogen.core.Message(handle=1))
        assert str(e) == router.no_route_msg % (77, 0)


def test_broker_exit():
    broker = mitogen.core.Broker()
    router = mitogen.core.Router(broker)
    recv = mitogen.core.Receiver(router)
    assert broker.defer_sync(threading.current_thread) is broker._thread
    raises(ZeroDivisionError, broker.defer_sync, lambda: 1 / 0)
    broker.shutdown()
    broker.join()
    e = raises(mitogen.core.ChannelError, recv.get, 5)
    assert str(e) == router.broker_exit_msg
    e = raises(mitogen.core.Error, broker.defer, int)
    assert str(e) == mitogen.core.Waker.broker_shutdown_msg
    raises(mitogen.core.Error, router.route,
           mitogen.core.Message(dst_id=0, handle=1))


def test_broker_crash_still_exits():
    broker = mitogen.core.Broker()
    router = mitogen.core.Router(broker)
    recv = mitogen.core.Receiver(router)
    logging.disable(logging.CRITICAL)
    try:
        def crash(timeout=None):
            raise ValueError('eek')
        broker._loop_once = crash
        broker.defer(int)
        raises(mitogen.core.ChannelError, recv.get, 5)
        broker.join()
    finally:
        logging.disable(0)


def test_what_is_deferred_late_runs_or_raises():
    for _ in range(20):
        broker = mitogen.core.Broker()
        results = []

        def hammer():
            try:
                while True:
                    results.append(broker.defer_sync(lambda: 1))
            except mitogen.core.Error:
                pass
        threads = [threading.Thread(target=hammer) for _ in range(3)]
        for t in threads:
            t.start()
        time.sleep(0.002)
        broker.shutdown()
        broker.join()
        for t in threads:
            t.join(60)
            assert not t.is_alive()


def test_framing_is_independent_of_fragmentation():
    class FakeRouter(object):
        max_message_size = 1 << 20
        broker = None

        def __init__(self):
            self.got = []

        def _async_route(self, msg, stream):
            self.got.append((msg.dst_id, msg.handle, msg.data, msg.enc))

    class FakeStream(object):
        name = 'fake'
        gone = 0

        def on_disconnect(self, broker):
            self.gone += 1

    messages = [mitogen.core.Message(dst_id=i, handle=i + 1,
                                     data=b('d') * (i * 37))
                for i in range(1, 20)]
    wire = b('').join(m.pack() for m in messages)
    want = [(m.dst_id, m.handle, m.data, m.enc) for m in messages]
    for step in 1, 2, 7, 25, 26, 27, 1000, len(wire):
        proto = mitogen.core.MitogenProtocol(FakeRouter(), 1)
        proto.stream = FakeStream()
        for i in range(0, len(wire), step):
            proto.on_receive(None, wire[i:i + step])
        assert proto._router.got == want, step
        assert not proto.stream.gone
    logging.disable(logging.CRITICAL)
    try:
        for junk in b('x') * 26, mitogen.core.Message._pack(
                0x4d49, 0, 0, 0, 0, 0, (1 << 20) + 1):
            proto = mitogen.core.MitogenProtocol(FakeRouter(), 1)
            proto.stream = FakeStream()
            proto.on_receive(None, junk)
            assert proto.stream.gone == 1 and not proto._router.got
    finally:
        logging.disable(0)


def test_poller_generations():
    poller = mitogen.core.Poller()
    rfd, wfd = os.pipe()
    try:
        poller.start_receive(rfd)
        t0 = time.time()
        assert list(poller.poll(0.2)) == [] and time.time() - t0 >= 0.19
        os.write(wfd, b('x'))
        assert list(poller.poll(0)) == [rfd]
        events = poller.poll(0)
        poller.stop_receive(rfd)
        poller.start_receive(rfd)
        assert list(events) == []
        assert list(poller.poll(0)) == [rfd]
    finally:
        os.close(rfd)
        os.close(wfd)


def test_many_senders_one_stream():
    """Frames never interleave, order per sender holds, also when the peer
    reads slowly and the kernel is full."""
    with running_router() as router:
        a, z = socket.socketpair()
        a.setblocking(False)
        stream = mitogen.core.MitogenProtocol.build_stream(router, 5)
        stream.accept(a, a)
        context = mitogen.core.Context(router, 5)
        router.register(context, stream)
        count, senders = 300, 4
        def send(n):
            for i in range(count):
                size = (i * 7919) % 50000 if i % 5 == 0 else i % 50
                context.send(mitogen.core.Message(
                    handle=1000 + n, reply_to=1000 + i, data=b('%c' % (65 + n)) * size))
        threads = [threading.Thread(target=send, args=(n,))
                   for n in range(senders)]
        for t in threads:
            t.start()
        class Sink(object):
            max_message_size = 1 << 20
            broker = None
            got = []
            def _async_route(self, msg, stream):
                assert msg.data.strip(b('%c' % (65 + msg.handle - 1000))) == b('')
                self.got.append((msg.handle, msg.reply_to, len(msg.data)))
        sink = Sink()
        proto = mitogen.core.MitogenProtocol(sink, 1)
        proto.stream = None
        while len(sink.got) < count * senders:
            proto.on_receive(None, z.recv(30000))
        for t in threads:
            t.join()
        for n in range(senders):
            mine = [i for h, i, _ in sink.got if h == 1000 + n]
            assert mine == list(range(1000, 1000 + count))
        until(lambda: router.broker.defer_sync(
            stream.protocol.pending_bytes) == 0)
        assert not stream.protocol._writer._armed
        z.close()


def test_peer_goes_while_sending():
    with running_router() as router:
        a, z = socket.socketpair()
        a.setblocking(False)
        stream = mitogen.core.MitogenProtocol.build_stream(router, 5)
        stream.accept(a, a)
        context = router.context_by_id(5)
        router.register(context, stream)
        recv = context.send_async(mitogen.core.Message(handle=1))
        z.close()
        e = raises(mitogen.core.ChannelError, recv.get, 5)
        assert e.args[0] == router.respondent_disconnect_msg
        until(lambda: stream.transmit_side.closed)
        e = raises(mitogen.core.ChannelError, context.send_await,
                   mitogen.core.Message(handle=1))
        assert str(e) == router.no_route_msg % (5, 0)


# -- a child --------------------------------------------------------------

def check_calls(child):
    assert child.call(u'add', 1) == 2
    assert child.call(u'add', 1, b=5) == 6
    args, kwargs = child.call(u'echo', b('\x00\xff'), u'\u20ac', k=[1])
    assert args == (b('\x00\xff'), u'\u20ac') and kwargs == [('k', [1])]
    assert child.call(u'whoami') == (False, 1, [0])
    e = raises(mitogen.core.CallError, child.call, u'fails')
    assert 'ValueError: on purpose' in str(e) and 'master:' in str(e)
    for name in u'unpicklable', u'local_function':
        raises(mitogen.core.CallError, child.call, name)
    raises(mitogen.core.StreamError, child.call, u'a_slice')
    e = raises(mitogen.core.CallError, child.call, u'echo', slice(1))
    assert "cannot unpickle '__builtin__'/'slice'" in str(e)
    e = raises(mitogen.core.CallError, child.call, u'long_error')
    assert len(str(e)) < 10000
    assert child.call(u'blob', 100) == mitogen.core.Blob(b'\x00\xff' * 100)
    big = os.urandom(1 << 20) * 5
    (got,), _ = child.call(u'echo', big)
    assert got == big
    e = raises(mitogen.core.CallError, child.call, u'x', module=u'nowhere')
    assert 'nowhere' in str(e)
    raises(mitogen.core.CallError, child.call, u'x', module=u'nowhere')
    assert child.requests.count('nowhere') == 1
    got = child.call(u'f', module=u'remote_pkg.sub')
    assert got[0] == 1 and got[1] == 'master:/src/remote_pkg/sub.py'
    if PY3:
        assert got[2] == 'remote_pkg'
    asked = len(child.requests)
    raises(mitogen.core.CallError, child.call, u'f', module=u'remote_pkg.zzz')
    assert len(child.requests) == asked
    assert 'class Latch' in child.call(u'source_of_core')
    ctx = child.router.context_by_id(1)
    assert child.call(u'same_context', ctx) is ctx
    with mitogen.core.Receiver(child.router) as recv:
        r = child.call_async(u'use_sender', recv.to_sender())
        assert [m.unpickle() for m in recv] == list(range(5))
        assert r.get(5).unpickle() == 10
    assert child.call(u'threads') == ['MainThread', 'mitogen.broker']
    # Chains: broken by a failed call, not by one that was not made.
    raises(mitogen.core.CallError, child.call, u'missing', chain=u'c1')
    assert child.call(u'add', 1, chain=u'c1') == 2
    e1 = raises(mitogen.core.CallError, child.call, u'fails', chain=u'c1')
    e2 = raises(mitogen.core.CallError, child.call, u'add', 1, chain=u'c1')
    assert e1.args == e2.args and child.call(u'add', 1, chain=u'c2') == 2
    child.context.send_await(mitogen.core.Message.pickled(
        (None, u'mitogen.core', u'Dispatcher', u'forget_chain', (u'c1',),
         mitogen.core.Kwargs({})), handle=mitogen.core.CALL_FUNCTION))
    assert child.call(u'add', 1, chain=u'c1') == 2
    # Bad handles and bad authority.
    e = raises(mitogen.core.ChannelError, child.context.send_await,
               mitogen.core.Message(handle=12345))
    assert str(e) == child.router.invalid_handle_msg
    msg = mitogen.core.Message(handle=mitogen.core.SHUTDOWN, src_id=0,
                               auth_id=7)
    e = raises(mitogen.core.ChannelError, child.context.send_await, msg)
    assert str(e) == child.router.refused_msg
    assert child.call(u'add', 1) == 2


def test_child_from_shipped_text():
    with Child() as child:
        check_calls(child)
    assert child.status == -signal.SIGTERM


def test_child_from_installed_package():
    with Child(INSTALLED) as child:
        check_calls(child)
    assert child.status == -signal.SIGTERM


def test_child_logs_lazily():
    with Child() as child:
        lazy = child.call(u'lazy_log', 'text')
        if PY3:
            assert not lazy
        until(lambda: child.logs)
        assert child.logs[0] == [u'mitogen', u'40', u'lazy text']
        name = child.call(u'log_error', u'caf\xe9')
        assert name == 'LogHandler'
        assert child.call(u'lazy_log', 'again') is True
        until(lambda: len(child.logs) == 3)
        assert child.logs[1] == [u'some.name', u'40', u'caf\xe9!']
        assert child.logs[2] == [u'mitogen', u'40', u'lazy again']


def test_child_logs_from_its_broker_thread():
    with Child() as child:
        assert child.call(u'log_from_broker') == (not PY3)
        until(lambda: child.logs)
        assert child.logs == [[u'root', u'40', u'on the broker thread']]


def test_child_debug_level():
    with Child(log_level=10, send_ec2=True) as child:
        assert child.call(u'add', 1) == 2
        until(lambda: any('Python version is' in log[2]
                          for log in child.logs))
        assert any('Parent is context 0 (master)' in log[2]
                   for log in child.logs)
        assert not any(log[0] == 'mitogen.io' for log in child.logs)


def test_child_stdio():
    with Child(setup_stdio=True, remote_name='a name') as child:
        child.call(u'spew', 1 << 20)
        until(lambda: len(child.logs) == 2)
        assert child.logs[0] == [u'stdout', u'20', u'y' * (1 << 20)]
        assert child.logs[1] == [u'stdout', u'20', u'printed']
        child.call(u'log_error', 'x')
        child.call(u'spew', 3)
        until(lambda: len(child.logs) == 5)
        assert child.logs[3] == [u'stdout', u'20', u'yyy']
        assert child.call(u'environment') == ([''], 0, 1)
        if sys.platform.startswith('linux'):
            want = '%s(mitogen:a name)\0' % (sys.executable,)
            assert child.call(u'cmdline') == b(want)


def test_child_is_gone_after_shutdown_in_a_call():
    child = Child()
    # Longer than a test may take.
    recv = child.call_async(u'say_and_sleep', 3600)
    child.call_async(u'sleep', 3600).close()
    until(lambda: child.logs)
    child.close()
    e = raises(mitogen.core.ChannelError, recv.get, 5)
    assert e.args[0] == child.router.respondent_disconnect_msg


def test_child_ends_with_its_parent():
    child = Child()
    assert child.call(u'add', 1) == 2
    child.broker.defer_sync(lambda: child.stream.on_disconnect(child.broker))
    wait(child.proc)
    child.broker.shutdown()
    child.broker.join()


def test_detached_child_lives_on():
    import tempfile
    child = Child()
    path = os.path.join(tempfile.mkdtemp(), 'proof')
    recv = child.call_async(u'detach', path)
    until(lambda: child.stream.receive_side.closed)
    # An import that nobody can answer fails, it does not wait.
    until(lambda: os.path.exists(path))
    os.unlink(path)
    os.rmdir(os.path.dirname(path))
    child.broker.shutdown()
    child.broker.join()
    time.sleep(0.2)
    assert child.proc.poll() is None
    child.proc.kill()
    child.proc.wait()
    recv.close()


def test_child_is_small():
    if not PY3:
        return
    with Child() as child:
        names = set(child.call(u'modules'))
    clean = subprocess.check_output(
        [sys.executable, '-c', 'import sys; print("\\n".join(sys.modules))'])
    names -= set(clean.decode().split())
    assert not names & set(['logging', 'pstats', 'inspect', 'subprocess',
                            'cProfile', 'pickle', 'socket', 'dataclasses'])


def main():
    tests = [(name, func) for name, func in sorted(globals().items())
             if name.startswith('test_')]
    failed = 0
    for name, func in tests:
        if sys.argv[1:] and not any(arg in name for arg in sys.argv[1:]):
            continue
        try:
            t0 = time.time()
            func()
            sys.stdout.write('ok   %.2f %s\n' % (time.time() - t0, name))
        except Exception:
            import traceback
            failed += 1
            sys.stdout.write('FAIL %s\n' % (name,))
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
    return failed != 0


if __name__ == '__main__':
    logging.basicConfig(level=logging.CRITICAL)
    sys.exit(main())
