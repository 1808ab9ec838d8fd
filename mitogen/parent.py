# SPDX-License-Identifier: BSD-3-Clause
# !mitogen: minify_safe
"""
What a context needs in order to have children: starting an interpreter
somewhere, bringing the core up in it, routing to what lies behind it, and
seeing it off again.

A master always uses this module. Any other context loads it the first time
it has to start a child of its own, see :func:`upgrade_router`.

Design
------

Starting a child takes one interpreter start and one round trip:

1. A `Connection` makes an argument list, `get_boot_command`, and runs it, or
   a tool such as ssh or sudo that runs it elsewhere. The list holds a short
   decoder, the *first stage* (compressed) and the version of this package.
2. The first stage prints ``MITO000``, whether it found this very version of
   the package installed, and its Python version. `BootstrapProtocol` answers
   with the configuration alone, or with source text and configuration.
3. The child's core starts and prints ``MITO002``. From the next byte on the
   stream carries frames; `BootstrapProtocol` gives way to `MitogenProtocol`.

Everything here that touches a stream, a timer or a process runs on the broker
thread. `Router.connect`, `CallChain.call`, `ChildIdAllocator.allocate` and
`Context.shutdown(wait=True)` block, and so must run on any other thread.
"""

# There is a mitogen.select, and Python 2 would look there first.
from __future__ import absolute_import

import binascii
import collections
import errno
import fcntl
import getpass
import heapq
import logging
import marshal
import math
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import types
import zlib

import mitogen
import mitogen.core

from mitogen.core import b
from mitogen.core import to_text


# A child that was sent no more than it needed: we need everything.
mitogen.core._complete()

LOG = logging.getLogger(__name__)
IOLOG = mitogen.core.IOLOG
PY3 = mitogen.core.PY3

IS_LINUX = os.uname()[0] == 'Linux'
IS_SOLARIS = os.uname()[0] == 'SunOS'

#: Request numbers of the Linux PTY multiplexer, which `termios` lacks.
LINUX_TIOCGPTN = 2147767344
LINUX_TIOCSPTLCK = 1074025521

#: Where functions keep what they closed over and methods what they are bound
#: to, on every supported Python.
closure_attr = '__closure__'
IM_SELF_ATTR = '__self__'

# Python 2 imports a codec when it is first looked up by name. Done here, on a
# thread that may import, since the broker thread must not: it would wait for
# the import lock, whose owner may in turn wait for a module to arrive.
for _codec in 'ascii', 'utf-8', 'latin-1':
    u''.encode(_codec)

if PY3:
    _CLASS_TYPES = (type,)
else:
    _CLASS_TYPES = (type, types.ClassType)

try:
    SC_OPEN_MAX = os.sysconf('SC_OPEN_MAX')
except (AttributeError, ValueError, OSError):
    SC_OPEN_MAX = 1024

BROKER_SHUTDOWN_MSG = (
    'The connection attempt was given up: the local broker is shutting down.'
)

OPENPTY_MSG = (
    'Could not create a PTY: %s. The system-wide limit may be reached: look at '
    'the sysctl kern.tty.ptmx_max on macOS, or kernel.pty.max on Linux. A '
    'connection method that works without a PTY (no password typed, no '
    'question answered) avoids the limit.'
)

SYS_EXECUTABLE_MSG = (
    'sys.executable is empty, so the path of this Python is not known; '
    'children are started with /usr/bin/python instead.'
)

#: Called in each new child between fork and exec when set. Any callable
#: without arguments; see :func:`popen`.
_preexec_hook = None


def _read_selinux_enabled():
    """Return True if SELinux is present and enforcing."""
    try:
        with open('/sys/fs/selinux/enforce', 'rb') as fp:
            return bool(int(fp.read()))
    except (IOError, OSError, ValueError):
        return False


SELINUX_ENABLED = _read_selinux_enabled()


def _signal_names():
    names = {}
    # Backwards, so that of several names for one number the first in the
    # alphabet is the one that stays.
    for name in sorted(dir(signal), reverse=True):
        if name.startswith('SIG') and not name.startswith('SIG_'):
            names[int(getattr(signal, name))] = name
    return names


#: Signal number -> name.
SIGNAL_BY_NUM = _signal_names()


class ConnectError(mitogen.core.StreamError):
    """
    A child could not be started.

    What programs compare is `args[0]`. What a person reads, ``str()``, goes on
    with what is known of the attempt.

    :ivar detail: that, as text.
    """
    detail = u''

    def __str__(self):
        return _native_str(_full_text(self))


class EofError(mitogen.core.StreamError):
    """
    The child, or the tool that should have started it, closed its output
    before it was ready. The text has what it printed.
    """
    pass


class CancelledError(ConnectError):
    """
    The local broker began to shut down while the connection was being made.
    """
    pass


def _error_text(exc):
    """
    Return the whole text of an exception, as text on every Python.
    """
    if len(exc.args) == 1 and isinstance(exc.args[0],
                                         mitogen.core.AnyTextType):
        return to_text(exc.args[0])
    return to_text(str(exc))


def _full_text(exc):
    """
    Return `_error_text`, and the detail of a `ConnectError` below it.
    """
    if not isinstance(exc, ConnectError):
        return _error_text(exc)
    text = to_text(exc.args[0] if exc.args else u'')
    return u'%s\n\n%s' % (text, exc.detail) if exc.detail else text


def _native_str(s):
    """
    Return `s` as `str`, which is what a command line is made of.
    """
    if isinstance(s, str):
        return s
    if PY3:
        return to_text(s)
    return s.encode('utf-8')


def make_secret(password):
    """
    Return `password`, text or UTF-8 bytes, as text that logs do not show. None
    stays None.
    """
    if password is None:
        return None
    return mitogen.core.Secret(to_text(password))


def get_log_levels(loggers=('', 'mitogen', 'mitogen.io')):
    """
    Return the effective numeric levels of `loggers`, in that order. A child
    gets them at its start, so that it sends no record that nobody wants.
    """
    return [logging.getLogger(name).getEffectiveLevel() for name in loggers]


_warned_sys_executable = False


def get_sys_executable():
    """
    Return the path of the running interpreter, or a guess (and one warning
    for the life of the process) where Python does not know it.
    """
    global _warned_sys_executable
    if sys.executable:
        return sys.executable
    if not _warned_sys_executable:
        _warned_sys_executable = True
        LOG.warning(SYS_EXECUTABLE_MSG)
    return '/usr/bin/python'


def get_default_remote_name():
    """
    Return ``<login user>@<hostname>:<pid>`` as text, fit to be part of a
    process title: it contains neither kind of slash.
    """
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):
        # A uid without an entry in the user database, as containers have.
        user = os.getuid()
    name = u'%s@%s:%d' % (
        to_text(user), to_text(socket.gethostname()), os.getpid())
    return name.replace(u'/', u'_').replace(u'\\', u'_')


def is_immediate_child(msg, stream):
    """
    Handler policy: accept messages only from the context at the other end of
    the stream they came in on, be it a child or the parent.
    """
    return stream is not None and msg.src_id == stream.protocol.remote_id


def returncode_to_str(n):
    """
    Describe a `subprocess` style return code for people.
    """
    if n >= 0:
        return 'exited with return code %d' % (n,)
    signum = -n
    return 'exited due to signal %d (%s)' % (
        signum, SIGNAL_BY_NUM.get(signum))


def flags(names):
    """
    Return the OR of the `termios` constants in `names`, a string with spaces
    between them. What this platform lacks is left out.
    """
    result = 0
    for name in names.split():
        value = getattr(termios, name, None)
        if value is None:
            LOG.debug('flags(): this termios module has no %s', name)
        else:
            result |= value
    return result


def cfmakeraw(tflags):
    """
    Change a list from :func:`termios.tcgetattr` so that the terminal passes
    bytes through as they are, without echo, and return it.
    """
    iflag, oflag, cflag, lflag = tflags[:4]
    iflag &= ~flags('IMAXBEL IXOFF INPCK BRKINT PARMRK ISTRIP INLCR '
                    'ICRNL IXON IGNPAR IGNBRK')
    oflag &= ~flags('OPOST')
    cflag &= ~flags('CSIZE PARENB')
    cflag |= flags('CS8 CREAD')
    lflag &= ~flags('ECHO ECHOE ECHOK ECHONL ICANON ISIG IEXTEN NOFLSH '
                    'TOSTOP PENDIN')
    return [iflag, oflag, cflag, lflag] + list(tflags[4:])


def disable_echo(fd):
    """
    Put the terminal behind the descriptor `fd` in raw mode.
    """
    when = getattr(termios, 'TCSASOFT', 0)
    if not mitogen.core.IS_WSL:
        # The Windows subsystem refuses to wait for output to drain.
        when |= termios.TCSAFLUSH
    termios.tcsetattr(fd, when, cfmakeraw(termios.tcgetattr(fd)))


class Argv(object):
    """
    A command line that is put into words only when somebody reads it: for
    logs, and for tools that want a whole shell command as one argument.

    :param argv: list of strings.
    """
    _must_quote = re.compile(r'[ \\$"`!]')
    _must_escape = re.compile(r'([\\$"`!])')

    def __init__(self, argv):
        self.argv = argv

    def escape(self, x):
        """
        Return one element as a shell reads it back.
        """
        word = _native_str(x)
        if self._must_quote.search(word):
            return '"%s"' % (self._must_escape.sub(r'\\\1', word),)
        return word

    def __str__(self):
        return ' '.join([self.escape(word) for word in self.argv])

    __repr__ = __str__


class CallSpec(object):
    """
    A call that is put into words only when somebody reads it.
    """
    def __init__(self, func, args, kwargs):
        self.func = func
        self.args = args
        self.kwargs = kwargs

    def _name(self):
        func = self.func
        owner = getattr(func, IM_SELF_ATTR, None)
        parts = [getattr(func, '__module__', None)]
        if isinstance(owner, _CLASS_TYPES):
            parts.append(owner.__name__)
        parts.append(getattr(func, '__name__', None) or repr(func))
        return '.'.join([part for part in parts if part])

    def __repr__(self):
        words = [repr(arg) for arg in self.args]
        words.extend('%s=%r' % item for item in sorted(self.kwargs.items()))
        return '%s(%s)' % (self._name(), ', '.join(words))


def get_history(streams):
    """
    Return, as text, the last lines that arrived on some streams in the order
    of their arrival.

    :param streams: iterable of streams, whose protocols keep `logged_lines`,
        or None.
    """
    lines = []
    for stream in streams:
        if stream is None:
            continue
        lines.extend(stream.protocol.logged_lines)
        # The stream that ends last is asked before its protocol has taken
        # notice, so its final line may be waiting for a newline still.
        tail = getattr(stream.protocol, 'logged_partial', None)
        if tail and isinstance(tail, mitogen.core.BytesType):
            lines.append((mitogen.core.now(), tail))

    lines.sort(key=lambda line: line[0])
    return b('\n').join([line for _, line in lines]).decode('utf-8', 'replace')


#
# Timers
#

class Timer(object):
    """
    One entry of a `TimerList`.

    :ivar when: time of `mitogen.core.now` at which it is due.
    :ivar func: what to call, without arguments.
    :ivar active: True until it has run or was cancelled.
    """
    active = True

    def __init__(self, when, func):
        self.func, self.when = func, when

    def __repr__(self):
        return 'Timer(%r, %r)' % (self.when, self.func)

    def __lt__(self, other):
        return self.when < other.when

    def __le__(self, other):
        return self.when <= other.when

    def __gt__(self, other):
        return self.when > other.when

    def __ge__(self, other):
        return self.when >= other.when

    def __eq__(self, other):
        return isinstance(other, Timer) and self.when == other.when

    def __ne__(self, other):
        return not self == other

    __hash__ = object.__hash__

    def cancel(self):
        """
        Make sure that it does not run. Repeating this does no harm.
        """
        self.active = False


class TimerList(object):
    """
    The timers of one broker. Broker thread only, and therefore without locks.
    """
    _now = staticmethod(mitogen.core.now)

    def __init__(self):
        self._heap = []

    def schedule(self, when, func):
        """
        Have `func()` called once `when` has come, and return its `Timer`.
        """
        timer = Timer(when, func)
        heapq.heappush(self._heap, timer)
        return timer

    def get_timeout(self):
        """
        Return the seconds until the next timer is due, never less than zero,
        or None if nothing is pending.
        """
        heap = self._heap
        while heap and not heap[0].active:
            heapq.heappop(heap)
        if not heap:
            return None
        return max(0, heap[0].when - self._now())

    def expire(self):
        """
        Run each timer that is due, the earliest first.
        """
        heap = self._heap
        now = self._now()
        while heap and heap[0].when <= now:
            timer = heapq.heappop(heap)
            if timer.active:
                timer.active = False
                timer.func()


#
# Pollers
#

class _TablePoller(mitogen.core.Poller):
    """
    Shared part of the pollers below: who is registered, and since when.

    Each registration remembers the generation it was made in, and `poll`
    opens a new one. What was registered since then may be another file under
    the number that an event is about, so it yields nothing until the next
    call. All of them are level triggered, so nothing is lost by that.

    `mitogen.core.Poller` is the base for :func:`isinstance` only.
    """
    def __init__(self):
        self._generation = 1
        self._rfds = {}   # fd -> (data, generation)
        self._wfds = {}
        self._known = set()   # fds that the kernel watches for us

    @property
    def readers(self):
        return [(fd, data) for fd, (data, _) in list(self._rfds.items())]

    @property
    def writers(self):
        return [(fd, data) for fd, (data, _) in list(self._wfds.items())]

    def _change(self, fd):
        """Tell the kernel what is wanted of `fd` now."""
        raise NotImplementedError()

    def _interest(self, fd, read_bit, write_bit):
        """Return those of two bits that are wanted of `fd`."""
        return ((fd in self._rfds and read_bit) |
                (fd in self._wfds and write_bit))

    def _note(self, fd, mask):
        """Remember whether the kernel watches `fd` now."""
        if mask:
            self._known.add(fd)
        else:
            self._known.discard(fd)

    def _wait(self, timeout):
        """Wait; return a list of (fd, readable, writable)."""
        raise NotImplementedError()

    def start_receive(self, fd, data=None):
        self._rfds[fd] = (data or fd, self._generation)
        self._change(fd)

    def stop_receive(self, fd):
        if self._rfds.pop(fd, None):
            self._change(fd)

    def start_transmit(self, fd, data=None):
        self._wfds[fd] = (data or fd, self._generation)
        self._change(fd)

    def stop_transmit(self, fd):
        if self._wfds.pop(fd, None):
            self._change(fd)

    def close(self):
        pass

    def poll(self, timeout=None):
        """
        Return an iterator over the data of files that are ready. The wait,
        of `timeout` seconds or for ever, begins with the first step.
        """
        self._generation += 1
        return self._ready(timeout, self._generation)

    def _ready(self, timeout, generation):
        for fd, readable, writable in self._wait(timeout):
            # Looked up one by one: the consumer changes the tables between
            # two steps.
            if readable:
                entry = self._rfds.get(fd)
                if entry and entry[1] < generation:
                    yield entry[0]
            if writable:
                entry = self._wfds.get(fd)
                if entry and entry[1] < generation:
                    yield entry[0]


