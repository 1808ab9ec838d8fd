# SPDX-License-Identifier: BSD-3-Clause
"""
ChildIdAllocator: ids of contexts, from blocks that the master reserves.
"""

from __future__ import absolute_import  # house

import threading  # house

import mitogen.core  # house
from mitogen.core import b, to_text  # house
from mitogen.parent import _handle, is_immediate_child, LOG  # house


class ChildIdAllocator(object):
    """
    Hands out context ids from blocks that our parent reserves for us, and
    blocks to children that ask for one. Each is the master's: parents pass the
    request on, and so know who may give which ids (`RouteMonitor.grant`).

    :param Router router: that is asked through.
    """
    _too_many_msg = 'too many context ids were asked for'

    def __init__(self, router):
        self.router = router
        self._lock = threading.Lock()
        self._ids = iter(())   # guarded by _lock
        _handle(router, mitogen.core.ALLOCATE_ID, self._on_allocate_id,
                is_immediate_child)

    def __repr__(self):
        return 'ChildIdAllocator(%r)' % (self.router,)

    def _parent(self):
        return self.router.context_by_id(mitogen.parent_id or 0)

    def allocate(self):
        """
        Return the next id. Blocks for the parent when a block is used up, so
        not on the broker thread.
        """
        with self._lock:
            for id_ in self._ids:
                return id_
            request = mitogen.core.Message(handle=mitogen.core.ALLOCATE_ID)
            start, end = self._parent().send_await(request)
            LOG.debug('%r: received ids %d to %d', self, start, end - 1)
            self._ids = iter(range(start + 1, end))
            return start

    def _on_allocate_id(self, msg):
        stream = self.router.stream_by_id(msg.src_id)
        asked = getattr(stream, 'id_blocks', 0)
        if stream is None:
            return
        if asked >= self.router.limits.id_blocks_below:
            # A child must not use up the blocks that our parent lets us have.
            self.router.refuse(stream, 'id_blocks_below',
                               'it asks for too many ids')
            self.router._maybe_send_dead(True, msg, self._too_many_msg)
            return
        stream.id_blocks = asked + 1

        def on_answer(answer):
            if answer.is_dead:
                msg.reply(mitogen.core.Message.dead(to_text(answer.data)))
                return
            start, end = answer.unpickle()
            # First: the child may use them at once.
            self.router.route_monitor.grant(stream, start, end, msg)
            msg.reply((start, end))

        parent = self._parent()
        parent.send(mitogen.core.Message(
            handle=mitogen.core.ALLOCATE_ID,
            reply_to=self.router.add_handler(on_answer, persist=False,
                                             respondent=parent),
            data=b('%d') % (self.router.route_monitor.asker(msg),)))
