# SPDX-License-Identifier: BSD-3-Clause
"""
The links of a process: the contexts that it is connected to, what has travelled to each, and what
waits. Fetched by a host that ``mitogen tree`` asks, and used where a program listens for those that
join it.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import os
import platform
import sys

import mitogen
import mitogen.core
import mitogen.debug
from mitogen.core import takes_router

#: The counters of a stream that are told.
COUNTERS = (
    'messages_in', 'bytes_in', 'messages_out', 'bytes_out', 'forwarded', 'queued_bytes', 'blocked_senders', 'last_in',
    'last_out')


def _user():
    try:
        import pwd
        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):
        return str(os.geteuid())


def _method(stream):
    """
    Return the way in which a stream was made: "ssh", "local", "unix".
    """
    conn = getattr(stream, 'conn', None)
    if conn is None:
        return 'unix'
    name = type(conn).__module__.rpartition('.')[2]
    return 'local' if name == 'parent' else name


def _link(router, stream):
    stats = mitogen.debug._stream_stats(stream)
    peer = stream.protocol.remote_id
    context = router.context_by_id(peer, create=False)
    monitor = getattr(router, 'route_monitor', None)
    found = dict((name, stats[name]) for name in COUNTERS)
    # A child that just started has been sent its first text, and no message.
    for name, count in zip(('bytes_in', 'bytes_out'), getattr(getattr(stream, 'conn', None), '_start_bytes', ())):
        found[name] += count
    found.update({
        'id': peer, 'name': getattr(context, 'name', None) or stream.name, 'method': _method(stream),
        'routes': sorted(monitor.get_routes(stream)) if monitor else [],
    })
    return found


@takes_router
def links(router):
    """
    Return a dict on this process and its links, but for the one to its parent. Any thread but the
    broker's.
    """
    streams = [stream for stream in router._streams()
               if getattr(stream.protocol, 'remote_id', None) not in (None, mitogen.parent_id)]
    return {
        'id': mitogen.context_id, 'pid': os.getpid(), 'python': platform.python_version(), 'core': mitogen.core.CORE,
        'hostname': platform.node(), 'user': _user(), 'program': os.path.basename(sys.argv[0] if sys.argv else ''),
        'links': [_link(router, stream) for stream in streams],
    }
