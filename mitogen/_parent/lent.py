# SPDX-License-Identifier: BSD-3-Clause
"""
Senders that were given to a call: if it fails, the readers of their receivers
are told.
"""

from __future__ import absolute_import  # house

import threading  # house

import mitogen  # house
import mitogen.core  # house
from mitogen.core import to_text  # house
from mitogen.parent import LOG  # house


#: Guards `_lent` of all routers.
_lent_lock = threading.Lock()


def _replace_lent_lock():
    global _lent_lock
    _lent_lock = threading.Lock()


mitogen.core._fork_hooks.append(_replace_lent_lock)


def _handles_given(args, kwargs):
    """
    Return the handles of receivers of this process whose senders are among the
    arguments of a call.
    """
    values = args + tuple(kwargs.values()) if kwargs else args
    for value in values:
        if isinstance(value, mitogen.core.Sender):
            break
    else:
        # As nearly always.
        return ()
    return [value.dst_handle for value in values
            if isinstance(value, mitogen.core.Sender) and
            value.context.context_id == mitogen.context_id]


#: Bytes of an answer that says that a call failed. Its text is cut, see
#: `_unpickle_call_error`.
_FAILURE_MAX = 300000


def _why_failed(reply):
    """Return why a call failed by its reply, or None."""
    if reply.is_dead:
        return reply.data.decode('utf-8', 'replace')
    # Only the start of a large result, which the broker thread must not read.
    if (b'_unpickle_call_error' in reply.data[:200] and
            len(reply.data) < _FAILURE_MAX):
        try:
            result = reply.unpickle(throw=False)
        except mitogen.core.Error as e:
            result = e
        if isinstance(result, mitogen.core.Error):
            return to_text(result)
    return None


def _tell_reader(router, handle, reason):
    """Have the receiver of a handle raise, as nothing more will come."""
    entry = router._handle_map.get(handle)
    receiver = entry and getattr(entry[1], '__self__', None)
    if isinstance(receiver, mitogen.core.Receiver):
        receiver._failed = True
        receiver._on_receive(mitogen.core.Message.dead(reason))


class _Lending(object):
    """
    One call that was given senders. Others may have been given the same: the
    reader is told once the last call is over, if that failed.

    :param list handles: the receivers'.
    :param CallSpec spec: the call.
    """
    def __init__(self, router, handles, spec):
        self._router = router
        self._handles = handles
        self._spec = spec

    def send_async(self, context, msg):
        """As `Context.send_async`."""
        self._receiver = mitogen.core.Receiver(self._router, persist=False)
        lent = self._router.__dict__.setdefault('_lent', {})
        with _lent_lock:
            for handle in self._handles:
                lent.setdefault(handle, set()).add(self)
        msg.reply_to = self._router.add_handler(
            self._on_reply, persist=False, respondent=context)
        try:
            context.send(msg)
        except Exception:
            self._router.del_handler(msg.reply_to)
            self._end(None)
            raise
        return self._receiver

    def _on_reply(self, reply):
        """Broker thread."""
        why = _why_failed(reply)
        if why is not None:
            why = u'%s failed, which was to send here: %s' % (self._spec._name(), why)
        self._receiver._on_receive(reply)
        self._end(why)

    def _end(self, why):
        try:
            # No other context sends there, and the sender keeps the receiver
            # alive.
            self._router.del_handler(self._receiver.handle)
        except KeyError:
            LOG.debug('%r was closed before', self._receiver)
        for handle in self._handles:
            with _lent_lock:
                others = self._router._lent.get(handle, set())
                others.discard(self)
                if not others:
                    self._router._lent.pop(handle, None)
            if why is not None and not others:
                _tell_reader(self._router, handle, why)
