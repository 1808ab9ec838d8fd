# SPDX-License-Identifier: BSD-3-Clause
"""
_Forwarder: the base of the classes that forward data of the parent to
children.
"""

from __future__ import absolute_import  # house

import mitogen.core  # house


class _Forwarder(object):
    """
    Serves children from a cache of the parent's answers.

    :param Router router: of this context.
    :param mitogen.core.Context parent_context: our parent.
    """
    def __init__(self, router, parent_context):
        self.parent_context = parent_context
        self.router = router

    def __repr__(self):
        return type(self).__name__

    def _stream_to(self, child_id):
        """
        Return the stream to a direct child, or None if it has gone.
        """
        stream = self.router.stream_by_id(child_id)
        if stream is not None and stream.protocol.remote_id == child_id:
            return stream
        return None

    def _send(self, stream, handle, *objs):
        """Send pickled objects to the other end of a stream."""
        self.router._async_route(mitogen.core.Message.pickled(
            *objs, dst_id=stream.protocol.remote_id, handle=handle))
