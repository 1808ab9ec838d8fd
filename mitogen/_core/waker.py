# SPDX-License-Identifier: BSD-3-Clause
"""
Waker: run functions on the broker thread.
"""

from __future__ import absolute_import  # house

import errno  # house
import sys  # house

from mitogen.core import _deque, _RLock, Error, LOG, pipe, Protocol, thread  # house


class Waker(Protocol):
    """
    Run functions on the broker thread, waking it by a byte in a pipe.

    `_lock` is re-entrant because a signal handler may defer while it
    interrupts a thread that defers.
    """
    read_size = 64
    broker_shutdown_msg = (
        'the broker has exited: was it shut down before this was sent?')

    @classmethod
    def build_stream(cls, broker):
        stream = cls.stream_class()
        stream.set_protocol(cls(broker))
        stream.accept(*pipe(blocking=False))
        # It stays open to the end, so what is deferred while streams drain
        # still runs, but it does not itself delay that end.
        stream.receive_side.keep_alive = False
        return stream

    def __init__(self, broker):
        self._broker = broker
        self._lock = _RLock()
        self._deferred = _deque()
        # A byte is in the pipe. Set after the write: if an exception comes in
        # between, there is one byte too many, never one too few.
        self._woken = False
        #: How often a byte was written.
        self.wakes = 0

    def on_shutdown(self, broker):
        pass

    def on_receive(self, broker, buf):
        with self._lock:
            self._woken = False
        self.drain()

    def drain(self):
        """Run what is queued, and what that queues. Broker thread."""
        while self._deferred:
            self._run(*self._deferred.popleft())

    def _run(self, func, args, kwargs):
        try:
            func(*args, **kwargs)
        except Exception:
            LOG.exception('%r failed on the broker thread', func)
            self._broker.shutdown()

    def stop(self):
        with self._lock:
            self._broker._exitted = True

    def defer(self, func, *args, **kwargs):
        """
        Run a function on the broker thread: now and with its result if this
        is that thread, else later. Any thread, and signal handlers.

        :raises Error: the broker has exited.
        """
        if thread.get_ident() == self._broker._ident:
            return func(*args, **kwargs)
        with self._lock:
            # Under the lock, since the broker closes the pipe after `stop`.
            if self._broker._exitted:
                raise Error(self.broker_shutdown_msg)
            self._deferred.append((func, args, kwargs))
            if not self._woken:
                try:
                    self.stream.transmit_side.write(b'x')
                except OSError:
                    # Full, so the broker wakes; or a fork has closed it.
                    if sys.exc_info()[1].errno not in (
                            errno.EBADF, errno.EAGAIN, errno.EWOULDBLOCK):
                        raise
                self._woken = True
                self.wakes += 1
