# SPDX-License-Identifier: BSD-3-Clause
"""
ChildIdAllocator: ids of contexts, from blocks that the master reserves.
"""

from __future__ import absolute_import  # house

import threading  # house

import mitogen.core  # house
from mitogen.parent import LOG  # house


class ChildIdAllocator(object):
    """
    Hands out context ids from blocks that the master reserves for us.

    :param Router router: that is asked through.
    """
    def __init__(self, router):
        self.router = router
        self._lock = threading.Lock()
        self._ids = iter(())   # guarded by _lock

    def __repr__(self):
        return 'ChildIdAllocator(%r)' % (self.router,)

    def allocate(self):
        """
        Return the next id. Blocks for the master when a block is used up, so
        not on the broker thread.
        """
        with self._lock:
            for id_ in self._ids:
                return id_
            request = mitogen.core.Message(handle=mitogen.core.ALLOCATE_ID)
            master = self.router.context_by_id(0)
            start, end = master.send_await(request)
            LOG.debug('%r: received ids %d to %d', self, start, end - 1)
            self._ids = iter(range(start + 1, end))
            return start
