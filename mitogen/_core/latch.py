# SPDX-License-Identifier: BSD-3-Clause
"""
Latch: a queue that threads wait at, and how a thread sleeps.
"""

from __future__ import absolute_import  # house

import collections  # house
import os  # house
import threading  # house

from mitogen.core import _seldom, io_op, LatchError, now, PY3, set_cloexec, thread, TimeoutError  # house


#
# Waiting and receiving.
#

if PY3:
    class _Sleeper(object):
        """
        One thread asleep in `Latch.get`. Since 3.2 waiting for a lock is
        interrupted by signals, so that costs no descriptor and one system
        call.
        """
        awake = False
        item = None

        def __init__(self):
            self.since = now()
            self._lock = thread.allocate_lock()
            self._lock.acquire()

        def wake(self, item=None):
            self.item = item
            self.awake = True
            self._lock.release()

        def sleep(self, timeout):
            """Return after `wake` or `timeout` seconds."""
            if timeout is None:
                timeout = -1
            else:
                timeout = min(timeout, threading.TIMEOUT_MAX)
            self._lock.acquire(True, timeout)

        def rest(self):
            pass
else:
    class _Sleeper(object):
        """
        One thread asleep in `Latch.get`. Waiting for a lock cannot be
        interrupted on Python 2 (and polls when it has a timeout), so wait for
        a byte in a pipe. Pipes are kept for the next sleeper.
        """
        awake = False
        item = None
        #: All pipes there are, and those nobody uses; both as (read, write).
        pipes = []
        idle = []

        def __init__(self):
            self.since = now()
            try:
                self.pipe = self.idle.pop()
            except IndexError:
                self.pipe = os.pipe()
                self.pipes.append(self.pipe)
                for fd in self.pipe:
                    set_cloexec(fd)

        def wake(self, item=None):
            self.item = item
            self.awake = True
            os.write(self.pipe[1], 'x')

        def sleep(self, timeout):
            poller = Latch.poller_class()
            poller.start_receive(self.pipe[0])
            try:
                end = timeout is not None and now() + timeout
                while not self.awake:
                    for _ in poller.poll(timeout):
                        pass
                    if timeout is not None:
                        timeout = end - now()
                        if timeout <= 0:
                            break
            finally:
                poller.close()

        def rest(self):
            # Called with the latch locked: after `awake` there is a byte.
            if self.awake:
                io_op(os.read, self.pipe[0], 1)
            self.idle.append(self.pipe)


class Latch(object):
    """
    Closable first in, first out queue. Needs no broker; any thread.

    Invariants: an item is either in `_queue`, or has been given to a sleeper
    (counted in `_given` until that thread runs); there is no sleeper in
    `_sleepers` while `_queue` has items. So the k-th sleeper gets the k-th
    item, and a passer-by cannot take it.
    """
    closed = False
    #: Called with the latch, by the thread that puts, for an item that found
    #: no sleeper.
    notify = None
    #: How Python 2 waits. `mitogen.parent` sets one that knows high fds.
    poller_class = None

    def __init__(self):
        self._lock = thread.allocate_lock()
        self._queue = collections.deque()
        self._sleepers = collections.deque()
        self._given = 0

    @_seldom
    def __repr__(self):
        return 'Latch(%#x, size=%d, t=%r)' % (
            id(self), len(self._queue) + self._given,
            threading.current_thread().name)

    @_seldom
    @classmethod
    def _on_fork(cls):
        """Close what sleepers wait on: it is shared with the parent."""
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
