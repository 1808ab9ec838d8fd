# SPDX-License-Identifier: BSD-3-Clause
"""
_SenderBase: the other end of a receiver, which may itself be sent.
"""

from __future__ import absolute_import  # house

import mitogen  # house
from mitogen.core import _seldom  # house


@_seldom
class _SenderBase(object):
    """Send to one handle of a context. Any thread; may itself be sent."""
    explicit_close_msg = 'Sender was explicitly closed'

    def __init__(self, context, dst_handle):
        self.context = context
        self.dst_handle = dst_handle

    def __repr__(self):
        return 'Sender(%r, %r)' % (self.context, self.dst_handle)

    def __reduce__(self):
        args = self.context.context_id, self.dst_handle
        if self.context.auth_id is not None:
            args += self.context.auth_id,
        return mitogen.core._unpickle_sender, args

    def close(self):
        """Tell the receiver that nothing more will come."""
        self.context.send(mitogen.core.Message.dead(
            self.explicit_close_msg, handle=self.dst_handle))
