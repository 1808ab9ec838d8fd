# SPDX-License-Identifier: BSD-3-Clause
"""
_MitogenProtocolBase: a neighbour's id, authority and counters.
"""

from __future__ import absolute_import  # house

import mitogen  # house
from mitogen.core import Protocol  # house


class _MitogenProtocolBase(Protocol):
    """
    Frames, to and from a neighbour.

    :param int remote_id: the neighbour's context.
    :param auth_id: stamped on whatever arrives, or None.
    :param local_id: default this context.
    :param parent_ids: default those of this context.
    """
    corrupt_msg = (
        '%s: Corruption detected: frame signature incorrect. This often means '
        'some external process is interfering with the connection. Received:'
        '\n\n%r')

    def __init__(self, router, remote_id, auth_id=None,
                 local_id=None, parent_ids=None):
        if local_id is None:
            local_id = mitogen.context_id
        if parent_ids is None:
            parent_ids = mitogen.parent_ids
        self._router = router
        self._begin(remote_id)
        self.auth_id = auth_id
        self.is_privileged = (remote_id in parent_ids or
                              auth_id in [local_id] + list(parent_ids))
        #: Names of the modules the neighbour has been sent.
        self.sent_modules = set(['mitogen', 'mitogen.core'])

    def send(self, msg):
        """Write `msg` to the neighbour, whatever its destination. Any
        thread."""
        self._send(msg)

    def on_shutdown(self, broker):
        """Stay open: logs and output still come while the process ends."""
        pass
