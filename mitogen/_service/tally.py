# SPDX-License-Identifier: BSD-3-Clause
"""
Tally: how many calls wait for each peer, and whether one more may.
"""

from __future__ import absolute_import  # house

import threading  # house

import mitogen.core  # house
import mitogen.limits  # house


def _peer_of(msg):
    """
    Return who answers for a message: the stream that it came by. A context
    that is reached through our parent answers for itself, by its id. It is
    :data:`None` for who has the authority to do anything here.
    """
    if mitogen.core.has_parent_authority(msg):
        return None
    stream = msg.router.stream_by_id(msg.src_id)
    if stream is None or stream.protocol.remote_id == mitogen.parent_id:
        return msg.src_id
    return stream


class Tally(object):
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
        peer = _peer_of(msg)
        if peer is None:
            return None
        size = mitogen.core.Message.HEADER_LEN + len(msg.data)
        limit = self._add(peer, size, mitogen.limits.of(msg.router))
        if limit is None:
            return peer, size
        about = peer if isinstance(peer, mitogen.core.Stream) else None
        mitogen.limits.refuse(msg.router, about, limit,
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
