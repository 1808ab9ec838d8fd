# SPDX-License-Identifier: BSD-3-Clause
"""
ComingCalls: the order in which calls came, for services that keep it.
"""

from __future__ import absolute_import  # house

import threading  # house


def _do_nothing():
    pass


class _ComingCalls(object):
    """
    The calls that threads of a pool have taken, and that are not with their
    services yet: each thread looks into its call, and may have to load the
    service. Any thread.
    """
    def __init__(self):
        self._lock = threading.Lock()
        # Pairs of a call and a function, None at first, in the order of
        # arrival. Guarded by _lock.
        self._calls = []

    def add(self, msg):
        """
        A call was taken. Under the lock of the queue that it was taken from,
        so that the order is that of arrival.
        """
        with self._lock:
            self._calls.append([msg, None])

    def has_come(self, msg, func=None):
        """
        A call is with its service, or will never be.

        :param func:
            Called once the calls that the same context has sent before are
            with their services, too; perhaps by another thread, and under a
            lock, so it returns soon.
        """
        with self._lock:
            for pair in self._calls:
                if pair[0] is msg:
                    pair[1] = pair[1] or func or _do_nothing
                    self._call_what_is_due()
                    return
        # No thread has taken it from a pool.
        if func is not None:
            func()

    def _call_what_is_due(self):
        """
        With _lock, since the functions are called in order, too.
        """
        rest = []
        for msg, func in self._calls:
            if func is None or any(msg.src_id == pair[0].src_id
                                   for pair in rest):
                rest.append([msg, func])
            else:
                func()
        self._calls = rest
