# SPDX-License-Identifier: BSD-3-Clause
"""
CallQueue: the calls that wait for a thread of a pool.
"""

from __future__ import absolute_import  # house

import collections  # house
import threading  # house

import mitogen.core  # house

from mitogen.service import _has_room, _peer_of, _room_of, _Tally  # house


class _CallQueue(object):
    """
    The calls that wait for a pool. Each peer has a queue, and the peers take
    turns, so a caller with many calls only waits for itself. While a peer does not read
    its answers, its calls stay here: no thread waits for it. Any thread.

    :param wake:
        Function to have a number of threads come and :meth:`take`.
    :param _ComingCalls coming:
        Told of what is taken.
    """
    def __init__(self, wake, coming=None):
        self._wake = wake
        self._coming = coming
        #: Bytes and numbers of calls that were admitted and are not taken yet.
        self.tally = _Tally()
        self._lock = threading.Lock()
        # All guarded by _lock.
        self._calls = {}                   # peer -> (call, ticket), in order
        self._turns = collections.deque()  # the peers that are not held
        self._held = set()                 # those whose streams are full
        self._owed = 0                     # threads that came for held calls

    def passes(self, msg):
        """
        Return whether a call that just came may be obeyed at once: nothing
        waits here, and its peer reads the answers.
        """
        if self._calls or not _has_room(msg.router.stream_by_id(msg.src_id)):
            return False
        self._coming.add(msg)
        self.tally.give(self._ticket_of(msg))
        return True

    @staticmethod
    def _ticket_of(msg):
        ticket = getattr(msg, '_ticket', None)
        if ticket is not None:
            del msg._ticket
        return ticket

    def add(self, msg, call=None, ticket=None):
        """
        Queue a call. One thread has to come and take it.

        :param msg:
            The message, which tells whose it is; :data:`None` for this process.
        :param call:
            The object that :meth:`take` returns for it; `msg` if :data:`None`.
        :param ticket:
            The ticket from the tally, unless the admission has it.
        """
        peer = None, None
        if msg is not None:
            peer, ticket = _peer_of(msg), ticket or self._ticket_of(msg)
        with self._lock:
            if peer not in self._calls:
                self._calls[peer] = collections.deque()
                self._turns.append(peer)
            self._calls[peer].append((msg if call is None else call, ticket))

    def take(self):
        """
        Return the next call, :data:`None` if there is none just now.
        """
        with self._lock:
            call, ticket, full = self._take_locked()
        for peer in full:
            self._hold(peer)
        self.tally.give(ticket)
        return call

    def _take_locked(self):
        """
        Return a call, its ticket, and the peers that are held from now on.
        """
        full = []
        while self._turns:
            peer = self._turns.popleft()
            if not _has_room(peer[0]):
                full.append(peer)
                self._held.add(peer)
                continue
            calls = self._calls[peer]
            call, ticket = calls.popleft()
            if self._coming is not None:
                self._coming.add(call)
            if calls:
                self._turns.append(peer)
            else:
                del self._calls[peer]
            return call, ticket, full
        if self._held:
            self._owed += 1
        return None, None, full

    def _hold(self, peer):
        try:
            stream = peer[0]
            _room_of(stream.protocol._router).when_there(
                stream, lambda: self._let_go(peer))
        except mitogen.core.Error:
            # The broker has exited, and the pool ends.
            pass

    def _let_go(self, peer):
        """
        A peer has read its answers. Wake as many threads as came in vain.
        """
        with self._lock:
            self._held.discard(peer)
            self._turns.append(peer)
            count = min(self._owed, len(self._calls[peer]))
            self._owed = self._owed - count if self._held else 0
        self._wake(count)
