# SPDX-License-Identifier: BSD-3-Clause
"""
Let other processes of the same user join a tree, by way of a UNIX socket.

The one that listens gives each client a context id and its own authority. It
is protected by the mode of the socket file, and where the system tells who is
at the other end, by asking: only the same user and root may be.

Before the ordinary frames, the client sends its process id, 4 bytes, and is
sent 12: its new context id, the listener's context id, and the listener's
process id. All are unsigned and in network order.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import errno
import logging
import os
import socket
import stat
import struct
import sys
import tempfile
import threading
import time

import mitogen
import mitogen.core
import mitogen.parent

from mitogen.core import b


LOG = logging.getLogger(__name__)

_HELLO = struct.Struct('>L')
_WELCOME = struct.Struct('>LLL')

#: The credentials of a peer on Linux: process, user and group.
_UCRED = struct.Struct('iII')

#: Seconds that :func:`connect` waits to be accepted, and for the answer.
CONNECT_TIMEOUT = 30.0

#: Seconds that a listener waits for descriptors to be given back.
_STARVED_PAUSE = 0.25

#: Errors of accept() that are over at the next call.
_PASSING = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ECONNABORTED)

#: How many clients are accepted before others have their turn.
_BURST = 32


class Error(mitogen.core.Error):
    """
    Base of the errors of this module.
    """
    pass


class ConnectError(Error):
    """
    :func:`connect` failed. `errno` is the number of the system's error, or
    :data:`None`.
    """
    errno = None


def _make_socket():
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def is_path_dead(path):
    """
    Return :data:`True` if nobody listens at `path`.
    """
    sock = _make_socket()
    # One with many clients before us lives, too.
    sock.setblocking(False)
    try:
        sock.connect(path)
    except socket.error:
        number = sys.exc_info()[1].args[0]
    else:
        number = None
    sock.close()
    return number in (errno.ENOENT, errno.ECONNREFUSED)


def _peer_uid(sock):
    """
    Return the user id of the process that connected to, or listens at, the
    other end; :data:`None` where the system does not tell.
    """
    # Python 2 lacks the name. Where the number is another one, so is the size
    # of what it stands for.
    option = getattr(socket, 'SO_PEERCRED',
                     17 if sys.platform.startswith('linux') else None)
    try:
        if option is not None:
            cred = sock.getsockopt(socket.SOL_SOCKET, option, _UCRED.size + 1)
            return _UCRED.unpack(cred)[1]
        import ctypes
        uid, gid = ctypes.c_uint(), ctypes.c_uint()
        getpeereid = ctypes.CDLL(None).getpeereid
        if getpeereid(sock.fileno(), ctypes.byref(uid), ctypes.byref(gid)):
            return None
        return uid.value
    except (ImportError, AttributeError, OSError, socket.error, struct.error):
        LOG.debug('cannot tell whose process is at the other end',
                  exc_info=True)
        return None


def _is_trusted(uid):
    """
    Return whether a process of that user may be at the other end.
    """
    return uid in (None, 0, os.geteuid())


def make_socket_path():
    """
    Return a path that does not exist, in a folder that only this user can look
    into: XDG_RUNTIME_DIR, or one in the temporary directory.
    """
    return tempfile.mktemp(prefix='mitogen_unix_', suffix='.sock',
                           dir=mitogen.core._private_folder())


def _identity(path):
    """
    Return what tells the socket at a path from all others that may be there at
    another time; :data:`None` if there is none.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISSOCK(found.st_mode):
        return None
    return found.st_dev, found.st_ino


