# SPDX-License-Identifier: BSD-3-Clause
"""
Endpoint: the common half of both ends, which copies files to messages and back.
"""

from __future__ import absolute_import  # house

import os  # house
import threading  # house

import mitogen.core  # house

from mitogen.fakessh import LOG, WINDOW_SIZE  # house


def _start_thread(func, *args):
    thread = threading.Thread(target=func, args=args,
                              name='mitogen.fakessh.' + func.__name__)
    # It may read from a file that never ends.
    thread.daemon = True
    thread.start()
    return thread


def _blocking(func, fd, arg):
    """
    Call a function for a file that may be in either mode: our parent process
    may have left it so.

    :raises OSError:
    """
    while True:
        try:
            return mitogen.core.io_op(func, fd, arg)[0]
        except OSError:
            if mitogen.core.get_blocking(fd):
                raise
            mitogen.core.set_blocking(fd, True)


def _write_all(fd, data):
    """
    Write all of `data`, and return true, or false if nobody reads it.
    """
    view = mitogen.core.BufferType(data, 0)
    while len(view):
        count = _blocking(os.write, fd, view)
        if count is None:
            return False
        view = view[count:]
    return True


class Endpoint(object):
    """
    One end of the connection.

    :param mitogen.core.Router router:
    :param mitogen.core.Context peer:
        The only context that is listened to.
    """
    def __init__(self, router, peer):
        self.peer = peer
        self._data = mitogen.core.Receiver(router, respondent=peer)
        self._control = mitogen.core.Receiver(router, respondent=peer)
        #: To be sent to the peer.
        self.handles = self._control.handle, self._data.handle
        self._peer_control = None
        self._peer_data = None
        self._lock = threading.Lock()
        self._room = mitogen.core.Latch()
        self._unacked = 0  # guarded by _lock

    def connect(self, handles):
        """
        Prepare to send to the peer.

        :param handles: what the peer has as `handles`.
        """
        self._peer_control, self._peer_data = [
            mitogen.core.Sender(self.peer, handle) for handle in handles]

    def send(self, command, arg):
        """
        Send a control message.
        """
        self._peer_control.send((mitogen.core.to_text(command), arg))

    def close(self):
        """
        Give up the handles. Threads that wait for something end.
        """
        self._room.close()
        self._control.close()
        self._data.close()

    def read_control(self):
        """
        Obey control messages until the peer is gone or :meth:`close`.
        """
        for msg in self._control:
            command, arg = msg.unpickle()
            func = getattr(self, '_on_%s' % (command,), None)
            if func is None:
                LOG.error('%r: unknown command %r', self.peer, command)
            else:
                func(arg)

    def _on_ack(self, size):
        with self._lock:
            was_full = self._unacked >= WINDOW_SIZE
            self._unacked -= size
            has_room = self._unacked < WINDOW_SIZE
        if was_full and has_room:
            self._room.put()

    def copy_source(self, fd):
        """
        Send what can be read from a file, to its end.
        """
        try:
            while True:
                data = _blocking(os.read, fd, mitogen.core.CHUNK_SIZE)
                if not data:
                    break
                with self._lock:
                    self._unacked += len(data)
                    is_full = self._unacked >= WINDOW_SIZE
                self._peer_data.send(data)
                if is_full:
                    self._room.get()
            self._peer_data.close()
        except mitogen.core.Error:
            # The peer is gone, or our broker.
            LOG.debug('%r: not everything was sent', self.peer)

    def copy_to_sink(self, fd):
        """
        Write what comes to a file, and close that at the end.
        """
        wanted = True
        try:
            for msg in self._data:
                data = msg.unpickle()
                # Acknowledged even when nobody reads it any more: the peer
                # goes on writing, like the other end of a real ssh.
                wanted = wanted and _write_all(fd, data)
                self.send('ack', len(data))
        except mitogen.core.Error:
            LOG.debug('%r: the broker has exited', self.peer)
        finally:
            os.close(fd)
