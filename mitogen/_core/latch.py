# SPDX-License-Identifier: BSD-3-Clause
"""
_LatchBase: a queue that threads wait at.
"""

from __future__ import absolute_import  # house

from mitogen.core import Poller  # house


class _LatchBase(object):
    """
    Closable first in, first out queue. Needs no broker; any thread.
    """
    #: How Python 2 waits. `mitogen.parent` sets one that knows high fds.
    poller_class = Poller
    #: As a receiver's.
    _on_close = None
