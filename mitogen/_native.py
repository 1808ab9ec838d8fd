# SPDX-License-Identifier: BSD-3-Clause
# !mitogen: minify_safe
"""
The classes of :mod:`mitogen.core` over the compiled core.

:func:`install` puts them in the place of their pure twins, at the end of the
import of `mitogen.core`. What is rare stays in Python here, often by taking the
twin's own method; the path of a message is in `_mitogen_core`.

Threads: as in `mitogen.core`. The loop itself may be run by any thread that
waits for a message, so nothing here is called by it: what needs Python comes
to the broker thread as an event of `Poller.poll`.
"""

from __future__ import absolute_import

import os
import sys
import types

import mitogen

# `threading` has loaded that one; `weakref` would bring more along.

# By name: an unbuilt checkout imports as an empty namespace package.
from _mitogen_core import __version__ as _built_version
import _mitogen_core as _c

core = sys.modules['mitogen.core']
LOG = core.LOG

_wanted_version = '.'.join(map(str, mitogen.__version__))
if _built_version != _wanted_version:
    _mismatch = (
        '_mitogen_core is version %s, and the package is version %s: install '
        'both from one source (pip install --force-reinstall PATH)'
        % (_built_version, _wanted_version))
    if os.environ.get('MITOGEN_CORE') != 'native':
        # An absent extension needs no word, but this was not meant.
        import warnings
        warnings.warn(_mismatch + '; the pure core is used', RuntimeWarning)
    raise ImportError(_mismatch)

_PureMessage = core.Message
_PureRouter = core.Router
_PureBroker = core.Broker
_PureMitogenProtocol = core.MitogenProtocol
_PureReceiver = core.Receiver
_PureChannel = core.Channel
_PureSender = core.Sender
_PureContext = core.Context


class Message(_c.Message):
    # Fields, `pickled` and `unpickle` are native.
    __doc__ = _PureMessage.__doc__
    HEADER_FMT = _PureMessage.HEADER_FMT
    HEADER_LEN = _PureMessage.HEADER_LEN
    HEADER_MAGIC = ENC_MGC = _PureMessage.ENC_MGC
    ENC_PKL = _PureMessage.ENC_PKL
    ENC_BIN = _PureMessage.ENC_BIN
    ENCS = _PureMessage.ENCS
    _pack = _PureMessage._pack
    _unpack = _PureMessage._unpack

    __repr__ = _PureMessage.__repr__
    _header = _PureMessage._header
    pack = _PureMessage.pack
    dead = _PureMessage.__dict__['dead']
    encoded = _PureMessage.__dict__['encoded']
    decode = _PureMessage.decode
    _find_global = _PureMessage._find_global
    _find_seldom = _PureMessage._find_seldom
    _throw_dead = _PureMessage._throw_dead

    def __reduce__(self):
        # For copies, of which the fields are no part of the dictionary here.
        fields = dict((name, getattr(self, name)) for name in _FIELDS)
        return _make_message, (type(self), dict(self.__dict__, **fields))

    def reply(self, msg, router=None, **kwargs):
        answer = msg if isinstance(msg, Message) else Message.pickled(msg)
        answer.handle = self.reply_to
        answer.dst_id = self.src_id
        for name, value in kwargs.items():
            setattr(answer, name, value)
        if not answer.handle:
            LOG.debug('nobody waits for this reply, dropped: %r', answer)
            return
        (self.router or router).route(answer)
    reply.__doc__ = _PureMessage.reply.__doc__

    def unpickle_iter(self, throw=True, throw_dead=True,
                      find_class=core.find_deny):
        if find_class is not core.find_deny:
            for obj in _PureMessage.unpickle_iter(self, throw, throw_dead,
                                                  find_class):
                yield obj
            return
        if self.enc == self.ENC_BIN:
            raise ValueError('message is not pickled')
        if throw_dead and self.is_dead:
            self._throw_dead()
        objs, error = self._unpickle_all(True)
        for obj in objs:
            if throw and isinstance(obj, core.CallError):
                raise obj
            yield obj
        if error is not None:
            LOG.error('cannot unpickle %r', self)
            raise error
    unpickle_iter.__doc__ = _PureMessage.unpickle_iter.__doc__


_FIELDS = ('dst_id', 'src_id', 'auth_id', 'handle', 'reply_to', 'data', 'enc',
           'router', 'receiver')


