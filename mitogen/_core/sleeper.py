# SPDX-License-Identifier: BSD-3-Clause
"""
How a thread sleeps until something is put into a latch.
"""

from __future__ import absolute_import  # house

import os  # house

import mitogen  # house
from mitogen.core import io_op, now, PY3, set_cloexec, thread  # house


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
                timeout = min(timeout, thread.TIMEOUT_MAX)
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
            poller = mitogen.core.Latch.poller_class()
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
