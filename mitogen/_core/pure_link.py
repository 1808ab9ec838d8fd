# SPDX-License-Identifier: BSD-3-Clause
"""
The pure leaf of MitogenProtocol: bytes become frames, frames become bytes.
"""

from __future__ import absolute_import  # house

import itertools  # house

import mitogen  # house
from mitogen.core import _chosen, _complete, _MitogenProtocolBase, _seldom, BufferedWriter, IS_DEAD, LOG, Message  # house
from mitogen.core import now, Protocol  # house


# Payloads from this size on are not copied into one block with their header.
_LARGE = 16384


@_chosen
class MitogenProtocol(_MitogenProtocolBase):
    #: Called as ``on_message(stream, msg)`` for each message that passes the
    #: checks.
    on_message = None

    def _begin(self, remote_id):
        self.remote_id = remote_id
        #: Ids that arrived here as a destination.
        self.egress_ids = set()
        self._writer = BufferedWriter(self._router.broker, self)
        #: The part of the next frame that was read, its size, and the whole size.
        #: With `_header` unpacked, all that without the header.
        self._header = None
        self._chunks = []
        self._have = 0
        self._want = Message.HEADER_LEN
        # Written by the broker thread; any thread may count what it sends.
        self._messages_in = self._bytes_in = self._forwarded = 0
        self._last_in = None
        self._sent = itertools.count()

    def on_receive(self, broker, buf):
        """Cut `buf` into frames and have the router take each."""
        self._bytes_in += len(buf)
        self._last_in = now()
        if getattr(self._router, '_relays', 0) and self._relay(buf):
            return
        self._chunks.append(buf)
        self._have += len(buf)
        if self._have < self._want:
            return
        pos = 0
        if self._header:
            # The end of a frame that came in pieces; they are copied once.
            pos = len(buf) - (self._have - self._want)
            self._chunks[-1] = buf[:pos]
            self._deliver(self._header, b''.join(self._chunks))
        else:
            buf = b''.join(self._chunks)
        self._parse(broker, buf, pos)

    def _deliver(self, header, data):
        msg = Message()
        (msg.enc, msg.dst_id, msg.src_id, msg.auth_id, msg.handle,
         msg.reply_to, _) = header
        msg.data = data
        msg.router = self._router
        self._messages_in += 1
        self._router._async_route(msg, self.stream)

    def _parse(self, broker, buf, pos):
        """Deliver what is complete from `pos` on, and keep the rest."""
        header = None
        size = len(buf)
        want = header_len = Message.HEADER_LEN
        # A delivered message may have ended the stream.
        while size - pos >= header_len and not self._writer.closed:
            header = Message._unpack(buf, pos)
            if header[0] not in Message.ENCS:
                LOG.error(self.corrupt_msg,
                          self.stream.name, buf[pos:pos + 2048])
                return self._on_bad(broker)
            want = header[-1]
            if want > self._router.max_message_size:
                LOG.error('%r: maximum message size exceeded (got %d, max %d)',
                          self, want, self._router.max_message_size)
                return self._on_bad(broker)
            pos += header_len
            if size - pos < want:
                break
            self._deliver(header, buf[pos:pos + want])
            pos += want
            header, want = None, header_len
        self._header = header
        self._chunks = [buf[pos:]]
        self._have = size - pos
        self._want = want

    @_seldom
    def _forked(self):
        """This process is a fork: the stream belongs to the other process."""
        self._writer.closed = True

    def _on_bad(self, broker):
        self.stream.why = 'it sent what is no message'
        self.stream.on_disconnect(broker)

    def pending_bytes(self):
        """Return how many bytes wait to be written, about."""
        return self._writer.size

    def on_transmit(self, broker):
        self._writer.on_transmit(broker)

    def _send(self, msg):
        next(self._sent)
        data = msg.data
        if len(data) < _LARGE:
            return self._writer.write(msg.pack())
        return self._writer.write(msg._header(len(data)), data)

    def _wait_room(self):
        """Make a thread wait that fills the stream faster than it empties."""
        if self._writer.size > self._router.high_water:
            self._writer.wait_room()

    @_seldom
    def _forward(self, msg, feeder):
        """Forward a message of another stream, which is not read while this
        one is full: no queue grows in a router. Broker thread."""
        if not msg.is_dead or len(msg.data) > 4096:
            self._send(msg)
            self._hold(feeder)
            return
        # Contexts send these of their own accord. A peer that does not read
        # could silence each that refuses its messages, if they waited for it.
        full = self._writer.size > self._router.high_water
        self._refusals = full and getattr(self, '_refusals', 0) + 1
        if self._refusals <= 10000:
            self._send(msg)

    @_seldom
    def _hold(self, feeder):
        writer = self._writer
        # Armed: `on_transmit` will come, and have it read again.
        if (writer.size > self._router.high_water and writer._armed and
                not writer.closed and not feeder.receive_side.closed):
            self._router.broker.poller.stop_receive(feeder.receive_side.fd)
            if feeder not in writer.feeders:
                writer.feeders.append(feeder)

    @_seldom
    def _relay(self, buf):
        """
        Forward `buf` if it is one frame for another stream that may pass
        unchanged. Return whether it was forwarded. If not, the router decides,
        which has the same rules in `_async_route`.
        """
        size = len(buf) - Message.HEADER_LEN
        if size < 0 or self._have or self._header:
            return
        enc, dst_id, src_id, auth_id, _, reply_to, length = \
            Message._unpack(buf)
        if length != size or dst_id == mitogen.context_id or \
                reply_to == IS_DEAD:
            return
        router = self._router
        stream = self.stream
        parent_stream = router._stream_by_id.get(mitogen.parent_id)
        out = router._stream_by_id.get(dst_id)
        if out is None and stream is not parent_stream:
            out = parent_stream
        if (out is None or out is stream or
                router.stream_by_id(src_id) is not stream or
                src_id != auth_id and
                not router._speaks_for(stream, auth_id, src_id) or
                self.auth_id is not None or self.on_message is not None or
                router.unidirectional or enc not in Message.ENCS or
                size > router.max_message_size):
            return
        self._messages_in += 1
        self._forwarded += 1
        self._note_egress(dst_id)
        protocol = out.protocol
        next(protocol._sent)
        protocol._writer._relay(out.transmit_side, buf)
        protocol._hold(stream)
        return True

    @_seldom
    def _note_egress(self, dst_id):
        if len(self.egress_ids) >= 65536:
            # A peer that lies made these up; it misses notices of lost routes.
            self.egress_ids.clear()
        self.egress_ids.add(dst_id)

    @_seldom
    def _counts(self):
        """Return messages in, bytes in, messages out, bytes out and messages
        forwarded from here."""
        # The only way to look at a counter without counting.
        out = int(repr(self._sent)[6:-1])
        return (self._messages_in, self._bytes_in, out, self._writer.sent,
                self._forwarded)

    def on_disconnect(self, broker):
        if not self._writer.closed and _complete():
            self._router._count_closed(self._counts())
        self._writer.close()
        Protocol.on_disconnect(self, broker)
