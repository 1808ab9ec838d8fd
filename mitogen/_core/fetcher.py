# SPDX-License-Identifier: BSD-3-Clause
"""
_Fetcher: ask the parent for things by key.
"""

from __future__ import absolute_import  # house

from mitogen.core import _seldom, has_parent_authority, Latch, thread  # house


class _Fetcher(object):
    """
    Ask the parent for things by key, each once, however many threads wait. The
    lock is never held while sending or calling back: the broker thread takes
    it too. Answers come to `_handle`, and `_read` takes one.
    """
    # Requests that wait while the parent sends things of its own accord, or
    # None. Guarded by the lock.
    _held = None

    def __init__(self, router, context):
        self._context = context
        #: key -> answer; kept for ever, "absent" too.
        self._cache = {}
        #: key -> functions to call when the answer comes.
        self._callbacks = {}
        self._lock = thread.allocate_lock()
        self._install_handler(router)

    def _request(self, key, callback, make_msg):
        with self._lock:
            context = key not in self._cache and self._context
            if context:
                waiting = self._callbacks.setdefault(key, [])
                first = not waiting and (
                    self._held is None or self._held.append(make_msg))
                waiting.append(callback)
        if not context:
            callback()
        elif first:
            context.send(make_msg())

    def _install_handler(self, router):
        router.add_handler(self._take, self._handle,
                           policy=has_parent_authority)

    def _take(self, msg):
        """Take an answer of the parent. If it cannot be read, it may be the
        one that any thread waits for. Broker thread."""
        if msg.is_dead:
            return self._abandon()
        try:
            self._read(msg)
        except Exception:
            self._abandon(self._context)
            raise

    def _abandon(self, context=None):
        """Wake the threads that wait for an answer, and ask `context` from now
        on: there may be no parent any more. Broker thread."""
        with self._lock:
            self._context = context
            waiting, self._callbacks = self._callbacks, {}
        for callback in sum(waiting.values(), []):
            callback()

    @_seldom
    def _forked(self):
        """This process is a fork: nobody answers it."""
        self._lock = thread.allocate_lock()
        self._callbacks = {}
        self._context = None
        self._held = None

    def _answer(self, key, value):
        with self._lock:
            self._cache[key] = value
            waiting = self._callbacks.pop(key, ())
        for callback in waiting:
            callback()

    def _get(self, request, *key):
        latch = Latch()
        request(*(key + (latch.put,)))
        latch.get()
