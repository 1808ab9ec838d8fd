# SPDX-License-Identifier: BSD-3-Clause
"""
IdAllocator: hands out context ids.
"""

from __future__ import absolute_import  # house

import threading  # house

import mitogen.core  # house
import mitogen.parent  # house

from mitogen.master import _Server, LOG  # house


class IdAllocator(_Server):
    """
    Hand out context ids, one by one here and in blocks to children, which
    hand them out to theirs. An id is never used twice.
    """
    #: How many ids a child gets at once.
    BLOCK_SIZE = 1000

    used_up_msg = 'all context ids are in use'

    #: No context has this id or a larger one.
    _end = mitogen.core.NOBODY

    def __init__(self, router):
        self._lock = threading.Lock()
        #: The least id that nobody has. Guarded by `_lock`.
        self._unused = 1
        super(IdAllocator, self).__init__(
            router, mitogen.core.ALLOCATE_ID, self.on_allocate_id,
            # Others ask by way of their parent, which knows how much each has.
            mitogen.parent.is_immediate_child)

    def __repr__(self):
        return 'IdAllocator(%r)' % (self._router,)

    def _take(self, count):
        with self._lock:
            if self._unused + count > self._end:
                raise mitogen.core.Error(self.used_up_msg)
            self._unused += count
            return self._unused - count

    def allocate(self):
        """
        Return an unused context id. Any thread.
        """
        return self._take(1)

    def allocate_block(self):
        """
        Return `(start, end)` of a block of unused ids, which `end` is not
        part of. Any thread.
        """
        start = self._take(self.BLOCK_SIZE)
        return start, start + self.BLOCK_SIZE

    def on_allocate_id(self, msg):
        if msg.is_dead:
            return
        stream = self._stream_of(msg)
        if stream is not None:
            taken = getattr(stream, 'id_blocks', 0)
            if taken >= self._router.limits.id_blocks:
                # A child that asks for ever would leave none to others.
                self._router.refuse(stream, 'id_blocks',
                                    'it asks for too many ids')
                self._router._maybe_send_dead(True, msg, self.used_up_msg)
                return
            stream.id_blocks = taken + 1
        block = self.allocate_block()
        if stream is not None:
            self._router.route_monitor.grant(stream, block[0], block[1], msg)
        LOG.debug('%r: giving ids %d to %d to context %d', self, block[0],
                  block[1] - 1, msg.src_id)
        msg.reply(block)