def _timeout_ms(timeout):
    """Round up, or a loop wakes just before its timer is due, and spins. Who
    waits for more than the system's 24 days looks again in between."""
    return int(math.ceil(min(timeout, 1e6) * 1000))


class PollPoller(_TablePoller):
    """
    Poller on :func:`select.poll`: no limit on descriptor numbers, and no
    descriptor of its own, so it is cheap to make.
    """
    SUPPORTED = hasattr(select, 'poll')

    def __init__(self):
        super(PollPoller, self).__init__()
        self._pollobj = select.poll()
        # Errors wake a poll unasked. Whoever registered learns of them by
        # trying to read or write.
        self._readmask = select.POLLIN | select.POLLHUP | select.POLLERR
        self._writemask = select.POLLOUT | select.POLLERR

    def _change(self, fd):
        mask = self._interest(fd, select.POLLIN, select.POLLOUT)
        if mask:
            self._pollobj.register(fd, mask)
        elif fd in self._known:
            self._pollobj.unregister(fd)
        self._note(fd, mask)

    def _drop_closed(self, fd):
        # Left in, a number that was closed behind our back makes each poll
        # return at once.
        LOG.debug('%r: fd %d was closed while registered', self, fd)
        for table in self._rfds, self._wfds:
            table.pop(fd, None)
        self._change(fd)

    def _wait(self, timeout):
        limit = None if timeout is None else _timeout_ms(timeout)
        events, _ = mitogen.core.io_op(self._pollobj.poll, limit)
        ready = []
        for fd, event in events or ():
            if event & select.POLLNVAL:
                self._drop_closed(fd)
            else:
                ready.append((fd, event & self._readmask,
                              event & self._writemask))
        return ready


class EpollPoller(_TablePoller):
    """
    Poller on Linux epoll: the cost of a call follows the number of events.
    """
    SUPPORTED = hasattr(select, 'epoll')
    _max_events = 32

    def __init__(self):
        super(EpollPoller, self).__init__()
        self._epoll = select.epoll(self._max_events)
        mitogen.core.set_cloexec(self._epoll.fileno())
        self._readmask = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
        self._writemask = select.EPOLLOUT | select.EPOLLERR

    def close(self):
        self._epoll.close()

    def _change(self, fd):
        mask = self._interest(fd, select.EPOLLIN, select.EPOLLOUT)
        known = fd in self._known
        self._note(fd, mask)
        if known:
            try:
                if mask:
                    self._epoll.modify(fd, mask)
                else:
                    self._epoll.unregister(fd)
                return
            except (IOError, OSError) as e:
                # The kernel forgets a file that is closed, so this is a new
                # one under an old number, or none.
                if e.args[0] not in (errno.ENOENT, errno.EBADF):
                    raise
        if mask:
            self._epoll.register(fd, mask)

    def _wait(self, timeout):
        if timeout is None:
            timeout = -1
        else:
            # Python 2 truncates to milliseconds; the addition keeps it from
            # losing one to a rounding error.
            timeout = (_timeout_ms(timeout) + 0.01) / 1000
        events, _ = mitogen.core.io_op(
            self._epoll.poll, timeout, self._max_events)
        return [(fd, event & self._readmask, event & self._writemask)
                for fd, event in events or ()]


class KqueuePoller(_TablePoller):
    """
    Poller on the kqueue of macOS and the BSDs.
    """
    SUPPORTED = hasattr(select, 'kqueue')
    _max_events = 32

    def __init__(self):
        super(KqueuePoller, self).__init__()
        self._kqueue = select.kqueue()
        mitogen.core.set_cloexec(self._kqueue.fileno())
        self._filters = set()   # (fd, filter) pairs that the kernel holds

    def close(self):
        self._kqueue.close()

    def _change_filter(self, fd, filt, wanted):
        held = (fd, filt) in self._filters
        if wanted == held:
            return
        if wanted:
            self._filters.add((fd, filt))
            action = select.KQ_EV_ADD
        else:
            self._filters.discard((fd, filt))
            action = select.KQ_EV_DELETE
        try:
            # Asking for no events makes the kernel apply the change alone.
            self._kqueue.control([select.kevent(fd, filt, action)], 0, 0)
        except (IOError, OSError) as e:
            # A file that is closed takes its filters with it.
            if wanted or e.args[0] not in (errno.ENOENT, errno.EBADF):
                raise

    def start_receive(self, fd, data=None):
        self._filters.discard((fd, select.KQ_FILTER_READ))
        super(KqueuePoller, self).start_receive(fd, data)

    def start_transmit(self, fd, data=None):
        self._filters.discard((fd, select.KQ_FILTER_WRITE))
        super(KqueuePoller, self).start_transmit(fd, data)

    def _change(self, fd):
        self._change_filter(fd, select.KQ_FILTER_READ, fd in self._rfds)
        self._change_filter(fd, select.KQ_FILTER_WRITE, fd in self._wfds)

    def _wait(self, timeout):
        events, _ = mitogen.core.io_op(
            self._kqueue.control, None, self._max_events, timeout)
        ready = []
        for event in events or ():
            if event.flags & select.KQ_EV_ERROR:
                LOG.debug('%r: error event on fd %d: %s',
                          self, event.ident, event.data)
                continue
            ready.append((event.ident,
                          event.filter == select.KQ_FILTER_READ,
                          event.filter == select.KQ_FILTER_WRITE))
        return ready


#: In order of preference.
POLLERS = (EpollPoller, KqueuePoller, PollPoller, mitogen.core.Poller)

#: For brokers.
PREFERRED_POLLER = [cls for cls in POLLERS if cls.SUPPORTED][0]

#: For short waits on one or two files: needs no descriptor.
if PollPoller.SUPPORTED:
    POLLER_LIGHTWEIGHT = PollPoller
else:
    POLLER_LIGHTWEIGHT = PREFERRED_POLLER

# The default, select(), cannot watch a descriptor above 1023, and a parent of
# many children has those.
mitogen.core.Latch.poller_class = POLLER_LIGHTWEIGHT


class _YieldingSleeper(mitogen.core._Sleeper):
    """
    On a single core, lets the thread that is waited for run before this one
    goes to sleep: then it need not be woken. Whoever is woken while another
    thread has the GIL only runs to find that out. With anything else to run
    there, a yield would cost the waiter a time slice.
    """
    #: Seconds for which a look at the machine holds.
    FRESH = 0.1

    #: Those that may want to run: this thread, and the one it waits for.
    MOST_RUNNING = 2

    #: What runs, as proc(5) has it.
    LOADAVG = '/proc/loadavg'

    _pays = False
    _looked_at = 0

    @classmethod
    def _look(cls):
        cls._looked_at = mitogen.core.now()
        cls._pays = False
        try:
            with open(cls.LOADAVG) as fp:
                running = int(fp.read().split()[3].split('/')[0])
            cls._pays = (running <= cls.MOST_RUNNING and
                         len(os.sched_getaffinity(0)) == 1)
        except (OSError, IndexError, ValueError):
            # It cannot be known.
            pass

    def sleep(self, timeout):
        cls = _YieldingSleeper
        if self.since - cls._looked_at > cls.FRESH:
            cls._look()
        if cls._pays:
            os.sched_yield()
        super(_YieldingSleeper, self).sleep(timeout)


# Before 3.10.7 `sched_yield` keeps the GIL. Not every Python has it.
if (hasattr(os, 'sched_yield') and sys.platform == 'linux' and
        sys.version_info >= (3, 10, 7) and
        float(os.environ.get('MITOGEN_SPIN') or 1)):
    mitogen.core._Sleeper = _YieldingSleeper


#
# What is sent to a starting child
#

#: Begins source that is sent, up to an empty line: runs among the names of the
#: first stage, `d` being the whole text, and executes the rest as
#: `mitogen.core`. The installed package, if the first stage has found one, is
#: forgotten.
_UNPACK = (
    b"d=d[d.index(b'\\n\\n')+2:];m=sys.modules;"
    b"[m.pop(s)for s in list(m)if s.split('.')[0]=='mitogen'];"
    b"h=m['mitogen']=type(sys)('mitogen');h.__path__=[];s='mitogen.core';"
    b"h.core=h=m[s]=type(sys)(s);h.__file__='x/mitogen/core.py';"
    b"h._core_source=d[:d.rindex(b'\\n',0,-1)];"
    b"exec(compile(d,h.__file__,'exec'),h.__dict__)\n\n"
)

#: What is frequent in the source, and takes zlib more than one symbol each
#: time. A byte that ASCII lacks stands for each. Only their number matters,
#: not which they are: found by trying out.
_PHRASES = (
    b'\n   except ', b'\n def ', b'turn', b'stream', b'__init__', b'Error',
    b'or ', b'st', b' in ', b'name', b'azyLogge', b'False', b'all', b'import',
    b' and ', b'\n  if ', b'\n  ', b'al', b'handle', b'atch', b' is ',
    b'module', b'write', b'ar', b'_by', b'=_Late()', b'disconnect', b'pickl',
    b'if ', b'ull', b'context', b'protocol', b'ck', b'source', b'transmit',
    b'to_text(', b'\n ', b'msg', b'_id', b'mitogen', b'rai', b'shutdow',
    b'\nclass ', b'.get(', b'\ndef ', b'True', b'try:', b'get', b'broker',
    b'_complete()', b'None', b'ing', b'class', b'er', b'os.', b'set', b'de',
    b'not ', b'sys.', b'se', b'or', b'in', b'shut', b'ceiv', b'no',
    b'Protocol', b'it', b'lo', b'S.', b'en', b'LOG.', b'ess', b'on', b're',
    b'nt', b'li', b'size', b'out', b'xcept', b'is', b'op',
)

#: Comes before `_UNPACK` where phrases were replaced. Not for Python 2.
_EXPAND = (
    b"for h,s in enumerate(b'" +
    b'|'.join(_PHRASES).replace(b'\n', b'\\n') +
    b"'.split(b'|'),128):d=d.replace(bytes([h]),s)\n"
)


def _replace_phrases(text):
    """
    Return bytes with a byte in place of each of `_PHRASES`.
    """
    for code, phrase in enumerate(_PHRASES, 128):
        text = text.replace(phrase, bytes(bytearray([code])))
    return text


class PartialZlib(object):
    """
    Compresses a large text once and then, cheaply and as often as wanted, the
    same text with another ending.

    :param bytes s: the part that stays.
    :param int level: of the compression, 0 for none.
    """
    #: It lacks a part of the core, which may be fetched later.
    _divided = False

    def __init__(self, s, level=9):
        self.s = s
        self._compressor = zlib.compressobj(level)
        self._head = self._compressor.compress(s)

    def append(self, s):
        """
        Return one complete zlib stream of the base followed by `s`.
        """
        compressor = self._compressor.copy()
        return self._head + compressor.compress(s) + compressor.flush()


def _get_core_source():
    """
    Return the source of `mitogen.core` as text. `mitogen.master` puts a
    function in this place that returns a smaller form.
    """
    return mitogen.core.get_core_source()


_core_source_lock = threading.Lock()
_upgrade_lock = threading.Lock()


def _replace_locks():
    global _core_source_lock, _upgrade_lock
    _core_source_lock = threading.Lock()
    _upgrade_lock = threading.Lock()


mitogen.core._fork_hooks.append(_replace_locks)
_core_source_partial = None    # guarded by _core_source_lock
_core_source_origin = None     # the function that made it; same guard


def get_core_source_partial():
    """
    Return the `PartialZlib` of the core's source that all connections of this
    process share. Any thread.
    """
    global _core_source_partial, _core_source_origin
    with _core_source_lock:
        if _core_source_origin is not _get_core_source:
            source = _get_core_source()
            if not isinstance(source, mitogen.core.BytesType):
                source = source.encode('utf-8')
            _core_source_partial = PartialZlib(_UNPACK + source)
            _core_source_origin = _get_core_source
        return _core_source_partial


#: Returns the core's source, as small as it gets for one kind of child:
#: ``_reduce_core_source(is_python_3, whole)``. Two texts: what the child is
#: sent, and what it may fetch later, None if that is nothing. Set by
#: `mitogen.master`; other contexts pass on what they have been sent.
_reduce_core_source = None

_partials = {}    # kind of child -> PartialZlib; same guard

#: Compressed, once a child needs it; same guard.
_late_source = None

_FUTURE = b'from __future__ import absolute_import'

#: Pythons before know no `__getattr__` of a module: they are sent everything.
_LATE_NAMES_SINCE = 0x03070000


def _can_serve(python, whole):
    """
    Tell whether the core's source that this process has is enough for a
    child. What was reduced for this one is for others of its kind only.

    :param int python: the child's :data:`sys.hexversion`.
    :param bool whole: the child needs everything from the start.
    """
    # Only reduced text defines that.
    if '__getattr__' not in mitogen.core.__dict__:
        return True
    source = mitogen.core._core_source
    return (python >= 0x03000000) == PY3 and (
        b'\ndef enable_profiling(' in source or
        not whole and python >= _LATE_NAMES_SINCE)


def _get_reduced_partial(python, whole):
    """
    Return a `PartialZlib` of the least source that a child can do with.
    """
    global _late_source
    if _reduce_core_source is None:
        return get_core_source_partial()
    with _core_source_lock:
        key = python >= 0x03000000, whole or python < _LATE_NAMES_SINCE
        if key not in _partials:
            source, late = _reduce_core_source(*key)
            source = source.encode('utf-8')
            # What `_EXPAND` cannot tell from a phrase; never, so far.
            divided = late is not None and max(bytearray(source)) < 128
            if divided:
                _late_source = zlib.compress(late.encode('utf-8'), 9)
                source = _EXPAND + _UNPACK + _replace_phrases(source)
            else:
                source = _UNPACK + source
            partial = _partials[key] = PartialZlib(source)
            partial._divided = divided
        return _partials[key]


def get_late_source(package, resource):
    """
    Return what a child that was sent the least asks for under these names, or
    None.
    """
    if (package, resource) == (u'mitogen', u'core.late'):
        return _late_source


def _get_code_partial():
    """
    Return a `PartialZlib` of a text that loads the compiled core into a child
    which runs the very interpreter that runs us. That takes a few times the
    bytes, and a twentieth of the time: for one machine, not for a network.
    """
    with _core_source_lock:
        if 'code' not in _partials:
            source = _get_core_source()
            if not isinstance(source, mitogen.core.BytesType):
                source = source.encode('utf-8')
            text = source
            if PY3:
                # A no-op there, and yet another module to be imported.
                text = text.replace(_FUTURE, b'')
            code = marshal.dumps(compile(text, 'x/mitogen/core.py', 'exec', 0,
                                         True))
            decode = b"__import__('binascii').a2b_base64('%s')"
            text = b('_core_source=__import__("zlib").decompress(%s)\n'
                     'exec(__import__("marshal").loads(%s))\n')
            text %= tuple(decode % (binascii.b2a_base64(data).strip(),)
                          for data in (zlib.compress(source, 1), code))
            _partials['code'] = PartialZlib(_UNPACK + text, 0)
        return _partials['code']


