# SPDX-License-Identifier: BSD-3-Clause
"""
Context, as seen by a parent: calls, and its end.
"""

from __future__ import absolute_import  # house

import mitogen.core  # house
from mitogen.parent import CallChain, LOG  # house


class Context(mitogen.core.Context):
    """
    A context that functions can be called in. Two of them are equal if they
    have the same router and id.

    :ivar via: the context that was asked to start this one, or None.
    """
    via = None
    call_chain_class = CallChain

    def __init__(self, router, context_id, name=None):
        super(Context, self).__init__(router, context_id, name)
        self.default_call_chain = self.call_chain_class(self)

    def _identity(self):
        return self.router, self.context_id

    def __hash__(self):
        return hash(self._identity())

    def __eq__(self, other):
        if not isinstance(other, mitogen.core.Context):
            return NotImplemented
        return self._identity() == (other.router, other.context_id)

    def __ne__(self, other):
        return not self == other

    def call_async(self, fn, *args, **kwargs):
        """
        Have a function called and get a receiver: `CallChain.call_async`.
        """
        return self.default_call_chain.call_async(fn, *args, **kwargs)

    def call_no_reply(self, fn, *args, **kwargs):
        """
        Have a function called without answer: `CallChain.call_no_reply`.
        """
        self.default_call_chain.call_no_reply(fn, *args, **kwargs)

    def call(self, fn, *args, **kwargs):
        """
        Call a function there and return its result: `CallChain.call`. Any
        thread but the broker's.

        :param fn:
            A function of a module, or a class method or static method of a
            class there. Its module is imported there, and its name must lead
            to it.
        :param args, kwargs:
            Values of the types that may cross.
        :raises mitogen.core.CallError: the function raised.
        :raises mitogen.core.ChannelError: the context cannot be reached, or
            went away.
        """
        return self.default_call_chain.call(fn, *args, **kwargs)

    def shutdown(self, wait=False):
        """
        Ask the context to end. Its children end with it.

        :param bool wait: block until it is disconnected; not on the broker
            thread then.
        :raises mitogen.core.ChannelError: it refuses (only when waiting).
        :returns: if not waiting, a `mitogen.core.Latch` that gets None then.
        """
        LOG.debug('%r.shutdown(wait=%r)', self, wait)
        router = self.router
        latch = mitogen.core.Latch()
        answers = []

        def on_dead(msg):
            answers.append(msg)
            latch.put()

        # There is no reply to this request, but a dead message comes in its
        # place: when the context disconnects, when there is no way to it any
        # more, and when it refuses.
        handle = router.add_handler(on_dead, persist=False, respondent=self)
        stream = router.stream_by_id(self.context_id)
        if stream is not None and stream.protocol.remote_id == self.context_id:
            stream.asked = True
        try:
            self.send(mitogen.core.Message(handle=mitogen.core.SHUTDOWN,
                                           reply_to=handle))
        except Exception:
            try:
                router.del_handler(handle)
            except KeyError:
                # The broker has just exited.
                pass
            raise
        if not wait:
            return latch
        latch.get()
        msg, = answers
        unreachable = router.no_route_msg % (self.context_id, msg.src_id)
        if (msg.src_id != mitogen.context_id and
                msg.data != unreachable.encode('utf-8')):
            # The context still runs.
            msg.unpickle()
