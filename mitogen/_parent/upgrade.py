# SPDX-License-Identifier: BSD-3-Clause
"""
A child that becomes a parent.
"""

from __future__ import absolute_import  # house

import logging  # house
import socket  # house

import mitogen  # house
import mitogen.core  # house
from mitogen.core import to_text  # house
from mitogen.parent import _error_text, _upgrade_lock, get_connection_class, LOG, PREFERRED_POLLER  # house
from mitogen.parent import Router, TimerList  # house


#
# Children as parents
#

def _upgrade_broker(broker):
    """
    Give a broker of a child timers and a poller for many streams. Broker
    thread.
    """
    broker.timers = TimerList()
    if getattr(broker.poller, 'native', False):
        return

    # A record that is logged half way through would be queued on a stream, and
    # have that stream watched by the poller that is about to go.
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        old = broker.poller
        new = PREFERRED_POLLER()
        # Deregistered, files yield nothing more from the round of the old
        # poller that we are called from. They are still ready in the next.
        for fd, data in list(old.readers):
            new.start_receive(fd, data)
            old.stop_receive(fd)
        for fd, data in list(old.writers):
            new.start_transmit(fd, data)
            old.stop_transmit(fd)
        broker.poller = new
        old.close()
    finally:
        logging.disable(disabled)
    LOG.debug('%r: poller is now %r', broker, new)


@mitogen.core.takes_econtext
def upgrade_router(econtext):
    """
    Make it possible for a child to have children of its own. To be called in
    the child, on any thread but the broker's; a call after the first does
    nothing.

    :param mitogen.core.ExternalContext econtext: filled in by the dispatcher.
    """
    # For children of our own. One that was sent the core has no other.
    mitogen.__build__ = econtext.config.get('build', '')

    def upgrade():
        _upgrade_broker(econtext.broker)
        # All that hold the router go on holding the same one.
        econtext.router.__class__ = Router
        econtext.router.upgrade(
            importer=econtext.importer,
            parent=econtext.parent,
        )
        if 'stalled_seconds' in econtext.config:
            econtext.router.limits.stalled_seconds = \
                econtext.config['stalled_seconds']

    with _upgrade_lock:
        if not isinstance(econtext.router, Router):
            econtext.broker.defer_sync(upgrade)


@mitogen.core.takes_econtext
def _proxy_connect(name, method_name, kwargs, econtext):
    """
    Start a child on behalf of another context, see `Router.proxy_connect`.

    :returns: dict of `id` and `name` of the new context, and `msg`, the text
        of the failure, of which one or the other is None. `kind` is the name
        of its class; `detail` and `facts` tell more.
    """
    upgrade_router(econtext)
    reply = {u'id': None, u'name': None, u'msg': None, u'detail': u'',
             u'kind': None}
    klass = get_connection_class(method_name)
    try:
        child = econtext.router._connect(klass, name=name, **kwargs)
    except mitogen.core.StreamError as e:
        reply[u'msg'] = u'error occurred on host %s: %s' % (
            to_text(socket.gethostname()), _error_text(e))
        reply[u'detail'] = getattr(e, 'detail', u'')
        reply[u'kind'] = to_text(type(e).__name__)
        reply[u'facts'] = getattr(e, 'facts', None)
    else:
        reply[u'id'], reply[u'name'] = child.context_id, child.name
    return reply


#: The main thread may be in a call.
_proxy_connect._call_handle = mitogen.core.CALL_AT_ONCE