def _make_message(cls, attributes):
    msg = cls()
    for name, value in attributes.items():
        setattr(msg, name, value)
    return msg


def _slow_unpickle(msg, find_class, failure=None):
    """
    Unpickle with the caller's own look-ups, or log a payload that the native
    decoder refused with `failure`. One that is empty tells that by itself.
    """
    if failure is not None:
        if msg.data:
            LOG.error('cannot unpickle %r', msg)
        return None
    for obj in _PureMessage.unpickle_iter(msg, False, False, find_class):
        return obj
    raise core.StreamError('invalid message: the payload is empty')


def _dead_text(msg):
    """Return what the ChannelError of a dead message says."""
    try:
        msg._throw_dead()
    except core.ChannelError:
        e = sys.exc_info()[1]
        # The constructor takes them apart again.
        return '\n'.join(filter(None, [e.args[0], e.detail]))


class Latch(_c.Latch):
    __doc__ = core.Latch.__doc__
    poller_class = core.Latch.poller_class

    def __repr__(self):
        try:
            size = self.size()
        except core.LatchError:
            size = 0
        return 'Latch(%#x, size=%d, t=%r)' % (
            id(self), size, core.threading.current_thread().name)

    @classmethod
    def _on_fork(cls):
        """Nothing to close: waiting takes no descriptor."""
        pass


class Receiver(_c.Receiver):
    __doc__ = _PureReceiver.__doc__
    raise_channelerror = True
    closed_msg = _PureReceiver.closed_msg
    __repr__ = _PureReceiver.__repr__
    __enter__ = _PureReceiver.__enter__
    __exit__ = _PureReceiver.__exit__
    __iter__ = _PureReceiver.__iter__
    to_sender = _PureReceiver.to_sender
    close = _PureReceiver.close

    def empty(self):
        return self.size() == 0


class Sender(_c.Sender):
    # `send` is native.
    __doc__ = _PureSender.__doc__
    explicit_close_msg = _PureSender.explicit_close_msg
    __init__ = _PureSender.__init__
    __repr__ = _PureSender.__repr__
    __reduce__ = _PureSender.__reduce__
    close = _PureSender.close


class Context(_c.Context):
    # `send` and `send_async` are native.
    __doc__ = _PureContext.__doc__
    name = None
    remote_name = None
    NAME_MAX_LEN = _PureContext.NAME_MAX_LEN
    __init__ = _PureContext.__init__
    __repr__ = _PureContext.__repr__
    __reduce__ = _PureContext.__reduce__
    on_disconnect = _PureContext.on_disconnect
    send_await = _PureContext.send_await
    call_service_async = _PureContext.call_service_async
    call_service = _PureContext.call_service


class Channel(Sender, Receiver):
    __doc__ = _PureChannel.__doc__
    __init__ = _PureChannel.__init__
    __repr__ = _PureChannel.__repr__
    close = _PureChannel.close


#
# The router and its streams.
#

#: Id -> weak reference of each router, all of which have to be told when
#: `mitogen.context_id` and its kin change.
_routers = {}

#: In the order of `mg_reason`; the names of the texts, which are class
#: attributes that a program may replace.
_TEXTS = ('invalid_handle_msg', 'refused_msg', 'unexpected_msg',
          'no_route_msg', 'unidirectional_msg', 'too_large_msg',
          'respondent_disconnect_msg', 'broker_exit_msg', 'full_msg')
_BAD_AUTH, _BAD_SRC = len(_TEXTS), len(_TEXTS) + 1


class _Package(types.ModuleType):
    """
    The class of the `mitogen` package: programs assign its `context_id`,
    `parent_id` and `parent_ids`, and the engine, which checks authority
    without Python, has to know.
    """
    def __setattr__(self, name, value):
        types.ModuleType.__setattr__(self, name, value)
        if name in ('context_id', 'parent_id', 'parent_ids'):
            _tell_identity()

    def __delattr__(self, name):
        types.ModuleType.__delattr__(self, name)


def _tell_identity():
    _c.set_own_id(mitogen.context_id)
    for ref in list(_routers.values()):
        router = ref()
        if router is not None:
            router._tell_identity()


def _stream_of(link):
    return link.protocol.stream if link is not None else None