#: Runs the first stage. One line, quoted without trouble by any shell. The
#: search path is cleared of the current directory before anything is imported,
#: since that may be unreadable or hold a file called zlib.py.
_DECODER = (
    'import sys;sys.path[:]=filter(None,sys.path);import binascii,zlib;'
    'exec(zlib.decompress(binascii.a2b_base64(sys.argv[1]),-15))'
)

#: The first stage. Terse, since it travels on each command line, and restricted
#: to what means the same in Python 2.7 and 3. It must not read one byte beyond
#: the payload that its header announces: frames follow on the same descriptor.
#:
#: It waits with select() before each read, so that it does not matter whether
#: fd 0 blocks. `s` says at first whether this version of the package is here;
#: its core is then imported while the parent's answer is on the way. The
#: answer may still be the source (kind S), whose first line is `_UNPACK`.
_FIRST_STAGE = r'''
import gc,os,select
gc.disable()
s=0
if os.environ.get('MITOGEN_CORE')!='pure':
 try:
  import mitogen;mitogen.__path__
  s='.'.join(map(str,mitogen.__version__))==sys.argv[3]
 except Exception:0
os.write(1,('MITO000 %d %x\n'%(s,sys.hexversion)).encode())
if s:import mitogen.core
def b(e,d=b''):
 while len(d)<e:
  select.select([0],[],[])
  s=os.read(0,e-len(d))
  if not s:sys.exit('mitogen: EOF on stdin')
  d+=s
 return d
d=b(9)
s=d[:1]
if s not in b'CS':sys.exit('mitogen: bad header %r'%d)
d=b(int(d[1:],16))
if s==b'C':mitogen.core.ExternalContext(eval(d)).main()
else:
 d=zlib.decompress(d)
 exec(d.split(b'\n\n')[0])
'''

_first_stage_blob = None


def _get_first_stage_blob():
    """
    Return the first stage as it stands on a command line: deflated without
    zlib's frame, then base64 without newlines. Native string, made once.
    """
    global _first_stage_blob
    if _first_stage_blob is None:
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
        raw = compressor.compress(_FIRST_STAGE.strip().encode('ascii'))
        raw += compressor.flush()
        blob = binascii.b2a_base64(raw).decode('ascii')
        _first_stage_blob = str(blob.replace(u'\n', u''))
    return _first_stage_blob


def _version_str():
    return '.'.join([str(part) for part in mitogen.__version__])


def _literal(obj):
    """
    Return the ASCII bytes of an expression that evaluates to `obj`, made of
    dicts, lists, tuples, text, numbers, booleans and None, on any Python.
    """
    if PY3:
        return ascii(obj).encode('ascii')
    return repr(obj)


#
# Starting a process
#

def popen(**kwargs):
    """
    Start a process and return its :class:`subprocess.Popen`. Takes the same
    keyword arguments, with one difference: :data:`_preexec_hook`, if set, runs
    in the child before `preexec_fn`.

    Without either of the two nothing runs between fork and exec, and recent
    Pythons start the process by vfork(), which is many times faster for a
    large parent.
    """
    hook = _preexec_hook
    preexec_fn = kwargs.pop('preexec_fn', None)
    if hook is None:
        kwargs['preexec_fn'] = preexec_fn
    else:
        def run_hooks():
            hook()
            if preexec_fn is not None:
                preexec_fn()
        kwargs['preexec_fn'] = run_hooks
    return subprocess.Popen(**kwargs)


#: Bytes of send buffer of a connection to a child on this machine. Each time it
#: is full, sender and reader change places, which costs more than the copying.
#: In the pure core what is under way at a time is copied several times.
_BUFFER_SIZE = mitogen.core.CHUNK_SIZE * (
    4 if mitogen.core.CORE == 'native' else 1)


def create_socketpair(size=None, blocking=None):
    """
    Return two connected sockets, (parent's, child's).

    :param int size: bytes of send buffer; `mitogen.core.CHUNK_SIZE` if None.
    :param blocking: mode of both; left as the system makes them if None.
    """
    ends = mitogen.core.socketpair(blocking)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF,
                       size or mitogen.core.CHUNK_SIZE)
    return ends


def create_best_pipe(escalates_privilege=False, blocking=None):
    """
    Return a connection in both directions as four files: (parent's read end,
    child's write end, child's read end, parent's write end).

    One socket pair serves for all four, except that SELinux takes sockets, but
    not pipes, away from a process that changes its domain.
    """
    if escalates_privilege and SELINUX_ENABLED:
        parent_r, child_w = mitogen.core.pipe(blocking)
        try:
            child_r, parent_w = mitogen.core.pipe(blocking)
        except Exception:
            _close_all(parent_r, child_w)
            raise
        return parent_r, child_w, child_r, parent_w

    parentfp, childfp = create_socketpair(_BUFFER_SIZE, blocking)
    return parentfp, childfp, childfp, parentfp


def _close_all(*fps):
    """Close each file once; None and repeated ones are fine."""
    seen = []
    for fp in fps:
        if fp is not None and not any(fp is other for other in seen):
            seen.append(fp)
            fp.close()


def _is_inherited(fd):
    """Return whether a program that is started now has a descriptor."""
    try:
        return not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    except (IOError, OSError):
        return False


def create_child(args, merge_stdio=False, stderr_pipe=False,
                 escalates_privilege=False, preexec_fn=None):
    """
    Start a process that talks over a socket pair.

    :param list args: the command line.
    :param bool merge_stdio: the same socket is its stderr, too.
    :param bool stderr_pipe: its stderr is a pipe to us; otherwise inherited.
        A pipe in any case when ours is closed, or closes on exec, as Ansible
        wants it: the first file that a program opens would be its stderr.
    :param bool escalates_privilege: see :func:`create_best_pipe`.
    :param preexec_fn: called in the child before exec.
    :returns: `PopenProcess`
    :raises OSError: the program cannot be run. Nothing is left open then.
    """
    parent_r, child_w, child_r, parent_w = create_best_pipe(
        escalates_privilege=escalates_privilege)
    stderr_r = stderr_w = stderr = None
    try:
        if merge_stdio:
            stderr = child_w
        elif stderr_pipe or not _is_inherited(2):
            stderr_r, stderr_w = mitogen.core.pipe()
            mitogen.core.set_cloexec(stderr_r.fileno())
            stderr = stderr_w

        proc = popen(args=args, stdin=child_r, stdout=child_w, stderr=stderr,
                     close_fds=True, preexec_fn=preexec_fn)
    except BaseException:
        _close_all(parent_r, parent_w, stderr_r)
        raise
    finally:
        _close_all(child_r, child_w, stderr_w)

    return PopenProcess(proc, stdin=parent_w, stdout=parent_r, stderr=stderr_r)


def _acquire_controlling_tty():
    """
    Runs in a new child: begin a session and make the terminal on fd 2 the
    session's own, so that what is asked on /dev/tty is asked of us.
    """
    # Under nohup it is ignored: then ssh would not end with its terminal, but
    # take that for an empty answer, and have it refused.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.setsid()
    if IS_LINUX:
        # For a session leader without a terminal, opening one is enough.
        try:
            os.close(os.open(os.ttyname(2), os.O_RDWR))
        except (IOError, OSError):
            # The name may not exist in this /dev; the descriptor does.
            pass
    if (hasattr(termios, 'TIOCSCTTY') and not mitogen.core.IS_WSL and
            not IS_SOLARIS):
        fcntl.ioctl(2, termios.TIOCSCTTY)


def _linux_broken_devpts_openpty():
    """
    Make a PTY by way of the multiplexer device. C libraries refuse where
    /dev/pts is mounted with the wrong group; the kernel does not mind.
    """
    master_fd = os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY)
    try:
        unlock = struct.pack('i', 0)
        fcntl.ioctl(master_fd, LINUX_TIOCSPTLCK, unlock)
        number = struct.unpack(
            'i', fcntl.ioctl(master_fd, LINUX_TIOCGPTN, unlock))[0]
        slave_fd = os.open('/dev/pts/%d' % (number,),
                           os.O_RDWR | os.O_NOCTTY)
    except BaseException:
        os.close(master_fd)
        raise
    return master_fd, slave_fd


def openpty():
    """
    Make a PTY in raw mode and return (master, slave), unbuffered binary files.

    :raises mitogen.core.StreamError: the system has none to give.
    """
    try:
        master_fd, slave_fd = os.openpty()
    except OSError as e:
        if not (IS_LINUX and e.args[0] == errno.EPERM):
            raise ConnectError(OPENPTY_MSG % (e,))
        try:
            master_fd, slave_fd = _linux_broken_devpts_openpty()
        except (IOError, OSError) as e:
            raise ConnectError(OPENPTY_MSG % (e,))

    master_fp = os.fdopen(master_fd, 'r+b', 0)
    slave_fp = os.fdopen(slave_fd, 'r+b', 0)
    try:
        mitogen.core.set_cloexec(master_fd)
        mitogen.core.set_cloexec(slave_fd)
        if not IS_SOLARIS:
            # There the master is no terminal.
            disable_echo(master_fd)
        disable_echo(slave_fd)
        mitogen.core.set_blocking(slave_fd, True)
    except BaseException:
        _close_all(master_fp, slave_fp)
        raise
    return master_fp, slave_fp


def tty_create_child(args):
    """
    Start a process whose standard files are all one PTY, which is also its
    controlling terminal.

    :param list args: the command line.
    :returns: `PopenProcess` whose stdin and stdout are the PTY's master.
    """
    master_fp, slave_fp = openpty()
    try:
        proc = popen(args=args, stdin=slave_fp, stdout=slave_fp,
                     stderr=slave_fp, close_fds=True,
                     preexec_fn=_acquire_controlling_tty)
    except BaseException:
        master_fp.close()
        raise
    finally:
        slave_fp.close()
    return PopenProcess(proc, stdin=master_fp, stdout=master_fp)


def hybrid_tty_create_child(args, escalates_privilege=False):
    """
    Start a process that talks over a socket pair but has a PTY as stderr and
    controlling terminal, where tools ask for passwords.

    :param list args: the command line.
    :param bool escalates_privilege: see :func:`create_best_pipe`.
    :returns: `PopenProcess` whose stderr is the PTY's master.
    """
    master_fp, slave_fp = openpty()
    parent_r = child_w = child_r = parent_w = None
    try:
        parent_r, child_w, child_r, parent_w = create_best_pipe(
            escalates_privilege=escalates_privilege, blocking=True)
        proc = popen(args=args, stdin=child_r, stdout=child_w,
                     stderr=slave_fp, close_fds=True,
                     preexec_fn=_acquire_controlling_tty)
    except BaseException:
        _close_all(master_fp, parent_r, parent_w)
        raise
    finally:
        _close_all(slave_fp, child_r, child_w)
    return PopenProcess(proc, stdin=parent_w, stdout=parent_r,
                        stderr=master_fp)


class Process(object):
    """
    A child process, and our ends of its standard files.

    Fires ``exit`` on the broker thread when a `Reaper` finds it gone.

    :ivar int pid: process id.
    :ivar stdin: file that it reads from.
    :ivar stdout: file that it writes to; may be the same object.
    :ivar stderr: file that its diagnostics come from, or None.
    :ivar name: name of its stream, once there is one.
    """
    name = None

    def __init__(self, pid, stdin, stdout, stderr=None):
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr

    def __repr__(self):
        return '%s %s pid %d' % (type(self).__name__, self.name, self.pid)

    def poll(self):
        """
        Return None while it runs, otherwise its exit status, or minus the
        number of the signal that ended it. Reaps it; never blocks.
        """
        raise NotImplementedError()

    def send_signal(self, sig):
        """Send it a signal; OSError if that is not possible or allowed."""
        os.kill(self.pid, sig)

    def kill(self):
        """Have the kernel end it."""
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


class PopenProcess(Process):
    """
    A `Process` started by :func:`popen`.

    :ivar proc: the :class:`subprocess.Popen`.
    """
    def __init__(self, proc, stdin, stdout, stderr=None):
        self.proc = proc
        Process.__init__(self, proc.pid, stdin, stdout, stderr=stderr)

    def poll(self):
        return self.proc.poll()

    def send_signal(self, sig):
        self.proc.send_signal(sig)


class Reaper(object):
    """
    Sees a process to its end: asks after it at growing intervals and, if it
    lingers, ends it. No signal handler is involved, since those belong to the
    program that uses us.

    :param broker: whose timers to use.
    :param Process proc: the process, whose files are closed already.
    :param bool kill: True to send signals, False to only wait.
    :param bool wait_on_shutdown: True to delay the end of the broker until the
        process is gone, within the broker's own limit.
    """
    max_tries = 20

    #: Which look at a process that still runs is followed by which signal.
    escalation = {2: signal.SIGTERM, 6: signal.SIGKILL}

    #: Seconds between peeks that follow the first look and have no other
    #: consequence. A child that ends in good order closes its stream some
    #: hundred microseconds before it is gone; without them each level of a
    #: chain of children would delay the end of the level above by 50 ms.
    peeks = (0.001, 0.002, 0.004, 0.008, 0.016)

    def __init__(self, broker, proc, kill, wait_on_shutdown):
        self.proc = proc
        self._broker = broker
        self._escalation = self.escalation if kill else {}
        self._delays_shutdown = wait_on_shutdown
        self._looks = 0
        self._timer = None
        self._peeks = iter(self.peeks)
        self._peek_timer = None
        self._listening = False

    def _calc_delay(self, count):
        """Seconds to wait after look number `count`, from zero."""
        return 0.05 * (1.72 ** count)

    def reap(self):
        """
        Look after the process, now and, until it is gone, again later. Broker
        thread.
        """
        if not self._is_gone():
            self._looks += 1
            self._on_running()

    def _is_gone(self):
        """Return whether the process is gone; if so, tell everybody."""
        code = self.proc.poll()
        if code is None:
            return False
        LOG.debug('%r: %s', self.proc, returncode_to_str(code))
        self._stop()
        for func in list(mitogen.core._listeners(self.proc, 'exit')):
            try:
                func()
            except Exception:
                # From a timer nobody catches it.
                LOG.exception('%r: listener %r crashed', self.proc, func)
        return True

    def _peek(self):
        if not self._is_gone():
            self._schedule_peek()

    def _schedule_peek(self):
        for delay in self._peeks:
            self._peek_timer = self._broker.timers.schedule(
                mitogen.core.now() + delay, self._peek)
            return

    def _on_running(self):
        if self._looks > self.max_tries:
            LOG.warning('%r: still running after all its files were closed '
                        'and %d looks at it; giving up', self.proc,
                        self.max_tries)
            self._stop()
        elif getattr(self._broker, '_exitted', False) is True:
            # There are no timers any more, so this is the only chance.
            if self._escalation:
                self._signal(signal.SIGTERM)
            self._stop()
        elif self._schedule() and self._looks in self._escalation:
            self._signal(self._escalation[self._looks])

    def _schedule(self):
        """
        Have `reap` called again; return False if nobody should wait for it.
        """
        if not (self._delays_shutdown or self._listening):
            if getattr(self._broker, '_alive', True) is False:
                return False
            mitogen.core.listen(self._broker, 'shutdown', self._stop)
            self._listening = True
        due = mitogen.core.now() + self._calc_delay(self._looks - 1)
        self._timer = self._broker.timers.schedule(due, self.reap)
        if self._looks == 1:
            self._schedule_peek()
        return True

    def _stop(self):
        """Forget the process. Also the listener of the broker's shutdown."""
        for timer in self._timer, self._peek_timer:
            if timer is not None:
                timer.cancel()
        if self._listening:
            mitogen.core.unlisten(self._broker, 'shutdown', self._stop)
            self._listening = False

    def _signal(self, signum):
        LOG.debug('%r: sending %s', self.proc, SIGNAL_BY_NUM[int(signum)])
        try:
            self.proc.send_signal(signum)
        except OSError as e:
            # A front-end such as sudo runs as somebody else. It ends all the
            # same, as its files are closed. Or it was reaped just now.
            if e.args[0] not in (errno.EPERM, errno.ESRCH):
                raise


