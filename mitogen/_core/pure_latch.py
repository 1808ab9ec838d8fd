# SPDX-License-Identifier: BSD-3-Clause
"""
The pure leaf of Latch.
"""

from __future__ import absolute_import  # house

import os  # house

from mitogen.core import _chosen, _deque, _LatchBase, _module, _seldom, _Sleeper, LatchError, PY3, thread  # house
from mitogen.core import TimeoutError  # house


@_chosen
class Latch(_LatchBase):
    # An item is either in `_queue`, or has been given to a sleeper and is
    # counted in `_given` until that thread runs. While `_queue` has items there
    # is no sleeper in `_sleepers`. So the k-th sleeper gets the k-th item, and
    # a passer-by cannot take it.
    closed = False
    #: Called with the latch, by the thread that puts, for an item that found
    #: no sleeper.
    notify = None

    def __init__(self):
        self._lock = thread.allocate_lock()
        self._queue = _deque()
        self._sleepers = _deque()
        self._given = 0

    @_seldom
    def __repr__(self):
        return 'Latch(%#x, size=%d, t=%r)' % (
            id(self), len(self._queue) + self._given,
            _module('threading').current_thread().name)

    @_seldom
    @classmethod
    def _on_fork(cls):
        """Close the pipes that sleepers wait on: they are shared with the
        parent."""
        if not PY3:
            for pair in _Sleeper.pipes:
                for fd in pair:
                    os.close(fd)
            del _Sleeper.pipes[:], _Sleeper.idle[:]

    @_seldom
    def _forked(self):
        """Forget the threads that sleep here: they are not in this process,
        and one may have had the lock."""
        self._lock = thread.allocate_lock()
        self._sleepers.clear()
        self._given = 0

    def _put_locked(self, obj, append):
        if self._sleepers:
            self._given += 1
            self._sleepers.popleft().wake((obj,))
            return True
        append(obj)

    def put(self, obj=None):
        """
        Append `obj` and wake the thread that waits longest.

        :raises LatchError: closed.
        """
        with self._lock:
            if self.closed:
                raise LatchError()
            woken = self._put_locked(obj, self._queue.append)
        if not woken and self.notify:
            self.notify(self)

    def get(self, timeout=None, block=True):
        """
        Return the oldest item, waiting for one if need be.

        :param timeout: seconds, None for no limit; 0 does not wait.
        :raises LatchError: closed, now or while waiting.
        :raises TimeoutError: nothing came in time, or `block` is false.
        """
        sleeper = None
        try:
            with self._lock:
                if self.closed:
                    raise LatchError()
                if self._queue:
                    return self._queue.popleft()
                if not block or timeout is not None and timeout <= 0:
                    raise TimeoutError()
                # Registered inside the `try`: an interrupt must not leave a
                # sleeper behind that swallows an item.
                sleeper = _Sleeper()
                self._sleepers.append(sleeper)
            sleeper.sleep(timeout)
        except:
            if sleeper:
                with self._lock:
                    item = self._settle_locked(sleeper)
                    if item:
                        self._put_locked(item[0], self._queue.appendleft)
            raise
        with self._lock:
            item = self._settle_locked(sleeper)
        if item:
            return item[0]
        if sleeper.awake:
            raise LatchError()
        raise TimeoutError()

    def _settle_locked(self, sleeper):
        """Take a sleeper out, and return what it was given as a 1-tuple."""
        if sleeper.item:
            self._given -= 1
        elif sleeper in self._sleepers:
            self._sleepers.remove(sleeper)
        sleeper.rest()
        return sleeper.item

    def close(self):
        """Make every thread that waits, and every later call, raise
        LatchError. Repeatable."""
        with self._lock:
            self.closed = True
            while self._sleepers:
                self._sleepers.popleft().wake()
        if self._on_close:
            self._on_close()

    @_seldom
    def size(self):
        """Return how many items were put and not yet returned."""
        with self._lock:
            if self.closed:
                raise LatchError()
            return len(self._queue) + self._given

    @_seldom
    def empty(self):
        """Return whether nothing is there. It may be otherwise by the time
        the caller looks."""
        return self.size() == 0
