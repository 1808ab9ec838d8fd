# SPDX-License-Identifier: BSD-3-Clause
"""
Look into a running process: its routers, its streams, and what its threads are
doing. The functions are meant to be called in other contexts, too.

When a program hangs: :func:`enable_dump`, or MITOGEN_DEBUG_SIGNAL in the
environment, makes SIGUSR2 write :func:`describe`. Nothing here costs anything
before it is asked.
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

# Here, since it may have to be fetched, and a process that hangs cannot.
_open_own = mitogen.core._open_own

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
        text = get_snapshot()
        if isinstance(text, mitogen.core.UnicodeType):
            text = text.encode('utf-8', 'replace')
        os.write(fd, text)
    finally:
        os.close(fd)


def install_handler():
    """
    Have SIGUSR2 write a snapshot to the terminal. Main thread.
    """
    signal.signal(signal.SIGUSR2, _handle_signal)


#
# When it hangs, it says why.
#

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
    `wakeups`
        How often a thread was woken, counted as the core at hand does it:
        figures of two cores do not compare.
    """
    waker = router.broker._waker.protocol
    stats = {'queued_work': len(waker._deferred),
             'refusals': dict(vars(router).get('_refusals', ()))}
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


def _instances(klass):
    # By type: objects may do anything when asked for their class.
    classes = get_subclasses(klass)
    return [obj for obj in gc.get_objects() if type(obj) in classes]


def _seconds(age):
    return 'never' if age is None else '%.1f s ago' % (age,)


def _describe_handle(router, handle):
    """
    Return text on whom a handle belongs to.
    """
    entry = router._handle_map.get(handle)
    if entry is None:
        return 'handle %s, which is not registered any more' % (handle,)
    # The last element in either core.
    respondent = entry[-1]
    return 'handle %s, for %s' % (
        handle, 'whoever sends' if respondent is None else
        'a message of %r' % (respondent,))


def _sleepers_of_frames():
    """
    Yield (thread ident, latch, seconds) of each sleep in the pure core.
    """
    code = getattr(mitogen.core.Latch.get, '__code__', None)
    if code is None:
        return
    for ident, frame in list(sys._current_frames().items()):
        while frame is not None:
            sleeper = frame.f_code is code and frame.f_locals.get('sleeper')
            if sleeper:
                yield (ident, frame.f_locals['self'],
                       mitogen.core.now() - sleeper.since)
            frame = frame.f_back


def _outer_waits():
    """
    Return a dict, by the id of a latch that only a function of ours knows:
    text on what that function waits for.
    """
    broker = mitogen.core.Broker
    tellers = {broker.defer_sync.__code__: lambda names: (
        names.get('outcome'), 'the thread of %r to run %r' % (
            names['self'], names['func']))}
    parent = sys.modules.get('mitogen.parent')
    if parent:
        tellers[parent.Connection.connect.__code__] = lambda names: (
            names['self'].latch, 'the connection to %r: %s' % (
                names['context'], names['self']._stage))
        tellers[parent.Context.shutdown.__code__] = lambda names: (
            names.get('latch'), '%r to end' % (names['self'],))

    texts = {}
    for frame in list(sys._current_frames().values()):
        while frame is not None:
            tell = tellers.get(frame.f_code)
            if tell:
                latch, text = tell(frame.f_locals)
                texts[id(latch)] = text
            frame = frame.f_back
    return texts


def get_waits():
    """
    Return a list of what threads of this process wait for, as dicts:
    `thread` (its ident), `name` of the thread, `seconds`, and `what`, a text.
    """
    names = dict((thread.ident, thread.name)
                 for thread in threading.enumerate())
    texts = _outer_waits()
    latches = []
    for receiver in _instances(mitogen.core.Receiver):
        if receiver.handle:
            latch = receiver._latch
            latches.append(latch)
            texts[id(latch)] = _describe_handle(receiver.router,
                                                receiver.handle)
    select = sys.modules.get('mitogen.select')
    for obj in _instances(select.Select) if select else ():
        texts[id(obj._latch)] = 'a select of %s' % (
            ', '.join(map(repr, obj._receivers)) or 'nothing',)

    found = list(_sleepers_of_frames())
    if hasattr(mitogen.core.Latch, '_sleepers'):
        seen = set()
        # A receiver's latch is an object of its own, made when asked for.
        for latch in latches + _instances(mitogen.core.Latch):
            for ident, seconds in latch._sleepers():
                if ident not in seen:
                    seen.add(ident)
                    found.append((ident, latch, seconds))
    return [{
        'thread': ident,
        'name': names.get(ident, '?'),
        'seconds': seconds,
        'what': texts.get(id(latch), repr(latch)),
    } for ident, latch, seconds in found]


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
    # Not its items: making pairs may collect garbage, and that run anything,
    # also another thread that adds a handler.
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


#: Where dumps go: None for stderr, or the name of a file.
_dump_path = None

#: Open for faulthandler as long as it may write there.
_fault_fp = None


def _open_dump():
    """
    Return a descriptor to write a dump to.
    """
    if _dump_path is None:
        return os.dup(2)
    return _open_own(_dump_path.replace('%(pid)s', str(os.getpid())),
                     os.O_APPEND)


def _write_dump():
    data = (describe() + u'\n').encode('utf-8', 'replace')
    fd = _open_dump()
    try:
        while data:
            data = data[os.write(fd, data):]
    finally:
        os.close(fd)


def _on_dump_signal(signum, frame):
    # On a thread of its own: the interrupted one may hold any lock. By the
    # low-level function, since `threading` has a lock, too.
    mitogen.core.thread.start_new_thread(_write_dump, ())


def enable_dump(path=None, signum=None):
    """
    Have a signal write :func:`describe` to stderr or a file. Main thread.

    Where the module :mod:`faulthandler` is there, it writes the stacks of all
    threads first: at once, even while a thread keeps the interpreter to
    itself. The rest comes as soon as the main thread executes Python code.

    :param path:
        Name of a file to append to, in which `%(pid)s` is the process id. It
        must be ours, or not be there yet, and no symbolic link. If
        :data:`None`, MITOGEN_DEBUG_SIGNAL of the environment, where that has a
        slash in it, else stderr. In a child, that is logged by its master.
    :param int signum:
        The signal, SIGUSR2 if :data:`None`.
    """
    global _dump_path, _fault_fp
    if signum is None:
        signum = signal.SIGUSR2
    if path is None:
        path = os.environ.get('MITOGEN_DEBUG_SIGNAL', '')
        if '/' not in path:
            path = None
    _dump_path = path
    try:
        signal.signal(signum, _on_dump_signal)
    except ValueError:
        LOG.debug('not on the main thread: stacks only')
    try:
        import faulthandler
    except ImportError:
        return
    old, _fault_fp = _fault_fp, os.fdopen(_open_dump(), 'w')
    # Chained: then our handler is called, too.
    faulthandler.register(signum, file=_fault_fp, all_threads=True, chain=True)
    if old is not None:
        old.close()


def disable_dump(signum=None):
    """
    Undo :func:`enable_dump`. Main thread.
    """
    global _fault_fp
    if signum is None:
        signum = signal.SIGUSR2
    faulthandler = sys.modules.get('faulthandler')
    if faulthandler is not None:
        faulthandler.unregister(signum)
    signal.signal(signum, signal.SIG_DFL)
    if _fault_fp is not None:
        _fault_fp.close()
        _fault_fp = None


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
