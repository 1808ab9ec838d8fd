# SPDX-License-Identifier: BSD-3-Clause
"""
_BrokerBase: the life of the broker thread.
"""

from __future__ import absolute_import  # house

import sys  # house

import mitogen  # house
from mitogen.core import _listeners, _module, _profile_hook, _REDUCED, _remember, _RLock, _seldom, Error  # house
from mitogen.core import fire, LOG, now, Poller, Protocol, thread  # house


class NullTimerList(object):
    """The timers of a broker that cannot schedule any."""
    def get_timeout(self):
        return None


class _BrokerBase(object):
    """
    The I/O thread, named `mitogen.broker`.

    :param poller_class: not used, see the class attribute.
    :param activate_compat: not used.
    """
    poller_class = Poller
    #: Seconds that streams have to end by themselves.
    shutdown_timeout = 3.0
    timers = NullTimerList()
    _ident = None
    #: id -> weak reference, of each that has not been freed.
    _all = {}

    def __init__(self, poller_class=None, activate_compat=True, _start=True):
        if not _REDUCED and mitogen.core._threads_were_patched_late():
            raise Error('threads were patched (by gevent or eventlet) after '
                        'mitogen was imported: patch them before that')
        # With `_start` false the caller makes and starts the thread, later:
        # functions that it defers until then cost no wake-up.
        self._alive = True
        self._exitted = False
        self._open()
        #: Any thread: see :meth:`Waker.defer`.
        self.defer = self._waker.protocol.defer
        if _start:
            self._make_thread()
        # Only a complete broker is listed: a fork may copy the process just
        # then.
        _remember(self._all, self)
        if _start:
            self._thread.start()

    def _make_thread(self):
        if not _REDUCED:
            # By now a child has said that it is ready. Before Python 3.13 the
            # first thread to import this counts as the main thread, so it must
            # be done while there is no other.
            global threading
            import threading
        self._thread = threading.Thread(target=self._broker_main,
                                        name='mitogen.broker')

    @_seldom
    def __repr__(self):
        return 'Broker(%04x)' % (id(self) & 0xffff)

    @_seldom
    def _on_fork(self):
        """We are a copy, and our thread is in the other process."""
        self._alive = False
        self._exitted = True
        self._ident = None
        self._waker.protocol._lock = _RLock()
        fire(self, '_fork')

    @staticmethod
    def _live(side):
        assert side and not side.closed
        return side

    def start_receive(self, stream):
        """Read `stream` from now on. Any thread."""
        self._live(stream.receive_side)
        self.defer(self._watch_receive, stream)

    def stop_receive(self, stream):
        """Read `stream` no more. Any thread."""
        fd = self._live(stream.receive_side).fd
        self.defer(lambda: self.poller.stop_receive(fd))

    def _start_transmit(self, stream):
        side = self._live(stream.transmit_side)
        self.poller.start_transmit(side.fd, (side, stream.on_transmit))

    def _stop_transmit(self, stream):
        self.poller.stop_transmit(self._live(stream.transmit_side).fd)

    @_seldom
    def defer_sync(self, func):
        """Run a function on the broker thread and return what it returns, or
        raise what it raises. Any thread."""
        outcome = mitogen.core.Latch()

        def run():
            try:
                value = func()
            except Exception:
                value = sys.exc_info()[1]
            outcome.put(value)

        self.defer(run)
        value = outcome.get()
        if isinstance(value, Exception):
            raise value
        return value

    def keep_alive(self):
        """Tell whether something still has to end: a timer, a queue of bytes
        to write, or a stream that asks for it. Broker thread."""
        return (self.timers.get_timeout() is not None or
                bool(self.poller.writers) or
                any(side.keep_alive
                    for _, (side, _) in self.poller.readers))

    def shutdown(self):
        """Ask the broker to end. Any thread, and signal handlers;
        repeatable."""
        LOG.debug('%r: shutting down', self)
        if self._alive:
            try:
                self.defer(self._stop)
            except Error:
                # It ended meanwhile.
                pass

    def _stop(self):
        self._alive = False

    @_seldom
    def join(self):
        """Wait for the broker thread to end. Any other thread."""
        self._thread.join()

    def _call(self, stream, func):
        try:
            func(self)
        except Exception:
            LOG.exception('%r: %r crashed', self, func)
            try:
                stream.on_disconnect(self)
            except Exception:
                LOG.exception('%r: on_disconnect() crashed', stream)
                # Otherwise it would be called again and again.
                Protocol.on_disconnect(stream.protocol, self)

    def _loop_once(self, timeout=None):
        """Wait for I/O or a timer, at most `timeout` seconds, and serve it."""
        due = self.timers.get_timeout()
        if timeout is None or (due is not None and due < timeout):
            timeout = due
        for side, on_ready in self.poller.poll(timeout):
            self._call(side.stream, on_ready)
        if due is not None:
            self.timers.expire()

    def _sides(self):
        """Return one registered side of each stream."""
        poller = self.poller
        return list(dict((side.stream, side) for _, (side, _) in
                         poller.writers + poller.readers).values())

    def _broker_shutdown(self):
        """Let the streams end by themselves, within the grace period."""
        end = now() + self.shutdown_timeout
        for side in self._sides():
            self._call(side.stream, side.stream.on_shutdown)
        while self.keep_alive():
            left = end - now()
            if left <= 0:
                return LOG.error('%r: work is left over after %s seconds',
                                 self, self.shutdown_timeout)
            self._loop_once(left)

    def _broker_exit(self):
        self._waker.protocol.stop()
        # Nothing is queued any more, but a thread may wait for a function that
        # was.
        self._waker.protocol.drain()
        for side in self._sides():
            if not side.closed:
                self._call(side.stream, side.stream.on_disconnect)
        self.poller.close()

    def _crashed(self):
        text = 'broker crashed: %r' % (sys.exc_info()[1],)
        LOG.exception(text)
        try:
            # Logging may depend on this very broker.
            _module('syslog').syslog(3, text)
        except Exception:
            pass

    def _broker_loop(self):
        try:
            while self._alive:
                self._loop_once()
        except BaseException:
            self._crashed()
            self._alive = False
        try:
            # Also after a crash: children are to end, and to be reaped.
            for name in 'before_shutdown', 'shutdown':
                self._fire(name)
            self._broker_shutdown()
        except Exception:
            self._crashed()
        self._broker_exit()

    def _fire(self, name):
        """As `fire`, but the other listeners are called even if one raises."""
        for func in list(_listeners(self, name)):
            try:
                func()
            except Exception:
                LOG.exception('%r: listener %r crashed', self, func)

    def _broker_main(self):
        self._ident = thread.get_ident()
        try:
            _profile_hook('mitogen.broker', self._broker_loop)
        finally:
            self._exitted = True
            self._fire('exit')
            # Another thread may get the number next.
            self._ident = None
