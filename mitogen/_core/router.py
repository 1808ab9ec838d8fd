# SPDX-License-Identifier: BSD-3-Clause
"""
Router: which stream leads to which context, and which function serves which handle.
"""

from __future__ import absolute_import  # house

import itertools  # house
import time  # house

import mitogen  # house
from mitogen.core import _complete, _is_neighbour, _SELDOM, _seldom, Context, DEL_ROUTE, Error, FORWARD_LOG  # house
from mitogen.core import imap, import_module, LatchError, listen, LOG, Message, Receiver, thread  # house


#
# Router and broker.
#

class Router(object):
    """
    Know which stream leads to which context, and which function serves which
    handle. Tables change under `_write_lock`; reading a dict is atomic.

    :param Broker broker:
    """
    context_class = Context
    #: Bytes of payload; larger messages are refused. Children inherit it.
    max_message_size = 128 * 1048576
    #: Bytes that may wait on a stream before those who fill it have to wait.
    #: A peer that lets four times as many wait is not told what became of its
    #: messages.
    high_water = 8 * 1048576
    #: Forward only between a privileged stream and another one.
    unidirectional = False
    no_route_msg = 'no route to context %r from context %r'
    invalid_handle_msg = 'invalid handle: nobody receives there'
    refused_msg = 'refused by policy'
    too_large_msg = 'message too large (max %d bytes)'
    broker_exit_msg = 'the broker has exited'
    duplicate_handle_msg = 'the handle is taken'
    if _SELDOM:
        full_msg = ('the receiver is full (max_bytes=%d) and messages for it were '
                    'refused: take them faster, or have whoever sends wait for an '
                    'answer')
        unexpected_msg = 'reply from unexpected context'
        unidirectional_msg = (
            'routing mode prevents forward of a message that came from '
            'context %d and is for context %d, in context %d')
        respondent_disconnect_msg = 'the respondent context has disconnected'
    #: The broker has exited, and every handler was told.
    _gone = False
    #: Messages that were not delivered.
    refused = 0

    def __init__(self, broker):
        self.broker = broker
        self._write_lock = thread.allocate_lock()
        self._stream_by_id = {}
        self._context_by_id = {}
        #: handle -> (persist, function, policy, respondent)
        self._handle_map = {}
        self._handles_by_respondent = {}
        #: Sum of the `counts` of streams that are closed.
        self._closed = 0, 0, 0, 0, 0
        self._next_handle = itertools.count(1000)
        listen(broker, 'shutdown', self._on_broker_shutdown)
        listen(broker, 'exit', self._on_broker_exit)
        listen(broker, '_fork', lambda: self._on_fork())
        self.add_handler(self._on_del_route, DEL_ROUTE, policy=_is_neighbour)

    @_seldom
    def __repr__(self):
        return 'Router(%r)' % (self.broker,)

    @_seldom
    def stats(self):
        """Return a dict of counters, see :func:`mitogen.debug.router_stats`.
        Not on the broker thread."""
        return import_module('mitogen.debug').router_stats(self)

    @_seldom
    def _count_closed(self, counts):
        self._closed = tuple(imap(sum, zip(self._closed, counts)))

    def _on_del_route(self, msg):
        """What a child that cannot have children does about DEL_ROUTE."""
        if not msg.is_dead and _complete():
            self._on_route_lost(int(msg.data.partition(b':')[0]))

    @_seldom
    def _on_route_lost(self, target_id):
        context = self.context_by_id(target_id, create=False)
        # It matters to who waits for it, unless this tree ends anyway.
        log = LOG.debug
        if self.broker._alive and self._handles_by_respondent.get(context):
            log = LOG.error
        log('%r: deleting route to %r', self, context or target_id)
        if context:
            self._note_loss(context, 'says its parent')
            self._tell_lost(context)

    @_seldom
    def _note_loss(self, context, how):
        context._loss = u'\n%r was lost at %s, %s' % (
            context, time.strftime('%H:%M:%S'), how)

    @_seldom
    def _tell_lost(self, context):
        """Have whoever waits for a context told that it is lost."""
        try:
            context.on_disconnect()
        except Exception:
            LOG.exception('%r: a listener for its loss crashed', context)
            # It stood before the one for handlers.
            self._on_respondent_disconnect(context)

    def _on_stream_disconnect(self, stream, own_id=None):
        """`own_id`: our id, if the stream led to our parent."""
        with self._write_lock:
            lost = [i for i, s in self._stream_by_id.items() if s is stream]
            for context_id in lost:
                del self._stream_by_id[context_id]
        self._fire_lost(stream, lost, own_id, self._stream_by_id)

    def _fire_lost(self, stream, lost, own_id, routes):
        if own_id is not None:
            # The rest of the tree was reached by way of the parent.
            lost += [i for i in list(self._context_by_id)
                     if i != own_id and i not in routes and i not in lost]
        for context_id in lost:
            context = self.context_by_id(context_id, create=False)
            if context:
                if _complete():
                    self._note_loss(context, u'with the connection %r: %s' % (
                        stream.name, stream.why))
                    self._tell_lost(context)
                else:
                    context.on_disconnect()

    def _on_broker_shutdown(self):
        # Every stream has to be seen to end.
        self.high_water = float('inf')
        for stream in list(self._stream_by_id.values()):
            writer = stream.protocol._writer
            if writer.feeders:
                writer.resume()

    def _on_broker_exit(self):
        # First: whoever adds a handler from now on calls this again.
        self._gone = True
        for handle in list(self._handle_map):
            entry = self._handle_map.pop(handle, None)
            if entry:
                self._call_handler(entry[1],
                                   Message.dead(self.broker_exit_msg))

    @_seldom
    def _on_fork(self):
        """Of what the parent has, nothing comes here: end what waits for it,
        and write to none of its streams."""
        self._write_lock = thread.allocate_lock()
        self._gone = True
        for stream in self._streams():
            stream.protocol._forked()
        for entry in list(self._handle_map.values()):
            receiver = getattr(entry[1], '__self__', None)
            if isinstance(receiver, Receiver):
                receiver._size_lock = thread.allocate_lock()
                receiver._latch._forked()
                try:
                    receiver._latch.put(Message.dead(self.broker_exit_msg))
                except LatchError:
                    pass
        importer = getattr(self, 'importer', None)
        if importer:
            importer._forked()
            importer._resource_requester._forked()

    def _call_handler(self, func, msg):
        try:
            func(msg)
        except BaseException:
            LOG.exception('%r: handler %r crashed', self, func)

    @_seldom
    def myself(self):
        """Return a new :class:`Context` for this process."""
        return self.context_class(self, mitogen.context_id, 'self')

    def context_by_id(self, context_id, via_id=None, create=True, name=None):
        """Return the one :class:`Context` of that id, on which signals fire.
        `via_id` and `name` only matter if it is created."""
        context = self._context_by_id.get(context_id)
        if context is None and create:
            context = self.context_class(self, context_id, name=name)
            if via_id is not None:
                context.via = self.context_by_id(via_id)
            with self._write_lock:
                context = self._context_by_id.setdefault(context_id, context)
        return context

    def stream_by_id(self, dst_id):
        """Return the stream that leads to a context, or up, or None."""
        return (self._stream_by_id.get(dst_id) or
                self._stream_by_id.get(mitogen.parent_id))

    @_seldom
    def _add_route(self, target_id, stream):
        with self._write_lock:
            self._stream_by_id[target_id] = stream

    @_seldom
    def _del_route(self, target_id):
        with self._write_lock:
            self._stream_by_id.pop(target_id, None)

    @_seldom
    def _streams(self):
        with self._write_lock:
            return list(set(self._stream_by_id.values()))

    def register(self, context, stream):
        """Make `stream` the way to `context` and start to read from it."""
        if self._stream_by_id:
            # From now on we forward.
            self._relays = _complete()
        with self._write_lock:
            self._stream_by_id[context.context_id] = stream
            self._context_by_id[context.context_id] = context
        self._watch_stream(context, stream)
        self.broker.start_receive(stream)

    def _watch_stream(self, context, stream):
        # Not looked up when it happens: our identity may end with the stream.
        own_id = None
        if context.context_id == mitogen.parent_id:
            own_id = mitogen.context_id
        listen(stream, 'disconnect',
               lambda: self._on_stream_disconnect(stream, own_id))

    def add_handler(self, fn,
                    handle=None,       # int; None for a new one
                    persist=True,      # false: remove it before the first call
                    policy=None,       # policy(msg, stream or None)
                    respondent=None,   # the Context that alone may send
                    overwrite=False):  # replace an existing handler
        """
        Have `fn(msg)` called on the broker thread for each message to a
        handle. Any thread.

        :param int handle: None for a new one.
        :param bool persist: if false, it is removed before the first call.
        :param policy: called on the broker thread with the message and its
            stream, None for a local one. Anything but a true result refuses
            the message.
        :param Context respondent: who alone may send. When it disconnects,
            `fn` gets a dead message and the handler is removed.
        :param bool overwrite: replace an existing handler.
        :returns: the handle.
        :raises Error: the handle exists.
        :raises OverflowError: it has more than 32 bits.
        """
        if respondent is not None:
            # The one object that is told.
            respondent = self.context_by_id(respondent.context_id)
        with self._write_lock:
            if not handle:
                handle = next(self._next_handle)
            elif not 0 < handle < 1 << 32:
                raise OverflowError('handle: %r' % (handle,))
            elif handle in self._handle_map and not overwrite:
                raise Error(self.duplicate_handle_msg)
            if respondent is not None:
                self._note_respondent(respondent, handle)
            self._handle_map[handle] = persist, fn, policy, respondent
        if self._gone:
            self._on_broker_exit()
        return handle

    @_seldom
    def _note_respondent(self, respondent, handle):
        handles = self._handles_by_respondent.get(respondent)
        if handles is None:
            handles = self._handles_by_respondent[respondent] = set()
            listen(respondent, 'disconnect',
                   lambda: self._on_respondent_disconnect(respondent))
        handles.add(handle)

    def del_handler(self, handle):
        """
        Remove a handler.

        :raises KeyError: there is none.
        """
        with self._write_lock:
            respondent = self._handle_map.pop(handle)[3]
            if respondent is not None:
                self._handles_by_respondent[respondent].discard(handle)

    @_seldom
    def _on_respondent_disconnect(self, context):
        with self._write_lock:
            handles = self._handles_by_respondent.get(context, set())
            # A handle may be somebody else's by now.
            lost = [self._handle_map.pop(h) for h in handles
                    if self._handle_map.get(h, (None,) * 4)[3] == context]
            handles.clear()
        for entry in lost:
            self._call_handler(entry[1], self._dead_respondent(context))

    @_seldom
    def _dead_respondent(self, context):
        return Message.dead(self.respondent_disconnect_msg +
                            getattr(context, '_loss', ''))

    def _maybe_send_dead(self, unreachable, msg, reason, *args):
        """Tell whoever waits on `msg` that it got nowhere: its sender if a
        reply is due, else the recipient if it can be reached."""
        self.refused += 1
        reason = reason % args if args else reason
        LOG.debug('%r: %s: %r', self, reason, msg)
        # Else it would be refused itself, and so on.
        reason = reason[:self.max_message_size]
        if msg.reply_to and not msg.is_dead:
            stream = self.stream_by_id(msg.src_id)
            # Not to a peer that asks and does not read.
            if not stream or \
                    stream.protocol.pending_bytes() <= 4 * self.high_water:
                msg.reply(Message.dead(reason), router=self)
        elif not unreachable and None not in (msg.dst_id, msg.handle):
            # In its sender's name, who may not have been allowed this either.
            self._async_route(Message.dead(
                reason, dst_id=msg.dst_id, handle=msg.handle,
                src_id=msg.src_id, auth_id=msg.auth_id))

    @_seldom
    def _is_unexpected(self, msg, stream, respondent):
        bad = msg.src_id != respondent.context_id
        if bad and msg.is_dead:
            # Whoever is on the way to the respondent may say so.
            bad = stream and stream is not (
                self.stream_by_id(respondent.context_id) or stream)
        return bad

    def _invoke(self, msg, stream):
        entry = self._handle_map.get(msg.handle)
        if entry is None:
            return self._maybe_send_dead(True, msg, self.invalid_handle_msg)
        persist, func, policy, respondent = entry
        if respondent is not None and \
                self._is_unexpected(msg, stream, respondent):
            return self._maybe_send_dead(True, msg, self.unexpected_msg)
        if policy is not None:
            try:
                allowed = policy(msg, stream)
            except Exception:
                # For example one that wants a stream, and a local message.
                LOG.exception('%r: policy %r crashed', self, policy)
                allowed = False
            if not allowed:
                return self._maybe_send_dead(True, msg, self.refused_msg)
        if not persist:
            try:
                self.del_handler(msg.handle)
            except KeyError:
                # Its receiver was closed on another thread just now.
                pass
        self._call_handler(func, msg)

    def _async_route(self, msg, in_stream=None):
        """
        Check `msg` and pass it on. Broker thread.

        :param Stream in_stream: where it came from, None if from here.
        """
        if len(msg.data) > self.max_message_size:
            return self._maybe_send_dead(False, msg, self.too_large_msg,
                                         self.max_message_size)
        streams = self._stream_by_id
        parent_stream = streams.get(mitogen.parent_id)
        # What came down must not go up again.
        upward = True
        # Most contexts have one stream, to whose other end they trust.
        crossing = in_stream is not None and (
            len(streams) > 1 or in_stream is not parent_stream)
        if in_stream is not None:
            protocol = in_stream.protocol
            upward = streams.get(msg.src_id, parent_stream) is not \
                parent_stream
            if crossing and self._refuse_bad_ids(msg, in_stream):
                return
            if protocol.auth_id is not None:
                msg.auth_id = protocol.auth_id
            if protocol.on_message is not None and \
                    self._hook_fails(msg, in_stream):
                return
            if crossing:
                protocol._note_egress(msg.dst_id)

        if msg.dst_id == mitogen.context_id:
            return self._invoke(msg, in_stream)
        if msg.dst_id is None or msg.handle is None:
            return LOG.debug('%r: no destination: %r', self, msg)
        out_stream = streams.get(msg.dst_id)
        if out_stream is None and upward:
            out_stream = parent_stream
        if out_stream is None:
            return self._maybe_send_dead(True, msg, self.no_route_msg,
                                         msg.dst_id, mitogen.context_id)
        if crossing:
            self._pass_on(msg, in_stream, out_stream)
        else:
            out_stream.protocol._send(msg)

    @_seldom
    def _hook_fails(self, msg, in_stream):
        try:
            in_stream.protocol.on_message(in_stream, msg)
        except Exception:
            LOG.exception('%r: on_message crashed', in_stream.protocol)
            # An answer, too, is waited for.
            self._maybe_send_dead(False, msg, self.refused_msg)
            return True

    @_seldom
    def _refuse_bad_ids(self, msg, in_stream):
        """Return whether a message claims to come from where it cannot."""
        for name, value in ('auth_id', msg.auth_id), ('src_id', msg.src_id):
            if name == 'src_id' and value == msg.auth_id:
                break
            stream = self.stream_by_id(value)
            if stream is not in_stream:
                self.refused += 1
                LOG.error('%r: bad %s: got %r via %r, not %r: %r',
                          self, name, value, in_stream, stream, msg)
                return True

    @_seldom
    def _pass_on(self, msg, in_stream, out_stream):
        """Forward what came from another stream."""
        protocol = in_stream.protocol
        if self.unidirectional and not (
                protocol.is_privileged or out_stream.protocol.is_privileged):
            return self._maybe_send_dead(
                True, msg, self.unidirectional_msg, protocol.remote_id,
                out_stream.protocol.remote_id, mitogen.context_id)
        protocol._forwarded += 1
        out_stream.protocol._forward(msg, in_stream)

    def route(self, msg):
        """
        Send `msg` where its `dst_id` says. Any thread.

        :raises Error: the broker has exited.
        """
        # The sender writes for itself. Everything else, handlers above all,
        # belongs to the broker thread.
        dst_id = msg.dst_id
        if (dst_id != mitogen.context_id and dst_id is not None and
                msg.handle is not None and
                len(msg.data) <= self.max_message_size):
            stream = self.stream_by_id(dst_id)
            if stream is not None:
                protocol = stream.protocol
                if protocol._send(msg) is not False:
                    # Who sends a log record holds a lock of `logging`, which
                    # the broker thread may want.
                    if msg.handle != FORWARD_LOG:
                        protocol._wait_room()
                    return
        self.broker.defer(self._async_route, msg)
