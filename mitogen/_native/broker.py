# SPDX-License-Identifier: BSD-3-Clause
"""
The compiled leaf of Broker, and its waker.
"""

from __future__ import absolute_import  # house

from mitogen._native import core, MitogenProtocol, Poller  # house


class _Waker(core.Waker):
    # Instead of a pipe, an event in the loop's queue keeps the place of each
    # function: so it runs after messages that were routed before it.

    def __init__(self, broker):
        core.Waker.__init__(self, broker)
        self._call_later = broker.poller._loop.call_later
        broker.poller.on_call = self._on_call

    def _on_call(self):
        with self._lock:
            if not self._deferred:
                # An exception came when its place was kept.
                return
            deferred = self._deferred.popleft()
        self._run(*deferred)

    def defer(self, func, *args, **kwargs):
        if core.thread.get_ident() == self._broker._ident:
            return func(*args, **kwargs)
        with self._lock:
            if self._broker._exitted:
                raise core.Error(self.broker_shutdown_msg)
            # Before the function is queued: a place too many does no harm.
            self._call_later()
            self._deferred.append((func, args, kwargs))
            self.wakes += 1


class Broker(core._BrokerBase):
    # The name that pickles and programs know.
    __module__ = 'mitogen.core'

    def _open(self):
        self.poller = Poller()
        self._waker = core.Stream()
        self._waker.set_protocol(_Waker(self))

    def keep_alive(self):
        return (core._BrokerBase.keep_alive(self) or
                self.poller._loop.unsent() > 0)

    def _watch_receive(self, stream):
        side = stream.receive_side
        data = side, stream.on_receive
        if isinstance(stream.protocol, MitogenProtocol):
            self.poller.start_link(side.fd, data,
                                   stream.protocol._opened_link())
        else:
            self.poller.start_receive(side.fd, data)
