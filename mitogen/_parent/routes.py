# SPDX-License-Identifier: BSD-3-Clause
"""
RouteMonitor: tell the neighbours which contexts are reached through this one.
"""

from __future__ import absolute_import  # house

import logging  # house
import re  # house

import mitogen  # house
import mitogen.core  # house
from mitogen.core import b, to_text  # house
from mitogen.parent import _Grants, _handle, _parse_id, is_immediate_child  # house


class RouteMonitor(object):
    """
    Keeps the routing table true as contexts come and go anywhere below us, and
    tells those who need to know: our parent of all changes, and a child of the
    end of any context that it has exchanged messages with.

    A child announces contexts behind it, but only with ids that it or they
    were handed, and each id once: see `_Grants`.

    Broker thread only.

    :param Router router: whose table it is.
    :param mitogen.core.Context parent: the parent to tell, or None.
    """
    #: How long a name may be that a child gives to a context behind it.
    name_max = 255

    _control_re = re.compile(u'[\x00-\x1f\x7f]')

    def __init__(self, router, parent=None):
        self.router = router
        self.parent = parent
        self._log = logging.getLogger('mitogen.route_monitor')
        self._routes_by_stream = {}   # stream -> set of ids behind it
        self._grants_by_stream = {}   # stream -> _Grants; the same streams
        self._made = set()            # ids whose Context was made here
        # Each child has a simple handler for the second from its start.
        _handle(router, mitogen.core.ADD_ROUTE, self._on_add_route,
                is_immediate_child, overwrite=True)
        _handle(router, mitogen.core.DEL_ROUTE, self._on_del_route,
                is_immediate_child, overwrite=True)
        if parent is not None:
            stream = router.stream_by_id(parent.context_id)
            if stream is not None:
                mitogen.core.listen(stream, 'disconnect', self._on_parent_lost)

    def __repr__(self):
        return '%s()' % (type(self).__name__,)

    def get_routes(self, stream):
        """
        Return the set of ids that are reached through `stream`.
        """
        return self._routes_by_stream.get(stream) or set()

    def asker(self, msg):
        """
        Return the id of the context that wants a block of ids: the sender of
        an ALLOCATE_ID, or the one that its payload names, if that is behind
        the sender.
        """
        asker = _parse_id(msg.data)
        way = self.router.stream_by_id
        if asker is None or way(asker) is not way(msg.src_id):
            return msg.src_id
        return asker

    def grant(self, stream, start, end, msg):
        """
        Note that the sender of `msg`, which came by `stream`, may give the ids
        from `start` to before `end` to its children.
        """
        if stream in self._grants_by_stream:
            self._grants_by_stream[stream].add(start, end, self.asker(msg))

    def gave(self, holder, target_id):
        """
        Return whether the context `holder`, which is below us, has announced a
        context with an id of its own.
        """
        grants = self._grants_by_stream.get(self.router.stream_by_id(holder))
        return (grants is not None and grants.holder(target_id) == holder and
                grants.was_used(target_id))

    def _send(self, stream, handle, target_id, name=None):
        words = [u'%d' % (target_id,)]
        if name:
            words.append(to_text(name))
        neighbour = stream.protocol
        neighbour.send(mitogen.core.Message(
            dst_id=neighbour.remote_id,
            handle=handle,
            data=u':'.join(words).encode('utf-8'),
        ))

    def _send_up(self, handle, target_id, name=None):
        """
        Tell our parent, and with it the name of a new context, or why one was
        lost.
        """
        if self.parent is None:
            return
        # None after detaching.
        stream = self.router.stream_by_id(self.parent.context_id)
        if stream is not None:
            if handle == mitogen.core.DEL_ROUTE and self.router._is_client:
                # A listener of upstream's release takes an id only.
                name = None
            self._send(stream, handle, target_id, name)

    def _send_del_down(self, target_id):
        """
        Tell each child that has sent something to `target_id` that nothing
        will be coming back.
        """
        # Each stream is asked. To search the table of routes would take long
        # for a child with very many routes, whose loss removes each of them.
        streams = getattr(self.router, 'neighbours', self.router.get_streams)
        for stream in streams():
            protocol = stream.protocol
            if (protocol.remote_id != mitogen.parent_id and
                    target_id in protocol.egress_ids):
                self._send(stream, mitogen.core.DEL_ROUTE, target_id)

    def _fire_disconnect(self, target_id):
        context = self.router.context_by_id(target_id, create=False)
        if context is not None:
            self.router._tell_lost(context)
            if target_id in self._made:
                # Forget the id: a child could name new ones for ever, and each
                # is used once.
                self._made.discard(target_id)
                self.router._context_by_id.pop(target_id, None)
        else:
            self.router._lose(target_id)

    def notice_stream(self, stream):
        """
        Begin to look after a new child's stream.
        """
        remote_id = stream.protocol.remote_id
        self._routes_by_stream[stream] = set([remote_id])
        self._grants_by_stream[stream] = _Grants()
        self._send_up(mitogen.core.ADD_ROUTE, remote_id, stream.name)
        mitogen.core.listen(
            stream, 'disconnect', lambda: self._on_stream_disconnect(stream))

    def _on_stream_disconnect(self, stream):
        routes = self._routes_by_stream.pop(stream, None)
        if routes is None:
            # The signal may repeat.
            return
        del self._grants_by_stream[stream]
        self._log.debug('%r is gone, and the routes %r with it',
                        stream, routes)
        for target_id in sorted(routes):
            if self._leads_elsewhere(target_id, stream):
                # The program has given the context another route.
                continue
            self.router.del_route(target_id)
            self._send_up(mitogen.core.DEL_ROUTE, target_id, getattr(stream, 'why', None))
            self._send_del_down(target_id)
            self._fire_disconnect(target_id)

    def _leads_elsewhere(self, target_id, stream):
        """
        Return whether there is a route to `target_id` by another stream than
        `stream`, down the tree.
        """
        current = self.router.stream_by_id(target_id)
        return (current is not None and current is not stream and
                current.protocol.remote_id != mitogen.parent_id)

    def _on_parent_lost(self):
        """
        Tell the children that they cannot reach the rest of the tree any more.
        If we are to end, they will, too; if we have detached, they live on.
        """
        ours = set([mitogen.context_id])
        for stream in self.router.get_streams():
            if stream.protocol.remote_id != mitogen.parent_id:
                ours |= self.get_routes(stream)
        for stream in self.router.get_streams():
            if stream.protocol.remote_id != mitogen.parent_id:
                for target_id in stream.protocol.egress_ids - ours:
                    self._send(stream, mitogen.core.DEL_ROUTE, target_id)

    def _parse(self, msg):
        """
        Return (stream, id, name or None), or None for a message that cannot be
        used.
        """
        stream = self.router.stream_by_id(msg.src_id)
        id_text, _, name = mitogen.core.bytes_partition(msg.data, b(':'))
        target_id = _parse_id(id_text)
        if stream is None or target_id is None:
            self._refuse(stream, 'ignoring unusable route message %r', msg)
            return None
        return stream, target_id, self._clean_name(name)

    def _clean_name(self, name):
        """
        Return the part of a name that may be used, or None. A child gives it
        to a context, as UTF-8 bytes, and it becomes a part of the names of
        loggers.
        """
        name = name.decode('utf-8', 'replace')[:self.name_max]
        return self._control_re.sub(u'?', name) or None

    def _why_not(self, stream, target_id):
        """
        Return why no route by `stream` to `target_id` is accepted, or None.
        """
        grants = self._grants_by_stream[stream]
        if target_id == mitogen.context_id or target_id in mitogen.parent_ids:
            # Messages of those ids carry authority over us.
            return 'that has authority here'
        if grants.holder(target_id) is None:
            return 'that id was not handed out by this way'
        if grants.was_used(target_id):
            return 'another context had that id'

    #: Refusals of one child that are logged, in a second.
    _refusals_logged = 50

    def _refuse(self, stream, text, *args):
        tell, more = mitogen.core._may_log_now(
            self if stream is None else stream, 'route', self._refusals_logged)
        if tell:
            self._log.error(text + '%s', *(args + (more,)))

    def _on_add_route(self, msg):
        parsed = self._parse(msg)
        if parsed is None:
            return
        stream, target_id, name = parsed
        if stream not in self._routes_by_stream:
            self._refuse(stream, '%r may not add routes: it is no child of '
                         'ours', stream)
            return
        if self._leads_elsewhere(target_id, stream):
            self._refuse(stream, 'cannot add a second route to %d via %r: '
                         'there is one via %r', target_id, stream,
                         self.router.stream_by_id(target_id))
            return
        why_not = self._why_not(stream, target_id)
        if why_not:
            self._refuse(stream, '%r may not add a route to %d: %s',
                         stream, target_id, why_not)
            return
        if len(self._routes_by_stream[stream]) >= self.router.limits.routes:
            self.router.refuse(stream, 'routes', 'it may not add a route to '
                               '%d: it has as many as it may have', target_id)
            return

        self._log.debug('adding route to %d via %r', target_id, stream)
        if self.router.context_by_id(target_id, create=False) is None:
            self._made.add(target_id)
        # Its parent decides the name. A message may have named it otherwise before.
        self.router.context_by_id(target_id).name = name
        self._grants_by_stream[stream].use(target_id)
        self._routes_by_stream[stream].add(target_id)
        self.router.add_route(target_id, stream)
        self._send_up(mitogen.core.ADD_ROUTE, target_id, name)

    def _on_del_route(self, msg):
        parsed = self._parse(msg)
        if parsed is None:
            return
        stream, target_id, why = parsed
        current = self.router.stream_by_id(target_id)
        if current is None:
            return
        if current is not stream or target_id == stream.protocol.remote_id:
            self._refuse(stream, '%r may not remove the route to %d: it is via '
                         '%r', stream, target_id, current)
            return

        self._log.debug('removing route to %d via %r', target_id, stream)
        context = self.router.context_by_id(target_id, create=False)
        if context is not None:
            self.router._note_loss(context, u'says %r%s' % (
                stream.name, u': ' + why if why else u''))
        routes = self._routes_by_stream.get(stream)
        if routes is not None:
            routes.discard(target_id)
        # The route goes first, so that no listener finds it any more.
        self.router.del_route(target_id)
        self._fire_disconnect(target_id)
        # Our parent told us, so it need not be told.
        told_by_parent = stream.protocol.remote_id == mitogen.parent_id
        if not told_by_parent:
            self._send_up(mitogen.core.DEL_ROUTE, target_id, why)
        self._send_del_down(target_id)