class HandshakeProtocol(mitogen.core.Protocol):
    """
    Wait for the process id of a client, then welcome it. Broker thread, except
    for :meth:`_allocate`.
    """
    #: Seconds a client may be silent.
    timeout = 30.0

    # Not one byte more: what follows is frames.
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
        LOG.error('%r: client said nothing for %d seconds', self.stream,
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
        # The end of the process shall not wait for an id.
        thread.daemon = True
        thread.start()

    def on_disconnect(self, broker):
        if self._timer is not None and self._timer.active:
            self._timer.cancel()
            LOG.error('%r: client left after %d bytes', self.stream,
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
            # It has exited, and did not know of the socket.
            stream.receive_side.close()
            stream.transmit_side.close()

    def _welcome(self, pid, context_id):
        stream = self.stream
        router = self._router
        context = mitogen.parent.Context(router, context_id)
        stream.name = u'unix_client.%d' % (pid,)

        # A new socket has room for it. Closed: None; full: an exception.
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


class ListenerStream(mitogen.core.Stream):
    """
    A stream of connections rather than bytes.
    """
    def on_receive(self, broker):
        for _ in range(_BURST):
            try:
                sock, _ = self.receive_side.fp.accept()
            except socket.error:
                # The client has given up already, or there are too many files.
                error = sys.exc_info()[1]
                if error.args[0] not in _PASSING:
                    self.protocol._pause(error)
                return
            self.protocol._starved = False
            self.protocol.on_accept_client(sock)


class Listener(mitogen.core.Protocol):
    """
    Accept clients. Broker thread, except for :meth:`build_stream`.
    """
    stream_class = ListenerStream

    #: Of the socket that we made, see `_identity`.
    _made = None
    #: While nobody is accepted: the timer that ends this.
    _timer = None
    #: Nobody could be accepted, and that was logged.
    _starved = False

    def __init__(self, router, path):
        self._router = router
        #: Path of the socket.
        self.path = path

    def __repr__(self):
        return '%s(%r)' % (type(self).__name__, self.path)

    @classmethod
    def build_stream(cls, router, path=None, backlog=100):
        """
        Start to listen. Any thread.

        :param router:
            Router to join clients to. It must be able to allocate ids: a
            master's, or an upgraded child's.
        :param path:
            Path to listen at; one in the temporary directory if
            :data:`None`. A dead socket there is replaced.
        :param int backlog:
            How many clients may wait to be accepted.
        :returns:
            The stream; its `protocol.path` is the path.
        :raises OSError:
            Somebody else listens there (``EADDRINUSE``), or any other error
            of the system.
        """
        path = path or make_socket_path()
        sock = _make_socket()
        try:
            cls._bind(sock, path)
            sock.listen(backlog)
            mitogen.core.set_blocking(sock.fileno(), False)
        except BaseException:
            sock.close()
            raise

        stream = super(Listener, cls).build_stream(router, path)
        stream.protocol._made = _identity(path)
        stream.name = u'unix_listener'
        stream.accept(sock, sock)
        router.broker.start_receive(stream)
        return stream

    @staticmethod
    def _bind(sock, path):
        """
        Give a socket its path, which is for its owner only.
        """
        # A file of another kind is somebody's, and refuses connections, too.
        found = _identity(path)
        # Somebody else may replace it meanwhile as we do.
        if found and is_path_dead(path) and found == _identity(path):
            LOG.debug('removing stale socket: %r', path)
            os.unlink(path)
        mode = stat.S_IRUSR | stat.S_IWUSR
        # Where the system takes the mode of the file from the socket, there
        # is no moment at which others may connect.
        try:
            os.fchmod(sock.fileno(), mode)
        except OSError:
            LOG.debug('cannot set the mode of a socket', exc_info=True)
        sock.bind(path)
        if stat.S_IMODE(os.lstat(path).st_mode) != mode:
            os.chmod(path, mode)

    def on_accept_client(self, sock):
        """
        Take over the socket of a new client.
        """
        uid = _peer_uid(sock)
        if not _is_trusted(uid):
            LOG.error('%r: refusing a client of user %d', self, uid)
            sock.close()
            return
        sock.setblocking(False)
        stream = HandshakeProtocol.build_stream(self._router)
        stream.name = u'unix_client'
        stream.accept(sock, sock)
        stream.protocol.start()

    def _pause(self, error):
        """
        Accept nobody for a while: clients stay in the queue, and the loop
        would find them there at every turn.
        """
        if not self._starved:
            LOG.warning('%r: no client can be accepted, trying again every '
                        '%.2f seconds: %s', self, _STARVED_PAUSE, error)
            self._starved = True
        broker = self._router.broker
        broker.stop_receive(self.stream)
        self._timer = broker.timers.schedule(
            mitogen.core.now() + _STARVED_PAUSE, self._go_on)
        # Only a stream that is watched is told of the end.
        mitogen.core.listen(broker, 'shutdown', self._go_on)

    def _end_pause(self):
        """
        Forget the timer, and return whether there was one.
        """
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            mitogen.core.unlisten(self._router.broker, 'shutdown', self._go_on)
        return timer is not None

    def _go_on(self):
        if self._end_pause():
            self._router.broker.start_receive(self.stream)

    def on_disconnect(self, broker):
        self._end_pause()
        super(Listener, self).on_disconnect(broker)

    def on_shutdown(self, broker):
        """
        Stop to listen, and remove the socket, unless it is another one's.
        """
        broker.stop_receive(self.stream)
        try:
            # Ours is open, so no other file has its number.
            if self._made and self._made == _identity(self.path):
                os.unlink(self.path)
        except OSError:
            LOG.debug('%r: cannot remove the socket', self, exc_info=True)
        self.stream.on_disconnect(broker)


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
    Connect, and return what the listener says.
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
    still open: what waits for answers there is told so. With its old number it
    is known to nobody, so they would never come.
    """
    if stream is None or stream.receive_side.closed:
        return
    LOG.warning('%s: left for another connection: a process is one context at '
                'a time', stream.name)
    try:
        broker.defer(mitogen.parent._disconnect, broker, stream)
    except mitogen.core.Error:
        # It has exited, and closed its streams.
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
    mitogen.context_id = context_id
    mitogen.parent_id = remote_id
    mitogen.parent_ids = [remote_id]
    LOG.debug('client is context %d, listener is context %d, pid %d',
              context_id, remote_id, pid)

    sock.setblocking(False)
    router = mitogen.master.Router(broker=broker)
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
