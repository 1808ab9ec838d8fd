# SPDX-License-Identifier: BSD-3-Clause
"""
Room: have functions called once a peer has read its queue.
"""

from __future__ import absolute_import  # house

import collections  # house

import mitogen  # house
import mitogen.core  # house
from mitogen.parent import LOG  # house


def _written(stream):
    """
    Return how many bytes of a stream's messages the system has taken.
    """
    link = getattr(stream.protocol, '_link', None)
    if link is None:
        return stream.protocol._writer.sent
    stats = link.stats()
    return stats.get('bytes_out', 0) - stats.get('pending', 0)


def _is_open(stream):
    side = stream.transmit_side
    return side is not None and not side.closed


class _Wait(object):
    """
    The functions that wait for one peer, the bytes that it had read at the last
    look, and the time since which it has read nothing.
    """
    def __init__(self, written):
        self.funcs = collections.deque()
        self.written = written
        self.since = mitogen.core.now()


class _Room(object):
    """
    No thread waits for a peer that does not read. A sender whose stream is full
    leaves a function here, which is called when there is room. A peer that reads
    nothing for `limits.stalled_seconds` meanwhile loses its stream, unless it is
    our parent.

    The same goes for a peer whose stream stays full for that long, though nobody
    has left a function: messages for it are forwarded, and until there is room
    nothing is read from the streams that they come by. Its siblings would wait.

    The further down the tree a context is, the shorter it waits. One in between
    reads nothing, either, while it waits for its child: it has to give up that
    child before its own parent gives it up.

    :param Router router: whose streams these are.
    """
    #: Bytes that a peer has to read in that time, lest one that reads a byte now
    #: and then keeps its siblings waiting for ever.
    least_read = 65536

    #: Seconds between two looks at the streams that something waits for.
    delay = 0.01

    #: Seconds between two rounds, at most.
    longest_round = 15.0

    def __init__(self, router):
        self._router = router
        # The rest is the broker thread's.
        self._waits = {}   # stream -> _Wait
        self._timer = None
        self._later = set()   # timers of call_later()
        self._full = {}   # stream that was full at the last round -> _Wait
        self._makes_rounds = False
        self._ended = False
        mitogen.core.listen(router.broker, 'shutdown', self._end)
        router._unwaiting = self._unwaiting = set()

    def patience(self):
        """
        Return for how many seconds a peer of this context may read nothing. Any
        thread.
        """
        return (self._router.limits.stalled_seconds /
                float(1 + len(mitogen.parent_ids)))

    def is_there(self, stream):
        """
        Return whether a stream has room: no more than half of the high-water
        mark waits to be read. Any thread.
        """
        return (stream.protocol.pending_bytes() <=
                self._router.high_water // 2)

    def when_there(self, stream, func):
        """
        Have `func()` called on the broker thread, once the stream has room or
        has ended, after those that were given here before. Any thread.

        :raises mitogen.core.Error: the broker has exited.
        """
        self._router.broker.defer(self._add, stream, func)

    def call_later(self, seconds, func):
        """
        Have `func()` called on the broker thread after some time, unless the
        broker ends before. Any thread.
        """
        def schedule():
            def due():
                self._later.discard(timer)
                self._call(func)

            if not self._ended:
                timer = self._router.broker.timers.schedule(
                    mitogen.core.now() + seconds, due)
                self._later.add(timer)

        self._router.broker.defer(schedule)

    def watch(self):
        """
        Look at the streams of all children and clients now and then, as long as
        there are any. Any thread.

        :raises mitogen.core.Error: the broker has exited.
        """
        if not self._makes_rounds:
            self._makes_rounds = True
            self._router.broker.defer(self._make_round)

    def _make_round(self):
        # First: a stream that is registered after the look below calls this
        # method again.
        self._makes_rounds = False
        streams = self._router.neighbours()
        if self._ended or not streams:
            return
        self._makes_rounds = True
        full = [i for i in streams if _is_open(i) and not self.is_there(i)]
        self._full = dict((i, self._full.get(i) or _Wait(_written(i)))
                          for i in full)
        for stream in full:
            self._check_progress(stream, self._full[stream])
        # Often enough for each context to be quicker than its parent, rounds
        # included.
        self.call_later(min(self.patience() / (4 + len(mitogen.parent_ids)),
                            self.longest_round), self._make_round)

    def __enter__(self):
        """
        From here to the end of the block, this thread does not wait for room
        where it sends: it has others to serve. Blocks are not nested.
        """
        self._unwaiting.add(mitogen.core.thread.get_ident())

    def __exit__(self, *_exc):
        self._unwaiting.discard(mitogen.core.thread.get_ident())

    def _add(self, stream, func):
        if self._ended:
            return
        wait = self._waits.get(stream)
        if wait is None:
            wait = self._waits[stream] = _Wait(_written(stream))
        wait.funcs.append(func)
        if self._timer is None:
            self._schedule()

    def _schedule(self):
        self._timer = self._router.broker.timers.schedule(
            mitogen.core.now() + self.delay, self._look)

    def _look(self):
        self._timer = None
        for stream, wait in list(self._waits.items()):
            self._look_at(stream, wait)
            if not wait.funcs:
                del self._waits[stream]
        if self._waits and self._timer is None:
            self._schedule()

    def _look_at(self, stream, wait):
        # A function may leave another one here, which the next look calls.
        for _ in range(len(wait.funcs)):
            if _is_open(stream) and not self.is_there(stream):
                return self._check_progress(stream, wait)
            wait.since = mitogen.core.now()
            self._call(wait.funcs.popleft())

    @staticmethod
    def _call(func):
        try:
            func()
        except Exception:
            # A timer that raises ends the broker.
            LOG.exception('%r failed', func)

    def _check_progress(self, stream, wait):
        written, now = _written(stream), mitogen.core.now()
        read = written - wait.written
        if read >= min(self.least_read, self._router.high_water // 4):
            wait.written, wait.since = written, now
        elif stream.protocol.remote_id != mitogen.parent_id and \
                now - wait.since > self.patience():
            self._router.refuse(
                stream, 'stalled_seconds', 'it is cut off, for it has read '
                '%s for %.1f seconds of the %d bytes that wait for it',
                'only %d bytes' % (read,) if read else 'nothing',
                now - wait.since, stream.protocol.pending_bytes())
            stream.why = 'it has stopped reading'
            broker = self._router.broker
            broker._call(stream, stream.on_disconnect)

    def _end(self):
        self._ended = True
        self._waits.clear()
        for timer in [self._timer] + list(self._later):
            if timer is not None:
                timer.cancel()