#
# Protocols
#

class LineLoggingProtocolMixin(object):
    """
    For a line protocol: keeps the last lines, so that a failure can show them.

    :ivar logged_lines: deque of (time, line without newline).
    :ivar logged_partial: the line that has no newline yet.
    """
    history_size = 100

    #: A line without end is not kept beyond that: each read looks at all of it.
    max_tail = 8192

    #: Of such a line, what may be the beginning of something that matters.
    _kept_tail = 1024

    def __init__(self, *args, **kwargs):
        super(LineLoggingProtocolMixin, self).__init__(*args, **kwargs)
        self.logged_lines = collections.deque(maxlen=self.history_size)
        self.logged_partial = b('')

    def on_receive(self, broker, buf):
        super(LineLoggingProtocolMixin, self).on_receive(broker, buf)
        if len(self._trailer) > self.max_tail:
            cut = len(self._trailer) - self._kept_tail
            line, self._trailer = self._trailer[:cut], self._trailer[cut:]
            self._on_piece(line)
            self.logged_partial = self._shown(self._trailer)

    def _on_piece(self, line):
        """Take what is not kept of a line that goes on."""
        self._log_line(line)

    def _shown(self, line):
        """Return a line as logs and failures may show it."""
        return line

    def _log_line(self, line):
        self.logged_partial = b('')
        self.logged_lines.append((mitogen.core.now(), self._shown(line)))

    def on_line_received(self, line):
        self._log_line(line)
        parent = super(LineLoggingProtocolMixin, self)
        return parent.on_line_received(line)

    def on_partial_line_received(self, line):
        self.logged_partial = self._shown(line)
        parent = super(LineLoggingProtocolMixin, self)
        return parent.on_partial_line_received(line)

    def on_disconnect(self, broker):
        # The end of the stream is the end of its last line.
        if self.logged_partial:
            self._log_line(self.logged_partial)
        parent = super(LineLoggingProtocolMixin, self)
        parent.on_disconnect(broker)


class RegexProtocol(LineLoggingProtocolMixin, mitogen.core.DelimitedProtocol):
    """
    A line protocol driven by tables.

    `PATTERNS` is tried on complete lines and `PARTIAL_PATTERNS` on a line that
    has no newline yet, that is, prompts. Each is a list of (compiled bytes
    expression, function); the first whose `search` succeeds has its function
    called with (self, line, match), and what it returns is returned.

    A prompt is answered once. As a line grows it is offered again and again,
    so after the function of a partial pattern ran, none is tried until a
    newline was seen. A function that finds it was not meant yet (the line may
    turn into something else) returns `NOT_ANSWERED`, and is asked again.
    """
    PATTERNS = []
    PARTIAL_PATTERNS = []

    #: Returned by the function of a partial pattern that did nothing.
    NOT_ANSWERED = object()

    _answered = False

    def _find(self, table, line):
        """Return (function, match) of the first hit in a table, or Nones."""
        for regex, function in table:
            found = regex.search(line)
            if found:
                return function, found
        return None, None

    def on_line_received(self, line):
        super(RegexProtocol, self).on_line_received(line)
        self._answered = False
        function, found = self._find(self.PATTERNS, line)
        if function is None:
            return self.on_unrecognized_line_received(line)
        return function(self, line, found)

    def on_partial_line_received(self, line):
        super(RegexProtocol, self).on_partial_line_received(line)
        if self._answered:
            # Not logged: it may be the beginning of an echo of the answer.
            return None
        if LOG.isEnabledFor(logging.DEBUG):
            LOG.debug('%s: (partial): %s', self._stream_name(),
                      self._shown(line).decode('utf-8', 'replace'))
        function, found = self._find(self.PARTIAL_PATTERNS, line)
        if function is None:
            return self.on_unrecognized_partial_line_received(line)
        result = function(self, line, found)
        if result is self.NOT_ANSWERED:
            return None
        self._answered = True
        return result

    def on_unrecognized_line_received(self, line):
        """Called for a complete line that no pattern fits."""
        LOG.debug('%s: (unrecognized): %s', self._stream_name(),
                  self._shown(line).decode('utf-8', 'replace'))

    def on_unrecognized_partial_line_received(self, line):
        """Called for an unfinished line that no pattern fits."""
        pass

    def _stream_name(self):
        return getattr(self.stream, 'name', None)


class PasswordMixin(object):
    """
    For a `RegexProtocol` on the stream where a tool asks for a password. A
    connection method names its texts and lists the functions in its tables.

    Nothing is answered once the child is ready: whoever writes the word
    "password" then is not the tool.

    :ivar bool password_sent: the password has been typed.
    """
    #: Class of the exceptions, a `ConnectError`, and their texts.
    password_error = ConnectError
    required_msg = None
    incorrect_msg = None

    password_sent = False
    _writer = None

    def _shown(self, line):
        # Some tools show what was typed.
        if self.password_sent:
            password = self.stream.conn.options.password.encode('utf-8')
            line = line.replace(password or b('\n'), b('********'))
        return line

    def on_password_prompt(self, line, match):
        """
        Partial pattern: type the password, the first time that it is asked.
        """
        if self.stream.conn.options.password is None:
            self.fail_password(self.required_msg)
        elif self.password_sent:
            self.fail_password(self.incorrect_msg)
        else:
            self.type_password()

    def on_password_rejected(self, line, match):
        """Pattern: the tool says that the password is wrong."""
        self.fail_password(self.incorrect_msg)

    def type_password(self):
        """Type the password, of which there is one."""
        LOG.debug('%s: typing the password', self._stream_name())
        self.password_sent = True
        conn = self.stream.conn
        if conn._pending and conn._stage == conn.STAGE_STARTED:
            conn._enter_stage(conn.STAGE_ANSWERED)
        self.type_line(self.stream.conn.options.password)

    def fail_password(self, text):
        """Give the connection up."""
        self.stream.conn._fail_connection(self.password_error(text))

    def type_line(self, text):
        """Answer the tool with `text` and a newline."""
        conn = self.stream.conn
        if not conn._pending:
            return
        if self._writer is None:
            self._writer = mitogen.core.BufferedWriter(
                conn._router.broker, self)
        self._writer.write((text + u'\n').encode('utf-8'))

    def on_transmit(self, broker):
        """There is room for more of the answer."""
        self._writer.on_transmit(broker)


class BootstrapProtocol(RegexProtocol):
    """
    Speaks with the first stage on the child's standard files, from the start
    of the process until the child says it is ready.

    Lines before the first marker, such as a login banner, are let pass.

    :param mitogen.core.Broker broker: whose thread calls us.
    """
    EC0_MARKER = b('MITO000')
    EC1_MARKER = b('MITO001')
    EC2_MARKER = b('MITO002')

    #: The first marker, and what a first stage of ours says about itself:
    #: whether our version of the package is there, and `sys.hexversion`.
    _ec0_re = re.compile(EC0_MARKER + b(r'(?: ([01]) ([0-9a-f]{7,8})\b)?'))

    def __init__(self, broker):
        super(BootstrapProtocol, self).__init__()
        #: Takes more than the kernel does at once; for prompts, too.
        self._writer = mitogen.core.BufferedWriter(broker, self)

    def on_transmit(self, broker):
        """There is room for more of the answer."""
        self._writer.on_transmit(broker)

    def _on_ec0_received(self, line, match):
        conn = self.stream.conn
        LOG.debug('%r: first stage runs: %r', conn, match.group(0))
        if conn._stage == conn.STAGE_SENT:
            # It gets one answer: a peer that only asks shall not fill memory.
            return
        conn._enter_stage(conn.STAGE_SENT)
        try:
            self._send_answer(conn, match)
        except Exception as e:
            # Of an application's own method, say.
            LOG.debug('%r: cannot answer', conn, exc_info=True)
            conn._fail_connection(e)

    def _send_answer(self, conn, match):
        have = match.group(1) == b('1')
        if have and not os.environ.get('MITOGEN_SHIP'):
            self._answer(b'C', conn._get_short_preamble())
        elif match.group(2):
            conn._get_preamble_for(int(match.group(2), 16), self._answer_source)
        else:
            self._answer_source(conn.get_preamble())

    def _answer_source(self, preamble):
        self._answer(b'S', preamble)

    def _answer(self, kind, payload):
        self._writer.write(
            kind + ('%08x' % (len(payload),)).encode('ascii') + payload)

    def _on_ec1_received(self, line, match):
        LOG.debug('%r: first stage got its input', self.stream.conn)

    def _on_ec2_received(self, line, match):
        LOG.debug('%r: child is ready', self.stream.conn)
        self.stream.conn._complete_connection()
        return False

    def on_unrecognized_line_received(self, line):
        LOG.debug('%s: stdout: %s', self._stream_name(),
                  self._shown(line).decode('utf-8', 'replace'))

    PATTERNS = [
        (_ec0_re, _on_ec0_received),
        (re.compile(EC1_MARKER), _on_ec1_received),
        (re.compile(EC2_MARKER), _on_ec2_received),
    ]


class LogProtocol(LineLoggingProtocolMixin, mitogen.core.DelimitedProtocol):
    """
    Logs each line. For a child's stderr, and for a terminal that nobody reads
    but that has to stay open.
    """
    # Nothing is looked for in it, so a long line is logged as one.
    max_tail = mitogen.core.CHUNK_SIZE
    _kept_tail = 0

    def _on_piece(self, line):
        self.on_line_received(line)

    def on_line_received(self, line):
        super(LogProtocol, self).on_line_received(line)
        shown = line.decode('utf-8', 'replace')
        LOG.info(u'%s: %s', self.stream.name, shown)


class MitogenProtocol(mitogen.core.MitogenProtocol):
    """
    The framed protocol, as a parent speaks it with a child.
    """
    def on_shutdown(self, broker):
        """
        Ask the child to end. The stream stays open until it does, so that its
        last words arrive. A child that has left us is not asked.
        """
        if getattr(getattr(self.stream, 'conn', None), 'detached', False):
            # Nobody is there who could.
            self.stream.on_disconnect(broker)
            return
        LOG.debug('%r: asking the child to shut down', self)
        self._send(mitogen.core.Message(
            src_id=mitogen.context_id,
            dst_id=self.remote_id,
            handle=mitogen.core.SHUTDOWN,
        ))


#
# Connections
#

class Options(object):
    """
    The options that each connection method has.

    :param int max_message_size: bytes; the child takes it over.
    :param name: name of the context; made up by the method if None.
    :param remote_name: what the child's process title says, without slashes.
    :param python_path: interpreter to run: a path, or a list that begins the
        command line.
    :param bool debug: let the child write a debug log to a file.
    :param connect_timeout: seconds until the child must be ready. They count
        from now.
    :param bool profiling: let the child write profiles.
    :param bool unidirectional: the child routes only upwards and downwards.
    :param old_router: used by the method fork.
    :raises ValueError: slash in `remote_name`.
    """
    name = None
    python_path = get_sys_executable()
    connect_timeout = 30.0

    def __init__(self, max_message_size, name=None, remote_name=None,
                 python_path=None,      # text or list
                 debug=False,
                 connect_timeout=None,  # seconds, more than zero
                 profiling=False, unidirectional=False, old_router=None):
        if remote_name is None:
            title = get_default_remote_name()
        else:
            title = to_text(remote_name)
        if re.search(u'[/\\\\]', title):
            # Python finds its own installation by the title.
            raise ValueError('remote_name must not contain slashes: %r'
                             % (title,))

        self.name = name
        self.remote_name = title
        self.max_message_size = max_message_size
        self.old_router = old_router
        self.debug, self.profiling = debug, profiling
        self.unidirectional = unidirectional
        # The defaults are attributes of the class, which methods override.
        self.python_path = python_path or self.python_path
        self.connect_timeout = connect_timeout or self.connect_timeout
        self.connect_deadline = mitogen.core.now() + self.connect_timeout


#: What is found in the text of a failure, in letters of either case, and what
#: to do about it. The first that is found counts, so the special comes first.
_HINTS = [(re.compile(_pattern, re.I), _hint) for _pattern, _hint in (
    (u'host key verification failed|host identification has changed',
     u'the key of the host is unknown or has changed. Make sure that it is the '
     u'right host, then put its key into the known_hosts file; see the option '
     u'check_host_keys.'),
    (u'must have a tty|a terminal is required|no tty present|requiretty',
     u'the tool insists on a terminal of its own. Look for "requiretty" and '
     u'"use_pty" in the configuration of sudo.'),
    (u'not in the sudoers|is not allowed to|may not run|'
     u'doas: operation not permitted',
     u'the configuration of the tool does not let this user become that one.'),
    (u'unknown user|user \\S+ does not exist|no such user|has no user|'
     u'no passwd entry',
     u'there is no user of that name; see the option username.'),
    (u'could not resolve|name or service not known|name resolution',
     u'the name of the host is not known; see the option hostname, and the '
     u'configuration of the ssh client.'),
    (u'connection refused|no route to host|network is unreachable|'
     u'connect to host .* timed out',
     u'nothing answers there. Does the host run, is the port right, does a '
     u'firewall let us pass?'),
    (u'kex_exchange_identification|connection (to .* )?closed by|'
     u'connection reset by|too many authentication failures',
     u'the server ended the connection; its log says why.'),
    (u'password was requested|password is required',
     u'no password was given; see the option password.'),
    (u'incorrect password|password is incorrect|sorry, try again|'
     u'authentication fail',
     u'the password is not right, or belongs to another user than the one who '
     u'is asked for it: sudo asks for that of who calls it, su for that of '
     u'who is called.'),
    (u'authentication is incorrect|permission denied \\(|'
     u'permission denied, please',
     u'the server does not let this user in. See the options username, '
     u'identity_file and password.'),
    (u'no such container|no container with name|container not known|'
     u'\\(notfound\\)|jail .* not found|instance not found|is not running',
     u'there is no container of that name, or it does not run.'),
    (u'account is (currently )?not available|'
     u'account (has|is) (expired|locked)',
     u'the account is closed to logins.'),
    (u'permission denied|operation not permitted',
     u'this user may not run the program, or enter a directory on the way to '
     u'it. Look at the modes, and at mounts that forbid to run programs.'),
    (u'command not found|: not found|no such file or directory|'
     u'executable file not found|cannot execute',
     u'a program of the command line is not there. If it is the interpreter, '
     u'say where one is: option python_path.'),
    (u'exec format error',
     u'the program is not made for that machine, or is a script whose first '
     u'line does not say what runs it.'),
    (u'syntaxerror|importerror|modulenotfounderror|no module named|'
     u'fatal python error',
     u'the interpreter is broken, or older than 2.7. Run the command by hand, '
     u'or choose another one: option python_path.'),
)]

