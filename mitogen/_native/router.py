# SPDX-License-Identifier: BSD-3-Clause
"""
The compiled leaf of Router: the tables are the engine's.
"""

from __future__ import absolute_import  # house

import time  # house

import mitogen  # house
import _mitogen_core as _c  # house
from mitogen._native import _routers, Context, core, LOG, Poller  # house


#: In the order of `mg_reason`; the names of the texts, which are class
#: attributes that a program may replace.
_TEXTS = ('invalid_handle_msg', 'refused_msg', 'unexpected_msg',
          'no_route_msg', 'unidirectional_msg', 'too_large_msg',
          'respondent_disconnect_msg', 'broker_exit_msg', 'full_msg')
_BAD_AUTH, _BAD_SRC = len(_TEXTS), len(_TEXTS) + 1

_NATIVE_POLICIES = core.has_parent_authority, core._is_neighbour


def _stream_of(link):
    return link.protocol.stream if link is not None else None


class Router(core._RouterBase, _c.Router):
    # The name that pickles and programs know.
    __module__ = 'mitogen.core'
    context_class = Context
    #: Bytes that may wait for one stream before its senders have to wait and
    #: the streams that feed it are not read.
    high_water = _c.HIGH_WATER
    #: Messages refused by Python; the engine counts its own.
    refused = 0

    def __init__(self, broker):
        poller = getattr(broker, 'poller', None)
        if isinstance(poller, Poller):
            self._open(poller._loop)
        else:
            # A broker of another kind (in tests): a loop that nobody runs.
            self._open(_c.Loop())
        for reason, name in enumerate(_TEXTS):
            self._set_text(reason, getattr(self, name))
        self._tell_identity()
        core._remember(_routers, self)
        self.broker = broker
        self._write_lock = core._RLock()
        self._context_by_id = {}
        #: Contexts that some handler waited for.
        self._respondent_ids = set()
        self._losses_mark = object()
        self.max_message_size = self.max_message_size
        self.unidirectional = self.unidirectional
        core.listen(broker, 'exit', self._on_broker_exit)
        core.listen(broker, '_fork', self._on_fork)
        self.add_handler(self._on_del_route, core.DEL_ROUTE,
                         policy=core._is_neighbour)

    def __setattr__(self, name, value):
        _c.Router.__setattr__(self, name, value)
        if name in ('max_message_size', 'high_water'):
            # Any number will do, infinity too.
            self._set_limits(*(int(min(limit, 1 << 62)) for limit in (
                self.max_message_size, self.high_water)))
        elif name == 'unidirectional':
            self._set_unidirectional(value)
        elif name in _TEXTS:
            self._set_text(_TEXTS.index(name), value)

    def _tell_identity(self):
        self._set_identity(mitogen.context_id, mitogen.parent_id,
                           mitogen.parent_ids)

    @property
    def _stream_by_id(self):
        return dict((context_id, _stream_of(link))
                    for context_id, link in self._routes().items())

    @property
    def _handles_by_respondent(self):
        table = {}
        for handle, entry in self._handle_map.items():
            if entry[4] is not None:
                table.setdefault(entry[4], set()).add(handle)
        return table

    def _streams(self):
        """Return a snapshot of all streams, each once."""
        return list(dict.fromkeys(map(_stream_of, self._routes().values())))

    def _add_route(self, target_id, stream):
        self._put_route(target_id, stream.protocol._opened_link())

    def stream_by_id(self, dst_id):
        """Return the stream that leads to a context, or up, or None."""
        if dst_id is None:
            # This process has no parent, or has lost it.
            return None
        return _stream_of(self._get_route(dst_id, True))

    def register(self, context, stream):
        """Make `stream` the way to `context` and start to read from it."""
        self._context_by_id[context.context_id] = context
        self._add_route(context.context_id, stream)
        self.broker.start_receive(stream)
        self._watch_stream(context, stream)

    def _end_receivers(self):
        mitogen.core._pure['Router']._end_receivers(self)

    def _on_stream_disconnect(self, stream, own_id=None):
        lost = [context_id for context_id, link in self._routes().items()
                if link.protocol is stream.protocol]
        for context_id in lost:
            self._del_route(context_id)
        self._fire_lost(stream, lost, own_id, self._routes())

    def _on_late_handler(self):
        """A handler was added after the loop was closed."""
        if self._gone:
            self._on_broker_exit()

    def _watch_respondent(self, respondent):
        """Have the loss of a context reach the handlers that wait for it.
        Called for each context that is a respondent, again after each loss of
        any, and each time for one that is lost."""
        mark = self._losses_mark
        known = self._canonical(respondent)
        self._respondent_ids.add(known.context_id)
        if known.__dict__.get('_watched_by') is not self:
            core.listen(known, 'disconnect',
                        lambda: self._on_respondent_disconnect(known))
            known._watched_by = self
        if not self._lost_ids or known.context_id not in self._lost_ids:
            # Last: it may raise MemoryError before.
            respondent._respondent_of = mark

    def _lose(self, context_id):
        core._RouterBase._lose(self, context_id)
        # Last: a handler that is added meanwhile looks once more.
        self._losses_mark = object()

    def _lost_handlers(self, respondent_id):
        while True:
            try:
                return self._take_handlers(respondent_id)
            except MemoryError:
                # The threads that wait there have to be told, if later.
                time.sleep(0.01)

    def _tell(self, handle, entry, msg):
        """Give a handler a dead message that was made here."""
        # A receiver may serve many handles.
        msg.handle = handle
        self._call_handler(entry[1], msg)

    def _on_respondent_disconnect(self, context):
        if context.context_id not in self._respondent_ids:
            return
        self._respondent_ids.discard(context.context_id)
        for handle, entry in self._lost_handlers(context.context_id):
            self._tell(handle, entry, self._dead_respondent(context))

    def _on_broker_exit(self):
        ends = not self._gone
        # First: a thread that adds a handler from now on calls this again.
        self._gone = True
        for handle, entry in self._lost_handlers(None):
            self._tell(handle, entry, mitogen.core.Message.dead(self.broker_exit_msg))
        # Now nothing more is accepted. Not when called again: then this may be
        # any thread, and one only may take events.
        if ends and isinstance(self.broker.poller, Poller):
            self.broker.poller.finish()

    def _deliver(self, entry, msg, link):
        """Give a message to a handler that is Python. Broker thread."""
        _, func, policy, persist, _ = entry
        if policy is not None and policy not in _NATIVE_POLICIES:
            try:
                allowed = policy(msg, _stream_of(link))
            except Exception:
                LOG.exception('%r: policy %r crashed', self, policy)
                allowed = False
            if not allowed:
                return self._maybe_send_dead(True, msg, self.refused_msg)
            if not persist:
                try:
                    self.del_handler(msg.handle)
                except KeyError:
                    # Another message was first, or its receiver was closed
                    # on another thread just now.
                    return self._maybe_send_dead(True, msg,
                                                 self.invalid_handle_msg)
        self._call_handler(func, msg)

    def _async_route(self, msg, in_stream=None):
        if in_stream is None:
            self.route(msg)
        else:
            in_stream.protocol._opened_link().ingress(msg)
