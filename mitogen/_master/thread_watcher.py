# SPDX-License-Identifier: BSD-3-Clause
"""
ThreadWatcher: tells when a thread has ended.
"""

from __future__ import absolute_import  # house

import os  # house
import sys  # house
import threading  # house
import time  # house

from mitogen.master import LOG  # house


def _wait_for_end(thread):
    """
    Join a thread. From Python 3.13 on, eventlet's threads are the main thread
    to the interpreter, and a join of that returns at once, or raises.
    """
    while thread.is_alive():
        try:
            thread.join()
        except RuntimeError:
            LOG.debug('%r: %s', thread, sys.exc_info()[1])
        if thread.is_alive():
            time.sleep(0.1)


class ThreadWatcher(object):
    """
    Call a function once a thread has ended. One helper thread per watched
    thread serves every watcher of it; helpers are daemons, for the thread
    that is watched is usually the main thread.
    """
    _lock = threading.Lock()
    _pid = None

    #: Watched thread -> list of watchers. Guarded by `_lock`.
    _watchers = {}

    def __init__(self, target, on_join):
        self.target = target
        self.on_join = on_join

    @classmethod
    def _check_fork(cls):
        # Threads do not survive a fork, and one may have held the lock.
        if cls._pid != os.getpid():
            cls._lock = threading.Lock()
            cls._watchers = {}
            cls._pid = os.getpid()

    @classmethod
    def _join_thread(cls, thread):
        _wait_for_end(thread)
        with cls._lock:
            watchers = cls._watchers.pop(thread, [])
        for watcher in watchers:
            try:
                watcher.on_join()
            except Exception:
                # The other watchers, such as a broker's, must still be called.
                LOG.warning('%r failed', watcher, exc_info=True)

    @classmethod
    def watch(cls, target, on_join):
        """
        Arrange for `on_join()` to be called, on a helper thread, once
        `target` has ended. Any thread.

        :returns:
            The watcher. Its :meth:`remove` undoes the arrangement.
        """
        cls._check_fork()
        watcher = cls(target, on_join)
        with cls._lock:
            known = target in cls._watchers
            cls._watchers.setdefault(target, []).append(watcher)
        if not known:
            helper = threading.Thread(
                name='mitogen.master.join_thread_async',
                target=cls._join_thread,
                args=(target,)
            )
            helper.daemon = True
            try:
                helper.start()
            except RuntimeError:
                # The system gives no thread: nobody would call them.
                with cls._lock:
                    cls._watchers.pop(target, None)
                raise
        return watcher

    def remove(self):
        """
        Forget the watcher. Any thread, may be repeated.
        """
        self._check_fork()
        with self._lock:
            watchers = self._watchers.get(self.target, [])
            if self in watchers:
                watchers.remove(self)