class Router(_c.Router):
    __doc__ = _PureRouter.__doc__
    context_class = Context
    max_message_size = _PureRouter.max_message_size
    unidirectional = _PureRouter.unidirectional
    #: Bytes that may wait for one stream before its senders have to wait and
    #: the streams that feed it are not read.
    high_water = _c.HIGH_WATER

    duplicate_handle_msg = _PureRouter.duplicate_handle_msg
    refused_msg = _PureRouter.refused_msg
    invalid_handle_msg = _PureRouter.invalid_handle_msg
    too_large_msg = _PureRouter.too_large_msg
    respondent_disconnect_msg = _PureRouter.respondent_disconnect_msg
    broker_exit_msg = _PureRouter.broker_exit_msg
    full_msg = _PureRouter.full_msg
    no_route_msg = _PureRouter.no_route_msg
    unidirectional_msg = _PureRouter.unidirectional_msg
    unexpected_msg = _PureRouter.unexpected_msg

    __repr__ = _PureRouter.__repr__
    _on_del_route = _PureRouter._on_del_route
    _on_route_lost = _PureRouter._on_route_lost
    _call_handler = _PureRouter._call_handler
    _on_fork = _PureRouter._on_fork
    _maybe_send_dead = _PureRouter._maybe_send_dead
    _fire_lost = _PureRouter._fire_lost
    _note_loss = _PureRouter._note_loss
    _tell_lost = _PureRouter._tell_lost
    _dead_respondent = _PureRouter._dead_respondent
    _watch_stream = _PureRouter._watch_stream
    _gone = False
    #: Messages refused by Python; the engine counts its own.
    refused = 0
    stats = _PureRouter.stats
    myself = _PureRouter.myself
    context_by_id = _PureRouter.context_by_id

    def __init__(self, broker):
        poller = getattr(broker, 'poller', None)
        if isinstance(poller, Poller):
            self._open(poller._loop)
        else:
            # A broker of another kind (in tests): a loop that nobody runs.
            self._open(_c.Loop())
        for reason, name in enumerate(_TEXTS):
            self._set_text(reason, getattr(self, name))
        self._tell_identity()
        core._remember(_routers, self)
        self.broker = broker
        self._write_lock = core.thread.allocate_lock()
        self._context_by_id = {}
        self.max_message_size = self.max_message_size
        self.unidirectional = self.unidirectional
        core.listen(broker, 'exit', self._on_broker_exit)
        core.listen(broker, '_fork', self._on_fork)
        self.add_handler(self._on_del_route, core.DEL_ROUTE,
                         policy=core._is_neighbour)

    def __setattr__(self, name, value):
        _c.Router.__setattr__(self, name, value)
        if name in ('max_message_size', 'high_water'):
            # Any number will do, infinity too.
            self._set_limits(*(int(min(limit, 1 << 62)) for limit in (
                self.max_message_size, self.high_water)))
        elif name == 'unidirectional':
            self._set_unidirectional(value)
        elif name in _TEXTS:
            self._set_text(_TEXTS.index(name), value)

    def _tell_identity(self):
        self._set_identity(mitogen.context_id, mitogen.parent_id,
                           mitogen.parent_ids)

    @property
    def _stream_by_id(self):
        return dict((context_id, _stream_of(link))
                    for context_id, link in self._routes().items())

    @property
    def _handles_by_respondent(self):
        table = {}
        for handle, entry in self._handle_map.items():
            if entry[4] is not None:
                table.setdefault(entry[4], set()).add(handle)
        return table

    def _streams(self):
        """Return a snapshot of all streams, each once."""
        return list(dict.fromkeys(map(_stream_of, self._routes().values())))

    def _add_route(self, target_id, stream):
        self._put_route(target_id, stream.protocol._opened_link())

    def stream_by_id(self, dst_id):
        if dst_id is None:
            # Asked for by who has no parent, or has lost it.
            return None
        return _stream_of(self._get_route(dst_id, True))
    stream_by_id.__doc__ = _PureRouter.stream_by_id.__doc__

    def register(self, context, stream):
        self._context_by_id[context.context_id] = context
        self._add_route(context.context_id, stream)
        self.broker.start_receive(stream)
        self._watch_stream(context, stream)
    register.__doc__ = _PureRouter.register.__doc__

    def _on_stream_disconnect(self, stream, own_id=None):
        lost = [context_id for context_id, link in self._routes().items()
                if link.protocol is stream.protocol]
        for context_id in lost:
            self._del_route(context_id)
        self._fire_lost(stream, lost, own_id, self._routes())

    def _on_late_handler(self):
        """A handler was added after the loop was closed."""
        if self._gone:
            self._on_broker_exit()

    def _watch_respondent(self, respondent):
        """Have the loss of a context reach the handlers that wait for it.
        Called once for each context that is a respondent."""
        # The one object that is told; the caller's may be its own.
        known = self.context_by_id(respondent.context_id)
        if known.__dict__.get('_watched_by') is not self:
            core.listen(known, 'disconnect',
                        lambda: self._on_respondent_disconnect(known))
            known._watched_by = self
        # Last: it may raise MemoryError before.
        respondent._respondent_of = self

    def _lost_handlers(self, respondent_id):
        while True:
            try:
                return self._take_handlers(respondent_id)
            except MemoryError:
                # Whoever waits there has to be told, if later.
                core.time.sleep(0.01)

    def _on_respondent_disconnect(self, context):
        for _, entry in self._lost_handlers(context.context_id):
            self._call_handler(
                entry[1], self._dead_respondent(context))

    def _on_broker_exit(self):
        ends = not self._gone
        # First: whoever adds a handler from now on calls this again.
        self._gone = True
        for _, entry in self._lost_handlers(None):
            self._call_handler(entry[1],
                               core.Message.dead(self.broker_exit_msg))
        # Now nothing more is accepted. Not when called again: then this may be
        # any thread, and one only may take events.
        if ends and isinstance(self.broker.poller, Poller):
            self.broker.poller.finish()

    def _deliver(self, entry, msg, link):
        """Give a message to a handler that is Python. Broker thread."""
        _, func, policy, persist, _ = entry
        if policy is not None and policy not in _NATIVE_POLICIES:
            try:
                allowed = policy(msg, _stream_of(link))
            except Exception:
                LOG.exception('%r: policy %r crashed', self, policy)
                allowed = False
            if not allowed:
                return self._maybe_send_dead(True, msg, self.refused_msg)
            if not persist:
                try:
                    self.del_handler(msg.handle)
                except KeyError:
                    # Another message was first, or its receiver was closed
                    # on another thread just now.
                    return self._maybe_send_dead(True, msg,
                                                 self.invalid_handle_msg)
        self._call_handler(func, msg)

    def _async_route(self, msg, in_stream=None):
        if in_stream is None:
            self.route(msg)
        else:
            in_stream.protocol._opened_link().ingress(msg)
    _async_route.__doc__ = _PureRouter._async_route.__doc__


