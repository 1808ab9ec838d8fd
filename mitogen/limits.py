# SPDX-License-Identifier: BSD-3-Clause
"""
What one peer may take of this process, at most.

A *peer* is the neighbour that a message came by: a child, or a client of a
UNIX socket. It answers for all that is below it. Where a limit is for each
context instead, it says so.

A router that can have children has its limits in `router.limits`. A program may
set any of them, before or while the router runs::

    router.limits.service_calls = 5000

A limit refuses what is beyond it, and nobody but the peer notices. How often
each limit has refused something is in ``router.stats()['refusals']``, by the
name of the limit. The log has a line for each peer and limit, at most once a
second.

To add a limit: a class attribute of :class:`Limits`, and a call of
``router.refuse(stream, 'its_name', 'text')`` where it refuses.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import threading

import mitogen.core


LOG = mitogen.core.LazyLogger('mitogen.limits')

#: Seconds between two log lines about one peer and one limit.
LOG_INTERVAL = 1.0


class Limits(object):
    """
    The limits of one router: numbers, which any thread may set at any time.
    Infinity is no limit.

    :raises AttributeError:
        There is no such limit.
    :raises ValueError:
        A limit is set to what is no number, or is negative.
    """
    #: Seconds that a peer may leave what waits for it unread. Then its stream
    #: is ended, if something of this process waits for it meanwhile.
    stalled_seconds = 120.0

    #: Calls of services that wait for a thread of the pool; and of one service
    #: that obeys one call at a time, or keeps results, those that wait there.
    #: Callers with the authority of a parent have no limit, and in a child each
    #: context that is reached through the parent has its own.
    service_calls = 10000

    #: Bytes in those calls. One call alone may be larger.
    service_bytes = 33554432

    #: Files that :class:`mitogen.service.FileService` has open. Further ones
    #: are opened when others have been sent.
    open_files = 32

    #: Requests for files that wait for that.
    fetches = 1000

    #: Characters in the path of a file that is asked for.
    path_bytes = 4096

    #: Slashes in it.
    path_parts = 256

    #: Requests for modules, and for resources, that wait to be answered.
    requests = 1000

    #: Bytes in one such request.
    request_bytes = 10000

    #: Bytes of answers that wait to be read when a request for a module or a
    #: resource is answered. If there are more, the request waits.
    unread_bytes = 67108864

    #: How many times a master hands a peer a block of 1,000 context ids, which
    #: are for the whole tree and are never used again.
    id_blocks = 1000

    #: The same in a child, which asks its parent for each.
    id_blocks_below = 100

    #: Contexts that may be behind a peer at a time.
    routes = 16384

    #: Bytes of one message about a route, of a request for ids, and of the
    #: like. The longest that a child of ours sends is shorter.
    control_bytes = 8192

    #: Log records that a peer may send in a second, on the average of some.
    log_records_per_second = 5000

    #: Bytes of log records in a second.
    log_bytes_per_second = 4 * 1048576

    #: Bytes of one log record; of a longer one, the rest is left out.
    log_record_bytes = 1048576 + 4096

    def __setattr__(self, name, value):
        if name.startswith('_') or not hasattr(type(self), name):
            raise AttributeError('there is no limit %r' % (name,))
        if not isinstance(value, (float,) + mitogen.core.integer_types) or \
                not value >= 0:
            raise ValueError('%s must be a number that is not negative, and '
                             'not %r' % (name, value))
        object.__setattr__(self, name, value)


def of(router):
    """
    Return the :class:`Limits` of a router, also of one that has no children.
    """
    own = vars(router)
    return own.get('_limits') or own.setdefault('_limits', Limits())


#: Guards what was refused, of all routers and peers.
_lock = threading.Lock()


def _replace_lock():
    """
    In a child made by fork: the thread that may have held it is not there.
    """
    global _lock
    _lock = threading.Lock()


mitogen.core._fork_hooks.append(_replace_lock)


def may_log(about, topic, lines=1):
    """
    Tell whether there may be a log line about an object and a topic now, which
    is so for that many in each :data:`LOG_INTERVAL`. Any thread; does not
    block.

    :returns:
        A pair: whether there may be, and text to append to the line, on those
        that were left out before it.
    """
    now = mitogen.core.now()
    with _lock:
        notes = vars(about).setdefault('_logged_at', {})
        since, told, untold = notes.get(topic, (now, 0, 0))
        if now - since >= LOG_INTERVAL:
            since, told = now, 0
        tell = told < lines
        notes[topic] = (since, told + 1, 0) if tell else \
            (since, told, untold + 1)
    return tell, ', and %d more times' % (untold,) if untold else ''


def refuse(router, peer, name, text, *args):
    """
    Note that a limit has refused something: count it, and log it unless that
    was done for the same peer and limit just now. Any thread; does not block.

    :param mitogen.core.Router router:
    :param peer:
        Stream, or the context if the limit is for each context; :data:`None`
        if it is for all together.
    :param str name:
        The limit, an attribute of :class:`Limits`.
    :param str text:
        What was refused. With `args`, it is formatted by them. Nothing in it
        may be as the peer has written it.
    """
    with _lock:
        counts = vars(router).setdefault('_refusals', {})
        counts[name] = counts.get(name, 0) + 1
    about = router if peer is None else peer
    tell, more = may_log(about, name)
    if tell:
        LOG.error('%r: %s (limits.%s is %s)%s', about,
                  text % args if args else text, name,
                  getattr(of(router), name), more)
