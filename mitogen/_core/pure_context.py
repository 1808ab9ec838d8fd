# SPDX-License-Identifier: BSD-3-Clause
"""
The pure leaf of Context: how a message is sent there.
"""

from __future__ import absolute_import  # house

from mitogen.core import _chosen, _ContextBase, _seldom, Receiver, thread  # house


@_chosen
class Context(_ContextBase):
    #: The `auth_id` of messages to this context; None: our own.
    auth_id = None

    def send(self, msg):
        """Send `msg` there."""
        msg.dst_id = self.context_id
        if self.auth_id is not None:
            self._lower(msg)
        self.router.route(msg)

    @_seldom
    def send_async(self, msg, persist=False):
        """
        Send `msg` and return a :class:`Receiver` for the reply. Any thread.

        :param bool persist: keep the receiver's handle after the first reply.
        """
        asking = getattr(getattr(self.router, '_lost_ids', None), 'asking', set())
        ident = thread.get_ident()
        asking.add(ident)
        try:
            receiver = Receiver(self.router, persist=persist, respondent=self)
        finally:
            asking.discard(ident)
        msg.reply_to = receiver.handle
        try:
            self.send(msg)
        except Exception:
            receiver.close()
            raise
        return receiver
