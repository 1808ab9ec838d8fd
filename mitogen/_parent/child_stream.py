# SPDX-License-Identifier: BSD-3-Clause
"""
The stream to a process that we have started.
"""

from __future__ import absolute_import  # house

import time  # house

import mitogen.core  # house
from mitogen.parent import LOG  # house


class _ChildStream(mitogen.core.Stream):
    """
    A stream to a process that we have started, and perhaps wait for. If the
    process closes the stream, it most likely ends, and those who wait for an
    answer want to know how. That is known a moment later. So the stream ends
    only then, or when the process has been looked at a number of times. But
    for a first moment, the broker serves others meanwhile. Broker thread.
    """
    #: Seconds before each look at the process for which nobody is served. It
    #: has closed its files, and mostly ends sooner than a timer can be due.
    first_looks = (0, 0.0002, 0.0005, 0.001)

    #: Seconds before each further look, about 0.2 in all.
    looks = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.072)

    #: Whether the child was asked to end, so that nobody wonders how it did.
    #: Set by any thread.
    asked = False

    #: Reasons for an end that are ours. The process need not end then.
    _cut = frozenset(['it sent what is no message', 'it has stopped reading'])

    #: Whether the process is looked at. None before the first time.
    _waits = None

    def on_disconnect(self, broker):
        """
        End, as for any stream, but perhaps a moment later.
        """
        if self._waits and broker._alive:
            return
        if self._waits is None and self._process_ends(broker):
            self._waits = True
            broker.stop_receive(self)
            broker._stop_transmit(self)
            mitogen.core.listen(broker, 'shutdown', self.end)
            self._look(broker, iter(self.looks), self.first_looks)
        elif self._waits:
            self.end()
        else:
            super(_ChildStream, self).on_disconnect(broker)

    def _process_ends(self, broker):
        side, why = self.receive_side, self.why
        return (broker._alive and not self.asked and side and not side.closed and
                why != type(self).why and why not in self._cut and
                self.conn is not None and self.conn._waits_for_process())

    def _runs(self, looks):
        for seconds in looks:
            time.sleep(seconds)
            if self.conn.proc.poll() is not None:
                return False
        return True

    def _look(self, broker, looks, first=(0,)):
        if not self._waits:
            return
        try:
            delay = next(looks, None) if self._runs(first) else None
            if delay is not None:
                broker.timers.schedule(mitogen.core.now() + delay,
                                       lambda: self._look(broker, looks))
                return
        except Exception:
            # A timer that raises would end the broker.
            LOG.exception('%r: cannot look at %r', self, self.conn.proc)
        self.end()

    def end(self):
        """
        End at once, if the process is waited for. Repeatable.
        """
        if self._waits:
            self._waits = False
            broker = self.conn._router.broker
            mitogen.core.unlisten(broker, 'shutdown', self.end)
            broker._call(self, self.on_disconnect)
