# SPDX-License-Identifier: BSD-3-Clause
"""
_ReceiverBase: the queue of the messages that arrive at a handle.
"""

from __future__ import absolute_import  # house

import mitogen  # house
from mitogen.core import _seldom, ChannelError  # house


class _ReceiverBase(object):
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
    #: False to have `get` hand dead messages out.
    raise_channelerror = True
    #: Called without arguments when it is closed: by a select.
    _on_close = None
    _failed = False
    closed_msg = 'the Receiver has been closed'

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
        return mitogen.core.Sender(self.router.myself(), self.handle)

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
            if self._on_close:
                self._on_close()

    @_seldom
    def empty(self):
        """Whether :meth:`size` is 0 at this moment; raises as that does."""
        return self.size() == 0

    def __iter__(self):
        """Yield messages until a dead one or `close`. If the call that sends
        them has failed, raise a ChannelError with the reason."""
        while True:
            try:
                msg = self.get()
            except ChannelError:
                if self._failed:
                    raise
                return
            yield msg
            # Not held while waiting for the next: it may be large.
            msg = None
