# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: F821
"""
Sender and Channel: the other end of a receiver, which may itself be sent.
"""

from __future__ import absolute_import  # house

from mitogen.core import _seldom, integer_types, Message, Receiver  # house


@_seldom
class Sender(object):
    """Send to one handle of a context. Any thread; may itself be sent."""
    explicit_close_msg = 'Sender was explicitly closed'

    def __init__(self, context, dst_handle):
        self.context = context
        self.dst_handle = dst_handle

    def __repr__(self):
        return 'Sender(%r, %r)' % (self.context, self.dst_handle)

    def __reduce__(self):
        return _unpickle_sender, (self.context.context_id, self.dst_handle)

    def send(self, data, enc=Message.ENC_PKL):
        """
        Send `data`, which is pickled; or bytes as they are, if `enc` is
        ENC_BIN. May wait for room where the core has a high-water mark.

        :raises Error: the broker has exited.
        """
        self.context.send(Message.encoded(data, enc, handle=self.dst_handle))

    def close(self):
        """Tell the receiver that nothing more will come."""
        self.context.send(Message.dead(self.explicit_close_msg,
                                       handle=self.dst_handle))


@_seldom
def _is_int(value, least):
    return isinstance(value, integer_types) and value >= least


@_seldom
def _unpickle_sender(router, context_id, dst_handle):
    if (_is_int(context_id, 0) and _is_int(dst_handle, 1) and
            isinstance(router, Router)):
        return Sender(Context(router, context_id), dst_handle)
    raise TypeError('bad Sender, or nothing to send by')


@_seldom
class Channel(Sender, Receiver):
    """A receiver, and the sender to its counterpart in another context."""

    def __init__(self, router, context, dst_handle, handle=None):
        """
        :param Context context: where the counterpart is.
        :param int dst_handle: its handle.
        :param int handle: the receiver's, None for a new one.
        """
        Receiver.__init__(self, router, handle)
        Sender.__init__(self, context, dst_handle)

    def __repr__(self):
        return 'Channel(%s, handle=%r)' % (Sender.__repr__(self), self.handle)

    def close(self):
        Receiver.close(self)
        Sender.close(self)