_NATIVE_POLICIES = core.has_parent_authority, core._is_neighbour


class MitogenProtocol(core.Protocol):
    __doc__ = _PureMitogenProtocol.__doc__
    corrupt_msg = _PureMitogenProtocol.corrupt_msg

    def __new__(cls, router, *args, **kwargs):
        if isinstance(router, Router):
            return super(MitogenProtocol, cls).__new__(cls)
        # A router of another kind (in tests) gets the twin.
        return _PureMitogenProtocol(router, *args, **kwargs)

    def __init__(self, router, remote_id, auth_id=None, local_id=None,
                 parent_ids=None):
        if local_id is None:
            local_id = mitogen.context_id
        if parent_ids is None:
            parent_ids = mitogen.parent_ids
        self._router = router
        self._on_message = None
        self._link = _c.Link(router, remote_id, self)
        # A subclass may have the hook as a method.
        self._link.hooked = self.on_message is not None
        self.auth_id = auth_id
        self.is_privileged = (remote_id in parent_ids or
                              auth_id in [local_id] + list(parent_ids))
        self.sent_modules = set(['mitogen', 'mitogen.core'])

    def _end_with(self, grace):
        """End this process when the other side is gone and the interpreter
        has not been let go of for `grace` seconds."""
        self._opened_link().end_with(grace)

    def _forked(self):
        """Nothing to do: the engine knows."""
        pass

    def _opened_link(self):
        stream = self.stream
        if stream is not None and stream.transmit_side is not None:
            self._link.open(stream.receive_side.fd, stream.transmit_side.fd)
        return self._link

    @property
    def remote_id(self):
        return self._link.remote_id

    @remote_id.setter
    def remote_id(self, value):
        self._link.remote_id = value

    @property
    def auth_id(self):
        return self._link.auth_id

    @auth_id.setter
    def auth_id(self, value):
        self._link.auth_id = value

    @property
    def is_privileged(self):
        return self._link.privileged

    @is_privileged.setter
    def is_privileged(self, value):
        self._link.privileged = value

    @property
    def on_message(self):
        return self._on_message

    @on_message.setter
    def on_message(self, func):
        self._on_message = func
        self._link.hooked = func is not None

    @property
    def egress_ids(self):
        return self._link.egress()

    def on_receive(self, broker, buf):
        """Take bytes that another protocol of the stream has read."""
        self._opened_link().feed(buf)

    def on_transmit(self, broker):
        """The loop writes by itself."""
        pass

    def pending_bytes(self):
        return self._link.pending()

    def _send(self, msg):
        self._opened_link().send(msg)

    def send(self, msg):
        self._send(msg)
    send.__doc__ = _PureMitogenProtocol.send.__doc__

    def on_shutdown(self, broker):
        """Stay open: logs and output still come while the process ends."""
        pass

    def on_disconnect(self, broker):
        self._link.close()
        loop, sides = self._router._loop, []
        for side, stop in ((self.stream.receive_side, broker.stop_receive),
                           (self.stream.transmit_side,
                            broker._stop_transmit)):
            if side is not None and not side.closed:
                stop(self.stream)
                sides.append(side)
        # While no thread runs the loop: libev may still hear of a stopped
        # descriptor, and the number must be that file's until it forgets it.
        loop.acquire()
        try:
            for side in sides:
                side.close()
        finally:
            loop.release()


