# SPDX-License-Identifier: BSD-3-Clause
"""
Park threads while a process forks. Only interpreters that are not careful
about locks held during a fork need it; nothing is installed by itself.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import socket

import mitogen.core

from mitogen.core import b


class Corker(object):
    """
    Park the threads of brokers and pools in a system call, where they hold no
    lock, and let them go on later.

    Each thread is given a function that writes to a small socket buffer for
    ever. Once the other end can be read from, the thread is in that function,
    and it is not going to leave it.

    :param brokers:
        Iterable of :class:`mitogen.core.Broker`.
    :param pools:
        Iterable of :class:`mitogen.service.Pool`.
    """
    #: More than a buffer of this size takes.
    _BUFFER_SIZE = 4096
    _CHUNK = b('!') * 131072

    def __init__(self, brokers=(), pools=()):
        self.brokers = brokers
        self.pools = pools
        self._socks = []

    def _park(self, sock):
        """
        Block until the other end is closed. Runs on the thread to park.
        """
        try:
            while True:
                sock.sendall(self._CHUNK)
        except (OSError, IOError, socket.error):
            pass
        finally:
            sock.close()

    def _cork_one(self, obj):
        """
        Park whichever thread of `obj` takes the next function. Returns once
        that has happened.
        """
        rsock, wsock = mitogen.core.socketpair(blocking=True)
        wsock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF,
                         self._BUFFER_SIZE)
        rsock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF,
                         self._BUFFER_SIZE)
        try:
            obj.defer(self._park, wsock)
        except mitogen.core.Error:
            # It has no thread any more.
            rsock.close()
            wsock.close()
            return
        self._socks.append(rsock)
        mitogen.core.io_op(rsock.recv, 1, socket.MSG_PEEK)

    def cork(self):
        """
        Park every thread of the pools, then those of the brokers. The calling
        thread, and brokers that have exited, are left out.
        """
        current = mitogen.core.threading__current_thread()
        for pool in self.pools:
            if not pool.closed:
                for _ in range(pool.size):
                    self._cork_one(pool)
        for broker in self.brokers:
            thread = broker._thread
            if thread is not current and thread.is_alive():
                self._cork_one(broker)

    def uncork(self):
        """
        Let all parked threads go on. May be repeated.
        """
        while self._socks:
            self._socks.pop().close()