# The same for who says nothing that is known.
_HINT_ENDED = (
    u'the command ended before a Python spoke. Run it by hand; is python_path '
    u'an interpreter, and does it work?')
_HINT_DIED = (
    u'the interpreter started and ended before it was ready. What it printed '
    u'says why, unless it was killed, as for want of memory.')
_HINT_SILENT = (
    u'no Python spoke in time. The host may be out of reach, or the tool may '
    u'be asking something that nobody answers; see it by running the command '
    u'by hand. Or it takes longer than the option connect_timeout allows.')
_HINT_SLOW = (
    u'the interpreter started, but was not ready in time. A slow host or '
    u'link needs a larger connect_timeout.')


def _find_hint(text):
    """
    Return what may help about a failure that says `text`, or None.
    """
    for regex, hint in _HINTS:
        if regex.search(text):
            return hint
    return None


def _disconnect(broker, stream):
    """
    Close a stream where nobody catches what a listener raises: log that.
    Broker thread.
    """
    broker._call(stream, stream.on_disconnect)


class Connection(object):
    """
    One attempt to start a child and, if it succeeds, what is known of the
    child's process and streams. This class starts a local child; the modules
    of the other methods derive from it.

    States, all changes on the broker thread: *idle* until `connect`, *pending*
    while a marker is awaited, then *done*, with `exception` set or not. The
    process is handed to a `Reaper` when both of its streams are closed,
    whenever that is.

    :param Options options: an instance of `options_class`.
    :param Router router: whose child this is to be.
    """
    options_class = Options

    #: Protocols of the child's standard files, and of its stderr if separate.
    stream_protocol_class = BootstrapProtocol
    diag_protocol_class = LogProtocol

    #: Starts the process: called as ``create_child(args=[...], **args)``.
    create_child = staticmethod(create_child)
    create_child_args = {}

    #: False if the process is a front-end and the context another one.
    child_is_immediate_subprocess = True

    name_prefix = u'local'
    eof_error_msg = 'EOF on stream; last 100 lines received:\n'

    #: Advice added to the text of a failure.
    eof_error_hint = None

    STAGE_IDLE = u'not started'
    STAGE_STARTING = u'starting the process'
    STAGE_STARTED = u'waiting for the interpreter to start (no %s seen)' % (
        to_text(BootstrapProtocol.EC0_MARKER),)
    STAGE_ANSWERED = u'password typed, ' + STAGE_STARTED
    STAGE_SENT = u'interpreter started, waiting for the child to be ready ' \
                 u'(no %s seen)' % (to_text(BootstrapProtocol.EC2_MARKER),)
    STAGE_READY = u'ready'

    #: How much of the last output a failure shows at most.
    history_chars = 20000

    #: Seconds that stderr may outlive the stream of a child that was ready.
    #: A background process of the tool may hold it for ever.
    stderr_linger = 1.0

    #: Seconds that a front-end may go on after its child has left us. It holds
    #: the streams, and would end with the child only.
    detach_linger = 3.0

    context = None
    latch = None
    proc = None
    stdio_stream = None
    stderr_stream = None
    exception = None
    detached = False

    #: The child was sent the core without what is seldom used, and has not
    #: asked for that yet.
    _lacks_core = False

    _timer = None
    _linger_timer = None
    _reaper = None
    _preamble = None
    _config_line = None
    _stage = STAGE_IDLE
    _stages = ()
    _pending = False
    _stdio_open = False
    _stderr_open = False

    def __init__(self, options, router):
        self.options = options
        self._router = router

    def __repr__(self):
        return 'Connection(%r)' % (self.stdio_stream,)

    # What is run, and what is sent to it.

    def get_python_argv(self):
        """
        Return the beginning of the command line: the interpreter.
        """
        path = self.options.python_path
        if isinstance(path, (list, tuple)):
            return list(path)
        return [path]

    def get_boot_command(self):
        """
        Return the command line that starts the child on its own machine.
        """
        return self.get_python_argv() + [
            '-c', _DECODER, _get_first_stage_blob(),
            _native_str(self.options.remote_name), _version_str(),
        ]

    def get_econtext_config(self):
        """
        Return the configuration of the child, a dict of plain literals.
        """
        assert self.options.max_message_size is not None
        responder = self._router.responder
        if mitogen.is_master:
            policy = responder.policy
        else:
            policy = self._router.importer.policy
        return {
            'parent_ids': [mitogen.context_id] + list(mitogen.parent_ids),
            'context_id': self.context.context_id,
            'debug': bool(self.options.debug),
            'profiling': bool(self.options.profiling),
            'unidirectional': bool(self.options.unidirectional),
            'log_levels': get_log_levels(),
            'max_message_size': int(self.options.max_message_size),
            'version': tuple(mitogen.__version__),
            'import_blocks': sorted(policy.blocks),
            'import_overrides': sorted(policy.overrides),
            'remote_name': self.options.remote_name,
        }

    def _get_short_preamble(self):
        """
        Return what is sent to a target that has our version installed: the
        configuration as a Python expression. Made once.
        """
        if self._config_line is None:
            self._config_line = _literal(self.get_econtext_config())
        return self._config_line

    def get_preamble(self):
        """
        Return what is sent to a target that has nothing: a zlib stream of the
        core's source and, as its last line, the call that starts it. Made once.
        """
        if self._preamble is None:
            self._preamble = self._finish_preamble(get_core_source_partial())
        return self._preamble

    def _finish_preamble(self, partial):
        # Not kept: compiled code is large, and sent once.
        text = (b'\nExternalContext(' + self._get_short_preamble() +
                b').main()\n')
        if partial._divided:
            text = _replace_phrases(text)
        return partial.append(text)

    def _sees_our_files(self):
        """
        Tell whether a path means to the child what it means to us. Only then
        is an interpreter of the same path the same.
        """
        return type(self) is Connection

    def _get_preamble_for(self, python, func):
        """
        Call `func` with the smallest or quickest form of `get_preamble`.
        Broker thread.

        :param int python: the child's :data:`sys.hexversion`.
        """
        whole = self.options.debug or self.options.profiling
        if _can_serve(python, whole):
            if (python == sys.hexversion and self._sees_our_files() and
                    self.get_python_argv() == [sys.executable] and
                    os.environ.get('MITOGEN_SHIP') != 'source'):
                partial = _get_code_partial()
            else:
                partial = _get_reduced_partial(python, whole)
                self._lacks_core = partial._divided
            return func(self._finish_preamble(partial))

        # The rare child of a child that runs another Python.
        def on_source():
            source = requester._cache.get(key)
            if not self._pending:
                return
            if source is None:
                self._fail_connection(mitogen.core.StreamError(
                    u'The source that this child needs cannot be had.'))
            else:
                func(self._finish_preamble(PartialZlib(_UNPACK + source)))

        key = u'mitogen', u'core.py'
        requester = self._router.importer._resource_requester
        requester._request_resource(key[0], key[1], on_source)

    def start_child(self):
        """
        Start the process and return it. Broker thread.

        :raises mitogen.core.StreamError: it cannot be run.
        """
        # Options that came through another context are text on Python 2, too,
        # which would go through ASCII on its way to the kernel.
        args = [_native_str(word) for word in self.get_boot_command()]
        LOG.debug('command line for %r: %s', self.context, Argv(args))
        try:
            return self.create_child(args=args, **self.create_child_args)
        except OSError as e:
            raise ConnectError(
                u'Child start failed: %s. Command was: %s'
                % (_error_text(e), to_text(str(Argv(args)))))

    def _get_name(self):
        """
        Return the name of the context if none was given.
        """
        return u'%s.%s' % (self.name_prefix, self.proc.pid)

    # The attempt.

    def connect(self, context):
        """
        Start the child and block until it is ready. Not on the broker thread.

        :param Context context: what the child is to be known as.
        :raises mitogen.core.TimeoutError: it took longer than allowed.
        :raises mitogen.core.StreamError: it failed otherwise.
        :raises mitogen.core.Error: the broker has exited.
        """
        self.context = context
        self.latch = mitogen.core.Latch()
        broker = self._router.broker
        # A broker that ends before it gets to our function would leave us
        # asleep for ever.
        mitogen.core.listen(broker, 'exit', self._on_broker_exit)
        try:
            broker.defer(self._start)
            self.latch.get()
        except BaseException:
            # Somebody pressed Ctrl-C, say. Nobody would own the child.
            self._abandon()
            raise
        finally:
            mitogen.core.unlisten(broker, 'exit', self._on_broker_exit)
        if self.exception is not None:
            raise self.exception

    def _abandon(self):
        try:
            self._router.broker.defer(self._on_abandoned)
        except mitogen.core.Error:
            # The broker has exited, and closed all streams as it did.
            pass

    def _on_abandoned(self):
        if self._stage is self.STAGE_IDLE or self._pending:
            self._fail_connection(
                CancelledError('The connection attempt was interrupted.'))

    def _on_broker_exit(self):
        if self._stage is self.STAGE_IDLE or self._pending:
            self._fail_connection(CancelledError(BROKER_SHUTDOWN_MSG))

    def _on_broker_shutdown(self):
        self._fail_connection(CancelledError(BROKER_SHUTDOWN_MSG))

    def _start(self):
        """Second half of `connect`, on the broker thread."""
        if self.exception is not None:
            return
        broker = self._router.broker
        if getattr(broker, '_alive', True) is False:
            # Its `shutdown` signal is past and its timers stop soon.
            self._fail_connection(CancelledError(BROKER_SHUTDOWN_MSG))
            return

        self._pending = True
        self._enter_stage(self.STAGE_STARTING)
        mitogen.core.listen(broker, 'shutdown', self._on_broker_shutdown)
        deadline = self.options.connect_deadline
        self._timer = broker.timers.schedule(deadline, self._on_timer_expired)
        try:
            self.proc = self.start_child()
            self._enter_stage(self.STAGE_STARTED)
            self._setup_streams()
        except Exception as e:
            LOG.debug('cannot start the child of %r', self.context,
                      exc_info=True)
            self._close_loose_files()
            self._fail_connection(e)
            self._maybe_reap()

    def stream_factory(self):
        """
        Return a new stream, without files, for the child's standard files.
        """
        return self.stream_protocol_class.build_stream(
            broker=self._router.broker)

    def stderr_stream_factory(self):
        """
        Return a new stream, without files, for the child's stderr.
        """
        return self.diag_protocol_class.build_stream()

    def _setup_streams(self):
        proc = self.proc
        self.stdio_stream = self.stream_factory()
        self.stdio_stream.name = name = self.options.name or self._get_name()
        if not self.context.name:
            self.context.name = name
        proc.name = name
        if proc.stderr is not None:
            self.stderr_stream = self.stderr_stream_factory()
            self.stderr_stream.name = name

        self._stdio_open = True
        self._open_stream(self.stdio_stream, proc.stdout, proc.stdin,
                          self.on_stdio_disconnect)
        if self.stderr_stream is not None:
            self._stderr_open = True
            self._open_stream(self.stderr_stream, proc.stderr, proc.stderr,
                              self.on_stderr_disconnect)

    def _open_stream(self, stream, rfp, wfp, on_disconnect):
        for fp in rfp, wfp:
            mitogen.core.set_blocking(fp.fileno(), False)
        stream.conn = self
        mitogen.core.listen(stream, 'disconnect', on_disconnect)
        stream.accept(rfp, wfp)
        self._router.broker.start_receive(stream)

    def _close_loose_files(self):
        """
        Close what a failure half way through `_setup_streams` left without a
        stream to close it.
        """
        if self.proc is None:
            return
        fps = []
        stream = self.stdio_stream
        if stream is None or stream.receive_side is None:
            self._stdio_open = False
            fps += [self.proc.stdin, self.proc.stdout]
        stream = self.stderr_stream
        if stream is None or stream.receive_side is None:
            self._stderr_open = False
            fps.append(self.proc.stderr)
        _close_all(*fps)

    # Its end, good or bad.

    def _finish(self):
        """
        Leave the pending state and let `connect` return. Repeatable.
        """
        if self._timer is not None:
            self._timer.cancel()
        if self._pending:
            self._pending = False
            mitogen.core.unlisten(self._router.broker, 'shutdown',
                                  self._on_broker_shutdown)
        self.latch.put()

    def _complete_connection(self):
        """
        Called when the child says it is ready: the stream becomes a framed one
        and the context reachable. Broker thread.
        """
        if not self._pending:
            return
        try:
            self._finish_stage()
        except Exception as e:
            LOG.exception('%r: cannot take the child over', self)
            self._fail_connection(e)
            return
        self._finish()

    def _finish_stage(self):
        router = self._router
        stream = self.stdio_stream
        stream.set_protocol(MitogenProtocol(
            router=router,
            remote_id=self.context.context_id,
        ))
        router.register(self.context, stream)
        router.route_monitor.notice_stream(stream)
        self._enter_stage(self.STAGE_READY)

    def _enter_stage(self, stage):
        """
        Note how far the attempt got, and when. Broker thread.
        """
        self._stage = stage
        self._stages += ((stage, mitogen.core.now()),)

    def _fail_connection(self, exc):
        """
        Give up: close what is open and have `connect` raise `exc`, or rather
        the first that this was called with. Broker thread; repeatable, and
        called again by way of the streams that it closes.

        Does nothing once the child is ready. Protocols that watch stderr for
        complaints go on watching it.
        """
        if self._stage is self.STAGE_READY:
            LOG.debug('%r: not a failure any more: %s', self, exc)
            return

        if self.exception is None:
            if isinstance(exc, ConnectError):
                exc.detail = self._describe(_error_text(exc))
            if self.eof_error_hint:
                text = _full_text(exc)
                exc.args = (u'%s\n\n%s' % (text, self.eof_error_hint),)
                exc.detail = u''
            self.exception = exc

        broker = self._router.broker
        # Whatever listeners do: `connect` waits for the end of this.
        if self._stdio_open:
            _disconnect(broker, self.stdio_stream)
        if self._stderr_open:
            _disconnect(broker, self.stderr_stream)
        self._finish()

    def _describe(self, text=u'', show_history=True, otherwise=None):
        """
        Return text on what was tried, how far that got, and why it may have
        ended there.

        :param text: what the failure says already.
        :param bool show_history: whether it does not show the last output.
        :param otherwise: advice if there is none for what was said.
        """
        try:
            facts = self._get_facts(text, show_history, otherwise)
        except Exception:
            # Of an application's own method, say. Somebody waits for us.
            LOG.exception('%r: cannot describe the failure', self)
            return u''
        return u'\n'.join(facts)

    def _get_facts(self, text, show_history, otherwise):
        """
        Return what `_describe` tells, as a list of lines.
        """
        lines = [u'Context %s (%s): %s.' % (
            self.context.context_id, self._name_so_far(), self._stage)]
        if self._stages:
            ends = [when for _, when in self._stages[1:]]
            lines.append(u'Times: %s.' % u', '.join([
                u'%s %.3f s' % (stage.partition(u' (')[0], end - start)
                for (stage, start), end in zip(
                    self._stages, ends + [mitogen.core.now()])
            ]))
        status = self.proc and self.proc.poll()
        if status is not None:
            lines.append(u'The process %s.' % (returncode_to_str(status),))
        history = self._history()
        if show_history and history:
            lines.append(u'Last lines received:\n' + history)
        hint = _find_hint(u'%s\n%s' % (text.partition(u'Command was: ')[0],
                                       history)) or otherwise
        if hint:
            lines.append(u'Hint: ' + hint)
        if self.options.python_path and u'Command was: ' not in text:
            try:
                command = to_text(str(Argv(self.get_boot_command())))
            except Exception as e:
                command = u'(%s)' % (_error_text(e),)
            lines.append(u'Command was: ' + command)
        return lines

    def _name_so_far(self):
        """
        Return the name of the context, or what is known of it by now.
        """
        name = self.context.name or self.options.name
        if name or self.proc is not None:
            return name or self._get_name()
        try:
            return self._get_name()
        except AttributeError:
            # It has the number of the process in it.
            return self.name_prefix

    def _history(self):
        text = get_history([self.stdio_stream, self.stderr_stream])
        if len(text) > self.history_chars:
            text = u'[...]' + text[-self.history_chars:]
        return text

    def _on_timer_expired(self):
        hint = _HINT_SLOW if self._stage == self.STAGE_SENT else _HINT_SILENT
        text = u'Connection timed out after %.2f seconds. ' % (
            self.options.connect_timeout,)
        self._fail_connection(mitogen.core.TimeoutError(
            text + self._describe(otherwise=hint)))

    def _make_eof_error(self):
        hint = _HINT_DIED if self._stage == self.STAGE_SENT else _HINT_ENDED
        return EofError(u'%s%s\n%s' % (
            to_text(self.eof_error_msg), self._history(),
            self._describe(show_history=False, otherwise=hint)))

    def on_stdio_disconnect(self):
        """
        Listener of the ``disconnect`` signal of the stdio stream.
        """
        self._stdio_open = False
        if (self._stderr_open and self._stage is self.STAGE_READY and
                self._linger_timer is None and not self.detached):
            self._linger_timer = self._router.broker.timers.schedule(
                when=mitogen.core.now() + self.stderr_linger,
                func=self._on_linger_expired,
            )
        self._on_stream_closed()

    def on_stderr_disconnect(self):
        """
        Listener of the ``disconnect`` signal of the stderr stream.
        """
        self._stderr_open = False
        self._on_stream_closed()

    def _on_detached(self):
        """
        The child is about to leave us. Broker thread.
        """
        self.detached = True
        if not self.child_is_immediate_subprocess:
            self._linger_timer = self._router.broker.timers.schedule(
                when=mitogen.core.now() + self.detach_linger,
                func=self._on_detach_expired,
            )

    def _on_detach_expired(self):
        if self._stdio_open:
            _disconnect(self._router.broker, self.stdio_stream)
        self._on_linger_expired()

    def _on_linger_expired(self):
        if self._stderr_open:
            _disconnect(self._router.broker, self.stderr_stream)

    def _on_stream_closed(self):
        # A dying child closes its output while its reasons are still unread
        # on stderr, so one of them closing means nothing yet.
        if self._stdio_open or self._stderr_open:
            return
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        if self._pending and self.exception is None:
            self._fail_connection(self._make_eof_error())
        self._maybe_reap()

    def _maybe_reap(self):
        if (self.proc is None or self._reaper is not None or
                self._stdio_open or self._stderr_open):
            return
        spared = self.detached and self.child_is_immediate_subprocess
        self._reaper = Reaper(
            broker=self._router.broker,
            proc=self.proc,
            # A profile takes a while to be written.
            kill=not (spared or self.options.profiling or
                      getattr(self._router, 'profiling', False)),
            wait_on_shutdown=not spared,
        )
        self._reaper.reap()