#
# The poller and the broker.
#

class Poller(core.Poller):
    """
    The engine's loop, behind the interface of a poller. `poll` runs it until
    there is something for Python to do. Streams of frames are listed among
    `readers`, and never reported: the engine reads them.
    """
    #: Tells `mitogen.parent.upgrade_router` that there is nothing to gain.
    native = True

    def __init__(self):
        core.Poller.__init__(self)
        self._loop = _c.Loop()
        self._watches = {}
        self._links = {}
        self._fired = []
        self._closed = False
        #: Called by the broker thread where its turn comes among what has
        #: arrived, once for each `call_later` of the loop.
        self.on_call = None

    def _watch(self, fd, writing):
        watch = self._watches.get((fd, writing))
        if watch is None:
            watch = self._loop.watch(fd, writing, (fd, writing))
            self._watches[fd, writing] = watch
            watch.start()

    def _unwatch(self, fd, writing):
        watch = self._watches.pop((fd, writing), None)
        if watch is not None:
            watch.stop()

    def start_receive(self, fd, data=None):
        core.Poller.start_receive(self, fd, data)
        self._watch(fd, False)

    def start_transmit(self, fd, data=None):
        core.Poller.start_transmit(self, fd, data)
        self._watch(fd, True)

    def start_link(self, fd, data, link):
        """List a stream of frames, and have the engine read it."""
        # The stream may have spoken another protocol before.
        self._unwatch(fd, False)
        core.Poller.start_receive(self, fd, data)
        self._links[fd] = link
        link.start()

    def stop_receive(self, fd):
        core.Poller.stop_receive(self, fd)
        link = self._links.pop(fd, None)
        if link is not None:
            link.stop()
        self._unwatch(fd, False)

    def stop_transmit(self, fd):
        core.Poller.stop_transmit(self, fd)
        self._unwatch(fd, True)

    def _poll(self, timeout):
        fired, self._fired = self._fired, []
        for watch in fired:
            if self._watches.get(watch.data) is watch:
                watch.start()
        self._loop.wait(timeout)
        while True:
            try:
                event = self._loop.next_event()
            except MemoryError:
                # It stays the next one, for when there is memory.
                break
            if event is None:
                break
            if event[0] == _c.EV_IO:
                watch = event[2]
                self._fired.append(watch)
                fd, writing = watch.data
                if self._watches.get(watch.data) is watch:
                    table = self._wfds if writing else self._rfds
                    data, generation = table.get(fd, (None, self._generation))
                    if generation < self._generation:
                        yield data
            elif event[0] == _c.EV_CALL:
                self.on_call()
            else:
                self._handle(event)
            event = watch = None

    @staticmethod
    def _handle(event):
        try:
            _HANDLERS[event[0]](*event[1:])
        except Exception:
            LOG.exception('cannot handle an event: %r', event)

    def finish(self):
        """
        Deliver what was accepted before the end, and forget the rest. The
        thread that was the broker's.
        """
        while True:
            try:
                event = self._loop.next_event()
            except MemoryError:
                # Whoever waits for an answer has to get one, if later.
                core.time.sleep(0.01)
                continue
            if event is None:
                return
            if event[0] in (_c.EV_FRAME, _c.EV_NOTIFY):
                self._handle(event)
            event = None

    def close(self):
        if self._closed:
            return
        self._closed = True
        for watch in list(self._watches.values()):
            watch.stop()
        self._watches.clear()
        self._loop.close()
        self.finish()
        del self._fired[:]


