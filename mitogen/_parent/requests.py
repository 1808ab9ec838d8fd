# SPDX-License-Identifier: BSD-3-Clause
"""
Requests of children: which child may ask for which things, and how many
answers may wait for it.
"""

from __future__ import absolute_import  # house

import collections  # house

import mitogen.core  # house


def is_immediate_child(msg, stream):
    """
    Handler policy: accept messages only from the context at the other end of
    the stream they came in on, be it a child or the parent, and only those
    that it sends itself: with its own authority, or the one that its stream is
    stamped with.
    """
    return mitogen.core._is_neighbour(msg, stream)


#: Handle -> the limit of its messages. All others are short.
_LIMITS = {
    # Longer ones are shortened.
    mitogen.core.FORWARD_LOG: None,
    # From parents only.
    mitogen.core.FORWARD_MODULE: None,
    # Have limits of their own.
    mitogen.core.GET_MODULE: None,
    mitogen.core.GET_RESOURCE: None,
    mitogen.core.HAVE_MODULES: 'announcement_bytes',
}


def _size_of(msg):
    """
    Return the length of a message's payload, which may be large and not yet an
    object of Python.
    """
    size = getattr(msg, '_size', None)
    return len(msg.data) if size is None else size


def _handle(router, handle, func, policy=None, overwrite=False):
    """
    Have `func(msg)` called for each message to `handle` of ours. Dead ones,
    which a closing router sends to all its handlers, are kept from it, and
    those that are too long are refused before anybody reads them.
    """
    limit = _LIMITS.get(handle, 'control_bytes')

    def on_message(msg):
        if msg.is_dead:
            return
        size = _size_of(msg)
        if limit and size > getattr(router.limits, limit):
            router.refuse(router.stream_by_id(msg.src_id), limit,
                          'a message of %d bytes, for handle %d', size, handle)
            router._maybe_send_dead(True, msg, router.refused_msg)
        else:
            func(msg)

    router.add_handler(on_message, handle, policy=policy, overwrite=overwrite)


class Throttle(object):
    """
    Stands before the handler of requests whose answers are large, or cost
    time. A child that asks and does not read, or asks without end, neither
    fills our memory nor keeps the broker thread from others: its requests wait
    here until it has read some, and so that others have their turn.

    Broker thread only.

    :param Router router: whose requests these are.
    :param func: handler.
    :param refuse: called with a request that is not passed on, to answer it.
    """
    #: Bytes of answers that may wait for one child; less if `router.limits` says
    #: so.
    pending_max = 64 * 1048576

    #: Requests of one child that are passed on in so many seconds.
    burst = 20
    period = 0.02

    def __init__(self, router, func, refuse=None):
        self._router = router
        self._func = func
        self._refuse = refuse
        self._queues = {}   # stream -> its requests that wait
        self._passed = {}   # stream -> (since when, how many were passed on)

    def __call__(self, msg):
        stream = None if msg.is_dead else self._router.stream_by_id(msg.src_id)
        if stream is None:
            self._func(msg)
        elif len(msg.data) > self._router.limits.request_bytes:
            self._router.refuse(
                stream, 'request_bytes', 'it asks for a module with a name of '
                '%d bytes, or for a file with such a name', len(msg.data))
        elif stream not in self._queues and self._has_turn(stream):
            self._func(msg)
        else:
            self._wait(stream, msg)

    def _is_unread(self, stream):
        return stream.protocol.pending_bytes() >= min(
            self.pending_max, self._router.limits.unread_bytes)

    def _has_turn(self, stream):
        """
        Return whether a request may be passed on now, and count it if so.
        """
        if self._is_unread(stream):
            return False
        now = mitogen.core.now()
        if stream not in self._passed:
            mitogen.core.listen(stream, 'disconnect',
                                lambda: self._passed.pop(stream, None))
        since, count = self._passed.get(stream, (now, 0))
        if now - since > self.period:
            since, count = now, 0
        if count < self.burst:
            self._passed[stream] = since, count + 1
        return count < self.burst

    def _wait(self, stream, msg):
        queue = self._queues.get(stream)
        if queue is None:
            queue = self._queues[stream] = collections.deque()
            self._come_back(stream)
        if len(queue) < self._router.limits.requests:
            queue.append(msg)
            return
        self._router.refuse(
            stream, 'requests', 'dropping a request: it asks for too much, or '
            'does not read the answers')
        if self._refuse is not None and not self._is_unread(stream):
            self._refuse(msg)

    def _come_back(self, stream):
        room = self._router._room
        if self._is_unread(stream):
            room.when_there(stream, lambda: self._pass_on(stream))
        else:
            room.call_later(self.period, lambda: self._pass_on(stream))

    def _pass_on(self, stream):
        """
        Pass on the requests that have waited, as far as permitted.
        """
        queue = self._queues[stream]
        while queue and self._has_turn(stream):
            self._router._call_handler(self._func, queue.popleft())
        if queue:
            self._come_back(stream)
        else:
            del self._queues[stream]


#: Longest name of a module, or of a file in a package, that may be asked for.
REQUEST_MAX = 1000

#: Packages that the name of a module may lie in. Each is looked up by itself, so
#: that the time which a name takes grows with the cube of their number.
PACKAGES_MAX = 50

#: How many answers that there is no such thing are kept.
ABSENT_MAX = 10000


def _read_request(msg):
    """
    Return what GET_RESOURCE asks for, None if that cannot be read. It may name no class: an array
    of numpy, for example, would have the broker thread import that, and wait if another thread is
    importing it.
    """
    try:
        for request in msg.unpickle_iter(throw=False):
            return request
    except mitogen.core.Error:
        # The log has it.
        pass


def is_sane_resource(request):
    """
    Return whether the content of GET_RESOURCE is two names.
    """
    return type(request) is tuple and len(request) == 2 and all(
        isinstance(word, mitogen.core.AnyTextType) and len(word) <= REQUEST_MAX
        for word in request)
