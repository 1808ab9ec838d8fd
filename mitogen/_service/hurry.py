# SPDX-License-Identifier: BSD-3-Clause
"""
How a thread of a pool sends: without waiting for a peer that does not read.
"""

from __future__ import absolute_import  # house


class _Patience(object):
    """
    A block in which the thread may wait for room. :func:`_hurry` returns it.
    """
    def __enter__(self):
        pass

    def __exit__(self, *_exc):
        pass


_patience = _Patience()


def _room_of(router):
    """
    Return the :class:`mitogen.parent._Room` of a router. A context without
    children has none: it serves its parent, and waits for it.
    """
    return getattr(router, '_room', None)


def _hurry(router):
    """
    Return a context manager. In its block this thread, which has others to
    serve, does not wait where it sends.
    """
    return _room_of(router) or _patience


def _has_room(stream):
    """
    Return whether a stream takes more without a wait; :data:`None` stands for
    this process.
    """
    if stream is None:
        return True
    room = _room_of(stream.protocol._router)
    return room is None or room.is_there(stream)