def _on_frame(entry, msg, link, removed):
    router = entry[0]
    try:
        if removed:
            # Since it was sent.
            router._maybe_send_dead(True, msg, router.invalid_handle_msg)
        else:
            router._deliver(entry, msg, link)
    finally:
        if link is not None:
            link.release()


def _on_hook(msg, link):
    protocol = link.protocol
    msg.router = router = protocol._router
    held = False
    try:
        try:
            if protocol.on_message is not None:
                protocol.on_message(protocol.stream, msg)
        except Exception:
            LOG.exception('%r: on_message crashed', protocol)
            # An answer, too, is waited for.
            router._maybe_send_dead(False, msg, router.refused_msg)
        else:
            held = link.after_hook(msg)
    finally:
        if not held:
            link.release()


def _disconnect(link, why):
    stream = _stream_of(link)
    if stream is not None:
        stream.why = why
        broker = link.protocol._router.broker
        try:
            stream.on_disconnect(broker)
        except Exception:
            LOG.exception('%r: on_disconnect() crashed', stream)


def _on_gone(link, error):
    if link is not None:
        if error and error not in (core.errno.EPIPE, core.errno.ECONNRESET):
            LOG.debug('%r: %s', _stream_of(link), os.strerror(error))
        _disconnect(link, os.strerror(error) if error else
                    'closed by the other side')


def _on_bad(link, why, pending, length):
    if link is None:
        return
    protocol = link.protocol
    if length:
        LOG.error('%r: maximum message size exceeded (got %d, max %d)',
                  protocol, length, protocol._router.max_message_size)
    elif pending:
        LOG.error(protocol.corrupt_msg, protocol.stream.name, pending)
    else:
        LOG.error('%r: %s', protocol, why)
    _disconnect(link, 'it sent what is no message')


def _on_refused(reason, header, link, expected, lost):
    dst_id, src_id, auth_id, handle, reply_to, enc = header
    text = 'Message(src=%r:%r dst=%r:%r auth_id=%r)' % (
        src_id, reply_to, dst_id, handle, auth_id)
    if lost:
        LOG.error('%d refused messages before this one were not logged: '
                  'there were too many', lost)
    if reason in (_BAD_AUTH, _BAD_SRC):
        bad = reason == _BAD_AUTH
        LOG.error('bad %s: got %r via %r, not %r: %s',
                  'auth_id' if bad else 'src_id', auth_id if bad else src_id,
                  _stream_of(link), _stream_of(expected), text)
    elif handle != core.FORWARD_LOG:
        # What is said of a lost log record would be lost likewise, and said
        # again, for ever.
        LOG.debug('%s is dead: %s', text, getattr(Router, _TEXTS[reason]))


def _on_notify(source):
    notify = source.notify
    if notify:
        notify(source)


_HANDLERS = {
    _c.EV_FRAME: _on_frame,
    _c.EV_HOOK: _on_hook,
    _c.EV_GONE: _on_gone,
    _c.EV_BAD: _on_bad,
    _c.EV_REFUSED: _on_refused,
    _c.EV_NOTIFY: _on_notify,
}


