# SPDX-License-Identifier: BSD-3-Clause
"""
The contexts that a handler obeys.
"""

from __future__ import absolute_import  # house

import mitogen  # house


def has_parent_authority(msg, _stream=None):
    """Handler policy: accept what this process or an ancestor authorized."""
    return _has_parent_authority(msg.auth_id)


def _has_parent_authority(context_id):
    return (context_id == mitogen.context_id or
            context_id in mitogen.parent_ids)


def _is_neighbour(msg, stream):
    # With its own authority: it does not forward a message of another context.
    return stream is not None and msg.src_id == stream.protocol.remote_id and \
        msg.auth_id in (msg.src_id, stream.protocol.auth_id)
