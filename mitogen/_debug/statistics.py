# SPDX-License-Identifier: BSD-3-Clause
"""
Statistics: counters of a router and of a stream, alike for both cores.
"""

from __future__ import absolute_import  # house

import mitogen.core  # house


def _stream_stats(stream):
    """
    Return the counters of a stream: messages_in, bytes_in, messages_out,
    bytes_out, forwarded, queued_bytes, blocked_senders, and last_in and
    last_out in seconds ago, or None for never.
    """
    protocol = stream.protocol
    link = getattr(protocol, '_link', None)
    if link is not None:
        stats = link.stats()
        return {
            'messages_in': stats.get('frames_in', 0),
            'bytes_in': stats.get('bytes_in', 0),
            'messages_out': stats.get('frames_out', 0),
            'bytes_out': stats.get('bytes_out', 0),
            'forwarded': stats.get('frames_forwarded', 0),
            'queued_bytes': stats.get('pending', 0),
            'blocked_senders': stats.get('blocked', 0),
            'last_in': stats.get('last_in'),
            'last_out': stats.get('last_out'),
        }
    counts = protocol._counts()
    now = mitogen.core.now()

    def age(mark):
        return None if mark is None else max(0.0, now - mark)

    return {
        'messages_in': counts[0], 'bytes_in': counts[1],
        'messages_out': counts[2], 'bytes_out': counts[3],
        'forwarded': counts[4],
        'queued_bytes': protocol.pending_bytes(),
        'blocked_senders': len(protocol._writer.blocked),
        'last_in': age(protocol._last_in),
        'last_out': age(protocol._writer.last),
    }


def router_stats(router):
    """
    Return a dict of counters of a router, all :class:`int` but `refusals`:

    `messages_in`, `bytes_in`, `messages_out`, `bytes_out`, `forwarded`
        Traffic of all its streams, including those that are closed.
        Bytes count headers. Forwarded messages count as in and out as well.
    `refused`
        Messages that were not delivered, for whatever reason.
    `refusals`
        How often each of `router.limits` has refused something, a dict of
        those that have.
    `streams`, `routes`, `handlers`
        How many there are.
    `queued_bytes`
        Bytes that wait to be written, on all streams.
    `queued_work`
        Functions and events that wait for the broker's thread.
    `blocked_senders`
        Threads that wait for a stream to take more.
    `pushed_modules`, `unused_modules`
        Modules, and news that there is none, that were sent without being
        asked for, and modules of these that children had not used when they
        ended or asked for the next one. Zero but in a master.
    `wakeups`
        How often a thread was woken, counted as the core at hand does it:
        figures of two cores do not compare.
    """
    waker = router.broker._waker.protocol
    stats = {'queued_work': len(waker._deferred),
             'refusals': dict(vars(router).get('_refusals', ()))}
    for name in 'pushed', 'unused':
        stats[name + '_modules'] = getattr(
            getattr(router, 'responder', None), name + '_module_count', 0)
    if hasattr(router, '_stats'):
        stats.update(router._stats())
        loop = router._loop.stats()
        stats['queued_work'] += loop['events']
        stats['refused'] += router.refused
        stats['wakeups'] = loop['wakes']
        return stats

    counts = list(router._closed)
    streams = router._streams()
    stats.update(
        streams=len(streams), routes=len(router._stream_by_id),
        handlers=len(router._handle_map), refused=router.refused,
        queued_bytes=0, blocked_senders=0, wakeups=waker.wakes)
    for stream in streams:
        counts = [a + b for a, b in zip(counts, stream.protocol._counts())]
        stats['queued_bytes'] += stream.protocol.pending_bytes()
        stats['blocked_senders'] += len(stream.protocol._writer.blocked)
    stats.update(zip(('messages_in', 'bytes_in', 'messages_out', 'bytes_out',
                      'forwarded'), counts))
    return stats