class _Waker(core.Waker):
    # Instead of a pipe, an event in the loop's queue keeps the place of each
    # function: so it runs after what was routed before it.
    __doc__ = core.Waker.__doc__

    def __init__(self, broker):
        core.Waker.__init__(self, broker)
        self._call_later = broker.poller._loop.call_later
        broker.poller.on_call = self._on_call

    def _on_call(self):
        with self._lock:
            if not self._deferred:
                # An exception came when its place was kept.
                return
            func, args, kwargs = self._deferred.popleft()
        # As in `drain`, whose text is sent to children and has no byte to spare.
        try:
            func(*args, **kwargs)
        except Exception:
            LOG.exception('%r failed on the broker thread', func)
            self._broker.shutdown()

    def defer(self, func, *args, **kwargs):
        if core.thread.get_ident() == self._broker._ident:
            return func(*args, **kwargs)
        with self._lock:
            if self._broker._exitted:
                raise core.Error(self.broker_shutdown_msg)
            # First: a place too many is no harm.
            self._call_later()
            self._deferred.append((func, args, kwargs))
            self.wakes += 1


class Broker(_PureBroker):
    __doc__ = _PureBroker.__doc__

    def __init__(self, poller_class=None, activate_compat=True, _start=True):
        self._alive = True
        self._exitted = False
        core._remember(Broker._all, self)
        self.poller = Poller()
        self._waker = core.Stream()
        self._waker.set_protocol(_Waker(self))
        self.defer = self._waker.protocol.defer
        self._thread = core.threading.Thread(target=self._broker_main,
                                             name='mitogen.broker')
        if _start:
            self._thread.start()

    def keep_alive(self):
        return (_PureBroker.keep_alive(self) or
                self.poller._loop.unsent() > 0)
    keep_alive.__doc__ = _PureBroker.keep_alive.__doc__

    def _watch_receive(self, stream):
        side = stream.receive_side
        data = side, stream.on_receive
        if isinstance(stream.protocol, MitogenProtocol):
            self.poller.start_link(side.fd, data,
                                   stream.protocol._opened_link())
        else:
            self.poller.start_receive(side.fd, data)


#
# Fork.
#

def _after_fork_child():
    _c.after_fork_child()
    _routers.clear()


#
# Installation.
#

def why_not():
    """Return None: the compiled core can be had, if this was imported."""
    pass


def install(names):
    """
    Replace the pure classes in the namespace of `mitogen.core`.

    :param dict names: that namespace.
    :returns: the name of the core, 'native'.
    """
    for cls in Message, Latch, Receiver, Sender, Channel, Context, Router, \
            Broker, MitogenProtocol:
        # What they are to everybody else.
        cls.__module__ = 'mitogen.core'
    names.update(Message=Message, Latch=Latch, Receiver=Receiver,
                 Sender=Sender, Channel=Channel, Context=Context, Router=Router, Broker=Broker,
                 MitogenProtocol=MitogenProtocol)
    _c.configure({
        'message_type': Message, 'receiver_type': Receiver,
        'TimeoutError': core.TimeoutError, 'LatchError': core.LatchError,
        'ChannelError': core.ChannelError, 'Error': core.Error,
        'StreamError': core.StreamError, 'CallError': core.CallError,
        'UnpicklingError': core.UnpicklingError,
        'has_parent_authority': core.has_parent_authority,
        'slow_unpickle': _slow_unpickle, 'dead_text': _dead_text,
        'broker_shutdown_msg': core.Waker.broker_shutdown_msg,
        'latch_closed_msg': 'the latch is closed',
        'duplicate_handle_msg': Router.duplicate_handle_msg,
        'Blob': core.Blob, 'Secret': core.Secret, 'Kwargs': core.Kwargs,
        'Context': Context, 'Sender': Sender,
        'unpickle_call_error': core._unpickle_call_error,
        'unpickle_context': lambda router, context_id, name:
            core._unpickle_context(context_id, name, router=router),
        'unpickle_sender': core._unpickle_sender,
        'fallback_pickle': lambda *objs: _PureMessage.pickled(*objs).data,
    })
    _c.set_neighbour_policies(_NATIVE_POLICIES[1:])
    spin = os.environ.get('MITOGEN_SPIN')
    if spin:
        _c.set_spin(float(spin) / 1e6)
    mitogen.__class__ = _Package
    _tell_identity()
    os.register_at_fork(before=_c.before_fork, after_in_parent=_c.after_fork,
                        after_in_child=_after_fork_child)
    return 'native'
