# SPDX-License-Identifier: BSD-3-Clause
"""
The actions of Python on events of the engine.
"""

from __future__ import absolute_import  # house

import errno  # house
import os  # house

import mitogen  # house
import _mitogen_core as _c  # house
from mitogen._native import _BAD_AUTH, _BAD_SRC, _HANDLERS, _stream_of, _TEXTS, core, LOG, Router  # house


def _on_frame(entry, msg, link, removed):
    router = entry[0]
    try:
        if removed:
            # Since it was sent.
            router._maybe_send_dead(True, msg, router.invalid_handle_msg)
        else:
            router._deliver(entry, msg, link)
    finally:
        if link is not None:
            link.release()


def _on_hook(msg, link):
    if link is None:
        return
    protocol = link.protocol
    msg.router = router = protocol._router
    held = False
    try:
        try:
            if protocol.on_message is not None:
                protocol.on_message(protocol.stream, msg)
        except Exception:
            LOG.exception('%r: on_message crashed', protocol)
            # An answer, too, is waited for.
            router._maybe_send_dead(False, msg, router.refused_msg)
        else:
            held = link.after_hook(msg)
    finally:
        if not held:
            link.release()


def _disconnect(link, why):
    stream = _stream_of(link)
    if stream is not None:
        stream.why = why
        broker = link.protocol._router.broker
        try:
            stream.on_disconnect(broker)
        except Exception:
            LOG.exception('%r: on_disconnect() crashed', stream)


def _on_gone(link, error):
    if link is not None:
        if error and error not in (errno.EPIPE, errno.ECONNRESET):
            LOG.debug('%r: %s', _stream_of(link), os.strerror(error))
        _disconnect(link, os.strerror(error) if error else
                    'closed by the other side')


def _on_bad(link, why, pending, length):
    if link is None:
        return
    protocol = link.protocol
    if length:
        LOG.error('%r: maximum message size exceeded (got %d, max %d)',
                  protocol, length, protocol._router.max_message_size)
    elif pending:
        LOG.error(protocol.corrupt_msg, protocol.stream.name, pending)
    else:
        LOG.error('%r: %s', protocol, why)
    _disconnect(link, 'it sent what is no message')


def _with_numbers(text, numbers):
    """Return a text with as many numbers as it asks for."""
    count = text.count('%') - 2 * text.count('%%')
    return text % numbers[:count] if count else text


class _Unlogged(object):
    """Refused messages that are not in the log, as too many were waiting."""
    count = 0


_unlogged = _Unlogged()


def _tell_of_unlogged(count):
    """
    Log how many refused messages are not logged, once a second at most: a peer
    can have so many refused that some are left out again and again. Without a
    GIL, brokers of one process that do this together may miscount.
    """
    _unlogged.count += count
    tell, _more = mitogen.core._may_log_now(_unlogged, 'unlogged')
    if tell:
        count, _unlogged.count = _unlogged.count, 0
        LOG.error('%d refused messages before this one were not logged: '
                  'there were too many', count)


def _on_refused(reason, header, link, expected, lost, numbers):
    dst_id, src_id, auth_id, handle, reply_to, enc = header
    text = 'Message(src=%r:%r dst=%r:%r auth_id=%r)' % (
        src_id, reply_to, dst_id, handle, auth_id)
    if lost:
        _tell_of_unlogged(lost)
    if reason in (_BAD_AUTH, _BAD_SRC):
        bad = reason == _BAD_AUTH
        stream = _stream_of(link)
        mitogen.core._tell_seldom(
            LOG.error, stream, 'ids', 'bad %s: got %r via %r, not %r: %s', 'auth_id' if bad else 'src_id',
            auth_id if bad else src_id, stream, _stream_of(expected), text)
    elif handle != core.FORWARD_LOG:
        # A log record about a lost log record would be lost likewise, and so
        # on for ever.
        LOG.debug('%s is dead: %s', text,
                  _with_numbers(getattr(Router, _TEXTS[reason]), numbers))


def _on_notify(source):
    notify = source.notify
    if notify:
        notify(source)


_HANDLERS.update({
    _c.EV_FRAME: _on_frame,
    _c.EV_HOOK: _on_hook,
    _c.EV_GONE: _on_gone,
    _c.EV_BAD: _on_bad,
    _c.EV_REFUSED: _on_refused,
    _c.EV_NOTIFY: _on_notify,
})
