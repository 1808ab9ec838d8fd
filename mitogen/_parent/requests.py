# SPDX-License-Identifier: BSD-3-Clause
"""
Requests of children: which child may ask, how much waits for it, and for what it may ask.
"""

from __future__ import absolute_import  # house

import mitogen.core  # house
from mitogen.parent import LOG  # house


def is_immediate_child(msg, stream):
    """
    Handler policy: accept messages only from the context at the other end of
    the stream they came in on, be it a child or the parent, and only what it
    sends of its own accord: with its own authority, or the one it is lent.
    """
    return mitogen.core._is_neighbour(msg, stream)


def _handle(router, handle, func, policy=None, overwrite=False):
    """
    Have `func(msg)` called for each message to `handle` of ours. Dead ones,
    which a closing router sends to all its handlers, are kept from it.
    """
    def on_message(msg):
        if not msg.is_dead:
            func(msg)

    router.add_handler(on_message, handle, policy=policy, overwrite=overwrite)


class Throttle(object):
    """
    Stands before the handler of requests whose answers are large. It keeps a
    child that asks and does not read from filling our memory: its requests
    wait until it has read some, and what is too much to wait is dropped.

    Broker thread only.

    :param Router router: whose requests these are.
    :param func: handler.
    """
    #: Bytes of answers that may wait for one child.
    pending_max = 64 * 1048576

    #: Requests that may wait. A child of ours never has that many.
    waiting_max = 1000

    #: Seconds between two looks at a request that waits.
    delay = 0.1

    def __init__(self, router, func):
        self._router = router
        self._func = func
        self._waiting = 0

    def __call__(self, msg):
        stream = None if msg.is_dead else self._router.stream_by_id(msg.src_id)
        if stream is None or \
                stream.protocol.pending_bytes() < self.pending_max:
            self._func(msg)
        elif self._waiting >= self.waiting_max:
            LOG.error('dropping a request: %r does not read the answers',
                      stream)
        else:
            self._waiting += 1
            self._router.broker.timers.schedule(
                mitogen.core.now() + self.delay, lambda: self._again(msg))

    def _again(self, msg):
        self._waiting -= 1
        # Timers do not catch what a function raises.
        self._router._call_handler(self, msg)


#: Longest name of a module, or of a file in a package, that may be asked for.
REQUEST_MAX = 1000

#: How many answers that there is no such thing are kept.
ABSENT_MAX = 10000


def is_sane_resource(request):
    """
    Return whether the content of GET_RESOURCE is two names.
    """
    return type(request) is tuple and len(request) == 2 and all(
        isinstance(word, mitogen.core.AnyTextType) and len(word) <= REQUEST_MAX
        for word in request)
