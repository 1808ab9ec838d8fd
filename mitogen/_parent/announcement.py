# SPDX-License-Identifier: BSD-3-Clause
"""
Announcement: the facts that a child is sent before it asks for its first
module.
"""

from __future__ import absolute_import  # house

import sys  # house

import mitogen.core  # house
from mitogen.core import b, to_text  # house
from mitogen.parent import _handle, is_immediate_child, LOG  # house


class _Announcement(object):
    """
    The interpreter of a child, and the names of files on its path. Such a child
    takes several modules in one message, bytecode, and modules that it has not
    asked for.

    :param bytes data:
        :data:`sys.version` and the names as a list in Python. The child may be
        lying.
    :raises UnicodeDecodeError: that is no text.
    """
    def __init__(self, data):
        words = to_text(data)[2:-2].split(u"', '")
        self.version = words[0]
        #: Names of modules and packages at the top level.
        self.names = set(word.partition(u'.')[0] for word in words[1:])

    def is_older_than(self, minor):
        """
        Tell whether the child runs a Python 3 before 3.`minor`.
        """
        words = self.version.split(u'.')
        return words[0] == u'3' and words[1].isdigit() and int(words[1]) < minor

    def runs_our_bytecode(self):
        """
        Tell whether the child is likely to run our kind of bytecode. The child
        checks again before it runs any.
        """
        own = sys.version
        return (
            self.version.split('.')[:2] == own.split('.')[:2] and
            (u'PyPy' in self.version) == ('PyPy' in own) and
            # With -O the bytecode has no assertions, and with -OO no
            # docstrings.
            not sys.flags.optimize
        )


def _receive_announcements(router, on_report):
    """
    Note what children announce, for :func:`_announced_by`.

    :param on_report:
        Function that is called with a stream and the bytes that a child sends later: it has
        modules, or has not used some.
    """
    def on_announcement(msg):
        stream = router.stream_by_id(msg.src_id)
        if stream is None or stream.protocol.remote_id == mitogen.parent_id:
            return
        if bytes(msg.data) == b('!'):
            # It could not read what it was sent.
            return stream.protocol.sent_modules.clear()
        if _announced_by(stream):
            return on_report(stream, bytes(msg.data))
        try:
            stream.protocol._announcement = _Announcement(
                bytes(msg.data))
        except Exception:
            LOG.debug('%r: an announcement that cannot be read', stream,
                      exc_info=True)

    _handle(router, mitogen.core.HAVE_MODULES, on_announcement,
            is_immediate_child)


def _announced_by(stream):
    """
    Return the :class:`_Announcement` of the child at the other end of a stream,
    :data:`None` if there was none.
    """
    found = getattr(stream.protocol, '_announcement', None)
    return found if isinstance(found, _Announcement) else None


def _pack_modules(more, entries, contents):
    """
    Return the content of a message that brings several modules to a child that
    has announced itself.

    :param bool more:
        There will be more messages, and the child is not to ask for anything
        until it has the last one.
    :param list entries: of (name, present, path, needs, size).
    :param list contents: of bytes.
    """
    return mitogen.core.Message.pickled(
        (u'', more, entries), b('').join(contents)).data


def _send_load_module(router, stream, data):
    """
    Send the content of a message about modules to the other end of a stream.
    """
    router._async_route(mitogen.core.Message(
        dst_id=stream.protocol.remote_id,
        handle=mitogen.core.LOAD_MODULE,
        data=data,
        enc=mitogen.core.Message.ENC_PKL,
    ))


def _is_far(stream):
    """
    Tell whether bytes for a child go through a network.
    """
    return getattr(getattr(stream, 'conn', None), '_is_far', False) is True
