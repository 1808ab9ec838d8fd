# SPDX-License-Identifier: BSD-3-Clause
"""
Tally: how many calls wait for each peer, and whether one more may.
"""

from __future__ import absolute_import  # house

import threading  # house

import mitogen.core  # house


def _peer_of(msg):
    """
    Return who answers for a call: a pair of the stream it came by, which is
    :data:`None` for this process, and, if that leads to our parent, which
    answers for nobody, the id of the context that calls.
    """
    stream = msg.router.stream_by_id(msg.src_id)
    if stream is None or stream.protocol.remote_id != mitogen.parent_id:
        return stream, None
    return stream, msg.src_id


class _Tally(object):
    """
    Counts the calls that wait in one place, and their bytes, for each peer.
    Any thread.
    """
    full_msg = 'the call is refused: too many calls of services wait already'

    def __init__(self):
        self._lock = threading.Lock()
        self._counts = {}   # peer -> (calls, bytes); guarded by _lock

    def take(self, msg):
        """
        Count a call that is about to wait, and return what to give back when
        it waits no more.

        :raises mitogen.core.CallError:
            As many wait already as may.
        """
        if mitogen.core.has_parent_authority(msg):
            return None
        peer = _peer_of(msg)
        size = mitogen.core.Message.HEADER_LEN + len(msg.data)
        limit = self._add(peer, size, mitogen.core._limits_of(msg.router))
        if limit is None:
            return peer, size
        mitogen.core._refuse(msg.router, peer[0], limit,
                              'a call of a service was refused: too many wait')
        raise mitogen.core.CallError(self.full_msg)

    def _add(self, peer, size, limits):
        """
        Return the name of the limit that is in the way, or :data:`None`.
        """
        with self._lock:
            calls, amount = self._counts.get(peer, (0, 0))
            if calls >= limits.service_calls:
                return 'service_calls'
            if calls and amount + size > limits.service_bytes:
                return 'service_bytes'
            self._counts[peer] = calls + 1, amount + size

    def count(self, ticket):
        """
        Return how many calls of the same peer wait.
        """
        return self._counts.get(ticket[0], (0,))[0]

    def give(self, ticket):
        """
        A call that was counted waits no more.
        """
        if ticket is None:
            return
        peer, size = ticket
        with self._lock:
            calls, amount = self._counts.pop(peer)
            if calls > 1:
                self._counts[peer] = calls - 1, amount - size
