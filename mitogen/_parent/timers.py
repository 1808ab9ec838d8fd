# SPDX-License-Identifier: BSD-3-Clause
"""
Timers, which the broker calls when they are due.
"""

from __future__ import absolute_import  # house

import heapq  # house

import mitogen.core  # house


#
# Timers
#

class Timer(object):
    """
    One entry of a `TimerList`.

    :ivar when: time of `mitogen.core.now` at which it is due.
    :ivar func: called without arguments.
    :ivar active: True until it has run or was cancelled.
    """
    active = True

    def __init__(self, when, func):
        self.func, self.when = func, when

    def __repr__(self):
        return 'Timer(%r, %r)' % (self.when, self.func)

    def __lt__(self, other):
        return self.when < other.when

    def __le__(self, other):
        return self.when <= other.when

    def __gt__(self, other):
        return self.when > other.when

    def __ge__(self, other):
        return self.when >= other.when

    def __eq__(self, other):
        return isinstance(other, Timer) and self.when == other.when

    def __ne__(self, other):
        return not self == other

    __hash__ = object.__hash__

    def cancel(self):
        """
        Make sure that the timer does not run. Repeatable.
        """
        self.active = False
        # The timer may stay in the list for a while; its function and
        # arguments need not.
        self.func = None


class TimerList(object):
    """
    The timers of one broker. Broker thread only, and therefore without locks.
    """
    _now = staticmethod(mitogen.core.now)

    #: Length of the list at which cancelled timers are taken out of it.
    _sweep_at = 32

    def __init__(self):
        self._heap = []

    def schedule(self, when, func):
        """
        Have `func()` called once `when` has come, and return its `Timer`.
        """
        timer = Timer(when, func)
        if len(self._heap) >= self._sweep_at:
            self._sweep()
        heapq.heappush(self._heap, timer)
        return timer

    def _sweep(self):
        """
        Take out the cancelled timers, which otherwise stay until they are due.
        """
        self._heap[:] = [i for i in self._heap if i.active]
        heapq.heapify(self._heap)
        self._sweep_at = max(32, 2 * len(self._heap))

    def get_timeout(self):
        """
        Return the seconds until the next timer is due, never less than zero,
        or None if nothing is pending.
        """
        heap = self._heap
        while heap and not heap[0].active:
            heapq.heappop(heap)
        if not heap:
            return None
        return max(0, heap[0].when - self._now())

    def expire(self):
        """
        Run each timer that is due, the earliest first.
        """
        heap = self._heap
        now = self._now()
        while heap and heap[0].when <= now:
            timer = heapq.heappop(heap)
            if timer.active:
                timer.active = False
                timer.func()
