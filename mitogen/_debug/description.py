# SPDX-License-Identifier: BSD-3-Clause
"""
The description of a process: all that it does and waits for, as one text.
"""

from __future__ import absolute_import  # house

import os  # house
import sys  # house

import mitogen.core  # house

from mitogen.debug import _describe_handle, _stream_stats, format_stacks, get_routers, get_waits, router_stats  # house


def _seconds(age):
    return 'never' if age is None else '%.1f s ago' % (age,)


def _get_calls():
    """
    Return a list of texts on the calls that are being executed here.
    """
    code = mitogen.core.Dispatcher._dispatch_one.__code__
    calls = []
    for frame in list(sys._current_frames().values()):
        while frame is not None:
            if frame.f_code is code and 'func' in frame.f_locals:
                calls.append('%r, for context %s' % (
                    frame.f_locals['func'], frame.f_locals['msg'].src_id))
            frame = frame.f_back
    return calls


def _describe_router(router):
    stats = router_stats(router)
    lines = ['%r: %s' % (router, ', '.join(
        '%s %s' % (stats[key], key) for key in sorted(stats)))]
    monitor = getattr(router, 'route_monitor', None)
    for stream in router._streams():
        stats = _stream_stats(stream)
        lines.append(
            '  stream %s to context %s: %s bytes queued, %s senders blocked; '
            'last received %s, last sent %s; %s messages and %s bytes in, %s '
            'and %s out, %s forwarded%s' % (
                stream.name, stream.protocol.remote_id, stats['queued_bytes'],
                stats['blocked_senders'], _seconds(stats['last_in']),
                _seconds(stats['last_out']), stats['messages_in'],
                stats['bytes_in'], stats['messages_out'], stats['bytes_out'],
                stats['forwarded'],
                '; routes: %s' % sorted(monitor.get_routes(stream))
                if monitor else ''))
    # The keys are sorted, and not the items: to make pairs may start a garbage collection, which
    # may run anything, also another thread that adds a handler.
    table = router._handle_map
    for handle in sorted(table):
        entry = table.get(handle)
        if entry is not None and entry[-1] is not None:
            lines.append('  a reply is awaited: %s' % (
                _describe_handle(router, handle),))
    importer = getattr(router, 'importer', None)
    if importer is not None:
        for kind, fetcher in (('module', importer),
                              ('resource', importer._resource_requester)):
            # A number stands for what a thread tells the parent, which does not answer.
            for key in sorted(key for key in fetcher._callbacks if not isinstance(key, int)):
                lines.append('  asked of the parent, not answered yet: %s %s'
                             % (kind, key))
    return lines


def describe():
    """
    Return text that tells what this process does and waits for: the stacks of
    its threads, each wait with whom it is for and since when, the streams with
    what is queued on them and when they last moved, the replies and modules
    that are awaited, and the calls that are being executed.

    Not on a thread that was interrupted at any point, such as in a signal
    handler: it takes locks.
    """
    import mitogen
    import time
    lines = ['==== process %d, context %s, %s core, Python %s, %s ====' % (
        os.getpid(), mitogen.context_id, mitogen.core.CORE,
        sys.version.split()[0], time.strftime('%Y-%m-%d %H:%M:%S')), '']

    def section(title, make):
        lines.append(title)
        try:
            lines.extend(make() or ['  (none)'])
        except Exception:
            # The rest may still tell enough.
            lines.append('  cannot be told: %r' % (sys.exc_info()[1],))
        lines.append('')

    section('Waits:', lambda: [
        '  thread %(name)s (%(thread)s) waits since %(seconds).1f s for '
        '%(what)s' % wait for wait in get_waits()])
    section('Calls being executed:', lambda: [
        '  ' + text for text in _get_calls()])
    section('Routers:', lambda: [
        line for router in get_routers().values()
        for line in _describe_router(router)])
    section('Threads:', lambda: [format_stacks()])
    # Source lines are bytes on Python 2.
    return u'\n'.join(
        mitogen.core.UnicodeType(line, 'utf-8', 'replace')
        if isinstance(line, mitogen.core.BytesType) else line
        for line in lines)
