# SPDX-License-Identifier: BSD-3-Clause
"""
The pure leaf of Receiver: its latch, and a limit to the bytes that wait there.
"""

from __future__ import absolute_import  # house

from mitogen.core import _chosen, _ReceiverBase, _seldom, ChannelError, Latch, LatchError, Message, thread  # house


@_chosen
class Receiver(_ReceiverBase):
    #: Called with the receiver after each message, on the broker thread.
    notify = None
    max_bytes = None

    def __init__(self, router,
                 handle=None,       # int; None for a new one
                 persist=True,      # keep it after the first message
                 respondent=None,   # the Context that alone may send, and
                                    # whose loss delivers a dead message
                 policy=None,       # as in Router.add_handler
                 overwrite=False,   # take the handle from another function
                 max_bytes=None):   # how much may wait here, with headers
        if max_bytes is not None:
            self._limit(max_bytes)
        self._latch = Latch()
        self.router = router
        self.handle = router.add_handler(
            self._on_receive, handle, persist=persist, policy=policy,
            respondent=respondent, overwrite=overwrite)

    @_seldom
    def _limit(self, max_bytes):
        if max_bytes < 1:
            raise ValueError('max_bytes must be at least 1')
        self._size_lock = thread.allocate_lock()
        #: Bytes that wait, and whether some were refused since a message was
        #: taken.
        self._bytes = 0
        self._overflowed = False
        self.max_bytes = max_bytes

    @_seldom
    def _note_taken(self, msg):
        with self._size_lock:
            self._bytes -= msg.__dict__.pop('_counted', 0)
            self._overflowed = False

    @_seldom
    def _refused(self, msg):
        """Count a message. If there is no room for it, return true, and tell
        its sender and our reader."""
        if msg.is_dead and not msg.router:
            # Made here, since the respondent is lost: nothing would come after
            # it.
            return False
        size = Message.HEADER_LEN + len(msg.data)
        with self._size_lock:
            full = self._bytes and self._bytes + size > self.max_bytes
            first = full and not self._overflowed
            if full:
                self._overflowed = True
            else:
                self._bytes += size
                msg._counted = size
        if full:
            reason = self.router.full_msg % (self.max_bytes,)
            self.router._maybe_send_dead(True, msg, reason)
            if first:
                self._latch.put(Message.dead(reason))
        return full

    def _on_receive(self, msg):
        if self.max_bytes and self._refused(msg):
            return
        try:
            self._latch.put(msg)
        except LatchError:
            # Another thread has closed it just now.
            return self.router._maybe_send_dead(True, msg, self.router.invalid_handle_msg)
        if self.notify:
            self.notify(self)

    @_seldom
    def size(self):
        """
        Return how many messages wait here.

        :raises LatchError: closed.
        """
        return self._latch.size()

    def get(self, timeout=None, block=True, throw_dead=True):
        """
        Return the next message. Not on the broker thread, if it may wait.

        :param timeout: seconds, None for no limit; 0 does not wait.
        :param bool block: false is the same as a `timeout` of 0.
        :param bool throw_dead: raise for a dead message, do not return it.
        :raises ChannelError: closed, or the message is dead and `throw_dead`.
        :raises TimeoutError: as :meth:`Latch.get`.
        """
        try:
            msg = self._latch.get(timeout, block)
        except LatchError:
            raise ChannelError(self.closed_msg)
        if self.max_bytes:
            self._note_taken(msg)
        if throw_dead and msg.is_dead and self.raise_channelerror:
            msg._throw_dead()
        return msg
