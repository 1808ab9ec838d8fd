# SPDX-License-Identifier: BSD-3-Clause
"""
FileStreamState: the files that a FileService sends over one stream.
"""

from __future__ import absolute_import  # house

import collections  # house
import threading  # house

import mitogen.core  # house


class FileStreamState(object):
    """
    The files that a :class:`FileService` sends over one stream, and how much
    is on its way there. `lock` guards the rest, and is held for moments only:
    no thread reads a file or sends under it.
    """
    #: None for this process.
    _stream = None

    def __init__(self):
        self.lock = threading.Lock()
        #: Transfers, in the order to send them.
        self.jobs = collections.deque()
        #: Requests for files that are not open yet: `(path, sender, msg)`.
        self._waiting = collections.deque()
        #: Files that are open, or about to be.
        self._opened = 0
        #: Bytes sent that are not acknowledged.
        self.unacked = 0
        #: `unacked`, by the id of the context that the bytes went to.
        self.unacked_by_id = {}
        #: When a context last acknowledged something, or was sent something
        #: after it had acknowledged all.
        self._moved_by_id = {}
        #: A thread is sending.
        self._pumping = False
        #: The stream is full: a thread comes when it is not.
        self._held = False

    def _sent(self, context_id, size):
        """
        Note that bytes go to a context. With the lock.
        """
        self.unacked += size
        before = self.unacked_by_id.get(context_id, 0)
        self.unacked_by_id[context_id] = before + size
        if not before:
            self._moved_by_id[context_id] = mitogen.core.now()

    def _acknowledged(self, context_id, size):
        """
        Note that bytes have arrived at a context. Return how many of them were
        on their way there. With the lock.
        """
        mine = self.unacked_by_id.get(context_id, 0)
        size = max(0, min(mine, size))
        if size:
            self.unacked -= size
            self.unacked_by_id[context_id] = mine - size
            self._moved_by_id[context_id] = mitogen.core.now()
        return size

    def _forget(self, context_id):
        """
        Forget the bytes on their way to a context. With the lock.
        """
        self.unacked -= self.unacked_by_id.pop(context_id, 0)
        self._moved_by_id.pop(context_id, None)

    def _stalled(self, before):
        """
        Return the contexts that have acknowledged nothing since a time of
        :func:`mitogen.core.now`, though something is on its way. With the lock.
        """
        return [context_id for context_id, when in self._moved_by_id.items()
                if when < before and self.unacked_by_id.get(context_id)]
