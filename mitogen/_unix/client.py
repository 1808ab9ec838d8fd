# SPDX-License-Identifier: BSD-3-Clause
"""
The client: joins the tree of a listener.
"""

from __future__ import absolute_import  # house

import errno  # house
import os  # house
import socket  # house
import sys  # house
import time  # house

import mitogen  # house
import mitogen.core  # house
import mitogen.parent  # house

from mitogen.core import b  # house
from mitogen.unix import ConnectError, LOG, _HELLO, _WELCOME, _is_trusted, _make_socket, _peer_uid  # house


#: Seconds that :func:`connect` waits to be accepted, and for the answer.
CONNECT_TIMEOUT = 30.0


def _recv_exactly(sock, size):
    buf = b('')
    while len(buf) < size:
        data = sock.recv(size - len(buf))
        if not data:
            break
        buf += data
    return buf


def _enter_queue(path, sock):
    """
    Connect a socket with a timeout. With one, the system does not wait for room
    in the listener's queue.
    """
    end = mitogen.core.now() + CONNECT_TIMEOUT
    pause = 0.002
    while True:
        try:
            return sock.connect(path)
        except socket.error:
            if sys.exc_info()[1].args[0] != errno.EAGAIN:
                raise
        if mitogen.core.now() >= end:
            raise socket.timeout('the queue is full')
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def _shake_hands(path, sock):
    """
    Connect, and return the listener's answer.
    """
    # A listener that is stopped, or overwhelmed, accepts nobody.
    sock.settimeout(CONNECT_TIMEOUT)
    try:
        _enter_queue(path, sock)
        # The process that listens there may act with authority here. Root
        # knows to which user it connects.
        uid = _peer_uid(sock)
        if os.geteuid() != 0 and not _is_trusted(uid):
            raise socket.error(errno.EPERM, 'user %d listens there' % (uid,))
        sock.sendall(_HELLO.pack(os.getpid()))
        reply = _recv_exactly(sock, _WELCOME.size)
    except socket.timeout:
        error = ConnectError('could not connect to %s: no answer within %d '
                             'seconds', path, CONNECT_TIMEOUT)
        error.errno = errno.ETIMEDOUT
        raise error
    except socket.error:
        e = sys.exc_info()[1]
        error = ConnectError('could not connect to %s: %s', path, e.args[-1])
        # None for a path that is too long.
        error.errno = getattr(e, 'errno', None)
        raise error
    if len(reply) < _WELCOME.size:
        raise ConnectError('could not connect to %s: the listener closed the '
                           'connection', path)
    return _WELCOME.unpack(reply)


#: The stream by which this process joined a tree last, and its broker. Any
#: thread; replaced as a whole.
_joined = None, None


def _forget_parent(stream):
    global _joined
    if _joined[0] is stream:
        _joined = None, None
        mitogen.context_id = 0
        mitogen.parent_id = None
        mitogen.parent_ids = []


def _leave(stream, broker):
    """
    End the connection by which this process was a context before, if that is
    still open: threads that wait for answers there are told that none will
    come, as nobody knows this process by its old id any more.
    """
    if stream is None or stream.receive_side.closed:
        return
    LOG.warning('%s: disconnected for another connection: a process can be one context at '
                'a time', stream.name)
    try:
        broker.defer(mitogen.parent._disconnect, broker, stream)
    except mitogen.core.Error:
        # The broker has exited, and closed its streams.
        pass


def connect(path, broker=None):
    """
    Join the tree of a listener. Blocks; not on a broker thread.

    Until its stream disconnects, the process is the context that the listener
    says it is: :data:`mitogen.context_id` and the like are set. A process is
    one context at a time: the connection of an earlier call is ended.

    :param str path:
        Path that somebody listens at.
    :param broker:
        Broker to use; a new :class:`mitogen.master.Broker` if :data:`None`.
    :returns:
        `(router, context)`: a new :class:`mitogen.master.Router`, and the
        context of the listener.
    :raises mitogen.unix.ConnectError:
        Nobody listens there, or somebody of another user does (``errno`` is
        ``EPERM``), or the connection broke.
    """
    global _joined
    import mitogen.master

    sock = _make_socket()
    try:
        context_id, remote_id, pid = _shake_hands(path, sock)
    except BaseException:
        sock.close()
        raise

    before = _joined
    was = mitogen.context_id, mitogen.parent_id, mitogen.parent_ids
    mitogen.context_id = context_id
    mitogen.parent_id = remote_id
    mitogen.parent_ids = [remote_id]
    LOG.debug('client is context %d, listener is context %d, pid %d',
              context_id, remote_id, pid)

    try:
        sock.setblocking(False)
        router = mitogen.master.Router(broker=broker)
    except BaseException:
        # There is no descriptor left, for example.
        mitogen.context_id, mitogen.parent_id, mitogen.parent_ids = was
        sock.close()
        raise
    router._is_client = True
    stream = mitogen.core.MitogenProtocol.build_stream(router, remote_id)
    stream.name = u'unix_listener.%d' % (pid,)
    stream.accept(sock, sock)

    def on_shutdown():
        stream.on_disconnect(router.broker)

    mitogen.core.listen(router.broker, 'shutdown', on_shutdown)
    mitogen.core.listen(stream, 'disconnect', lambda: _forget_parent(stream))
    _joined = stream, router.broker
    _leave(*before)
    context = mitogen.parent.Context(router, remote_id)
    router.register(context, stream)
    return router, context
