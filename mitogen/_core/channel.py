# SPDX-License-Identifier: BSD-3-Clause
"""
Channel: a receiver and a sender in one, for old programs.
"""

from __future__ import absolute_import  # house

from mitogen.core import _seldom, Receiver, Sender  # house


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
