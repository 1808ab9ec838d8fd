# SPDX-License-Identifier: BSD-3-Clause
"""
_Server: base of the classes that answer requests of children.
"""

from __future__ import absolute_import  # house

import mitogen.parent  # house


class _Server(object):
    """
    Base of the classes that answer the messages to one handle, on the broker
    thread.

    :param respond:
        Function to call with each message.
    :param policy:
        Handler policy.
    """
    def __init__(self, router, handle, respond, policy=None):
        self._router = router
        mitogen.parent._handle(router, handle, respond, policy)

    def __repr__(self):
        return type(self).__name__

    def _stream_of(self, msg):
        """
        Return the stream a request came by, :data:`None` if there is nobody
        to answer.
        """
        return None if msg.is_dead else self._router.stream_by_id(msg.src_id)
