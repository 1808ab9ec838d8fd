# SPDX-License-Identifier: BSD-3-Clause
"""
Limits: how much one peer may use. Programs know them by the names of `mitogen.limits`.
"""

from __future__ import absolute_import  # house

from mitogen.core import _fork_hooks, _SELDOM, _seldom, integer_types, LazyLogger, LOG, now, thread  # house


# Part of this module, so that a child that begins to have children need not
# fetch another one.
if _SELDOM:
    _limits_log = LazyLogger('mitogen.limits')

    #: Seconds between two log lines about one peer and one limit.
    _LOG_INTERVAL = 1.0

    #: Guards what was refused, of all routers and peers.
    _limits_lock = thread.allocate_lock()

    def _replace_limits_lock():
        """
        In a child made by fork: the thread that may have held it is not there.
        """
        global _limits_lock
        _limits_lock = thread.allocate_lock()

    _fork_hooks.append(_replace_limits_lock)


@_seldom
class _Limits(object):
    """
    The limits of one router: numbers, which any thread may set at any time.
    Infinity is no limit.

    :raises AttributeError:
        There is no such limit.
    :raises ValueError:
        A limit is set to a negative number, or to no number.
    """
    #: Seconds in which a peer may leave its messages unread, or read less than
    #: 64 KiB of it. Then its stream is ended, if something waits for it
    #: meanwhile. Children take over what is set when they start, and divide it
    #: by the number of contexts from the master to them: by 2, 3, and so on.
    stalled_seconds = 60.0

    #: Calls of services that wait for a thread of the pool. As many may wait in each service that
    #: obeys one call at a time, or keeps results. Callers with the authority of a parent have no
    #: limit, and in a child each context that is reached through the parent has its own.
    service_calls = 10000

    #: Bytes in those calls. One call alone may be larger.
    service_bytes = 33554432

    #: Bytes of one call of a service, from a caller without the authority of a
    #: parent.
    service_call_bytes = 33554432

    #: Files that :class:`mitogen.service.FileService` has open. Further ones
    #: are opened when others have been sent.
    open_files = 32

    #: Requests for files that wait until one more file may be open.
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

    #: Bytes of the names that a child says it has, before its first request for
    #: a module.
    announcement_bytes = 262144

    #: Modules that are sent unasked with the one that is asked for.
    pushed_modules = 2000

    #: Bytes of them.
    pushed_bytes = 33554432

    #: Bytes, compressed, of a distribution that travels whole because it has
    #: native extensions or reads data by path. Those that `router.ship` names
    #: have no limit.
    shipped_bytes = 16777216

    #: Bytes of the data of a distribution that travels whole, as soon as a
    #: child imports it, only since its modules look for data by path. 16 times
    #: as much if there is little else in it. One with more data travels when
    #: the child looks for a file of it.
    shipped_data_bytes = 4194304

    #: How many times a master hands a peer a block of 1,000 context ids, which
    #: are for the whole tree and are never used again.
    id_blocks = 1000

    #: `id_blocks` for a child, which asks its parent for each block.
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

    #: Bytes of one log record; of a longer one, the rest is left out. A line
    #: that a child prints comes in pieces of 1 MiB and what was read with it.
    log_record_bytes = 1048576 + 262144

    def __setattr__(self, name, value):
        if name.startswith('_') or not hasattr(type(self), name):
            raise AttributeError('there is no limit %r' % (name,))
        if not isinstance(value, (float,) + integer_types) or \
                not value >= 0:
            raise ValueError('%s must be a number that is not negative, and '
                             'not %r' % (name, value))
        object.__setattr__(self, name, value)


@_seldom
def _limits_of(router):
    """
    Return the limits of a router, also of one that has no children.
    """
    own = vars(router)
    return own.get('_limits') or own.setdefault('_limits', _Limits())


@_seldom
def _may_log_now(about, topic, lines=1):
    """
    Tell whether there may be a log line about an object and a topic now, which
    is so for that many a second. Any thread; does not block.

    :returns:
        A pair: whether there may be, and text to append to the line, on those
        that were left out before it.
    """
    moment = now()
    with _limits_lock:
        notes = vars(about).setdefault('_logged_at', {})
        since, told, untold = notes.get(topic, (moment, 0, 0))
        if moment - since >= _LOG_INTERVAL:
            since, told = moment, 0
        tell = told < lines
        notes[topic] = (since, told + 1, 0) if tell else \
            (since, told, untold + 1)
    return tell, ', and %d more times' % (untold,) if untold else ''


@_seldom
def _tell_seldom(log, about, topic, text, *args):
    """
    Log something about a peer, 20 times a second at most: a peer may give the reason for it again
    and again. Any thread; does not block.

    :param log: method of a logger.
    :param about: the stream of the peer, or the router if there is none.
    :param str topic: names what is counted.
    :param str text: for the log, with places for `args`.
    """
    tell, more = _may_log_now(about, topic, 20)
    if tell:
        log(text + '%s', *(args + (more,)))


@_seldom
def _note_damage(msg):
    """
    Log that a message cannot be unpickled.
    """
    router = msg.router
    if router is None:
        LOG.error('cannot unpickle %r', msg)
    else:
        _tell_seldom(LOG.error, router.stream_by_id(msg.src_id) or router, 'damage', 'cannot unpickle %r', msg)


@_seldom
def _refuse(router, peer, name, text, *args):
    """
    Note that a limit has refused something: count it, and log it unless that
    was done for the same peer and limit just now. Any thread; does not block.

    :param mitogen.core.Router router:
    :param peer:
        Stream, or the context if the limit is for each context; :data:`None`
        if it is for all together.
    :param str name:
        The limit, an attribute of the limits.
    :param str text:
        The reason, for the log; `args` are formatted into it. The caller must not
        put text of the peer into either, unless it is escaped.
    """
    with _limits_lock:
        counts = vars(router).setdefault('_refusals', {})
        counts[name] = counts.get(name, 0) + 1
    about = router if peer is None else peer
    tell, more = _may_log_now(about, name)
    if tell:
        _limits_log.error('%r: %s (limits.%s is %s)%s', about,
                          text % args if args else text, name,
                          getattr(_limits_of(router), name), more)
