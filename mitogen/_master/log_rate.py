# SPDX-License-Identifier: BSD-3-Clause
"""
_LogRate: how many log records a peer may send in a second.
"""

from __future__ import absolute_import  # house

import mitogen.core  # house


class _Spent(object):
    """
    The part of its credit for log records that a peer has spent. Credit grows back.
    """
    def __init__(self):
        self.records = self.bytes = 0.0
        self.dropped = 0
        self.at = mitogen.core.now()

    def recover(self, limits):
        now = mitogen.core.now()
        passed, self.at = now - self.at, now
        self.records = max(
            0.0, self.records - passed * limits.log_records_per_second)
        self.bytes = max(
            0.0, self.bytes - passed * limits.log_bytes_per_second)


class _LogRate(object):
    """
    Admits log records of each peer at a bounded rate. Broker thread only.

    :param Router router: whose limits these are.
    """
    #: Seconds: a peer that was silent may send as much at once as it may in
    #: this time.
    burst = 4

    def __init__(self, router):
        self._router = router

    def admits(self, stream, size):
        """
        Tell whether a record of so many bytes, which came by a stream, is to
        be emitted.
        """
        limits = self._router.limits
        spent = getattr(stream, '_log_spent', None) or _Spent()
        stream._log_spent = spent
        spent.recover(limits)
        if (spent.records >= self.burst * limits.log_records_per_second or
                spent.bytes >= self.burst * limits.log_bytes_per_second):
            self._drop(stream, spent)
            return False
        spent.records += 1
        spent.bytes += size
        return True

    def _drop(self, stream, spent):
        spent.dropped += 1
        if spent.dropped == 1:
            # One line tells of all records that are dropped until then.
            self._router.broker.timers.schedule(
                mitogen.core.now() + 1.0, lambda: self._tell(stream, spent))

    def _tell(self, stream, spent):
        count, spent.dropped = spent.dropped, 0
        self._router.refuse(stream, 'log_records_per_second',
                            '%d log records were dropped', count)
