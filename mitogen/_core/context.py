# SPDX-License-Identifier: BSD-3-Clause
"""
_ContextBase: another process of the tree, as seen from here.
"""

from __future__ import absolute_import  # house

import mitogen  # house
from mitogen.core import _SELDOM, _seldom, BytesType, CALL_SERVICE, fire, Kwargs, LOG, NOBODY  # house
from mitogen.core import to_text, UnicodeType  # house


if _SELDOM:
    #: Called with a context and values that are about to be sent there, where
    #: there is more than one router. Set by `mitogen.parent`.
    _value_check = None


class _ContextBase(object):
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
        args = self.context_id, name and to_text(name)
        if self.auth_id is not None:
            args += self.auth_id,
        return mitogen.core._unpickle_context, args

    @_seldom
    def _lower(self, msg):
        """Have `msg`, which goes there, carry the authority with which the
        context was named to us."""
        way = self.router.stream_by_id
        up = way(mitogen.parent_id)
        msg.auth_id = self.auth_id
        if up and self.context_id != mitogen.context_id and \
                way(self.context_id) is up and not self.router._is_client:
            # That authority gives no orders to contexts above, and our own
            # might.
            msg.auth_id = NOBODY

    def on_disconnect(self):
        """The context cannot be reached any more. Broker thread."""
        LOG.debug('%r: disconnected', self)
        fire(self, 'disconnect')

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
        if mitogen.core._value_check:
            mitogen.core._value_check(self, kwargs)
        return self.send_async(mitogen.core.Message.pickled(
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