def get_connection_class(name):
    """
    Return the `Connection` class of a connection method.

    :param name: such as ``local`` or ``ssh``.
    :raises ImportError: no such method.
    """
    if name == u'local':
        name = u'parent'
    return mitogen.core.import_module(
        _native_str(u'mitogen.' + to_text(name))).Connection


#
# Contexts and calls
#

_EMPTY_KWARGS = mitogen.core.Kwargs({})


#: Longer arguments of bytes are worth more than one pickle. The compiled core
#: writes all of them that way.
_RAW_MIN = 65536 if mitogen.core.CORE == 'pure' else sys.maxsize


class CallChain(object):
    """
    A series of calls into one context.

    Calls of a chain that is not *pipelined* have nothing to do with each
    other. In a pipelined one, a call that fails makes all later ones fail with
    the same error, without running, until `reset`: so the caller need not wait
    for one before it sends the next.

    All methods may be used from any thread, but `call` not from the broker's.

    :param mitogen.core.Context context: where the functions run.
    :param bool pipelined: see above.
    """
    closures_msg = (
        'A closure cannot be called in another context: what it closed over '
        'has no name there.'
    )
    lambda_msg = (
        'A lambda cannot be called in another context: it has no name to look '
        'it up by there.'
    )
    method_msg = (
        'A method of an instance cannot be called in another context: the '
        'instance does not exist there. Class methods and functions of a '
        'module can be called.'
    )

    _last_usec = 0

    # True if `call` may go the short way past methods that a subclass could
    # replace.
    _direct = False

    def __init__(self, context, pipelined=False):
        self.context = context
        self.chain_id = None
        if pipelined:
            self.chain_id = self.make_chain_id()
        cls = type(self)
        self._direct = (cls is CallChain or (
            cls.call_async == CallChain.call_async and
            cls.make_msg == CallChain.make_msg))

    def __repr__(self):
        return '%s(%s)' % (type(self).__name__, self.context)

    def __enter__(self):
        return self

    def __exit__(self, _1, _2, _3):
        self.reset()

    @classmethod
    def make_chain_id(cls):
        """
        Return text that no other chain has.
        """
        # Two chains of one thread may be made within one tick of the clock.
        usec = max(int(1e6 * mitogen.core.now()), CallChain._last_usec + 1)
        CallChain._last_usec = usec
        return u'%s-%s-%x-%x' % (
            to_text(socket.gethostname()),
            os.getpid(),
            mitogen.core.thread.get_ident(),
            usec,
        )

    def reset(self):
        """
        Make the target forget that a call of this chain failed.
        """
        if self.chain_id:
            # Sent outside of the chain, or it would not run either.
            self.context.send(self._make_msg(
                mitogen.core.Dispatcher.forget_chain, (self.chain_id,), {},
                None))

    def _find(self, fn):
        """
        Return the (module, class or None, function) names of `fn`.
        """
        # Plain functions first: they have nothing to be bound to.
        klass = None
        name = fn.__name__
        module = fn.__module__
        if getattr(fn, '__closure__', None) is not None:
            raise TypeError(self.closures_msg)
        if name == '<lambda>':
            raise TypeError(self.lambda_msg)
        if type(fn) is not types.FunctionType:
            owner = getattr(fn, '__self__', None)
            if isinstance(owner, _CLASS_TYPES):
                klass = owner.__name__
                module = owner.__module__
            elif not (owner is None or isinstance(owner, types.ModuleType)):
                # Built-in functions are bound to their module.
                raise TypeError(self.method_msg)
        if PY3:
            return module, klass, name
        return to_text(module), klass and to_text(klass), to_text(name)

    def _make_msg(self, fn, args, kwargs, chain_id):
        module, klass, name = self._find(fn)
        if kwargs:
            kwargs = mitogen.core.Kwargs(kwargs)
        else:
            kwargs = _EMPTY_KWARGS
        if PY3:
            for arg in args:
                if type(arg) is bytes and len(arg) > _RAW_MIN:
                    return self._make_raw_msg(
                        (chain_id, module, klass, name), args, kwargs)
        return mitogen.core.Message.pickled(
            (chain_id, module, klass, name, args, kwargs),
            handle=mitogen.core.CALL_FUNCTION,
        )

    def _make_raw_msg(self, names, args, kwargs):
        """
        Python 3 pickles bytes as text, half as long again and slow to write
        and to read. Let it pickle something short in place of long ones, which
        no other part of the pickle can be mistaken for.
        """
        mark = mitogen.core.to_text(binascii.hexlify(os.urandom(16)))
        raw = {}
        short = []
        for arg in args:
            if type(arg) is bytes and _RAW_MIN < len(arg) < 1 << 31:
                # What is given twice is one object on the other side, too.
                _, arg = raw.setdefault(id(arg), (arg, mark + str(len(raw))))
            short.append(arg)
        msg = mitogen.core.Message.pickled(
            names + (tuple(short), kwargs),
            handle=mitogen.core.CALL_FUNCTION,
        )
        parts = []
        data = msg.data
        for arg, word in raw.values():
            word = word.encode()
            before, found, data = data.partition(
                b'X' + struct.pack('<L', len(word)) + word)
            if not found:
                # It is the error of what could not be pickled.
                return msg
            parts += before, b'T' + struct.pack('<L', len(arg)), arg
        parts.append(data)
        msg.data = b''.join(parts)
        return msg

    def make_msg(self, fn, *args, **kwargs):
        """
        Return the message that makes the target call ``fn(*args, **kwargs)``.

        :raises TypeError: `fn` cannot be found by name in another process.
        """
        return self._make_msg(fn, args, kwargs, self.chain_id)

    def _log_call(self, verb, fn, args, kwargs):
        # Asked first: the record is the larger part of the cost of a call.
        if LOG.isEnabledFor(logging.DEBUG):
            LOG.debug('%r: %s %r', self, verb, CallSpec(fn, args, kwargs))

    def call_no_reply(self, fn, *args, **kwargs):
        """
        Have a function called and do not ask what came of it. If it fails,
        the target logs that or, pipelined, keeps it for the next call.
        """
        self._log_call('call without reply', fn, args, kwargs)
        msg = self.make_msg(fn, *args, **kwargs)
        self.context.send(msg)

    def call_async(self, fn, *args, **kwargs):
        """
        Have a function called and return the `mitogen.core.Receiver` that one
        message with its result arrives at.
        """
        self._log_call('call', fn, args, kwargs)
        msg = self.make_msg(fn, *args, **kwargs)
        return self.context.send_async(msg)

    def call(self, fn, *args, **kwargs):
        """
        Call a function in the target and return its result.

        :raises mitogen.core.CallError: the function raised.
        :raises mitogen.core.ChannelError: the target cannot be reached, or
            went away.
        :raises TypeError: see `make_msg`.
        """
        if self._direct and not LOG.isEnabledFor(logging.DEBUG):
            return self.context.send_async(
                self._make_msg(fn, args, kwargs, self.chain_id)
            ).get().unpickle()
        return self.call_async(fn, *args, **kwargs).get().unpickle()


class Context(mitogen.core.Context):
    """
    A context that functions can be called in. Two of them are equal if they
    have the same router and id.

    :ivar via: the context that was asked to start this one, or None.
    """
    via = None
    call_chain_class = CallChain

    def __init__(self, router, context_id, name=None):
        super(Context, self).__init__(router, context_id, name)
        self.default_call_chain = self.call_chain_class(self)

    def _identity(self):
        return self.router, self.context_id

    def __hash__(self):
        return hash(self._identity())

    def __eq__(self, other):
        if not isinstance(other, mitogen.core.Context):
            return NotImplemented
        return self._identity() == (other.router, other.context_id)

    def __ne__(self, other):
        return not self == other

    def call_async(self, fn, *args, **kwargs):
        """
        Have a function called and get a receiver: `CallChain.call_async`.
        """
        return self.default_call_chain.call_async(fn, *args, **kwargs)

    def call_no_reply(self, fn, *args, **kwargs):
        """
        Have a function called without answer: `CallChain.call_no_reply`.
        """
        self.default_call_chain.call_no_reply(fn, *args, **kwargs)

    def call(self, fn, *args, **kwargs):
        """
        Call a function there and return its result: `CallChain.call`. Any
        thread but the broker's.

        :param fn:
            A function of a module, or a class method of a class there. Its
            module is imported there.
        :param args, kwargs:
            Values of the types that may cross.
        :raises mitogen.core.CallError: the function raised.
        :raises mitogen.core.ChannelError: the context cannot be reached, or
            went away.
        """
        return self.default_call_chain.call(fn, *args, **kwargs)

    def shutdown(self, wait=False):
        """
        Ask the context to end. Its children end with it.

        :param bool wait: block until it is disconnected; not on the broker
            thread then.
        :raises mitogen.core.ChannelError: it refuses (only when waiting).
        :returns: if not waiting, a `mitogen.core.Latch` that gets None then.
        """
        LOG.debug('%r.shutdown(wait=%r)', self, wait)
        router = self.router
        latch = mitogen.core.Latch()
        answers = []

        def on_dead(msg):
            answers.append(msg)
            latch.put()

        # There is no reply to this request, but a dead message comes in its
        # place: when the context disconnects, when there is no way to it any
        # more, and when it refuses.
        handle = router.add_handler(on_dead, persist=False, respondent=self)
        try:
            self.send(mitogen.core.Message(handle=mitogen.core.SHUTDOWN,
                                           reply_to=handle))
        except Exception:
            try:
                router.del_handler(handle)
            except KeyError:
                # The broker has just exited.
                pass
            raise
        if not wait:
            return latch
        latch.get()
        msg, = answers
        unreachable = router.no_route_msg % (self.context_id, msg.src_id)
        if (msg.src_id != mitogen.context_id and
                msg.data != unreachable.encode('utf-8')):
            # It is still there.
            msg.unpickle()


#
# Routing
#

def _handle(router, handle, func, policy=None, overwrite=False):
    """
    Have `func(msg)` called for each message to `handle` of ours. Dead ones,
    which a closing router sends to all its handlers, are kept from it.
    """
    def on_message(msg):
        if not msg.is_dead:
            func(msg)

    router.add_handler(on_message, handle, policy=policy, overwrite=overwrite)


