# SPDX-License-Identifier: BSD-3-Clause
"""
The pure leaf of Router: the tables of routes and handlers, and the way of a message.
"""

from __future__ import absolute_import  # house

import itertools  # house

import mitogen  # house
from mitogen.core import _chosen, _complete, _is_neighbour, _RLock, _RouterBase, _seldom, Context  # house
from mitogen.core import DEL_ROUTE, Error, FORWARD_LOG, imap, LatchError, listen, LOG, Message, NOBODY  # house
from mitogen.core import Receiver, thread  # house


@_chosen
class Router(_RouterBase):
    # Tables change under `_write_lock`; reading a dict is atomic. The lock is
    # re-entrant: a garbage collection may begin wherever it is held, and run a
    # finalizer that removes a handler.
    context_class = Context
    #: Bytes that may wait on a stream before its senders have to wait.
    #: A peer that lets four times as many wait is not told what became of its
    #: messages.
    high_water = 8 * 1048576

    def __init__(self, broker):
        self.broker = broker
        self._write_lock = _RLock()
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
    def _count_closed(self, counts):
        self._closed = tuple(imap(sum, zip(self._closed, counts)))

    def _on_stream_disconnect(self, stream, own_id=None):
        """`own_id`: our id, if the stream led to our parent."""
        with self._write_lock:
            lost = [i for i, s in self._stream_by_id.items() if s is stream]
            for context_id in lost:
                del self._stream_by_id[context_id]
        self._fire_lost(stream, lost, own_id, self._stream_by_id)

    def _on_broker_shutdown(self):
        # Every stream has to be seen to end.
        self.high_water = float('inf')
        for stream in list(self._stream_by_id.values()):
            writer = stream.protocol._writer
            if writer.feeders:
                writer.resume()

    def _on_broker_exit(self):
        # First: a thread that adds a handler from now on calls this function
        # again.
        self._gone = True
        for handle in list(self._handle_map):
            entry = self._handle_map.pop(handle, None)
            if entry:
                self._call_handler(entry[1],
                                   Message.dead(self.broker_exit_msg))

    def stream_by_id(self, dst_id):
        """Return the stream that leads to a context, or else the parent's, or
        None."""
        return (self._stream_by_id.get(dst_id) or
                self._stream_by_id.get(mitogen.parent_id))

    @_seldom
    def _end_receivers(self):
        """Tell every receiver, in the child of a fork, that nothing comes."""
        for entry in list(self._handle_map.values()):
            receiver = getattr(entry[1], '__self__', None)
            if isinstance(receiver, Receiver):
                receiver._size_lock = thread.allocate_lock()
                receiver._latch._forked()
                try:
                    receiver._latch.put(Message.dead(self.broker_exit_msg))
                except LatchError:
                    pass

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
            respondent = self._canonical(respondent)
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
        handles = self._handles_by_respondent.setdefault(respondent, set())
        # An equal one may be told already: of an id that had no route yet.
        if respondent.__dict__.get('_watched_by') is not self:
            respondent._watched_by = self
            listen(respondent, 'disconnect',
                   lambda: self._on_respondent_disconnect(respondent))
        handles.add(handle)
        self._tell_if_lost(respondent)

    def del_handler(self, handle):
        """
        Remove a handler.

        :raises KeyError: there is none.
        """
        with self._write_lock:
            respondent = self._handle_map.pop(handle)[3]
            if respondent is not None:
                self._handles_by_respondent.get(
                    respondent, set()).discard(handle)

    @_seldom
    def _on_respondent_disconnect(self, context):
        with self._write_lock:
            handles = self._handles_by_respondent.pop(context, set())
            lost = []
            while handles:
                handle = handles.pop()
                entry = self._handle_map.get(handle)
                # The handle may have another handler by now.
                if entry and entry[3] == context and \
                        self._handle_map.pop(handle, None):
                    lost.append(entry)
        for entry in lost:
            self._call_handler(entry[1], self._dead_respondent(context))

    @_seldom
    def _is_unexpected(self, msg, stream, respondent):
        bad = msg.src_id != respondent.context_id
        if bad and msg.is_dead:
            # The neighbour on the way to the respondent may report its loss, and
            # so may our parents. Others behind that neighbour may not.
            bad = stream and (
                stream is not self.stream_by_id(respondent.context_id) or
                msg.src_id not in
                [0, stream.protocol.remote_id] + mitogen.parent_ids)
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
                # For example, a policy that needs a stream, and a local
                # message.
                LOG.exception('%r: policy %r crashed', self, policy)
                allowed = False
            if not allowed:
                return self._maybe_send_dead(True, msg, self.refused_msg)
        if not persist:
            try:
                self.del_handler(msg.handle)
            except KeyError:
                # Another thread has closed the receiver just now.
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
        # A message that came down must not go up again.
        upward = True
        # Most contexts have one stream, and trust its other end.
        crossing = in_stream is not None and (
            len(streams) > 1 or in_stream is not parent_stream)
        if in_stream is not None:
            protocol = in_stream.protocol
            upward = streams.get(msg.src_id, parent_stream) is not \
                parent_stream
            if crossing and self._refuse_bad_ids(msg, in_stream):
                return
            if protocol.auth_id is not None and msg.auth_id != NOBODY and \
                    not self._is_humble(in_stream, msg.auth_id, msg.src_id):
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
    def _speaks_for(self, stream, auth_id, src_id):
        """Return whether a message with these ids may come by a stream."""
        way = self.stream_by_id
        # Our parent may lend what it passes down any authority: with the one
        # of a child of ours it is less than its own.
        return way(src_id) is stream and (
            way(auth_id) is stream or auth_id != src_id and (
                auth_id == NOBODY or
                stream is self._stream_by_id.get(mitogen.parent_id) or
                self._is_humble(stream, auth_id, src_id)))

    @_seldom
    def _is_humble(self, stream, auth_id, src_id):
        """Return whether a sender that could speak with our authority, which
        its stream is stamped with, says that it speaks with the one of a
        context below us, which is less."""
        return (stream.protocol.auth_id == mitogen.context_id and
                auth_id != src_id and self.stream_by_id(auth_id) not in
                (None, stream, self._stream_by_id.get(mitogen.parent_id)))

    @_seldom
    def _refuse_bad_ids(self, msg, in_stream):
        """Return whether a message cannot have come from the context that it
        names."""
        auth_id, src_id = msg.auth_id, msg.src_id
        if self._speaks_for(in_stream, auth_id, src_id):
            return
        name, value = 'auth_id', auth_id
        if auth_id != src_id and self._speaks_for(
                in_stream, auth_id, in_stream.protocol.remote_id):
            name, value = 'src_id', src_id
        self.refused += 1
        mitogen.core._tell_seldom(
            LOG.error, in_stream, 'ids', '%r: bad %s: got %r via %r, not %r: %r', self,
            name, value, in_stream, self.stream_by_id(value), msg)
        return True

    @_seldom
    def _pass_on(self, msg, in_stream, out_stream):
        """Forward a message that came by another stream."""
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
                    # The sender of a log record holds a lock of `logging`,
                    # which the broker thread may want.
                    if msg.handle != FORWARD_LOG:
                        protocol._wait_room()
                    return
        # A message with bad fields raises here, in the sender's thread. On the
        # broker thread it would end connections.
        msg._check()
        self.broker.defer(self._async_route, msg)
