# SPDX-License-Identifier: BSD-3-Clause
"""
Distance: how long a message takes to a child and back, and how many bytes a second pass, as
measured on what is sent anyway.
"""

from __future__ import absolute_import  # house

import collections  # house

import mitogen.core  # house


def _seconds_of_handshake(conn):
    """
    Return the time from the core's text to the word that the child is ready: a round trip, and the
    start of the child.
    """
    moments = dict(getattr(conn, '_stages', ()))
    ready = moments.get(getattr(conn, 'STAGE_READY', None), 0.0)
    return ready - moments.get(getattr(conn, 'STAGE_SENT', None), ready)


class _Distance(object):
    """
    The round trip to one child, at most, and the rate of the link to it, at least. The child
    confirms each message that brings modules. Broker thread.

    :param conn: that started the child, :data:`None` if there was none.
    """
    #: Seconds of a round trip from which on a child is far.
    far = 0.04

    #: Seconds from which on a child is far that talks to us through a pipe. Other work of the
    #: processors delays it by as much as a network would.
    far_by_pipe = 0.08

    #: Bytes a second. Through a slower link, better compression saves more time than it costs.
    slow = 2097152.0

    #: Bytes a second, as long as nothing is known.
    guessed_rate = 1048576.0

    #: Bytes that are sent on a guess at most.
    most = 1048576

    #: Bytes that the rate is taken from at least: a short message takes as long as the work on it.
    least = 32768

    #: Messages that are remembered until they are confirmed. A child may never confirm one.
    most_open = 1000

    def __init__(self, conn):
        #: In seconds.
        self.round_trip = _seconds_of_handshake(conn)
        if getattr(conn, '_is_far', False) is not True:
            self.far = self.far_by_pipe
        #: In bytes a second, :data:`None` if it is not known.
        self.rate = None
        #: (time, bytes) of messages that are not confirmed.
        self._open = collections.deque()
        self._passed = 0    # bytes that were confirmed since then:
        self._since = None  # time of the first confirmation of an answer

    def note_sent(self, size):
        """
        A message of so many bytes is sent.
        """
        if not self._open:
            self._passed, self._since = 0, None
        if len(self._open) < self.most_open:
            self._open.append((mitogen.core.now(), size))

    def note_confirmed(self):
        """
        The child has the oldest message that is not confirmed.
        """
        if not self._open:
            return
        now = mitogen.core.now()
        sent, size = self._open.popleft()
        self.round_trip = min(self.round_trip, now - sent)
        if self._since is None:
            self._since = now
            return
        self._passed += size
        if now - self._since > 0.001 and self._passed >= self.least:
            self.rate = max(self.rate or 0.0, self._passed / (now - self._since))

    def is_far(self):
        """
        Tell whether a round trip takes longer than the work on a few more modules.
        """
        return self.round_trip >= self.far

    def is_slow(self):
        """
        Tell whether the link is known to be slow.
        """
        return self.rate is not None and self.rate < self.slow

    def is_settled(self):
        """
        Tell whether the child has confirmed all that was sent.
        """
        return not self._open

    def spare_bytes(self):
        """
        Return how many bytes may be sent on a guess: if it is wrong, they take no longer than the
        round trip that is saved if it is right. It is one of few sizes, so that children at about
        the same distance get the same answers.
        """
        if not self.is_far():
            return 0
        size = int(min(self.most, self.round_trip * (self.rate or self.guessed_rate)))
        # A power of four.
        return 1 << (size.bit_length() - 1 & ~1) if size else 0