class Throttle(object):
    """
    Stands before the handler of requests whose answers are large. It keeps a
    child that asks and does not read from filling our memory: its requests
    wait until it has read some, and what is too much to wait is dropped.

    Broker thread only.

    :param Router router: whose requests these are.
    :param func: handler.
    """
    #: Bytes of answers that may wait for one child.
    pending_max = 64 * 1048576

    #: Requests that may wait. A child of ours never has that many.
    waiting_max = 1000

    #: Seconds until it is looked again.
    delay = 0.1

    def __init__(self, router, func):
        self._router = router
        self._func = func
        self._waiting = 0

    def __call__(self, msg):
        stream = None if msg.is_dead else self._router.stream_by_id(msg.src_id)
        if stream is None or \
                stream.protocol.pending_bytes() < self.pending_max:
            self._func(msg)
        elif self._waiting >= self.waiting_max:
            LOG.error('dropping a request: %r does not read the answers',
                      stream)
        else:
            self._waiting += 1
            self._router.broker.timers.schedule(
                mitogen.core.now() + self.delay, lambda: self._again(msg))

    def _again(self, msg):
        self._waiting -= 1
        # From a timer nobody catches what it raises.
        self._router._call_handler(self, msg)


#: Longest name of a module, or of a file in a package, that may be asked for.
REQUEST_MAX = 1000

#: How many answers that there is no such thing are kept.
ABSENT_MAX = 10000


def is_sane_resource(request):
    """
    Return whether the content of GET_RESOURCE is two names.
    """
    return type(request) is tuple and len(request) == 2 and all(
        isinstance(word, mitogen.core.AnyTextType) and len(word) <= REQUEST_MAX
        for word in request)


class RouteMonitor(object):
    """
    Keeps the routing table true as contexts come and go anywhere below us, and
    tells those who need to know: our parent of all changes, and a child of the
    end of any context that it has exchanged messages with.

    Broker thread only.

    :param Router router: whose table it is.
    :param mitogen.core.Context parent: the parent to tell, or None.
    """
    #: How many contexts may be behind one child.
    routes_max = 16384

    #: How long a name may be that a child gives to a context behind it.
    name_max = 255

    _control_re = re.compile(u'[\x00-\x1f\x7f]')

    def __init__(self, router, parent=None):
        self.router = router
        self.parent = parent
        self._log = logging.getLogger('mitogen.route_monitor')
        self._routes_by_stream = {}   # stream -> set of ids behind it
        self._made = set()            # ids whose Context was made here
        # Each child has a simple handler for the second from its start.
        _handle(router, mitogen.core.ADD_ROUTE, self._on_add_route,
                is_immediate_child, overwrite=True)
        _handle(router, mitogen.core.DEL_ROUTE, self._on_del_route,
                is_immediate_child, overwrite=True)
        if parent is not None:
            stream = router.stream_by_id(parent.context_id)
            if stream is not None:
                mitogen.core.listen(stream, 'disconnect', self._on_parent_lost)

    def __repr__(self):
        return '%s()' % (type(self).__name__,)

    def get_routes(self, stream):
        """
        Return the set of ids that are reached through `stream`.
        """
        return self._routes_by_stream.get(stream) or set()

    def _send(self, stream, handle, target_id, name=None):
        words = [u'%d' % (target_id,)]
        if name:
            words.append(to_text(name))
        neighbour = stream.protocol
        neighbour.send(mitogen.core.Message(
            dst_id=neighbour.remote_id,
            handle=handle,
            data=u':'.join(words).encode('utf-8'),
        ))

    def _send_up(self, handle, target_id, name=None):
        if self.parent is None:
            return
        # None after detaching.
        stream = self.router.stream_by_id(self.parent.context_id)
        if stream is not None:
            self._send(stream, handle, target_id, name)

    def _send_del_down(self, target_id):
        """
        Tell each child that has sent something to `target_id` that nothing
        will be coming back.
        """
        # Not by way of the table: a child that had very many routes would have
        # us look through all of them for each.
        streams = getattr(self.router, 'neighbours', self.router.get_streams)
        for stream in streams():
            protocol = stream.protocol
            if (protocol.remote_id != mitogen.parent_id and
                    target_id in protocol.egress_ids):
                self._send(stream, mitogen.core.DEL_ROUTE, target_id)

    def _fire_disconnect(self, target_id):
        context = self.router.context_by_id(target_id, create=False)
        if context is not None:
            self.router._tell_lost(context)
            if target_id in self._made:
                # A child could name new ones for ever. An id is used once.
                self._made.discard(target_id)
                self.router._context_by_id.pop(target_id, None)

    def notice_stream(self, stream):
        """
        Begin to look after a new child's stream.
        """
        remote_id = stream.protocol.remote_id
        self._routes_by_stream[stream] = set([remote_id])
        self._send_up(mitogen.core.ADD_ROUTE, remote_id, stream.name)
        mitogen.core.listen(
            stream, 'disconnect', lambda: self._on_stream_disconnect(stream))

    def _on_stream_disconnect(self, stream):
        routes = self._routes_by_stream.pop(stream, None)
        if routes is None:
            # The signal may repeat.
            return
        self._log.debug('%r is gone, and the routes %r with it',
                        stream, routes)
        for target_id in sorted(routes):
            self.router.del_route(target_id)
            self._send_up(mitogen.core.DEL_ROUTE, target_id)
            self._send_del_down(target_id)
            self._fire_disconnect(target_id)

    def _on_parent_lost(self):
        """
        Tell the children that they cannot reach the rest of the tree any more.
        If we are to end, they will, too; if we have detached, they live on.
        """
        ours = set([mitogen.context_id])
        for stream in self.router.get_streams():
            if stream.protocol.remote_id != mitogen.parent_id:
                ours |= self.get_routes(stream)
        for stream in self.router.get_streams():
            if stream.protocol.remote_id != mitogen.parent_id:
                for target_id in stream.protocol.egress_ids - ours:
                    self._send(stream, mitogen.core.DEL_ROUTE, target_id)

    def _parse(self, msg):
        """
        Return (stream, id, name or None), or None for what cannot be used.
        """
        stream = self.router.stream_by_id(msg.src_id)
        id_text, _, name = mitogen.core.bytes_partition(msg.data, b(':'))
        target_id = -1
        if id_text.isdigit() and len(id_text) <= 10:
            target_id = int(id_text)
        if stream is None or not 0 <= target_id < 1 << 32:
            self._log.error('ignoring unusable route message %r', msg)
            return None
        # It will be part of the names of loggers.
        name = name.decode('utf-8', 'replace')[:self.name_max]
        return stream, target_id, self._control_re.sub(u'?', name) or None

    def _on_add_route(self, msg):
        parsed = self._parse(msg)
        if parsed is None:
            return
        stream, target_id, name = parsed
        routes = self._routes_by_stream.get(stream)
        if routes is None:
            self._log.error('%r may not add routes: it is no child of ours',
                            stream)
            return
        if target_id == mitogen.context_id or target_id in mitogen.parent_ids:
            # Messages of those ids carry authority over us.
            self._log.error('%r may not add a route to %d', stream, target_id)
            return
        current = self.router.stream_by_id(target_id)
        if (current is not None and current is not stream and
                current.protocol.remote_id != mitogen.parent_id):
            self._log.error('cannot add a second route to %d via %r: there is '
                            'one via %r', target_id, stream, current)
            return

        if len(routes) >= self.routes_max and target_id not in routes:
            self._log.error('%r may not add a route to %d: it has %d',
                            stream, target_id, len(routes))
            return

        self._log.debug('adding route to %d via %r', target_id, stream)
        if name:
            if self.router.context_by_id(target_id, create=False) is None:
                self._made.add(target_id)
            self.router.context_by_id(target_id).name = name
        routes.add(target_id)
        self.router.add_route(target_id, stream)
        self._send_up(mitogen.core.ADD_ROUTE, target_id, name)

    def _on_del_route(self, msg):
        parsed = self._parse(msg)
        if parsed is None:
            return
        stream, target_id, _ = parsed
        current = self.router.stream_by_id(target_id)
        if current is None:
            return
        if current is not stream:
            self._log.error('%r may not remove the route to %d: it is via %r',
                            stream, target_id, current)
            return

        self._log.debug('removing route to %d via %r', target_id, stream)
        context = self.router.context_by_id(target_id, create=False)
        if context is not None:
            self.router._note_loss(context, u'says %r' % (stream.name,))
        routes = self._routes_by_stream.get(stream)
        if routes is not None:
            routes.discard(target_id)
        # First: who listens, and then finds the route, is told.
        self.router.del_route(target_id)
        self._fire_disconnect(target_id)
        # What came from above is known there.
        told_by_parent = stream.protocol.remote_id == mitogen.parent_id
        if not told_by_parent:
            self._send_up(mitogen.core.DEL_ROUTE, target_id)
        self._send_del_down(target_id)


def _connection_method(name):
    """
    Return the method of `Router` that connects by the method of that name.
    """
    def method(self, **kwargs):
        return self.connect(name, **kwargs)

    method.__name__ = _native_str(name)
    method.__doc__ = 'Start a child by the connection method "%s".' % (name,)
    return method


class Router(mitogen.core.Router):
    """
    A router that can have children.

    The methods named after connection methods, such as `local` and `ssh`,
    start a child and return its `Context`. They take keyword arguments only:
    those of the method's `Options`, and `via`, the context that is to start
    the child in our place. They block, and so must not run on the broker
    thread.

    :cvar bool debug: default of the option `debug`.
    :cvar bool profiling: default of the option `profiling`.
    """
    connection_timeout_msg = u'Connection timed out.'
    context_class = Context

    # Defaults of options.
    profiling = False
    debug = False

    # What a router is made of, by `mitogen.master.Router` or `upgrade`.
    route_monitor = None       # RouteMonitor
    id_allocator = None        # has allocate()
    log_forwarder = None       # in a master only
    resource_responder = None  # serves package data to children
    responder = None           # serves modules to children

    def upgrade(self, importer, parent):
        """
        Install what a router of a child, which became one of this class just
        now, still lacks. Broker thread.

        :param mitogen.core.Importer importer: source of modules for children.
        :param mitogen.core.Context parent: our own parent.
        """
        LOG.debug('upgrading %r with %r and %r', self, importer, parent)
        self.route_monitor = RouteMonitor(self, parent)
        self.id_allocator = ChildIdAllocator(self)
        self.responder = ModuleForwarder(self, parent, importer)
        self.resource_responder = ResourceForwarder(
            self, parent, importer._resource_requester)
        self._add_detaching_handler()

    def _add_detaching_handler(self):
        _handle(self, mitogen.core.DETACHING, self._on_detaching)

    def _on_detaching(self, msg):
        """
        A child leaves us: its process must outlive the connection.
        """
        if msg.is_dead:
            # Not checked by whoever registered this without our help.
            return
        stream = self.stream_by_id(msg.src_id)
        # A client of a UNIX socket has a stream, but no connection.
        conn = getattr(stream, 'conn', None)
        if (conn is None or conn.detached or
                stream.protocol.remote_id != msg.src_id):
            LOG.warning('bad DETACHING received on %r: %r', stream, msg)
            return
        LOG.debug('%r: marking as detached', stream)
        conn._on_detached()
        msg.reply(None)

    def add_route(self, target_id, stream):
        """
        Have messages to `target_id` written to `stream`. Any thread.
        """
        assert isinstance(target_id, mitogen.core.integer_types)
        assert isinstance(stream, mitogen.core.Stream)
        LOG.debug('%r: adding route to %d via %r', self, target_id, stream)
        self._add_route(target_id, stream)

    def del_route(self, target_id):
        """
        Forget the route to `target_id`, if there is one. Any thread.
        """
        LOG.debug('%r: removing route to %d', self, target_id)
        self._del_route(target_id)

    def get_streams(self):
        """
        Return a list of all streams that messages are routed to. Any thread.
        """
        return list(self._streams())

    # Streams that were registered since this router may have children, or
    # None for none yet.
    _neighbours = None

    def register(self, context, stream):
        if self._neighbours is None:
            self._neighbours = set()
        self._neighbours.add(stream)
        mitogen.core.listen(stream, 'disconnect',
                            lambda: self._neighbours.discard(stream))
        super(Router, self).register(context, stream)
    register.__doc__ = mitogen.core.Router.register.__doc__

    def neighbours(self):
        """
        Return a list of the streams to children and clients.
        """
        return list(self._neighbours or ())

    def allocate_id(self):
        """
        Return a context id that is new to the whole tree. In a child this may
        block for a reply of the master.
        """
        return self.id_allocator.allocate()

    def disconnect(self, context):
        """
        Close the stream to `context` and block until that is done. Returns at
        once if the context is not at the other end of a stream of ours.
        """
        def disconnect():
            stream.on_disconnect(self.broker)

        for stream in self.get_streams():
            if stream.protocol.remote_id == context.context_id:
                # Not the signal: a listener that raises keeps it from those
                # after it.
                self.broker.defer_sync(disconnect)
                return

    def connect(self, method_name, name=None, **kwargs):
        """
        Start a child by the method of that name.

        :raises ImportError: no such method.
        :raises mitogen.core.StreamError: the child could not be started.
        :raises TypeError: unknown option.
        """
        klass = get_connection_class(method_name)
        kwargs.setdefault('debug', self.debug)
        kwargs.setdefault('profiling', self.profiling)
        kwargs.setdefault('unidirectional', self.unidirectional)
        if 'password' in kwargs:
            # The arguments of calls are logged, here and on the way.
            kwargs['password'] = make_secret(kwargs['password'])
        text = None if name is None else to_text(name)
        via = kwargs.pop('via', None)
        if via is None:
            return self._connect(klass, name=text, **kwargs)
        return self.proxy_connect(via, method_name, name=text, **kwargs)

    def _connect(self, klass, **kwargs):
        context_id = self.allocate_id()
        context = self.context_class(self, context_id)
        context.name = kwargs.get('name')
        options = klass.options_class(
            old_router=self,
            max_message_size=self.max_message_size,
            **kwargs
        )
        conn = klass(options, self)
        try:
            conn.connect(context=context)
        except mitogen.core.TimeoutError as e:
            # Programs compare the text.
            failure = ConnectError(self.connection_timeout_msg)
            failure.detail = _error_text(e)
        else:
            return context
        raise failure

    def proxy_connect(self, via_context, method_name, name=None, **kwargs):
        """
        Have `via_context` start a child, and return its `Context` here.
        """
        reply = via_context.call(
            _proxy_connect,
            name=name,
            method_name=to_text(method_name),
            kwargs=mitogen.core.Kwargs(kwargs),
        )
        if reply['msg'] is not None:
            failure = ConnectError(reply['msg'])
            failure.detail = reply['detail']
            raise failure

        # The announcement of the route came before the reply, so there is an
        # entry. Kept if possible: somebody may listen to it already.
        context_id = reply['id']
        context = self.context_by_id(context_id)
        if type(context) is not self.context_class:
            context = self.context_class(self, context_id)
            self._context_by_id[context_id] = context
        context.name = u'%s.%s' % (via_context.name, reply['name'])
        context.via = via_context
        return context

    buildah = _connection_method(u'buildah')
    doas = _connection_method(u'doas')
    docker = _connection_method(u'docker')
    fork = _connection_method(u'fork')
    incus = _connection_method(u'incus')
    jail = _connection_method(u'jail')
    kubectl = _connection_method(u'kubectl')
    local = _connection_method(u'local')
    lxc = _connection_method(u'lxc')
    lxd = _connection_method(u'lxd')
    podman = _connection_method(u'podman')
    setns = _connection_method(u'setns')
    ssh = _connection_method(u'ssh')
    su = _connection_method(u'su')
    sudo = _connection_method(u'sudo')


