# SPDX-License-Identifier: BSD-3-Clause
"""
_RouterBase: the texts of refusals, contexts by id, and what happens when one is lost.
"""

from __future__ import absolute_import  # house

import time  # house

import mitogen  # house
from mitogen.core import _complete, _LostIds, _RLock, _seldom, _SELDOM, import_module, listen, LOG, thread  # house


class _RouterBase(object):
    """
    Know which stream leads to which context, and which function serves which
    handle.

    :param Broker broker:
    """
    #: Bytes of payload; larger messages are refused. Children inherit it.
    max_message_size = 128 * 1048576
    #: Forward only between a privileged stream and another one.
    unidirectional = False
    no_route_msg = 'no route to context %r from context %r'
    invalid_handle_msg = 'invalid handle: nobody receives there'
    refused_msg = 'refused by policy'
    too_large_msg = 'message too large (max %d bytes)'
    broker_exit_msg = 'the broker has exited'
    duplicate_handle_msg = 'the handle is taken'
    if _SELDOM:
        full_msg = ('the receiver is full (max_bytes=%d) and messages for it were '
                    'refused: take them faster, or have whoever sends wait for an '
                    'answer')
        unexpected_msg = 'reply from unexpected context'
        unidirectional_msg = (
            'routing mode prevents forward of a message that came from '
            'context %d and is for context %d, in context %d')
        respondent_disconnect_msg = 'the respondent context has disconnected'
    #: The broker has exited, and every handler was told.
    _gone = False
    #: Messages that were not delivered.
    refused = 0
    #: The :class:`_Mentions` of this router, once a message has named a context.
    _mentioned = None
    if _SELDOM:
        #: The :class:`_LostIds`, once there is one.
        _lost_ids = None
        #: This process has joined a listener, which stamps our messages with its
        #: own authority unless they claim less. See `mitogen.unix.connect`.
        _is_client = False
    #: Idents of threads that do not wait for room where they send.
    _unwaiting = ()

    @_seldom
    def __repr__(self):
        return 'Router(%r)' % (self.broker,)

    @_seldom
    def stats(self):
        """Return a dict of counters, see :func:`mitogen.debug.router_stats`.
        Not on the broker thread."""
        return import_module('mitogen.debug').router_stats(self)

    def _on_del_route(self, msg):
        """Handle DEL_ROUTE in a child that cannot have children."""
        if not msg.is_dead and _complete():
            self._on_route_lost(int(msg.data.partition(b':')[0]))

    @_seldom
    def _on_route_lost(self, target_id):
        context = self.context_by_id(target_id, create=False)
        # The loss matters if a handler waits for the context, unless this tree
        # ends anyway.
        log = LOG.debug
        if self.broker._alive and self._handles_by_respondent.get(context):
            log = LOG.error
        log('%r: deleting route to %r', self, context or target_id)
        if context:
            self._note_loss(context, 'says its parent')
            self._tell_lost(context)
        else:
            self._lose(target_id)

    @_seldom
    def _lose(self, context_id):
        """Note that a context is lost. Broker thread."""
        with self._write_lock:
            if not self._lost_ids:
                self._lost_ids = _LostIds()
            self._lost_ids.add(context_id)

    @_seldom
    def _tell_if_lost(self, respondent):
        """Have a handler that was just added told if its respondent was lost
        before. Any thread."""
        lost = self._lost_ids
        if not lost or respondent.context_id not in lost or \
                thread.get_ident() in lost.asking:
            return
        try:
            self.broker.defer(self._on_respondent_disconnect, respondent)
        except mitogen.core.Error:
            # The broker has exited, which all handlers are told.
            LOG.debug('%r: nobody is told any more', self)

    @_seldom
    def _note_loss(self, context, how):
        context._loss = u'\n%r was lost at %s, %s' % (
            context, time.strftime('%H:%M:%S'), how)

    @_seldom
    def _tell_lost(self, context):
        """Tell all threads that wait for a context that it is lost."""
        self._lose(context.context_id)
        others = []
        if self._mentioned:
            others = self._mentioned.take(context.context_id)
        for known in [context] + [i for i in others if i is not context]:
            try:
                known.on_disconnect()
            except Exception:
                LOG.exception('%r: a listener for its loss crashed', known)
        # A handler may wait for another object of the same id, and a listener
        # that crashed may have stood before the one for handlers.
        self._on_respondent_disconnect(context)

    def _fire_lost(self, stream, lost, own_id, routes):
        if own_id is not None:
            # The rest of the tree was reached by way of the parent.
            lost += [i for i in list(self._context_by_id)
                     if i != own_id and i not in routes and i not in lost]
        for context_id in lost:
            context = self.context_by_id(context_id, create=False)
            if context:
                if _complete():
                    self._note_loss(context, u'with the connection %r: %s' % (
                        stream.name, stream.why))
                    self._tell_lost(context)
                else:
                    context.on_disconnect()
            elif _complete():
                self._lose(context_id)

    @_seldom
    def _on_fork(self):
        """In a fork: end all waits, since no message comes to this process,
        and write to none of the parent's streams."""
        self._write_lock = _RLock()
        self._gone = True
        for stream in self._streams():
            stream.protocol._forked()
        self._end_receivers()
        importer = getattr(self, 'importer', None)
        if importer:
            importer._forked()
            importer._resource_requester._forked()

    def _call_handler(self, func, msg):
        try:
            func(msg)
        except BaseException:
            LOG.exception('%r: handler %r crashed', self, func)

    @_seldom
    def myself(self):
        """Return a new :class:`Context` for this process."""
        return self.context_class(self, mitogen.context_id, 'self')

    def context_by_id(self, context_id, via_id=None, create=True, name=None):
        """Return the one :class:`Context` of that id, on which signals fire.
        `via_id` and `name` only matter if it is created."""
        context = self._context_by_id.get(context_id)
        if not context:
            if self._mentioned:
                context = self._mentioned.get(context_id)
            if create:
                if not context:
                    context = self.context_class(self, context_id, name=name)
                    if via_id is not None:
                        context.via = self.context_by_id(via_id)
                with self._write_lock:
                    context = self._context_by_id.setdefault(
                        context_id, context)
        return context

    def _watch_stream(self, context, stream):
        # Not looked up when it happens: our identity may end with the stream.
        own_id = None
        if context.context_id == mitogen.parent_id:
            own_id = mitogen.context_id
        listen(stream, 'disconnect',
               lambda: self._on_stream_disconnect(stream, own_id))

    @_seldom
    def _canonical(self, context):
        """Return the one object of that id on which its loss is signalled."""
        other = getattr(context, 'router', None)
        if other is not self and not getattr(other, '_gone', True):
            raise mitogen.core.Error(
                '%r belongs to %r: to %r its number means another context' % (
                    context, other, self))
        return self.context_by_id(context.context_id)

    @_seldom
    def _dead_respondent(self, context):
        return mitogen.core.Message.dead(
            self.respondent_disconnect_msg + getattr(context, '_loss', ''))

    def _maybe_send_dead(self, unreachable, msg, reason, *args):
        """Send a dead message for `msg`, which was not delivered: to its
        sender if a reply is due, else to the recipient if it can be
        reached."""
        self.refused += 1
        reason = reason % args if args else reason
        LOG.debug('%r: %s: %r', self, reason, msg)
        # A longer dead message would be refused itself, and so on.
        reason = reason[:self.max_message_size]
        if msg.reply_to and not msg.is_dead:
            stream = self.stream_by_id(msg.src_id)
            # Do not queue replies for a peer that is not reading.
            if not stream or \
                    stream.protocol.pending_bytes() <= 4 * self.high_water:
                msg.reply(msg.dead(reason), router=self)
        elif not unreachable and None not in (msg.dst_id, msg.handle):
            # The dead message keeps the sender's ids: with our authority it
            # might be obeyed where the sender would not.
            self._async_route(msg.dead(
                reason, dst_id=msg.dst_id, handle=msg.handle,
                src_id=msg.src_id, auth_id=msg.auth_id))
