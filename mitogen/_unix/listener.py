# SPDX-License-Identifier: BSD-3-Clause
"""
Listener: accepts clients.
"""

from __future__ import absolute_import  # house

import errno  # house
import os  # house
import socket  # house
import stat  # house
import sys  # house

import mitogen.core  # house

from mitogen.unix import HandshakeProtocol, LOG, _Teller, _identity, _is_trusted, _make_socket, _peer_uid, is_path_dead, make_socket_path  # house


#: Seconds that a listener waits for descriptors to be given back.
_STARVED_PAUSE = 0.25

#: Errors of accept() that are over at the next call.
_PASSING = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ECONNABORTED)

#: How many clients are accepted before others have their turn.
_BURST = 32


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
    #: While no client is accepted: the timer that ends this.
    _timer = None
    #: No client could be accepted, and that was logged.
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

        _Teller.serve(router)
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
        # A file of another kind belongs to another program, and refuses
        # connections, too.
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
