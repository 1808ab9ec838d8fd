# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: F821
"""
Context: another process of the tree, as seen from here.
"""

from __future__ import absolute_import  # house

from mitogen.core import _is_int, _seldom, BytesType, CALL_SERVICE, fire, Kwargs, LOG, Message, Receiver  # house
from mitogen.core import to_text, UnicodeType  # house


class Context(object):
    """Another context of the tree, as seen from here. Any thread."""
    #: Readers refuse a longer name.
    NAME_MAX_LEN = 500
    remote_name = None

    def __init__(self, router, context_id, name=None):
        """
        :param Router router: by which it is reached.
        :param name: text for people, or None.
        """
        self.name = to_text(name) if name else None
        self.context_id = context_id
        self.router = router

    @_seldom
    def __repr__(self):
        return 'Context(%s, %r)' % (self.context_id, self.name)

    @_seldom
    def __reduce__(self):
        name = self.name
        return _unpickle_context, (self.context_id, name and to_text(name))

    def on_disconnect(self):
        """The context cannot be reached any more. Broker thread."""
        LOG.debug('%r: disconnected', self)
        fire(self, 'disconnect')

    def send(self, msg):
        """Send `msg` there."""
        msg.dst_id = self.context_id
        self.router.route(msg)

    @_seldom
    def send_async(self, msg, persist=False):
        """
        Send `msg` and return a :class:`Receiver` for the reply. Any thread.

        :param bool persist: keep the receiver's handle after the first reply.
        """
        receiver = Receiver(self.router, persist=persist, respondent=self)
        msg.reply_to = receiver.handle
        try:
            self.send(msg)
        except Exception:
            receiver.close()
            raise
        return receiver

    @_seldom
    def send_await(self, msg, deadline=None):
        """Send `msg` and return the reply's object; `deadline` in seconds
        from now. Never on the broker thread."""
        return self.send_async(msg).get(deadline).unpickle()

    @_seldom
    def call_service_async(self, service_name, method_name, **kwargs):
        """
        Call a service, named by text or by its class, and return a
        :class:`Receiver` for the result. Any thread.

        :param str method_name: text; keyword arguments go to that method.
        """
        if isinstance(service_name, BytesType):
            service_name = to_text(service_name)
        elif not isinstance(service_name, UnicodeType):
            service_name = to_text(service_name.name())
        return self.send_async(Message.pickled(
            (service_name, to_text(method_name), Kwargs(kwargs)),
            handle=CALL_SERVICE))

    @_seldom
    def call_service(self, service_name, method_name, **kwargs):
        """
        As :meth:`call_service_async`, and wait for the result. Not on the
        broker thread.

        :raises CallError: the method, or its policy, raised.
        :raises ChannelError: the context cannot be reached, or went away.
        """
        return self.call_service_async(
            service_name, method_name, **kwargs).get().unpickle()


@_seldom
def _unpickle_context(context_id, name, router=None):
    named = (isinstance(name, UnicodeType) and
             len(name) <= Context.NAME_MAX_LEN)
    if not _is_int(context_id, 0) or not (named or name is None):
        raise TypeError('bad Context')
    if not isinstance(router, Router):
        return Context(None, context_id, name)
    return router.context_by_id(context_id, name=name)