#
# Children as parents
#

def _upgrade_broker(broker):
    """
    Give a broker of a child timers and a poller for many streams. Broker
    thread.
    """
    broker.timers = TimerList()
    if getattr(broker.poller, 'native', False):
        return

    # A record that is logged half way through would be queued on a stream, and
    # have that stream watched by the poller that is about to go.
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        old = broker.poller
        new = PREFERRED_POLLER()
        # Deregistered, files yield nothing more from the round of the old
        # poller that we are called from. They are still ready in the next.
        for fd, data in list(old.readers):
            new.start_receive(fd, data)
            old.stop_receive(fd)
        for fd, data in list(old.writers):
            new.start_transmit(fd, data)
            old.stop_transmit(fd)
        broker.poller = new
        old.close()
    finally:
        logging.disable(disabled)
    LOG.debug('%r: poller is now %r', broker, new)


@mitogen.core.takes_econtext
def upgrade_router(econtext):
    """
    Make it possible for a child to have children of its own. To be called in
    the child, on any thread but the broker's; a call after the first does
    nothing.

    :param mitogen.core.ExternalContext econtext: filled in by the dispatcher.
    """
    def upgrade():
        _upgrade_broker(econtext.broker)
        # All that hold the router go on holding the same one.
        econtext.router.__class__ = Router
        econtext.router.upgrade(
            importer=econtext.importer,
            parent=econtext.parent,
        )

    with _upgrade_lock:
        if not isinstance(econtext.router, Router):
            econtext.broker.defer_sync(upgrade)


@mitogen.core.takes_econtext
def _proxy_connect(name, method_name, kwargs, econtext):
    """
    Start a child on behalf of another context, see `Router.proxy_connect`.

    :returns: dict of `id` and `name` of the new context, and `msg`, the text
        of the failure, of which one or the other is None.
    """
    upgrade_router(econtext)
    reply = {u'id': None, u'name': None, u'msg': None, u'detail': u''}
    klass = get_connection_class(method_name)
    try:
        child = econtext.router._connect(klass, name=name, **kwargs)
    except mitogen.core.StreamError as e:
        reply[u'msg'] = u'error occurred on host %s: %s' % (
            to_text(socket.gethostname()), _error_text(e))
        reply[u'detail'] = getattr(e, 'detail', u'')
    else:
        reply[u'id'], reply[u'name'] = child.context_id, child.name
    return reply


class ChildIdAllocator(object):
    """
    Hands out context ids from blocks that the master reserves for us.

    :param Router router: that is asked through.
    """
    def __init__(self, router):
        self.router = router
        self._lock = threading.Lock()
        self._ids = iter(())   # guarded by _lock

    def __repr__(self):
        return 'ChildIdAllocator(%r)' % (self.router,)

    def allocate(self):
        """
        Return the next id. Blocks for the master when a block is used up, so
        not on the broker thread.
        """
        with self._lock:
            for id_ in self._ids:
                return id_
            request = mitogen.core.Message(handle=mitogen.core.ALLOCATE_ID)
            master = self.router.context_by_id(0)
            start, end = master.send_await(request)
            LOG.debug('%r: received ids %d to %d', self, start, end - 1)
            self._ids = iter(range(start + 1, end))
            return start


class _Forwarder(object):
    """
    Serves children from what is kept of what the parent sent.

    :param Router router: of this context.
    :param mitogen.core.Context parent_context: our parent.
    """
    def __init__(self, router, parent_context):
        self.parent_context = parent_context
        self.router = router

    def __repr__(self):
        return type(self).__name__

    def _stream_to(self, child_id):
        """
        Return the stream to a direct child, or None if it has gone.
        """
        stream = self.router.stream_by_id(child_id)
        if stream is not None and stream.protocol.remote_id == child_id:
            return stream
        return None

    def _send(self, stream, handle, *objs):
        """Send pickled objects to the other end of a stream."""
        self.router._async_route(mitogen.core.Message.pickled(
            *objs, dst_id=stream.protocol.remote_id, handle=handle))


class ModuleForwarder(_Forwarder):
    """
    Answers children that ask for modules in a context that gets its own from a
    parent: each module comes down once, and is kept.

    :param mitogen.core.Importer importer: whose cache is served.
    """
    def __init__(self, router, parent_context, importer):
        super(ModuleForwarder, self).__init__(router, parent_context)
        self.importer = importer
        _handle(router, mitogen.core.GET_MODULE,
                Throttle(router, self._on_get_module), is_immediate_child)
        _handle(router, mitogen.core.FORWARD_MODULE,
                self._on_forward_module, mitogen.core.has_parent_authority)

    def _on_get_module(self, msg):
        child_id = msg.src_id
        if len(msg.data) > REQUEST_MAX:
            LOG.error('%r: context %d asks for a module with a name of %d '
                      'bytes', self, child_id, len(msg.data))
            return
        fullname = to_text(msg.data)
        LOG.debug('%r: context %d asks for %r', self, child_id, fullname)

        def on_cached():
            stream = self._stream_to(child_id)
            if stream is not None:
                self._send_with_related(stream, fullname)

        if (fullname not in self.importer._cache and
                len(self.importer._cache) >= ABSENT_MAX):
            # Nobody needs that many modules.
            LOG.error('%r: context %d asks for too many modules, the last one '
                      'is %r', self, child_id, fullname)
            stream = self._stream_to(child_id)
            if stream is not None:
                self._send(stream, mitogen.core.LOAD_MODULE,
                           (fullname, None, None, None, ()))
            return
        self.importer._request_module(fullname, on_cached)

    def _on_forward_module(self, msg):
        id_bytes, _, name_bytes = mitogen.core.bytes_partition(
            msg.data, b('\x00'))
        target_id, fullname = int(id_bytes), to_text(name_bytes)
        stream = self.router.stream_by_id(target_id)
        if stream is None or stream.protocol.remote_id == mitogen.parent_id:
            LOG.error('%r: dropping the forward of %r to context %d: no route '
                      'down to it', self, fullname, target_id)
            return
        if fullname in stream.protocol.sent_modules:
            return

        def on_cached():
            self._send_with_related(stream, fullname)
            # Whoever is between us and the target does the same.
            next_id = stream.protocol.remote_id
            if next_id != target_id:
                stream.protocol.send(mitogen.core.Message(
                    dst_id=next_id,
                    handle=mitogen.core.FORWARD_MODULE,
                    data=msg.data,
                ))

        self.importer._request_module(fullname, on_cached)

    def _send_with_related(self, stream, fullname):
        """
        Send a module that is in the cache, and before it those that it will
        ask for, unless they were sent on this stream before.
        """
        cache = self.importer._cache
        if fullname not in cache:
            # Our parent was lost before it could answer.
            self._send(stream, mitogen.core.LOAD_MODULE,
                       (fullname, None, None, None, ()))
            return
        related = [to_text(name) for name in cache[fullname][4]
                   if name in cache]
        for name in related + [fullname]:
            if name not in stream.protocol.sent_modules:
                stream.protocol.sent_modules.add(name)
                self._send(stream, mitogen.core.LOAD_MODULE, cache[name])


class ResourceForwarder(_Forwarder):
    """
    Answers children that ask for package data, as `ModuleForwarder` does those
    that ask for modules.

    :param mitogen.core.ResourceRequester requester: whose cache is served.
    """
    def __init__(self, router, parent_context, requester):
        super(ResourceForwarder, self).__init__(router, parent_context)
        self.requester = requester
        _handle(router, mitogen.core.GET_RESOURCE,
                Throttle(router, self._on_get_resource), is_immediate_child)

    def _on_get_resource(self, msg):
        child_id = msg.src_id
        key = msg.unpickle(throw=False)
        if not is_sane_resource(key):
            LOG.error('%r: ignoring a bad request of context %d', self,
                      child_id)
            return
        package, resource = key = tuple(to_text(word) for word in key)
        if (key not in self.requester._cache and
                len(self.requester._cache) >= ABSENT_MAX):
            LOG.error('%r: context %d asks for too many resources, the last '
                      'one is %r', self, child_id, key)
            stream = self._stream_to(child_id)
            if stream is not None:
                self._send(stream, mitogen.core.LOAD_RESOURCE, key, None)
            return
        LOG.debug('%r: context %d asks for %r of %r',
                  self, child_id, resource, package)

        def on_cached():
            stream = self._stream_to(child_id)
            if stream is not None:
                # Not there: our parent was lost before it could answer.
                content = self.requester._cache.get(key)
                self._send(stream, mitogen.core.LOAD_RESOURCE, key, content)

        self.requester._request_resource(package, resource, on_cached)


#
# Reading what children write.
#

#: A number in text with more digits takes long to read.
_MAX_DIGITS = 4300

#: Every pickle may use as many memo entries.
_MEMO_MIN = 65536

#: In a longer payload it does not pay to look for `_SUSPECT` first.
_SMALL_PAYLOAD = 1000

#: What may be a memo index beyond `_MEMO_MIN`, a FRAME, which can part an opcode
#: from its argument, or a bytearray; or nothing of the kind.
_SUSPECT = re.compile(br'r..(?:[^\0].|.[^\0])|p[ \t\v\f\r+]*[0-9_]{6}|'
                      br'[\x95\x96]',
                      re.S).search
_INDEX = re.compile(br'0*([0-9]{1,10})\n').match

#: How many bytes of the argument are its length; and how many lines it has.
_COUNTED = {}
_LINES = {}
for _table, _number, _opcodes in ((_COUNTED, 1, 'UC\x8a\x8c'),
                                  (_COUNTED, 4, 'XTB\x8b'),
                                  (_COUNTED, 8, '\x8d\x8e'),
                                  (_LINES, 1, 'FILPSVgp'), (_LINES, 2, 'ci')):
    _table.update((ord(_opcode), _number) for _opcode in _opcodes)

_skip = None


def _make_skip():
    """
    Return a function that matches opcodes of fixed length, short text, and
    small memo indexes.
    """
    texts = b'|'.join(re.escape(struct.pack('<I', n)) + b('.{%d}' % n)
                      for n in range(96))
    # Not without end, as the matcher notes down each turn.
    return re.compile(
        br'(?:[(012NQRabde})\]lost.u\x81\x85-\x89\x8f-\x94\x97\x98]+|'
        br'[Khq\x80\x82].|X(?:' + texts + br')|r..\0\0|[M\x83]..|'
        br'[Jj\x84].{4}|G.{8}){0,256}', re.S).match


def _get_skip():
    global _skip
    _skip = _skip or _make_skip()
    return _skip


def _find_claim(data):
    """
    Return the offset of the first opcode in some pickles that the interpreter
    shall not carry out, or None.

    It makes a table as long as the largest memo index, so an index may not be
    larger than the number of opcodes before, or what that can be at most. A
    long number in text takes long to read. And for a bytearray, which no peer
    of ours writes, it first claims as much memory as is announced.

    To find opcodes where the interpreter does, this follows all that there
    are. At anything else the interpreter stops as well. It reads at once what a
    FRAME announces, and forgets the rest of that when an argument is longer: so
    none may be.
    """
    skip = _get_skip()
    size = end = len(data)
    pos = inert = 0
    while pos < size:
        if pos == end:
            end = size
        before = pos
        start = pos = skip(data, pos, end).end()
        if pos == end:
            continue
        opcode = data[pos]
        pos += 1
        width = _COUNTED.get(opcode)
        if width:
            count = int.from_bytes(data[pos:pos + width], 'little')
            pos += width + count
            inert += count
        elif opcode in _LINES:
            for _ in range(_LINES[opcode]):
                pos = data.find(b'\n', pos) + 1 or size + 1
            inert += pos - start - 1
            if opcode == 0x70:
                found = _INDEX(data, start + 1)
                if (not found or
                        int(found.group(1)) > max(_MEMO_MIN, start - inert)):
                    return start
            elif opcode in b'ILg' and pos - start > _MAX_DIGITS:
                return start
        elif opcode == 0x72:
            pos += 4
            index = int.from_bytes(data[pos - 4:pos], 'little')
            if index > max(_MEMO_MIN, start - inert):
                return start
        elif opcode == 0x95:
            pos += 8
            count = int.from_bytes(data[pos - 8:pos], 'little')
            if pos + count > end:
                pos = size + 1
            elif end == size:
                end = pos + count
        elif opcode == 0x96:
            return start
        elif start > before:
            # It may be one more that could be skipped.
            pos = start
        else:
            pos = size + 1
        if pos > end:
            return None if end == size else start
    return None


def _refuse(what):
    raise mitogen.core.UnpicklingError(
        'memo index out of bounds, a number too long, or a bytearray')


class _BytesReader(object):
    """
    Unpickler of what is nothing but a long byte string. The interpreter's own
    copies it twice.
    """
    def __init__(self, file, data):
        self._file = file
        self._data = data

    def load(self):
        self._file.seek(len(self._data))
        return self._data[7:-1]


def _make_unpickler(file, find_class=mitogen.core.find_deny,
                    _make=mitogen.core.Unpickler):
    data = file.getvalue()
    size = len(data)
    if (size > _SMALL_PAYLOAD and data.startswith(b'\x80\x02T') and
            data[-1:] == b'.' and
            data[3:7] == struct.pack('<L', (size - 8) & 0x7fffffff)):
        return _BytesReader(file, data)
    claim = None
    if size > _SMALL_PAYLOAD or _SUSPECT(data):
        claim = _find_claim(data)
        if claim is not None:
            # What comes before is read as ever, and then a persistent id.
            file.seek(claim)
            file.write(b'P0\n')
            file.seek(0)
    unpickler = _make(file, find_class)
    if claim is not None:
        unpickler.persistent_load = _refuse
    return unpickler


def _refuse_state(*args):
    """
    Stand in for the method that takes an object's state.

    A pickle may give state to anything in it: to the one context of that id
    there is, or to a class or function that it names.
    """
    if args[-1] not in (None, {}):
        raise mitogen.core.UnpicklingError('BUILD is not accepted')


if mitogen.core.pickle.__name__ == '_pickle':
    # All others keep a dictionary.
    mitogen.core._unpickler = _make_unpickler

if mitogen.core.CORE == 'pure':
    for _object in (mitogen.core.Blob, mitogen.core.Context,
                    mitogen.core.Kwargs, mitogen.core.Secret,
                    mitogen.core.Sender, mitogen.core._read_bytes,
                    mitogen.core._unpickle_call_error):
        _object.__setstate__ = _refuse_state
