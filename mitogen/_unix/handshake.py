# SPDX-License-Identifier: BSD-3-Clause
"""
Handshake: a listener learns who its client is, and gives it an id.
"""

from __future__ import absolute_import  # house

import os  # house
import socket  # house
import struct  # house
import sys  # house
import threading  # house

import mitogen  # house
import mitogen.core  # house
import mitogen.parent  # house

from mitogen.core import b  # house
from mitogen.unix import LOG  # house


_HELLO = struct.Struct('>L')
_WELCOME = struct.Struct('>LLL')


class HandshakeProtocol(mitogen.core.Protocol):
    """
    Wait for the process id of a client, then welcome it. Broker thread, except
    for :meth:`_allocate`.
    """
    #: Seconds a client may be silent.
    timeout = 30.0

    # Not one byte more: frames follow.
    read_size = _HELLO.size

    def __init__(self, router):
        self._router = router
        self._buf = b('')
        self._timer = None

    def start(self):
        """
        Start to wait.
        """
        broker = self._router.broker
        self._timer = broker.timers.schedule(
            mitogen.core.now() + self.timeout, self._on_timeout)
        broker.start_receive(self.stream)

    def _on_timeout(self):
        LOG.error('%r: the client sent nothing for %d seconds', self.stream,
                  self.timeout)
        mitogen.parent._disconnect(self._router.broker, self.stream)

    def on_receive(self, broker, buf):
        self._buf += buf
        self.read_size = _HELLO.size - len(self._buf)
        if self.read_size:
            return
        self._timer.cancel()
        pid, = _HELLO.unpack(self._buf)
        # The bytes behind it are for another protocol.
        broker.stop_receive(self.stream)
        thread = threading.Thread(name='mitogen.unix.allocate',
                                  target=self._allocate, args=(pid,))
        # A daemon: the end of the process must not wait for an id.
        thread.daemon = True
        thread.start()

    def on_disconnect(self, broker):
        if self._timer is not None and self._timer.active:
            self._timer.cancel()
            LOG.error('%r: the client disconnected after %d bytes', self.stream,
                      len(self._buf))
        super(HandshakeProtocol, self).on_disconnect(broker)

    def _allocate(self, pid):
        """
        Get an id for the client. A thread of its own: a child may have to ask
        the master, whose answer the broker thread reads.
        """
        stream = self.stream
        broker = self._router.broker
        try:
            context_id = self._router.id_allocator.allocate()
        except Exception:
            LOG.error('%r: no id for the client with pid %d: %s', stream, pid,
                      sys.exc_info()[1])
            then = mitogen.parent._disconnect, broker, stream
        else:
            then = self._welcome, pid, context_id
        try:
            broker.defer(*then)
        except mitogen.core.Error:
            # The broker has exited, and did not know of the socket.
            stream.receive_side.close()
            stream.transmit_side.close()

    def _welcome(self, pid, context_id):
        stream = self.stream
        router = self._router
        context = mitogen.parent.Context(router, context_id)
        stream.name = u'unix_client.%d' % (pid,)

        # A new socket has room for this. If it is closed: None; if it is full:
        # an exception.
        try:
            sent = stream.transmit_side.write(
                _WELCOME.pack(context_id, mitogen.context_id, os.getpid()))
        except (OSError, IOError, socket.error):
            sent = None
        if sent != _WELCOME.size:
            LOG.error('%r: cannot welcome the client with pid %d', stream, pid)
            mitogen.parent._disconnect(router.broker, stream)
            return

        LOG.debug('%r: client with pid %d is context %d', stream, pid,
                  context_id)
        stream.set_protocol(mitogen.core.MitogenProtocol(
            router=router,
            remote_id=context_id,
            auth_id=mitogen.context_id,
        ))
        # A client is not ours to end, and must not delay our own end.
        stream.receive_side.keep_alive = False
        router.register(context, stream)
