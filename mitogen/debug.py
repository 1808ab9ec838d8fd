# SPDX-License-Identifier: BSD-3-Clause
"""
Look into a running process: its routers, its streams, and what its threads are
doing. The functions are meant to be called in other contexts, too.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import gc
import logging
import os
import signal
import sys
import threading

import mitogen.core


LOG = logging.getLogger(__name__)

#: The snapshot before, for comparison.
_last = None


def _ignore_signal(signum, frame):
    pass


def enable_evil_interrupts():
    """
    Interrupt system calls a hundred times a second, to find code that does
    not expect it. Main thread.
    """
    signal.signal(signal.SIGALRM, _ignore_signal)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)


def disable_evil_interrupts():
    """
    Undo :func:`enable_evil_interrupts`.
    """
    signal.setitimer(signal.ITIMER_REAL, 0, 0)


def get_subclasses(klass):
    """
    Return the set of a class and everything derived from it.
    """
    found = set()
    stack = [klass]
    while stack:
        klass = stack.pop()
        if klass not in found:
            found.add(klass)
            stack.extend(klass.__subclasses__())
    return found


def _make_id(obj):
    return '%08x' % (id(obj),)


def get_routers():
    """
    Return a dictionary of all routers of this process.
    """
    # By type: objects may do anything when asked for their class.
    classes = tuple(get_subclasses(mitogen.core.Router))
    return dict((_make_id(obj), obj) for obj in gc.get_objects()
                if type(obj) in classes)


def get_router_info():
    """
    Return how many streams, contexts and handles each router has.
    """
    return {
        'routers': dict((key, {
            'id': key,
            'streams': len(router._streams()),
            'contexts': len(router._context_by_id),
            'handles': len(router._handle_map),
        }) for key, router in get_routers().items()),
    }


def _describe_stream(router, stream):
    monitor = getattr(router, 'route_monitor', None)
    return {
        'name': stream.name,
        'remote_id': stream.protocol.remote_id,
        'sent_module_count': len(stream.protocol.sent_modules),
        'routes': sorted(monitor.get_routes(stream)) if monitor else [],
        'type': type(stream.conn or stream.protocol).__module__,
    }


def get_stream_info(router_id):
    """
    Return a description of each stream of a router.

    :param str router_id:
        Key of :func:`get_routers`.
    :raises KeyError:
        There is no such router.
    """
    router = get_routers()[router_id]
    return {
        'streams': dict((_make_id(stream), _describe_stream(router, stream))
                        for stream in router._streams()),
    }


def format_stacks():
    """
    Return text that shows what each thread is doing.
    """
    import traceback
    names = dict((thread.ident, thread.name)
                 for thread in threading.enumerate())
    lines = []
    for ident, frame in sorted(sys._current_frames().items()):
        lines.append('# PID %d ThreadID: (%s) %s; %r' % (
            os.getpid(), names.get(ident, '?'), ident, frame))
        for path, line, function, text in traceback.extract_stack(frame):
            lines.append('File: "%s", line %d, in %s' % (path, line, function))
            if text:
                lines.append('    ' + text.strip())
        lines.append('')
    return '\n'.join(lines) + '\n'


def get_snapshot():
    """
    Return :func:`format_stacks`, and how it differs from the last time.
    """
    global _last
    import difflib
    now = format_stacks()
    then, _last = _last, now
    text = now
    if then is not None:
        text += '\n\n' + ('\n'.join(difflib.unified_diff(
            then.splitlines(), now.splitlines(),
            fromfile='then', tofile='now', lineterm='',
        )) or '(no change since last time)\n')
    return text


def _handle_signal(signum, frame):
    try:
        fd = os.open('/dev/tty', os.O_WRONLY | os.O_NOCTTY)
    except OSError:
        return
    try:
        os.write(fd, get_snapshot().encode('utf-8', 'replace'))
    finally:
        os.close(fd)


def install_handler():
    """
    Have SIGUSR2 write a snapshot to the terminal. Main thread.
    """
    signal.signal(signal.SIGUSR2, _handle_signal)


def _dump_forever(secs):
    import time
    while True:
        LOG.info('PERIODIC DUMP\n%s', get_snapshot())
        time.sleep(secs)


def dump_to_logger(secs=5):
    """
    Log a snapshot, now and every `secs` seconds, from a thread of its own.
    """
    thread = threading.Thread(
        name='mitogen.debug.dump_to_logger',
        target=_dump_forever,
        args=(secs,)
    )
    thread.daemon = True
    thread.start()
