# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: F821
"""
Receiver: the queue of the messages that arrive at a handle.
"""

from __future__ import absolute_import  # house

from mitogen.core import _seldom, ChannelError, Latch, LatchError, Message, thread  # house


class Receiver(object):
    """
    Queue of the messages that arrive at a handle. Any thread; context
    manager.

    :param Router router:
    :param int handle: None for a new one.
    :param bool persist: keep the handle after the first message.
    :param Context respondent: who alone may send, and whose loss delivers a
        dead message.
    :param policy: as of :meth:`Router.add_handler`.
    :param bool overwrite: take the handle from whoever has it.
    :raises Error: the handle exists.
    """
    #: Called with the receiver after each message, on the broker thread.
    notify = None
    max_bytes = None
    #: False to have `get` hand dead messages out.
    raise_channelerror = True
    closed_msg = 'the Receiver has been closed'

    def __init__(self, router,
                 handle=None,       # int; None for a new one
                 persist=True,      # keep it after the first message
                 respondent=None,   # the Context that alone may send, and
                                    # whose loss delivers a dead message
                 policy=None,       # as in Router.add_handler
                 overwrite=False,   # take the handle from whoever has it
                 max_bytes=None):   # how much may wait here, with headers
        if max_bytes is not None:
            self._limit(max_bytes)
        self._latch = Latch()
        self.router = router
        self.handle = router.add_handler(
            self._on_receive, handle, persist=persist, policy=policy,
            respondent=respondent, overwrite=overwrite)

    @_seldom
    def __enter__(self):
        return self

    @_seldom
    def __exit__(self, *_exc):
        self.close()

    @_seldom
    def __repr__(self):
        return 'Receiver(handle=%r)' % (self.handle,)

    @_seldom
    def to_sender(self):
        """Return a :class:`Sender` to here, to be sent elsewhere."""
        return Sender(self.router.myself(), self.handle)

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
        """Take account of a message; return whether there is no room for it,
        and have its sender and our reader know."""
        if msg.is_dead and not msg.router:
            # Made here, of the end of what it waits for: nothing would come
            # after it.
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
        self._latch.put(msg)
        if self.notify:
            self.notify(self)

    def close(self):
        """Give the handle up and wake every waiting thread. Repeatable."""
        if self.handle:
            try:
                self.router.del_handler(self.handle)
            except KeyError:
                # Not persistent, and its message has come.
                pass
            self.handle = None
            self._latch.close()

    @_seldom
    def size(self):
        """
        Return how many messages wait here.

        :raises LatchError: closed.
        """
        return self._latch.size()

    @_seldom
    def empty(self):
        """Whether :meth:`size` is 0 at this moment; raises as that does."""
        return self._latch.empty()

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

    def __iter__(self):
        """Yield messages until a dead one or `close`."""
        while True:
            try:
                msg = self.get()
            except ChannelError:
                return
            yield msg
            # Not held while waiting for the next: it may be large.
            msg = None
