# SPDX-License-Identifier: BSD-3-Clause
"""
Side, Stream and Protocol: a connection, and the handling of its bytes.
"""

from __future__ import absolute_import  # house

import _weakref  # house
import errno  # house
import os  # house
import sys  # house

from mitogen.core import _seldom, fire, io_op, set_cloexec  # house


#: Bytes asked for in one read.
CHUNK_SIZE = 131072


def _remember(table, obj):
    """Keep a weak reference to an object in a table, by its id."""
    key = id(obj)
    table[key] = _weakref.ref(obj, lambda _: table.pop(key, None))


class Side(object):
    """
    One direction of a stream: a file, and whether it is still open. Broker
    thread, except for construction.

    :param fp: has `fileno()` and `close()`.
    :param bool keep_alive: an open receive side delays the broker's end.
    """
    _open = {}
    closed = False

    def __init__(self, stream, fp, cloexec=True, keep_alive=True):
        self.stream = stream
        self.fp = fp
        self.fd = fp.fileno()
        self.keep_alive = keep_alive
        if cloexec:
            set_cloexec(self.fd)
        _remember(Side._open, self)

    @_seldom
    def __repr__(self):
        return '<Side of %s fd %s>' % (self.stream and self.stream.name,
                                       self.fd)

    @_seldom
    @classmethod
    def _on_fork(cls):
        """Close every side there is: the parent's streams are not ours."""
        for ref in list(cls._open.values()):
            side = ref()
            if side is not None:
                side.close()

    def close(self):
        """Close the file. Repeatable."""
        if not self.closed:
            self.closed = True
            Side._open.pop(id(self), None)
            self.fp.close()

    def read(self, n=CHUNK_SIZE):
        """Return at most `n` bytes; none when the other end is gone."""
        if self.closed:
            return b''
        return io_op(os.read, self.fd, n)[0] or b''

    def write(self, s):
        """Return how many bytes of `s` were written, or None when the other
        end is gone."""
        if self.closed:
            return None
        return io_op(os.write, self.fd, s)[0]


class Stream(object):
    """Two sides, and the protocol spoken over them. All methods but the
    constructor run on the broker thread."""
    receive_side = None
    transmit_side = None
    protocol = None
    #: The parent's Connection, if there is one.
    conn = None
    #: Text: why it disconnects.
    why = 'closed by this process'
    name = u'default'

    @_seldom
    def __repr__(self):
        return '<Stream %s #%04x>' % (self.name, id(self) & 0xffff)

    def set_protocol(self, protocol):
        """Speak `protocol` from now on, in place of the one before."""
        if self.protocol:
            self.protocol.stream = None
        self.protocol = protocol
        protocol.stream = self

    def accept(self, rfp, wfp):
        """Speak over these files, which may be one."""
        self.receive_side = Side(self, rfp)
        self.transmit_side = Side(self, wfp)

    def on_receive(self, broker):
        """Give what can be read to the protocol; disconnect at the end."""
        try:
            buf = self.receive_side.read(self.protocol.read_size)
        except OSError:
            if sys.exc_info()[1].errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                return
            raise
        if buf:
            self.protocol.on_receive(broker, buf)
        else:
            self.why = 'closed by the other side'
            self.on_disconnect(broker)

    def on_transmit(self, broker):
        """Something can be written: tell the protocol."""
        self.protocol.on_transmit(broker)

    def on_shutdown(self, broker):
        """The broker begins to end: fire `shutdown`, tell the protocol."""
        fire(self, 'shutdown')
        self.protocol.on_shutdown(broker)

    def on_disconnect(self, broker):
        """The other end is gone, or is to be: fire `disconnect`, tell the
        protocol. May happen more than once."""
        try:
            fire(self, 'disconnect')
        finally:
            self.protocol.on_disconnect(broker)


class Protocol(object):
    """Handle the bytes that arrive at a stream. Broker thread."""
    stream_class = Stream
    read_size = CHUNK_SIZE
    stream = None

    @classmethod
    def build_stream(cls, *args, **kwargs):
        """Return a new stream that speaks `cls(*args, **kwargs)`."""
        stream = cls.stream_class()
        stream.set_protocol(cls(*args, **kwargs))
        return stream

    def on_shutdown(self, broker):
        """The broker begins to end. Disconnects."""
        self.stream.on_disconnect(broker)

    @_seldom
    def __repr__(self):
        return '<%s of %r>' % (type(self).__name__, self.stream)

    def on_disconnect(self, broker):
        """Close both sides, once nothing waits for them."""
        stream = self.stream
        rside, wside = stream.receive_side, stream.transmit_side
        # A closed side's number may be another stream's by now.
        if rside and not rside.closed:
            broker.stop_receive(stream)
        if wside and not wside.closed:
            broker._stop_transmit(stream)
        try:
            if rside:
                rside.close()
        finally:
            if wside:
                wside.close()
