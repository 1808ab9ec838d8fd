# SPDX-License-Identifier: BSD-3-Clause
"""
Everything a child process needs, in one text that imports no other module of
the package: messages, latches, the router, the broker and its streams, the
importer, and the start-up of a child.

The bootstrap ships this text to targets that have nothing installed, and it is
the twin of the C core everywhere else. It runs on CPython 2.7 and 3.6 and
newer.

Threads: one broker thread per process owns the poller, the routing of what
arrives, and every handler. It alone closes descriptors. Any thread may send:
`Router.route` hands a message for another process straight to the stream's
`BufferedWriter`, whose lock is only ever tried and never waited for, so a
sender costs no wake-up unless the kernel's buffer is full.

Every import here is paid by every child. What is rarely used is imported where
it is used, with one limit: on Python 2 a thread that imports holds a lock while
it waits for a module to arrive, so what delivers messages must not import.
"""

from __future__ import absolute_import

import collections
import errno
import gc
import itertools
import os
import select
import struct
import sys
import threading
import time
import _weakref
# The codecs themselves: a look-up by name imports, which see above.
from _codecs import latin_1_encode, utf_8_encode

import mitogen

PY3 = sys.version_info > (3,)

# What a child is sent lacks what is marked as seldom used, where the Python
# there can ask for it later: functions and methods by `_seldom`, blocks by
# `if _SELDOM:`. `mitogen._shrink` divides the text, `_complete` of the part that
# is sent fetches the other one. That needs the broker thread, so whatever may be
# called there at a time when nothing else has asked is not seldom.
_SELDOM = True
_REDUCED = False

if _REDUCED:
    #: The other part is not here. That says otherwise.
    _LATE = not _SELDOM

    def __getattr__(name):
        if name[:2] != '__':
            _complete()
        if name in globals():
            return globals()[name]
        raise AttributeError(name)

    class _Late(object):
        """Stand for a method that is in the other part."""

        def __set_name__(self, owner, name):
            self._at = owner, name

        def __get__(self, obj, owner=None):
            cls, name = self._at
            if _complete():
                return getattr(owner if obj is None else obj, name)
            if name == '__repr__':
                return object.__repr__.__get__(obj)
            raise AttributeError(name)


def _complete():
    """Have everything, as a parent must, and return whether that is so: the
    broker thread cannot wait for it."""
    if _REDUCED:
        return not _LATE or Importer._loader()
    if not _REDUCED:
        return True


if not _REDUCED:
    def _seldom(func):
        return func


if PY3:
    # The C module by itself: `pickle` would bring `re` along.
    try:
        import _pickle as pickle
    except ImportError:
        import pickle
    import _thread as thread
    from io import BytesIO
    BytesType = bytes
    UnicodeType = str
    integer_types = (int,)
    iteritems = dict.items
    range, imap = range, map
    # PyPy has none.
    _writev = getattr(os, 'writev', lambda fd, b: os.write(fd, b[0]))

    def BufferType(buf, start):
        """Return what follows offset `start` of `buf` without copying it."""
        return memoryview(buf)[start:]

    #: Text as bytes, UTF-8 if nothing else is said.
    b = str.encode
    #: Monotonic where the interpreter has such a clock. All deadlines use it.
    now = time.monotonic
else:
    import cPickle as pickle
    import fcntl
    import imp
    import thread
    # Not only for speed: these would otherwise be imported by the broker
    # thread while another thread holds the import lock.
    import logging  # noqa: F401
    import traceback  # noqa: F401
    from cStringIO import StringIO as BytesIO
    BytesType = str
    UnicodeType = unicode
    integer_types = (int, long)
    iteritems = dict.iteritems
    now = time.time
    ModuleNotFoundError = ImportError
    range, imap = xrange, itertools.imap
    BufferType = buffer

    def b(s, encoding=None, errors=None):
        """Return text `s`, which is bytes already."""
        return s

PicklingError = pickle.PicklingError
UnpicklingError = pickle.UnpicklingError

#: Bytes asked for in one read.
CHUNK_SIZE = 131072

# Payloads from this size on are not copied into one block with their header.
_LARGE = 16384

GET_MODULE = 100
CALL_FUNCTION = 101
FORWARD_LOG = 102
DEL_ROUTE = 104
SHUTDOWN = 106
LOAD_MODULE = 107
CALL_SERVICE = 110
STUB_CALL_SERVICE = 111
GET_RESOURCE = 112
LOAD_RESOURCE = 113
IS_DEAD = 999

if _SELDOM:
    ADD_ROUTE = 103
    ALLOCATE_ID = 105
    FORWARD_MODULE = 108
    DETACHING = 109

    PY24 = False
    AnyTextType = (BytesType, UnicodeType)
    BaseException = BaseException
    next, any, all = next, any, all
    if PY3:
        ModuleNotFoundError = ModuleNotFoundError
        get_blocking = os.get_blocking
        FsPathTypes = (str,)
        iterkeys, itervalues = dict.keys, dict.values
    else:
        FsPathTypes = (unicode, str)
        iterkeys, itervalues = dict.iterkeys, dict.itervalues

LOGGERS = ('', 'mitogen', 'mitogen.io')

# The bootstrap sets this before it executes the text it was sent; it stays
# None where the module was imported from a file.
if not _REDUCED:
    _core_source = globals().get('_core_source')


def _module(name):
    """
    Return a module that may not be imported yet.

    An `import` statement is no substitute: on Python 2 it waits for the
    import lock even if the module is there, and the thread that holds that
    may wait for us.
    """
    if not PY3 and name in sys.modules:
        return sys.modules[name]
    return import_module(name)


class LazyLogger(object):
    """
    Stand for ``logging.getLogger(name)`` without importing `logging`, which
    is a third of the start of a child.

    While `sink` is set (a child in which nobody imported `logging` yet),
    records go straight to that :class:`LogHandler`. Otherwise every attribute
    is the real logger's. Any thread.
    """
    sink = None
    #: Logger name -> level, while `sink` is set.
    levels = {}
    METHODS = {
        'debug': 10, 'info': 20, 'error': 40, 'exception': 40,
    }

    def __init__(self, name):
        self.name = name

    if not _REDUCED:
        @property
        def __class__(self):
            # `isinstance` is what `unittest`'s assertLogs() asks.
            return type(_module('logging').getLogger(self.name))

    def __getattr__(self, attr):
        if LazyLogger.sink is not None:
            if attr == 'log':
                return self._log
            level = self.METHODS.get(attr)
            if level:
                def emit(msg, *args, **kwargs):
                    kwargs.setdefault('exc_info', attr == 'exception')
                    self._log(level, msg, *args, **kwargs)
                return emit
        return self._real(attr)

    @_seldom
    def _real(self, attr):
        """Return an attribute of the real logger."""
        func = getattr(_module('logging').getLogger(self.name), attr)
        if attr not in ('debug', 'info', 'warning', 'warn', 'error',
                        'exception', 'critical', 'fatal'):
            return func

        def guarded(*args, **kwargs):
            if sys.version_info > (3, 8):
                kwargs.setdefault('stacklevel', 2)
            try:
                func(*args, **kwargs)
            except Exception:
                # A handler's, and many who log here run on the broker thread.
                _module('traceback').print_exc()
        return guarded

    def isEnabledFor(self, level):
        """Return whether a record of the numeric `level` would go anywhere."""
        if LazyLogger.sink is None:
            return self.__getattr__('isEnabledFor')(level)
        # This one never leaves the process, and there is nowhere else to go.
        return (self.name != 'mitogen.io' and
                level >= self.levels.get(self.name, self.levels['']))

    def _log(self, level, msg, *args, **kwargs):
        sink = LazyLogger.sink
        if sink is None:
            # Somebody imported `logging` since.
            return self.__getattr__('log')(level, msg, *args, **kwargs)
        if not self.isEnabledFor(level):
            return
        try:
            msg = to_text(msg)
            if args:
                msg %= args
            if kwargs.get('exc_info'):
                msg += '\n' + _module('traceback').format_exc().rstrip('\n')
        except Exception:
            msg = 'bad log call: %r %r' % (msg, args)
        sink.send(self.name, level, msg)


LOG = LazyLogger('mitogen')
if _SELDOM:
    IOLOG = LazyLogger('mitogen.io')

    def _set_of_logger(self, attr, value):
        # Anything else, a method for example, is replaced here.
        if attr in ('propagate', 'disabled', 'level', 'handlers', 'filters',
                    'parent'):
            setattr(_module('logging').getLogger(self.name), attr, value)
        else:
            object.__setattr__(self, attr, value)

    LazyLogger.__setattr__ = _set_of_logger
_importer_log = LazyLogger('mitogen.importer')
# It inherits the level of `mitogen`, like any logger below that.
_IMPORTER = _importer_log.name


try:
    _fp = open('/proc/sys/kernel/osrelease', 'rb')
    IS_WSL = b'Microsoft' in _fp.read()
    _fp.close()
except (IOError, OSError):
    IS_WSL = False


@_seldom
def _patch_path_finder():
    """
    Let an unreadable current directory mean "not found here". Before Python
    3.13 only a removed one does, so a child of another user started in a
    private directory could not import anything.
    """
    from _frozen_importlib_external import PathFinder
    inner = PathFinder._path_importer_cache

    def _path_importer_cache(cls, path):
        try:
            return inner(path)
        except OSError:
            if path:
                raise
    PathFinder._path_importer_cache = classmethod(_path_importer_cache)


if _SELDOM:
    # A child that was sent this has no current directory on its path.
    if PY3:
        if sys.version_info < (3, 13):
            try:
                _patch_path_finder()
            except (ImportError, AttributeError):
                pass


#
# Exceptions and value types.
#

class Error(Exception):
    """
    Base of all errors raised here.

    :param fmt: text, UTF-8 bytes or None; interpolated only if there are
        `args`.
    """
    def __init__(self, fmt=None, *args):
        if args:
            fmt %= args
        if isinstance(fmt, BytesType):
            fmt = UnicodeType(fmt, 'utf-8', 'replace')
        Exception.__init__(self, fmt)


class LatchError(Error):
    """The latch is closed."""
    pass


class ChannelError(Error):
    """A receiver is closed, or was told that nothing will arrive any more."""
    local_msg = 'closed at this end'
    remote_msg = 'closed at the other end'
    #: Which connection ended, when and why; None if that is not known.
    detail = None

    def __init__(self, fmt=None, *args):
        Error.__init__(self, fmt, *args)
        text, newline, detail = (self.args[0] or u'').partition('\n')
        if newline:
            self.args = (text,)
            self.detail = detail

    def __str__(self):
        text = Error.__str__(self)
        return '%s: %s' % (text, self.detail) if self.detail else text


class StreamError(Error):
    """A connection could not be made, or a message could not be read."""
    pass


class TimeoutError(Error):
    """Nothing arrived in time."""
    pass


class CallError(Error):
    """
    A remote function failed. Built from text, or from an exception: then the
    text names its class and message, followed by the traceback of the
    exception being handled, if any.
    """
    # Readers refuse a longer text.
    MSG_MAX_LEN = 9999

    def __init__(self, fmt=None, *args):
        if isinstance(fmt, BaseException):
            fmt = self._describe(fmt)
        Error.__init__(self, fmt, *args)

    @_seldom
    @staticmethod
    def _describe(exc):
        cls = exc.__class__
        # First: in Python 2 the exceptions below would take its place.
        tb = sys.exc_info()[2]
        try:
            try:
                text = to_text(exc)
            except UnicodeError:
                text = UnicodeType(str(exc), 'utf-8', 'replace')
        except Exception:
            # Not even `repr` can be trusted now.
            text = u'(no text)'
        text = to_text('%s.%s: ') % (cls.__module__, cls.__name__) + text
        if tb:
            lines = ''.join(_module('traceback').format_tb(tb))
            if not PY3:
                lines = UnicodeType(lines, 'utf-8', 'replace')
            text += '\n' + lines
        return text

    @_seldom
    def __reduce__(self):
        text = to_text(self.args[0])
        if len(text) > self.MSG_MAX_LEN:
            # The message is at the start and the failing line at the end.
            text = text[:5000] + '\n[...]\n' + text[-4900:]
        return _unpickle_call_error, (text,)


@_seldom
def _unpickle_call_error(s):
    if type(s) is not UnicodeType or len(s) > CallError.MSG_MAX_LEN:
        raise TypeError('cannot unpickle CallError: bad input')
    return CallError(s)


@_seldom
class ModuleDeniedByOverridesError(ModuleNotFoundError):
    """The policy fetches a few modules only, and this is not one of them."""
    fmt = 'import of %s was denied: overrides are set, and it is not in them.'


@_seldom
class ModuleDeniedByBlocksError(ModuleNotFoundError):
    """The policy never fetches this module."""
    fmt = 'import of %s was denied: it, or a parent, is blocked.'


@_seldom
class ModuleUnsuitableError(ModuleNotFoundError):
    """No context ever fetches this module from another."""
    fmt = 'import of %s was denied: it is never served to another context.'


class Blob(BytesType):
    """Bytes whose content must not appear in a log."""
    def __new__(cls, s=b(''), *args):
        # A pickle may hold a number instead: as many zeros.
        if isinstance(s, integer_types):
            raise TypeError('bytes expected')
        return BytesType.__new__(cls, s, *args)

    @_seldom
    def __reduce__(self):
        return Blob, (BytesType(self),)

    @_seldom
    def __repr__(self):
        return '[blob: %d bytes]' % len(self)


@_seldom
class Secret(UnicodeType):
    """Text whose content must not appear in a log."""
    def __reduce__(self):
        return Secret, (UnicodeType(self),)

    def __repr__(self):
        return '[secret]'


class Kwargs(dict):
    """
    Keyword arguments on their way. Keys become the interpreter's own `str`,
    whatever the sender's version of Python made of them.
    """
    def __init__(self, dct):
        for k, v in iteritems(dct):
            if PY3:
                if isinstance(k, BytesType):
                    k = to_text(k)
            else:
                if isinstance(k, UnicodeType):
                    k = utf_8_encode(k)[0]
            self[k] = v

    @_seldom
    def __repr__(self):
        return 'Kwargs(%s)' % (dict.__repr__(self),)

    @_seldom
    def __reduce__(self):
        return Kwargs, (dict(self),)


#
# Small functions.
#

def to_text(o):
    """Return `o` as exactly text; bytes are decoded as UTF-8."""
    if isinstance(o, BytesType):
        return UnicodeType(o, 'utf-8')
    return UnicodeType(o)


@_seldom
def str_partition(s, sep):
    """Return ``s.partition(sep)``; `s` is text or bytes, `sep` the same."""
    return s.partition(sep)


@_seldom
def str_rpartition(s, sep):
    """Return ``s.rpartition(sep)``; `s` is text or bytes, `sep` the same."""
    return s.rpartition(sep)


if _SELDOM:
    bytes_partition = str_partition


@_seldom
def threading__current_thread():
    return threading.current_thread()


@_seldom
def threading__thread_name(thread):
    return thread.name


def has_parent_authority(msg, _stream=None):
    """Handler policy: accept what this process or an ancestor authorized."""
    return _has_parent_authority(msg.auth_id)


def _has_parent_authority(context_id):
    return (context_id == mitogen.context_id or
            context_id in mitogen.parent_ids)


def _is_neighbour(msg, stream):
    return stream is not None and msg.src_id == stream.protocol.remote_id


def module_lineage(fullname):
    """Yield `a`, `a.b`, `a.b.c` for `a.b.c`."""
    bits = fullname.split('.')
    for i in range(len(bits)):
        yield '.'.join(bits[:i + 1])


def _listeners(obj, name):
    return obj.__dict__.setdefault('_signals', {}).setdefault(name, [])


def listen(obj, name, func):
    """Call `func` whenever signal `name` is fired on `obj`, in the firing
    thread. The same function may be added more than once."""
    _listeners(obj, name).append(func)


@_seldom
def unlisten(obj, name, func):
    """Undo one :func:`listen`.

    :raises ValueError: it was not there.
    """
    _listeners(obj, name).remove(func)


def fire(obj, name, *args, **kwargs):
    """Call every listener in order, over a snapshot. An exception reaches
    the caller and skips the rest."""
    for func in tuple(_listeners(obj, name)):
        func(*args, **kwargs)


@_seldom
def takes_econtext(func):
    """Mark a function to be called with the keyword argument `econtext`, the
    child's :class:`ExternalContext`."""
    func.mitogen_takes_econtext = True
    return func


@_seldom
def takes_router(func):
    """Mark a function to be called with the keyword argument `router`."""
    func.mitogen_takes_router = True
    return func


if PY3:
    set_blocking = os.set_blocking
else:
    def get_blocking(fd):
        """Tell whether `fd` is in blocking mode."""
        return not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK

    def set_blocking(fd, blocking):
        """Put `fd` in blocking mode or out of it."""
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        if blocking:
            flags &= ~os.O_NONBLOCK
        else:
            flags |= os.O_NONBLOCK
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)


def set_cloexec(fd):
    """
    Have `fd` closed by exec.

    :raises AssertionError: it is a standard stream that Python has open.
    """
    if fd <= 2:
        mitogen.core._check_standard(fd)
    if PY3:
        os.set_inheritable(fd, False)
    else:
        flags = fcntl.fcntl(fd, fcntl.F_GETFD)
        fcntl.fcntl(fd, fcntl.F_SETFD, flags | fcntl.FD_CLOEXEC)


@_seldom
def _check_standard(fd):
    fp = (sys.stdin, sys.stdout, sys.stderr)[fd]
    assert fp is None or fp.closed, 'fd %d is a standard stream' % fd


def io_op(func, *args):
    """
    Call a function that does I/O, again when a signal interrupted it.

    :returns: (result, None), or (None, exception) when the other end is gone.
    """
    while True:
        try:
            return func(*args), None
        except (OSError, IOError, select.error):
            e = sys.exc_info()[1]
            code = e.args[0]
            if code in (errno.EPIPE, errno.EIO, errno.ECONNRESET):
                return None, e
            if code != errno.EINTR:
                raise


def _both(pair, blocking):
    if blocking is not None:
        for fp in pair:
            set_blocking(fp.fileno(), blocking)
    return pair


def pipe(blocking=None):
    """Return a (read, write) pair of unbuffered binary files."""
    rfd, wfd = os.pipe()
    return _both((os.fdopen(rfd, 'rb', 0), os.fdopen(wfd, 'wb', 0)), blocking)


@_seldom
def socketpair(blocking=None):
    """Return two connected socket objects."""
    import socket
    return _both(socket.socketpair(), blocking)


def iter_split(buf, delim, func):
    """
    Call `func(chunk)` for each chunk of `buf` that `delim` ends, until a call
    returns exactly False.

    :returns: (unprocessed tail, whether no call returned False).
    """
    start = 0
    while True:
        end = buf.find(delim, start)
        if end < 0:
            return buf[start:], True
        chunk, start = buf[start:end], end + len(delim)
        if func(chunk) is False:
            return buf[start:], False


def import_module(modname):
    """Import `modname` and return that very module."""
    # Level 0: on Python 2 the default would look for siblings of this module.
    __import__(modname, {}, {}, (), 0)
    return sys.modules[modname]


def get_core_source():
    """
    Return the source of this module as bytes, as a child of this process may
    be given it: what this process was shipped, or the installed file.
    """
    if not _REDUCED:
        if not _core_source:
            path = __file__
            if path[-4:] in ('.pyc', '.pyo'):
                path = path[:-1]
            read = getattr(globals().get('__loader__'), 'get_data', None)
            if read:
                # Also right for a package inside a zip file.
                return read(path)
            with open(path, 'rb') as fp:
                return fp.read()
    return _core_source


@_seldom
def _graft(obj, base_name):
    """Make `obj` also an instance of a class of `logging`, whose import the
    definition of its own class must not need."""
    cls = obj.__class__
    base = getattr(_module('logging'), base_name)
    if not isinstance(obj, base):
        obj.__class__ = type(cls.__name__, (cls, base), {})


@_seldom
class PidfulStreamHandler(object):
    """
    Logging handler that writes to a file of this process, and to another one
    after a fork.
    """
    #: File name with slots for the process id and the time.
    template = '/tmp/mitogen.%s.%s.log'
    open_pid = None

    def __init__(self):
        import logging
        _graft(self, 'StreamHandler')
        logging.StreamHandler.__init__(self, sys.stderr)
        self.setFormatter(logging.Formatter(
            '%(asctime)s %(process)d %(levelname).1s %(threadName)s '
            '%(name)s: %(message)s'))

    def emit(self, record):
        pid = os.getpid()
        if self.open_pid != pid:
            path = self.template % (pid, time.strftime('%Y%m%d_%H%M%S'))
            self.stream = open(path, 'w', 1)
            set_cloexec(self.stream.fileno())
            self.open_pid = pid
        _module('logging').StreamHandler.emit(self, record)


@_seldom
def enable_debug_logging():
    """Log everything this process does to a file of its own."""
    import logging
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG)
    logging.getLogger().handlers.insert(0, PidfulStreamHandler())


def _profile_hook(name, func, *args):
    """Run a thread's main function. :func:`enable_profiling` replaces it."""
    return func(*args)


@_seldom
def enable_profiling(econtext=None):
    """Profile each thread of the library, and write the result to the files
    that `MITOGEN_PROFILE_FMT` names when the thread ends."""
    global _profile_hook
    import pstats
    if sys.version_info < (3, 12):
        from cProfile import Profile
    else:
        # The other measures all threads at once there, as if they were one,
        # and there may be but one of it.
        import profile

        def Profile():
            profiler = profile.Profile(now)
            inner = profiler.dispatcher
            # While other threads are profiled, the return of this is seen
            # without its call.
            profiler.dispatcher = lambda frame, event, arg: \
                arg is sys.setprofile or inner(frame, event, arg)
            return profiler

    def _profile_thread(name, func, *args):
        profiler = Profile()
        try:
            return profiler.runcall(func, *args)
        finally:
            profiler.create_stats()
            stamp = int(now() * 1000000)
            paths = [
                os.environ.get(
                    'MITOGEN_PROFILE_FMT',
                    '/tmp/mitogen.stats.%(pid)s.%(identity)s.%(now)s.%(ext)s'
                ) % {'ext': ext, 'identity': name, 'pid': os.getpid(),
                     'now': stamp}
                for ext in ('pstats', 'log')]
            profiler.dump_stats(paths[0])
            with open(paths[1], 'w') as fp:
                report = pstats.Stats(profiler, stream=fp)
                report.sort_stats('cumulative')
                report.print_stats()
                report.print_callers()

    _profile_hook = _profile_thread


#
# Pickling.
#

def find_deny(module, name):
    """Refuse every class look-up."""
    raise UnpicklingError('denied: %s.%s' % (module, name))


if PY3:
    @_seldom
    class Pickler(pickle.Pickler):
        """Pickler that writes top-level bytes as Python 2 would, so that a
        reader needs no class look-up."""
        def dump(self, obj):
            if type(obj) is BytesType and len(obj) < 1 << 31:
                self._file.write(b'\x80\x02T' + struct.pack('<L', len(obj)))
                self._file.write(obj)
                self._file.write(b'.')
            else:
                pickle.Pickler.dump(self, obj)

        def __init__(self, file, protocol=2):
            pickle.Pickler.__init__(self, file, protocol)
            self._file = file

    class Unpickler(pickle.Unpickler):
        """Unpickler that never decodes a byte string, and asks
        `find_class(module, name)` with the names as they were written."""
        def __init__(self, file, find_class=find_deny):
            pickle.Unpickler.__init__(self, file, encoding='bytes',
                                      fix_imports=False)
            self._find = find_class

        def find_class(self, module, name):
            return self._find(module, name)
else:
    Pickler = pickle.Pickler

    def Unpickler(file, find_class=find_deny):
        """Return an unpickler whose class look-ups go to `find_class`."""
        unpickler = pickle.Unpickler(file)
        unpickler.find_global = find_class
        return unpickler

#: Reads messages. `mitogen.parent` has one that trusts nobody.
_unpickler = Unpickler


def _read_bytes(s=u'', _encoding=None):
    # How Python 3 writes nested bytes: text to be encoded. What it calls the
    # encoding is ignored, a look-up by name could import.
    if type(s) is not UnicodeType:
        raise TypeError('bytes expected as text')
    return latin_1_encode(s)[0]


class Message(object):
    """
    One message, from one handle of a context to a handle of another.

    Any attribute may be given as a keyword argument. Not locked: a message
    belongs to one thread at a time.

    :raises ValueError: unknown `enc`.
    """
    dst_id = src_id = auth_id = handle = None
    #: Handle for the reply; None or 0 if there is none, IS_DEAD when this
    #: says that the recipient waits in vain.
    reply_to = None
    data = b''
    #: Router that received the message, None if it was built here.
    router = None
    #: Receiver that a select took it from.
    receiver = None

    HEADER_FMT = '>hLLLLLL'
    HEADER_LEN = struct.calcsize(HEADER_FMT)
    HEADER_MAGIC = ENC_MGC = 0x4d49
    ENC_PKL = 0x4d4a
    ENC_BIN = 0x4d4b
    ENCS = frozenset([ENC_MGC, ENC_PKL, ENC_BIN])
    enc = ENC_MGC
    _pack = struct.Struct(HEADER_FMT).pack
    _unpack = struct.Struct(HEADER_FMT).unpack_from

    def __init__(self, **kwargs):
        self.src_id = self.auth_id = mitogen.context_id
        if kwargs:
            self.__dict__.update(kwargs)
            assert isinstance(self.data, BytesType)
            if self.enc not in self.ENCS:
                raise ValueError('unknown enc: %r' % (self.enc,))

    @_seldom
    def __repr__(self):
        # Nothing of the payload: this is logged, and a password may be in it.
        return 'Message(src=%r:%r dst=%r:%r auth_id=%r enc=%r, %d bytes)' % (
            self.src_id, self.reply_to, self.dst_id, self.handle,
            self.auth_id, self.enc, len(self.data))

    def _header(self):
        return self._pack(self.enc, self.dst_id, self.src_id, self.auth_id,
                          self.handle, self.reply_to or 0, len(self.data))

    def pack(self):
        """Return the frame as bytes. `dst_id` and `handle` must be set."""
        return self._header() + self.data

    @property
    def is_dead(self):
        """Whether it says that nothing more will come."""
        return self.reply_to == IS_DEAD

    @classmethod
    def dead(cls, reason=None, **kwargs):
        """Build a dead message; `reason` is text or None."""
        return cls(reply_to=IS_DEAD, data=utf_8_encode(reason or '')[0],
                   **kwargs)

    @classmethod
    def pickled(cls, *objs, **kwargs):
        """
        Build a message that carries pickles of `objs`. In place of one that
        raises PicklingError goes the CallError made from it; other errors
        reach the caller.
        """
        if PY3 and len(objs) == 1 and type(objs[0]) is not BytesType:
            # The same bytes, in half the time.
            try:
                return cls(data=pickle.dumps(objs[0], 2), enc=cls.ENC_PKL,
                           **kwargs)
            except PicklingError:
                objs = CallError(sys.exc_info()[1]),
        return cls._pickled(list(objs), kwargs)

    @_seldom
    @classmethod
    def _pickled(cls, objs, kwargs):
        while True:
            fp = BytesIO()
            pickler = Pickler(fp, 2)
            try:
                for i, obj in enumerate(objs):
                    pickler.dump(obj)
                return cls(data=fp.getvalue(), enc=cls.ENC_PKL, **kwargs)
            except PicklingError:
                # The memo now has entries that were never written, and the
                # pickles share it: begin again.
                objs[i] = CallError(sys.exc_info()[1])

    @_seldom
    @classmethod
    def encoded(cls, obj, enc, **kwargs):
        """Build a message by encoding: ENC_PKL pickles `obj`, ENC_BIN wants
        bytes."""
        if enc == cls.ENC_PKL:
            return cls.pickled(obj, **kwargs)
        if enc != cls.ENC_BIN:
            raise ValueError('cannot encode as %r' % (enc,))
        if not isinstance(obj, BytesType):
            raise TypeError('ENC_BIN takes bytes')
        return cls(data=obj, enc=enc, **kwargs)

    @_seldom
    def decode(self, throw=True, throw_dead=True):
        """Return the payload according to `enc`."""
        if self.enc == self.ENC_BIN:
            return self.data
        if self.enc == self.ENC_PKL:
            return self.unpickle(throw=throw, throw_dead=throw_dead)
        raise ValueError('cannot decode %r' % (self.enc,))

    def reply(self, msg, router=None, **kwargs):
        """
        Send `msg`, or a message that carries it, to whoever sent this one.

        :param router: used when this message came from no router.
        """
        reply = msg if isinstance(msg, Message) else Message.pickled(msg)
        reply.__dict__.update({'dst_id': self.src_id,
                               'handle': self.reply_to}, **kwargs)
        if not reply.handle:
            return LOG.debug('no reply is expected: %r', reply)
        (self.router or router).route(reply)

    def _find_global(self, module, name):
        if module == 'mitogen.core':
            if name in ('Kwargs', 'Blob'):
                return globals()[name]
            found = self._find_seldom(name)
            if found:
                return found
        elif (module, name) in (('_codecs', 'encode'),
                                ('__builtin__', 'bytes')):
            return _read_bytes
        raise StreamError('cannot unpickle %r/%r', module, name)

    @_seldom
    def _find_seldom(self, name):
        if name == 'Secret':
            return Secret
        if name in ('CallError', '_unpickle_call_error'):
            return _unpickle_call_error
        if name == '_unpickle_context':
            return lambda context_id, name: _unpickle_context(
                context_id, name, router=self.router)
        if name == '_unpickle_sender':
            return lambda context_id, dst_handle: _unpickle_sender(
                self.router, context_id, dst_handle)

    def _throw_dead(self):
        if self.data:
            raise ChannelError(UnicodeType(self.data, 'utf-8', 'replace'))
        if self.src_id == mitogen.context_id:
            raise ChannelError(ChannelError.local_msg)
        raise ChannelError(ChannelError.remote_msg)

    def unpickle(self, throw=True, throw_dead=True, find_class=None):
        """
        Return the first object carried.

        :param bool throw: raise a :class:`CallError` instead of returning it.
        :param bool throw_dead: raise :class:`ChannelError` for a dead message.
        :raises StreamError: the payload is invalid or names a class that may
            not cross.
        """
        for obj in self.unpickle_iter(throw, throw_dead,
                                      find_class or self._find_global):
            return obj
        raise StreamError('invalid message: the payload is empty')

    def unpickle_iter(self, throw=True, throw_dead=True, find_class=find_deny):
        """Yield every object carried. By default no class may be named."""
        if self.enc == self.ENC_BIN:
            raise ValueError('message is not pickled')
        if throw_dead and self.is_dead:
            self._throw_dead()
        fp = BytesIO(self.data)
        unpickler = _unpickler(fp, find_class)
        more = self.data
        while more:
            try:
                obj = unpickler.load()
                more = fp.tell() < len(self.data)
            except Exception:
                e = sys.exc_info()[1]
                LOG.error('cannot unpickle %r', self)
                if isinstance(e, (TypeError, ValueError)):
                    raise StreamError('invalid message: %s', e)
                raise
            if throw and isinstance(obj, CallError):
                try:
                    raise obj
                finally:
                    # The traceback refers to this frame. No cycle of both:
                    # some Pythons never find it.
                    obj = unpickler = fp = None
            yield obj


#
# Waiting and receiving.
#

if PY3:
    class _Sleeper(object):
        """
        One thread asleep in `Latch.get`. Since 3.2 waiting for a lock is
        interrupted by signals, so that costs no descriptor and one system
        call.
        """
        awake = False
        item = None

        def __init__(self):
            self.since = now()
            self._lock = thread.allocate_lock()
            self._lock.acquire()

        def wake(self, item=None):
            self.item = item
            self.awake = True
            self._lock.release()

        def sleep(self, timeout):
            """Return after `wake` or `timeout` seconds."""
            if timeout is None:
                timeout = -1
            else:
                timeout = min(timeout, threading.TIMEOUT_MAX)
            self._lock.acquire(True, timeout)

        def rest(self):
            pass
else:
    class _Sleeper(object):
        """
        One thread asleep in `Latch.get`. Waiting for a lock cannot be
        interrupted on Python 2 (and polls when it has a timeout), so wait for
        a byte in a pipe. Pipes are kept for the next sleeper.
        """
        awake = False
        item = None
        #: All pipes there are, and those nobody uses; both as (read, write).
        pipes = []
        idle = []

        def __init__(self):
            self.since = now()
            try:
                self.pipe = self.idle.pop()
            except IndexError:
                self.pipe = os.pipe()
                self.pipes.append(self.pipe)
                for fd in self.pipe:
                    set_cloexec(fd)

        def wake(self, item=None):
            self.item = item
            self.awake = True
            os.write(self.pipe[1], 'x')

        def sleep(self, timeout):
            poller = Latch.poller_class()
            poller.start_receive(self.pipe[0])
            try:
                end = timeout is not None and now() + timeout
                while not self.awake:
                    for _ in poller.poll(timeout):
                        pass
                    if timeout is not None:
                        timeout = end - now()
                        if timeout <= 0:
                            break
            finally:
                poller.close()

        def rest(self):
            # Called with the latch locked: after `awake` there is a byte.
            if self.awake:
                io_op(os.read, self.pipe[0], 1)
            self.idle.append(self.pipe)


class Latch(object):
    """
    Closable first in, first out queue. Needs no broker; any thread.

    Invariants: an item is either in `_queue`, or has been given to a sleeper
    (counted in `_given` until that thread runs); there is no sleeper in
    `_sleepers` while `_queue` has items. So the k-th sleeper gets the k-th
    item, and a passer-by cannot take it.
    """
    closed = False
    #: Called with the latch, by the thread that puts, for an item that found
    #: no sleeper.
    notify = None
    #: How Python 2 waits. `mitogen.parent` sets one that knows high fds.
    poller_class = None

    def __init__(self):
        self._lock = thread.allocate_lock()
        self._queue = collections.deque()
        self._sleepers = collections.deque()
        self._given = 0

    @_seldom
    def __repr__(self):
        return 'Latch(%#x, size=%d, t=%r)' % (
            id(self), len(self._queue) + self._given,
            threading.current_thread().name)

    @_seldom
    @classmethod
    def _on_fork(cls):
        """Close what sleepers wait on: it is shared with the parent."""
        if not PY3:
            for pair in _Sleeper.pipes:
                for fd in pair:
                    os.close(fd)
            del _Sleeper.pipes[:], _Sleeper.idle[:]

    @_seldom
    def _forked(self):
        """Forget the threads that sleep here: they are not in this process,
        and one may have had the lock."""
        self._lock = thread.allocate_lock()
        self._sleepers.clear()
        self._given = 0

    def _put_locked(self, obj, append):
        if self._sleepers:
            self._given += 1
            self._sleepers.popleft().wake((obj,))
            return True
        append(obj)

    def put(self, obj=None):
        """
        Append `obj` and wake the thread that waits longest.

        :raises LatchError: closed.
        """
        with self._lock:
            if self.closed:
                raise LatchError()
            woken = self._put_locked(obj, self._queue.append)
        if not woken and self.notify:
            self.notify(self)

    def get(self, timeout=None, block=True):
        """
        Return the oldest item, waiting for one if need be.

        :param timeout: seconds, None for no limit; 0 does not wait.
        :raises LatchError: closed, now or while waiting.
        :raises TimeoutError: nothing came in time, or `block` is false.
        """
        sleeper = None
        try:
            with self._lock:
                if self.closed:
                    raise LatchError()
                if self._queue:
                    return self._queue.popleft()
                if not block or timeout is not None and timeout <= 0:
                    raise TimeoutError()
                # Registered inside the `try`: an interrupt must not leave a
                # sleeper behind that swallows an item.
                sleeper = _Sleeper()
                self._sleepers.append(sleeper)
            sleeper.sleep(timeout)
        except:
            if sleeper:
                with self._lock:
                    item = self._settle_locked(sleeper)
                    if item:
                        self._put_locked(item[0], self._queue.appendleft)
            raise
        with self._lock:
            item = self._settle_locked(sleeper)
        if item:
            return item[0]
        if sleeper.awake:
            raise LatchError()
        raise TimeoutError()

    def _settle_locked(self, sleeper):
        """Take a sleeper out, and return what it was given as a 1-tuple."""
        if sleeper.item:
            self._given -= 1
        elif sleeper in self._sleepers:
            self._sleepers.remove(sleeper)
        sleeper.rest()
        return sleeper.item

    def close(self):
        """Make every thread that waits, and every later call, raise
        LatchError. Repeatable."""
        with self._lock:
            self.closed = True
            while self._sleepers:
                self._sleepers.popleft().wake()

    @_seldom
    def size(self):
        """Return how many items were put and not yet returned."""
        with self._lock:
            if self.closed:
                raise LatchError()
            return len(self._queue) + self._given

    @_seldom
    def empty(self):
        """Return whether nothing is there. It may be otherwise by the time
        the caller looks."""
        return self.size() == 0


class Receiver(object):
    """
    Queue of the messages that arrive at a handle. Any thread; context
    manager.

    :param Router router:
    :param int handle: None for a new one.
    :param bool persist: keep the handle after the first message.
    :param Context respondent: who alone may send, and whose loss delivers a
        dead message.
    :param policy: as of :meth:`Router.add_handler`.
    :param bool overwrite: take the handle from whoever has it.
    :raises Error: the handle exists.
    """
    #: Called with the receiver after each message, on the broker thread.
    notify = None
    max_bytes = None
    #: False to have `get` hand dead messages out.
    raise_channelerror = True
    closed_msg = 'the Receiver has been closed'

    def __init__(self, router,
                 handle=None,       # int; None for a new one
                 persist=True,      # keep it after the first message
                 respondent=None,   # the Context that alone may send, and
                                    # whose loss delivers a dead message
                 policy=None,       # as in Router.add_handler
                 overwrite=False,   # take the handle from whoever has it
                 max_bytes=None):   # how much may wait here, with headers
        if max_bytes is not None:
            self._limit(max_bytes)
        self._latch = Latch()
        self.router = router
        self.handle = router.add_handler(
            self._on_receive, handle, persist=persist, policy=policy,
            respondent=respondent, overwrite=overwrite)

    @_seldom
    def __enter__(self):
        return self

    @_seldom
    def __exit__(self, *_exc):
        self.close()

    @_seldom
    def __repr__(self):
        return 'Receiver(handle=%r)' % (self.handle,)

    @_seldom
    def to_sender(self):
        """Return a :class:`Sender` to here, to be sent elsewhere."""
        return Sender(self.router.myself(), self.handle)

    @_seldom
    def _limit(self, max_bytes):
        if max_bytes < 1:
            raise ValueError('max_bytes must be at least 1')
        self._size_lock = thread.allocate_lock()
        #: Bytes that wait, and whether some were refused since a message was
        #: taken.
        self._bytes = 0
        self._overflowed = False
        self.max_bytes = max_bytes

    @_seldom
    def _note_taken(self, msg):
        with self._size_lock:
            self._bytes -= msg.__dict__.pop('_counted', 0)
            self._overflowed = False

    @_seldom
    def _refused(self, msg):
        """Take account of a message; return whether there is no room for it,
        and have its sender and our reader know."""
        if msg.is_dead and not msg.router:
            # Made here, of the end of what it waits for: nothing would come
            # after it.
            return False
        size = Message.HEADER_LEN + len(msg.data)
        with self._size_lock:
            full = self._bytes and self._bytes + size > self.max_bytes
            first = full and not self._overflowed
            if full:
                self._overflowed = True
            else:
                self._bytes += size
                msg._counted = size
        if full:
            reason = self.router.full_msg % (self.max_bytes,)
            self.router._maybe_send_dead(True, msg, reason)
            if first:
                self._latch.put(Message.dead(reason))
        return full

    def _on_receive(self, msg):
        if self.max_bytes and self._refused(msg):
            return
        self._latch.put(msg)
        if self.notify:
            self.notify(self)

    def close(self):
        """Give the handle up and wake every waiting thread. Repeatable."""
        if self.handle:
            try:
                self.router.del_handler(self.handle)
            except KeyError:
                # Not persistent, and its message has come.
                pass
            self.handle = None
            self._latch.close()

    @_seldom
    def size(self):
        """
        Return how many messages wait here.

        :raises LatchError: closed.
        """
        return self._latch.size()

    @_seldom
    def empty(self):
        """Whether :meth:`size` is 0 at this moment; raises as that does."""
        return self._latch.empty()

    def get(self, timeout=None, block=True, throw_dead=True):
        """
        Return the next message. Not on the broker thread, if it may wait.

        :param timeout: seconds, None for no limit; 0 does not wait.
        :param bool block: false is the same as a `timeout` of 0.
        :param bool throw_dead: raise for a dead message, do not return it.
        :raises ChannelError: closed, or the message is dead and `throw_dead`.
        :raises TimeoutError: as :meth:`Latch.get`.
        """
        try:
            msg = self._latch.get(timeout, block)
        except LatchError:
            raise ChannelError(self.closed_msg)
        if self.max_bytes:
            self._note_taken(msg)
        if throw_dead and msg.is_dead and self.raise_channelerror:
            msg._throw_dead()
        return msg

    def __iter__(self):
        """Yield messages until a dead one or `close`."""
        while True:
            try:
                msg = self.get()
            except ChannelError:
                return
            yield msg
            # Not held while waiting for the next: it may be large.
            msg = None


@_seldom
class Sender(object):
    """Send to one handle of a context. Any thread; may itself be sent."""
    explicit_close_msg = 'Sender was explicitly closed'

    def __init__(self, context, dst_handle):
        self.context = context
        self.dst_handle = dst_handle

    def __repr__(self):
        return 'Sender(%r, %r)' % (self.context, self.dst_handle)

    def __reduce__(self):
        return _unpickle_sender, (self.context.context_id, self.dst_handle)

    def send(self, data, enc=Message.ENC_PKL):
        """
        Send `data`, which is pickled; or bytes as they are, if `enc` is
        ENC_BIN. May wait for room where the core has a high-water mark.

        :raises Error: the broker has exited.
        """
        self.context.send(Message.encoded(data, enc, handle=self.dst_handle))

    def close(self):
        """Tell the receiver that nothing more will come."""
        self.context.send(Message.dead(self.explicit_close_msg,
                                       handle=self.dst_handle))


@_seldom
def _is_int(value, least):
    return isinstance(value, integer_types) and value >= least


@_seldom
def _unpickle_sender(router, context_id, dst_handle):
    if (_is_int(context_id, 0) and _is_int(dst_handle, 1) and
            isinstance(router, Router)):
        return Sender(Context(router, context_id), dst_handle)
    raise TypeError('bad Sender, or nothing to send by')


@_seldom
class Channel(Sender, Receiver):
    """A receiver, and the sender to its counterpart in another context."""

    def __init__(self, router, context, dst_handle, handle=None):
        """
        :param Context context: where the counterpart is.
        :param int dst_handle: its handle.
        :param int handle: the receiver's, None for a new one.
        """
        Receiver.__init__(self, router, handle)
        Sender.__init__(self, context, dst_handle)

    def __repr__(self):
        return 'Channel(%s, handle=%r)' % (Sender.__repr__(self), self.handle)

    def close(self):
        Receiver.close(self)
        Sender.close(self)


class Context(object):
    """Another context of the tree, as seen from here. Any thread."""
    #: Readers refuse a longer name.
    NAME_MAX_LEN = 500
    remote_name = None

    def __init__(self, router, context_id, name=None):
        """
        :param Router router: by which it is reached.
        :param name: text for people, or None.
        """
        self.name = to_text(name) if name else None
        self.context_id = context_id
        self.router = router

    @_seldom
    def __repr__(self):
        return 'Context(%s, %r)' % (self.context_id, self.name)

    @_seldom
    def __reduce__(self):
        name = self.name
        return _unpickle_context, (self.context_id, name and to_text(name))

    def on_disconnect(self):
        """The context cannot be reached any more. Broker thread."""
        LOG.debug('%r: disconnected', self)
        fire(self, 'disconnect')

    def send(self, msg):
        """Send `msg` there."""
        msg.dst_id = self.context_id
        self.router.route(msg)

    @_seldom
    def send_async(self, msg, persist=False):
        """
        Send `msg` and return a :class:`Receiver` for the reply. Any thread.

        :param bool persist: keep the receiver's handle after the first reply.
        """
        receiver = Receiver(self.router, persist=persist, respondent=self)
        msg.reply_to = receiver.handle
        try:
            self.send(msg)
        except Exception:
            receiver.close()
            raise
        return receiver

    @_seldom
    def send_await(self, msg, deadline=None):
        """Send `msg` and return the reply's object; `deadline` in seconds
        from now. Never on the broker thread."""
        return self.send_async(msg).get(deadline).unpickle()

    @_seldom
    def call_service_async(self, service_name, method_name, **kwargs):
        """
        Call a service, named by text or by its class, and return a
        :class:`Receiver` for the result. Any thread.

        :param str method_name: text; keyword arguments go to that method.
        """
        if isinstance(service_name, BytesType):
            service_name = to_text(service_name)
        elif not isinstance(service_name, UnicodeType):
            service_name = to_text(service_name.name())
        return self.send_async(Message.pickled(
            (service_name, to_text(method_name), Kwargs(kwargs)),
            handle=CALL_SERVICE))

    @_seldom
    def call_service(self, service_name, method_name, **kwargs):
        """
        As :meth:`call_service_async`, and wait for the result. Not on the
        broker thread.

        :raises CallError: the method, or its policy, raised.
        :raises ChannelError: the context cannot be reached, or went away.
        """
        return self.call_service_async(
            service_name, method_name, **kwargs).get().unpickle()


@_seldom
def _unpickle_context(context_id, name, router=None):
    named = (isinstance(name, UnicodeType) and
             len(name) <= Context.NAME_MAX_LEN)
    if not _is_int(context_id, 0) or not (named or name is None):
        raise TypeError('bad Context')
    if not isinstance(router, Router):
        return Context(None, context_id, name)
    return router.context_by_id(context_id, name=name)


#
# Streams.
#

class Poller(object):
    """
    Wait for descriptors with select(2). Also the base of the other pollers.

    One thread at a time. What is registered after a `poll()` began is not
    reported by it: the number may mean another file by then.
    """
    SUPPORTED = True

    def __init__(self):
        #: fd -> (data, number of the poll() before registration).
        self._rfds = {}
        self._wfds = {}
        self._generation = 1

    @property
    def readers(self):
        """List of (fd, data): what is watched for reading."""
        return [(fd, data) for fd, (data, _) in list(self._rfds.items())]

    @property
    def writers(self):
        """List of (fd, data): what is watched for writing."""
        return [(fd, data) for fd, (data, _) in list(self._wfds.items())]

    def close(self):
        """Release what the poller holds. Repeatable."""
        pass

    def start_receive(self, fd, data=None):
        """Report `data`, or the fd itself, whenever `fd` can be read."""
        self._rfds[fd] = data or fd, self._generation

    def stop_receive(self, fd):
        """Undo `start_receive`, if there was one."""
        self._rfds.pop(fd, None)

    def start_transmit(self, fd, data=None):
        """Report `data`, or the fd itself, whenever `fd` can be written."""
        self._wfds[fd] = data or fd, self._generation

    def stop_transmit(self, fd):
        """Undo `start_transmit`, if there was one."""
        self._wfds.pop(fd, None)

    def poll(self, timeout=None):
        """Return an iterable of the data of ready descriptors, after at most
        `timeout` seconds."""
        self._generation += 1
        return self._poll(timeout)

    def _poll(self, timeout):
        ready, _ = io_op(select.select, list(self._rfds), list(self._wfds),
                         (), timeout)
        for fds, table in (ready[0], self._rfds), (ready[1], self._wfds):
            for fd in fds:
                data, generation = table.get(fd, (None, self._generation))
                if generation < self._generation:
                    yield data


Latch.poller_class = Poller


class NullTimerList(object):
    """The timers of a broker that cannot schedule any."""
    def get_timeout(self):
        return None


def _remember(table, obj):
    """Keep a weak reference to an object in a table, by its id."""
    key = id(obj)
    table[key] = _weakref.ref(obj, lambda _: table.pop(key, None))


class Side(object):
    """
    One direction of a stream: a file, and whether it is still open. Broker
    thread, except for construction.

    :param fp: has `fileno()` and `close()`.
    :param bool keep_alive: an open receive side delays the broker's end.
    """
    _open = {}
    closed = False

    def __init__(self, stream, fp, cloexec=True, keep_alive=True):
        self.stream = stream
        self.fp = fp
        self.fd = fp.fileno()
        self.keep_alive = keep_alive
        if cloexec:
            set_cloexec(self.fd)
        _remember(Side._open, self)

    @_seldom
    def __repr__(self):
        return '<Side of %s fd %s>' % (self.stream and self.stream.name,
                                       self.fd)

    @_seldom
    @classmethod
    def _on_fork(cls):
        """Close every side there is: the parent's streams are not ours."""
        for ref in list(cls._open.values()):
            side = ref()
            if side is not None:
                side.close()

    def close(self):
        """Close the file. Repeatable."""
        if not self.closed:
            self.closed = True
            Side._open.pop(id(self), None)
            self.fp.close()

    def read(self, n=CHUNK_SIZE):
        """Return at most `n` bytes; none when the other end is gone."""
        if self.closed:
            return b''
        return io_op(os.read, self.fd, n)[0] or b''

    def write(self, s):
        """Return how many bytes of `s` were written, or None when the other
        end is gone."""
        if self.closed:
            return None
        return io_op(os.write, self.fd, s)[0]


class Stream(object):
    """Two sides, and the protocol spoken over them. All methods but the
    constructor run on the broker thread."""
    receive_side = None
    transmit_side = None
    protocol = None
    #: The parent's Connection, if there is one.
    conn = None
    #: Text on why it disconnects.
    why = 'closed by this process'
    name = u'default'

    @_seldom
    def __repr__(self):
        return '<Stream %s #%04x>' % (self.name, id(self) & 0xffff)

    def set_protocol(self, protocol):
        """Speak `protocol` from now on, in place of the one before."""
        if self.protocol:
            self.protocol.stream = None
        self.protocol = protocol
        protocol.stream = self

    def accept(self, rfp, wfp):
        """Speak over these files, which may be one."""
        self.receive_side = Side(self, rfp)
        self.transmit_side = Side(self, wfp)

    def on_receive(self, broker):
        """Give what can be read to the protocol; disconnect at the end."""
        try:
            buf = self.receive_side.read(self.protocol.read_size)
        except OSError:
            if sys.exc_info()[1].errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                return
            raise
        if buf:
            self.protocol.on_receive(broker, buf)
        else:
            self.why = 'closed by the other side'
            self.on_disconnect(broker)

    def on_transmit(self, broker):
        """Something can be written: tell the protocol."""
        self.protocol.on_transmit(broker)

    def on_shutdown(self, broker):
        """The broker begins to end: fire `shutdown`, tell the protocol."""
        fire(self, 'shutdown')
        self.protocol.on_shutdown(broker)

    def on_disconnect(self, broker):
        """The other end is gone, or is to be: fire `disconnect`, tell the
        protocol. May happen more than once."""
        try:
            fire(self, 'disconnect')
        finally:
            self.protocol.on_disconnect(broker)


class Protocol(object):
    """What a stream does with the bytes that arrive. Broker thread."""
    stream_class = Stream
    read_size = CHUNK_SIZE
    stream = None

    @classmethod
    def build_stream(cls, *args, **kwargs):
        """Return a new stream that speaks `cls(*args, **kwargs)`."""
        stream = cls.stream_class()
        stream.set_protocol(cls(*args, **kwargs))
        return stream

    def on_shutdown(self, broker):
        """The broker begins to end. Disconnects."""
        self.stream.on_disconnect(broker)

    @_seldom
    def __repr__(self):
        return '<%s of %r>' % (type(self).__name__, self.stream)

    def on_disconnect(self, broker):
        """Close both sides, once nothing waits for them."""
        stream = self.stream
        rside, wside = stream.receive_side, stream.transmit_side
        # A closed side's number may be another stream's by now.
        if rside and not rside.closed:
            broker.stop_receive(stream)
        if wside and not wside.closed:
            broker._stop_transmit(stream)
        for side in rside, wside:
            if side:
                side.close()


class DelimitedProtocol(Protocol):
    """Cut what arrives at each `delimiter`."""
    delimiter = b'\n'
    _trailer = b''

    def on_receive(self, broker, buf):
        """Cut `buf` and call the two methods below for what it holds."""
        stream = self.stream
        rest, more = iter_split(self._trailer + buf, self.delimiter,
                                self.on_line_received)
        if more:
            self._trailer = rest
            if rest:
                self.on_partial_line_received(rest)
        else:
            self._trailer = b''
            if rest:
                # Another one must have been set.
                assert stream.protocol is not self
                stream.protocol.on_receive(broker, rest)

    def on_line_received(self, line):
        """Handle a line without its end. Return False after switching the
        stream to another protocol, which then gets the rest."""
        pass

    def on_partial_line_received(self, line):
        """Handle a line that has no end yet, once per read."""
        pass


class BufferedWriter(object):
    """
    Write to the transmit side of a protocol's stream: at once as far as the
    kernel takes it, the rest when it takes more. Any thread.

    Chunks are appended to `_buf` first. Then whoever gets `_lock` writes from
    its left end, and looks again after letting go; who does not get it knows
    that the holder will look. Nobody waits for the lock, so a signal handler
    may send while it interrupts a sender. `_armed` means that the broker
    watches for the descriptor to become writable, and will do the writing.
    Only the holder of the lock writes, and the broker takes it for good
    before it closes the descriptor.
    """
    #: How many chunks go in one system call, the least IOV_MAX in use.
    BATCH = 16
    #: Bytes that wait, about: threads that send at the same time may miscount,
    #: until nothing waits the next time.
    size = 0

    def __init__(self, broker, protocol):
        self._broker = broker
        self._protocol = protocol
        self._buf = collections.deque()
        self._lock = thread.allocate_lock()
        self._armed = False
        self.closed = False
        #: Streams that are not read until half of the high-water mark waits.
        self.feeders = []
        #: As long as threads wait for room.
        self.blocked = []
        #: Bytes written, and when the last of them were.
        self.sent = 0
        self.last = None

    @property
    def _len(self):
        """Bytes that wait. Exact on the broker thread when nobody sends."""
        return sum(map(len, list(self._buf)))

    def write(self, *chunks):
        """
        Write non-empty byte strings, kept together.

        :returns: False if the stream has been closed, else True.
        """
        # Before they can be written, see there.
        self.size += sum(map(len, chunks))
        # One call, and one that runs no Python: atomic.
        self._buf.extend(chunks)
        while (self._buf and not self._armed and not self.closed and
               self._lock.acquire(False)):
            then = None
            try:
                then = self._flush()
            finally:
                self._lock.release()
            if then:
                self._broker.defer(then)
        return not self.closed

    def _flush(self):
        """
        Write until nothing is left or the kernel is full. REQUIRES `_lock`.

        :returns: None, or what the broker thread must call, without the
            lock, before anybody writes again.
        """
        buf = self._buf
        while buf and not self.closed:
            stream = self._protocol.stream
            side = stream and stream.transmit_side
            if not side or side.closed:
                # The stream went on with another protocol, or ended.
                buf.clear()
                return
            sent = []
            full = False
            try:
                try:
                    # The result lands in `sent` within one call, before the
                    # interpreter can raise KeyboardInterrupt. Were it lost,
                    # the same bytes would be written twice.
                    if PY3:
                        chunks = [buf[i] for i in
                                  range(min(len(buf), self.BATCH))]
                        sent.extend(imap(_writev, (side.fd,), (chunks,)))
                    else:
                        sent.extend(imap(os.write, (side.fd,), (buf[0],)))
                finally:
                    n = sum(sent)
                    self.size -= n
                    self.sent += n
                    self.last = now()
                    while n:
                        size = len(buf[0])
                        if n < size:
                            buf[0] = BufferType(buf[0], n)
                            full = True
                            break
                        n -= size
                        buf.popleft()
                    if not buf:
                        self.size = 0
                if full:
                    # What has been read meanwhile is little, and to wait until
                    # it is more takes less than many small writes.
                    self._armed = True
                    return self._watch
            except (OSError, IOError):
                e = sys.exc_info()[1]
                if e.errno != errno.EINTR:
                    self._armed = True
                    if e.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                        return self._watch
                    if not _REDUCED:
                        LOG.debug('%r: disconnected while writing: %s',
                                  self._protocol, e)
                    stream.why = str(e)
                    return self._disconnect
            except:
                # The caller leaves, what it sent stays.
                self._armed = True
                self._broker.defer(self._watch)
                raise

    @_seldom
    def _relay(self, side, data):
        """As `write`, to the transmit side. Broker thread, which no signal
        handler interrupts: so it takes less."""
        if self._lock.acquire(False):
            try:
                if not (self._buf or self._armed or self.closed or
                        side.closed):
                    try:
                        n = os.write(side.fd, data)
                    except (OSError, IOError):
                        # It comes again, below.
                        n = 0
                    self.sent += n
                    self.last = now()
                    if n < len(data):
                        # Before what others have appended meanwhile.
                        self.size += len(data) - n
                        self._buf.appendleft(data[n:])
                    data = None
            finally:
                self._lock.release()
        if data:
            self.write(data)
        elif self._buf:
            self.write()

    def _watch(self):
        stream = self._protocol.stream
        if stream and not self.closed:
            self._broker._start_transmit(stream)

    def _disconnect(self):
        stream = self._protocol.stream
        if stream and not self.closed:
            # Who sends has no part in what a listener raises.
            self._broker._call(stream, stream.on_disconnect)

    def on_transmit(self, broker):
        """Go on writing. Broker thread."""
        then = None
        if self._lock.acquire(False):
            try:
                then = self._flush()
            finally:
                self._lock.release()
        if (self.feeders and
                self.size <= self._protocol._router.high_water // 2):
            self.resume()
        if then == self._disconnect:
            then()
        elif not self._buf and not self.closed:
            broker._stop_transmit(self._protocol.stream)
            self._armed = False
            # For who appended after the look above and trusted `_armed`.
            self.write()

    def close(self):
        """Drop what the kernel does not take and never write again: the
        descriptor may be closed afterwards. Broker thread."""
        if not self.closed:
            self._lock.acquire()
            if not self._armed:
                # What came while another thread had the lock, who would only
                # have looked now.
                self._flush()
            self.closed = True
            self._buf.clear()
            if self.feeders:
                self.resume()

    @_seldom
    def resume(self):
        """Read again what was not read for our sake. Broker thread."""
        while self.feeders:
            stream = self.feeders.pop()
            if not stream.receive_side.closed:
                self._broker._watch_receive(stream)

    def wait_room(self):
        """Wait until half of the high-water mark waits. The broker thread,
        which writes it, never does."""
        if thread.get_ident() != self._broker._ident:
            self.blocked.append(1)
            try:
                while (self._buf and not self.closed and
                       self.size > self._protocol._router.high_water // 2):
                    # For megabytes to go: not worth a wake-up.
                    time.sleep(0.005)
            finally:
                self.blocked.pop()


class IoLoggerProtocol(DelimitedProtocol):
    """Log each line that anything writes to a standard descriptor."""
    #: A longer line is logged in pieces: one without end would fill memory.
    MAX_LINE = 1048576

    @classmethod
    def build_stream(cls, name, dest_fd):
        """
        Replace `dest_fd` by one end of a socket pair and return the stream
        that reads the other.

        :param str name: of the logger.
        """
        # Not `socket`, which costs more to import than anything else here.
        import _socket
        rsock, wsock = _socket.socketpair()
        os.dup2(wsock.fileno(), dest_fd)
        stream = cls.stream_class()
        stream.name = name
        stream.set_protocol(cls(name))
        stream.accept(rsock, wsock)
        return stream

    def __init__(self, name):
        self._log = LazyLogger(name)
        if LazyLogger.sink is None:
            self.attach_logger()

    @_seldom
    def attach_logger(self):
        """Make the logger independent of what is later done to the root."""
        import logging
        log = logging.getLogger(self._log.name)
        log.propagate = False
        log.handlers = logging.getLogger().handlers[:]

    def on_shutdown(self, broker):
        """End the output of every process that inherited the descriptor, and
        read on until nothing is left."""
        if not IS_WSL:
            # 1 is SHUT_WR. WSL crashes on shutdown of a socket pair.
            self.stream.transmit_side.fp.shutdown(1)
        self.stream.transmit_side.close()

    def on_line_received(self, line):
        self._log.info('%s', UnicodeType(line, 'utf-8', 'replace'))

    def on_partial_line_received(self, line):
        if len(line) > self.MAX_LINE:
            self._trailer = b''
            self.on_line_received(line)


class MitogenProtocol(Protocol):
    """
    Frames, to and from a neighbour.

    :param int remote_id: the neighbour's context.
    :param auth_id: stamped on whatever arrives, or None.
    :param local_id: default this context.
    :param parent_ids: default those of this context.
    """
    #: Called as ``on_message(stream, msg)`` for whatever passes the checks.
    on_message = None
    if _SELDOM:
        corrupt_msg = (
            '%s: Corruption detected: frame signature incorrect. This often means '
            'some external process is interfering with the connection. Received:'
            '\n\n%r')

    def __init__(self, router, remote_id, auth_id=None,
                 local_id=None, parent_ids=None):
        if local_id is None:
            local_id = mitogen.context_id
        if parent_ids is None:
            parent_ids = mitogen.parent_ids
        self._router = router
        self.remote_id = remote_id
        self.auth_id = auth_id
        self.is_privileged = (remote_id in parent_ids or
                              auth_id in [local_id] + list(parent_ids))
        #: Names of the modules the neighbour has been sent.
        self.sent_modules = set(['mitogen', 'mitogen.core'])
        #: Ids that arrived here as a destination.
        self.egress_ids = set()
        self._writer = BufferedWriter(router.broker, self)
        #: What was read of the next frame, how much, and how much it takes.
        #: With `_header` unpacked, all that without the header.
        self._header = None
        self._chunks = []
        self._have = 0
        self._want = Message.HEADER_LEN
        # Written by the broker thread; any thread may count what it sends.
        self._messages_in = self._bytes_in = self._forwarded = 0
        self._last_in = None
        self._sent = itertools.count()

    def on_receive(self, broker, buf):
        """Cut `buf` into frames and have the router take each."""
        self._bytes_in += len(buf)
        self._last_in = now()
        if getattr(self._router, '_relays', 0) and self._relay(buf):
            return
        self._chunks.append(buf)
        self._have += len(buf)
        if self._have < self._want:
            return
        pos = 0
        if self._header:
            # The end of a frame that came in pieces; they are copied once.
            pos = len(buf) - (self._have - self._want)
            self._chunks[-1] = buf[:pos]
            self._deliver(self._header, b''.join(self._chunks))
        else:
            buf = b''.join(self._chunks)
        self._parse(broker, buf, pos)

    def _deliver(self, header, data):
        msg = Message()
        (msg.enc, msg.dst_id, msg.src_id, msg.auth_id, msg.handle,
         msg.reply_to, _) = header
        msg.data = data
        msg.router = self._router
        self._messages_in += 1
        self._router._async_route(msg, self.stream)

    def _parse(self, broker, buf, pos):
        """Deliver what is complete from `pos` on, and keep the rest."""
        header = None
        size = len(buf)
        want = header_len = Message.HEADER_LEN
        # A delivered message may have ended the stream.
        while size - pos >= header_len and not self._writer.closed:
            header = Message._unpack(buf, pos)
            if header[0] not in Message.ENCS:
                LOG.error(self.corrupt_msg if _complete() else '%s: %r',
                          self.stream.name, buf[pos:pos + 2048])
                return self._on_bad(broker)
            want = header[-1]
            if want > self._router.max_message_size:
                LOG.error('%r: maximum message size exceeded (got %d, max %d)',
                          self, want, self._router.max_message_size)
                return self._on_bad(broker)
            pos += header_len
            if size - pos < want:
                break
            self._deliver(header, buf[pos:pos + want])
            pos += want
            header, want = None, header_len
        self._header = header
        self._chunks = [buf[pos:]]
        self._have = size - pos
        self._want = want

    @_seldom
    def _forked(self):
        """This is a copy: the stream is the other process's."""
        self._writer.closed = True

    def _on_bad(self, broker):
        self.stream.why = 'it sent what is no message'
        self.stream.on_disconnect(broker)

    def pending_bytes(self):
        """Return how many bytes wait to be written."""
        return self._writer._len

    def on_transmit(self, broker):
        self._writer.on_transmit(broker)

    def _send(self, msg):
        next(self._sent)
        data = msg.data
        if len(data) < _LARGE:
            return self._writer.write(msg.pack())
        return self._writer.write(msg._header(), data)

    def _wait_room(self):
        """Have a thread that fills the stream faster than it empties wait."""
        if self._writer.size > self._router.high_water:
            self._writer.wait_room()

    @_seldom
    def _forward(self, msg, feeder):
        """Pass on what came from another stream, which waits if we are full:
        nothing piles up in a router. Broker thread."""
        self._send(msg)
        self._hold(feeder)

    @_seldom
    def _hold(self, feeder):
        writer = self._writer
        # Armed: `on_transmit` will come, and have it read again.
        if (writer.size > self._router.high_water and writer._armed and
                not writer.closed and not feeder.receive_side.closed):
            self._router.broker.poller.stop_receive(feeder.receive_side.fd)
            if feeder not in writer.feeders:
                writer.feeders.append(feeder)

    @_seldom
    def _relay(self, buf):
        """
        Pass on `buf` if it is one frame, for another stream, and nothing is to
        be said against it or to be changed. Return whether it was. If not, the
        router looks, which has the same rules in `_async_route`.
        """
        size = len(buf) - Message.HEADER_LEN
        if size < 0 or self._have or self._header:
            return
        enc, dst_id, src_id, auth_id, _, _, length = Message._unpack(buf)
        if length != size or dst_id == mitogen.context_id:
            return
        router = self._router
        stream = self.stream
        parent_stream = router._stream_by_id.get(mitogen.parent_id)
        out = router._stream_by_id.get(dst_id)
        if out is None and stream is not parent_stream:
            out = parent_stream
        if (out is None or out is stream or
                router.stream_by_id(auth_id) is not stream or
                src_id != auth_id and
                router.stream_by_id(src_id) is not stream or
                self.auth_id is not None or self.on_message is not None or
                router.unidirectional or enc not in Message.ENCS or
                size > router.max_message_size):
            return
        self._messages_in += 1
        self._forwarded += 1
        self._note_egress(dst_id)
        protocol = out.protocol
        next(protocol._sent)
        protocol._writer._relay(out.transmit_side, buf)
        protocol._hold(stream)
        return True

    @_seldom
    def _note_egress(self, dst_id):
        if len(self.egress_ids) >= 65536:
            # Made up by a peer that lies; it misses notices of lost routes.
            self.egress_ids.clear()
        self.egress_ids.add(dst_id)

    def send(self, msg):
        """Write `msg` to the neighbour, whatever its destination. Any
        thread."""
        self._send(msg)

    def on_shutdown(self, broker):
        """Stay open: logs and output still come while the process ends."""
        pass

    @_seldom
    def _counts(self):
        """Return messages in, bytes in, messages out, bytes out and messages
        forwarded from here."""
        # The only way to look at a counter without counting.
        out = int(repr(self._sent)[6:-1])
        return (self._messages_in, self._bytes_in, out, self._writer.sent,
                self._forwarded)

    def on_disconnect(self, broker):
        if not self._writer.closed and _complete():
            self._router._count_closed(self._counts())
        self._writer.close()
        Protocol.on_disconnect(self, broker)


#
# Router and broker.
#

class Router(object):
    """
    Know which stream leads to which context, and which function serves which
    handle. Tables change under `_write_lock`; reading a dict is atomic.

    :param Broker broker:
    """
    context_class = Context
    #: Bytes of payload; larger messages are refused. Children inherit it.
    max_message_size = 128 * 1048576
    #: Bytes that may wait on a stream before those who fill it have to wait.
    #: A peer that lets four times as many wait is not told what became of its
    #: messages.
    high_water = 8 * 1048576
    #: Forward only between a privileged stream and another one.
    unidirectional = False
    no_route_msg = 'no route to context %r from context %r'
    invalid_handle_msg = 'invalid handle: nobody receives there'
    refused_msg = 'refused by policy'
    too_large_msg = 'message too large (max %d bytes)'
    broker_exit_msg = 'the broker has exited'
    duplicate_handle_msg = 'the handle is taken'
    if _SELDOM:
        full_msg = ('the receiver is full (max_bytes=%d) and messages for it were '
                    'refused: take them faster, or have whoever sends wait for an '
                    'answer')
        unexpected_msg = 'reply from unexpected context'
        unidirectional_msg = (
            'routing mode prevents forward of a message that came from '
            'context %d and is for context %d, in context %d')
        respondent_disconnect_msg = 'the respondent context has disconnected'
    #: The broker has exited, and every handler was told.
    _gone = False
    #: Messages that were not delivered.
    refused = 0

    def __init__(self, broker):
        self.broker = broker
        self._write_lock = thread.allocate_lock()
        self._stream_by_id = {}
        self._context_by_id = {}
        #: handle -> (persist, function, policy, respondent)
        self._handle_map = {}
        self._handles_by_respondent = {}
        #: Sum of the `counts` of streams that are closed.
        self._closed = 0, 0, 0, 0, 0
        self._next_handle = itertools.count(1000)
        listen(broker, 'shutdown', self._on_broker_shutdown)
        listen(broker, 'exit', self._on_broker_exit)
        listen(broker, '_fork', lambda: self._on_fork())
        self.add_handler(self._on_del_route, DEL_ROUTE, policy=_is_neighbour)

    @_seldom
    def __repr__(self):
        return 'Router(%r)' % (self.broker,)

    @_seldom
    def stats(self):
        """Return a dict of counters, see :func:`mitogen.debug.router_stats`.
        Not on the broker thread."""
        return import_module('mitogen.debug').router_stats(self)

    @_seldom
    def _count_closed(self, counts):
        self._closed = tuple(imap(sum, zip(self._closed, counts)))

    def _on_del_route(self, msg):
        """What a child that cannot have children does about DEL_ROUTE."""
        if not msg.is_dead and _complete():
            self._on_route_lost(int(msg.data.partition(b':')[0]))

    @_seldom
    def _on_route_lost(self, target_id):
        context = self.context_by_id(target_id, create=False)
        # It matters to who waits for it, unless this tree ends anyway.
        log = LOG.debug
        if self.broker._alive and self._handles_by_respondent.get(context):
            log = LOG.error
        log('%r: deleting route to %r', self, context or target_id)
        if context:
            self._note_loss(context, 'says its parent')
            self._tell_lost(context)

    @_seldom
    def _note_loss(self, context, how):
        context._loss = u'\n%r was lost at %s, %s' % (
            context, time.strftime('%H:%M:%S'), how)

    @_seldom
    def _tell_lost(self, context):
        """Have whoever waits for a context told that it is lost."""
        try:
            context.on_disconnect()
        except Exception:
            LOG.exception('%r: a listener for its loss crashed', context)
            # It stood before the one for handlers.
            self._on_respondent_disconnect(context)

    def _on_stream_disconnect(self, stream, own_id=None):
        """`own_id`: our id, if the stream led to our parent."""
        with self._write_lock:
            lost = [i for i, s in self._stream_by_id.items() if s is stream]
            for context_id in lost:
                del self._stream_by_id[context_id]
        self._fire_lost(stream, lost, own_id, self._stream_by_id)

    def _fire_lost(self, stream, lost, own_id, routes):
        if own_id is not None:
            # The rest of the tree was reached by way of the parent.
            lost += [i for i in list(self._context_by_id)
                     if i != own_id and i not in routes and i not in lost]
        for context_id in lost:
            context = self.context_by_id(context_id, create=False)
            if context:
                if _complete():
                    self._note_loss(context, u'with the connection %r: %s' % (
                        stream.name, stream.why))
                    self._tell_lost(context)
                else:
                    context.on_disconnect()

    def _on_broker_shutdown(self):
        # Every stream has to be seen to end.
        self.high_water = float('inf')
        for stream in list(self._stream_by_id.values()):
            writer = stream.protocol._writer
            if writer.feeders:
                writer.resume()

    def _on_broker_exit(self):
        # First: whoever adds a handler from now on calls this again.
        self._gone = True
        for handle in list(self._handle_map):
            entry = self._handle_map.pop(handle, None)
            if entry:
                self._call_handler(entry[1],
                                   Message.dead(self.broker_exit_msg))

    @_seldom
    def _on_fork(self):
        """Of what the parent has, nothing comes here: end what waits for it,
        and write to none of its streams."""
        self._write_lock = thread.allocate_lock()
        self._gone = True
        for stream in self._streams():
            stream.protocol._forked()
        for entry in list(self._handle_map.values()):
            receiver = getattr(entry[1], '__self__', None)
            if isinstance(receiver, Receiver):
                receiver._size_lock = thread.allocate_lock()
                receiver._latch._forked()
                try:
                    receiver._latch.put(Message.dead(self.broker_exit_msg))
                except LatchError:
                    pass
        importer = getattr(self, 'importer', None)
        if importer:
            importer._forked()
            importer._resource_requester._forked()

    def _call_handler(self, func, msg):
        try:
            func(msg)
        except BaseException:
            LOG.exception('%r: handler %r crashed', self, func)

    @_seldom
    def myself(self):
        """Return a new :class:`Context` for this process."""
        return self.context_class(self, mitogen.context_id, 'self')

    def context_by_id(self, context_id, via_id=None, create=True, name=None):
        """Return the one :class:`Context` of that id, on which signals fire.
        `via_id` and `name` only matter if it is created."""
        context = self._context_by_id.get(context_id)
        if context is None and create:
            context = self.context_class(self, context_id, name=name)
            if via_id is not None:
                context.via = self.context_by_id(via_id)
            with self._write_lock:
                context = self._context_by_id.setdefault(context_id, context)
        return context

    def stream_by_id(self, dst_id):
        """Return the stream that leads to a context, or up, or None."""
        return (self._stream_by_id.get(dst_id) or
                self._stream_by_id.get(mitogen.parent_id))

    @_seldom
    def _add_route(self, target_id, stream):
        with self._write_lock:
            self._stream_by_id[target_id] = stream

    @_seldom
    def _del_route(self, target_id):
        with self._write_lock:
            self._stream_by_id.pop(target_id, None)

    @_seldom
    def _streams(self):
        with self._write_lock:
            return list(set(self._stream_by_id.values()))

    def register(self, context, stream):
        """Make `stream` the way to `context` and start to read from it."""
        if self._stream_by_id:
            # From now on we forward.
            self._relays = _complete()
        with self._write_lock:
            self._stream_by_id[context.context_id] = stream
            self._context_by_id[context.context_id] = context
        self._watch_stream(context, stream)
        self.broker.start_receive(stream)

    def _watch_stream(self, context, stream):
        # Not looked up when it happens: our identity may end with the stream.
        own_id = None
        if context.context_id == mitogen.parent_id:
            own_id = mitogen.context_id
        listen(stream, 'disconnect',
               lambda: self._on_stream_disconnect(stream, own_id))

    def add_handler(self, fn,
                    handle=None,       # int; None for a new one
                    persist=True,      # false: remove it before the first call
                    policy=None,       # policy(msg, stream or None)
                    respondent=None,   # the Context that alone may send
                    overwrite=False):  # replace an existing handler
        """
        Have `fn(msg)` called on the broker thread for each message to a
        handle. Any thread.

        :param int handle: None for a new one.
        :param bool persist: if false, it is removed before the first call.
        :param policy: called on the broker thread with the message and its
            stream, None for a local one. Anything but a true result refuses
            the message.
        :param Context respondent: who alone may send. When it disconnects,
            `fn` gets a dead message and the handler is removed.
        :param bool overwrite: replace an existing handler.
        :returns: the handle.
        :raises Error: the handle exists.
        """
        if respondent is not None:
            # The one object that is told.
            respondent = self.context_by_id(respondent.context_id)
        with self._write_lock:
            if not handle:
                handle = next(self._next_handle)
            elif handle in self._handle_map and not overwrite:
                raise Error(self.duplicate_handle_msg)
            if respondent is not None:
                self._note_respondent(respondent, handle)
            self._handle_map[handle] = persist, fn, policy, respondent
        if self._gone:
            self._on_broker_exit()
        return handle

    @_seldom
    def _note_respondent(self, respondent, handle):
        handles = self._handles_by_respondent.get(respondent)
        if handles is None:
            handles = self._handles_by_respondent[respondent] = set()
            listen(respondent, 'disconnect',
                   lambda: self._on_respondent_disconnect(respondent))
        handles.add(handle)

    def del_handler(self, handle):
        """
        Remove a handler.

        :raises KeyError: there is none.
        """
        with self._write_lock:
            respondent = self._handle_map.pop(handle)[3]
            if respondent is not None:
                self._handles_by_respondent[respondent].discard(handle)

    @_seldom
    def _on_respondent_disconnect(self, context):
        with self._write_lock:
            handles = self._handles_by_respondent.get(context, set())
            # A handle may be somebody else's by now.
            lost = [self._handle_map.pop(h) for h in handles
                    if self._handle_map.get(h, (None,) * 4)[3] == context]
            handles.clear()
        for entry in lost:
            self._call_handler(entry[1], self._dead_respondent(context))

    @_seldom
    def _dead_respondent(self, context):
        return Message.dead(self.respondent_disconnect_msg +
                            getattr(context, '_loss', ''))

    def _maybe_send_dead(self, unreachable, msg, reason, *args):
        """Tell whoever waits on `msg` that it got nowhere: its sender if a
        reply is due, else the recipient if it can be reached."""
        self.refused += 1
        reason = reason % args if args else reason
        LOG.debug('%r: %s: %r', self, reason, msg)
        # Else it would be refused itself, and so on.
        reason = reason[:self.max_message_size]
        if msg.reply_to and not msg.is_dead:
            stream = self.stream_by_id(msg.src_id)
            # Not to a peer that asks and does not read.
            if not stream or \
                    stream.protocol.pending_bytes() <= 4 * self.high_water:
                msg.reply(Message.dead(reason), router=self)
        elif not unreachable and None not in (msg.dst_id, msg.handle):
            # In its sender's name, who may not have been allowed this either.
            self._async_route(Message.dead(
                reason, dst_id=msg.dst_id, handle=msg.handle,
                src_id=msg.src_id, auth_id=msg.auth_id))

    @_seldom
    def _is_unexpected(self, msg, stream, respondent):
        bad = msg.src_id != respondent.context_id
        if bad and msg.is_dead:
            # Whoever is on the way to the respondent may say so.
            bad = stream and stream is not (
                self.stream_by_id(respondent.context_id) or stream)
        return bad

    def _invoke(self, msg, stream):
        entry = self._handle_map.get(msg.handle)
        if entry is None:
            return self._maybe_send_dead(True, msg, self.invalid_handle_msg)
        persist, func, policy, respondent = entry
        if respondent is not None and \
                self._is_unexpected(msg, stream, respondent):
            return self._maybe_send_dead(True, msg, self.unexpected_msg)
        if policy is not None:
            try:
                allowed = policy(msg, stream)
            except Exception:
                # For example one that wants a stream, and a local message.
                LOG.exception('%r: policy %r crashed', self, policy)
                allowed = False
            if not allowed:
                return self._maybe_send_dead(True, msg, self.refused_msg)
        if not persist:
            try:
                self.del_handler(msg.handle)
            except KeyError:
                # Its receiver was closed on another thread just now.
                pass
        self._call_handler(func, msg)

    def _async_route(self, msg, in_stream=None):
        """
        Check `msg` and pass it on. Broker thread.

        :param Stream in_stream: where it came from, None if from here.
        """
        if len(msg.data) > self.max_message_size:
            return self._maybe_send_dead(False, msg, self.too_large_msg,
                                         self.max_message_size)
        streams = self._stream_by_id
        parent_stream = streams.get(mitogen.parent_id)
        # What came down must not go up again.
        upward = True
        # Most contexts have one stream, to whose other end they trust.
        crossing = in_stream is not None and (
            len(streams) > 1 or in_stream is not parent_stream)
        if in_stream is not None:
            protocol = in_stream.protocol
            upward = streams.get(msg.src_id, parent_stream) is not \
                parent_stream
            if crossing and self._refuse_bad_ids(msg, in_stream):
                return
            if protocol.auth_id is not None:
                msg.auth_id = protocol.auth_id
            if protocol.on_message is not None and \
                    self._hook_fails(msg, in_stream):
                return
            if crossing:
                protocol._note_egress(msg.dst_id)

        if msg.dst_id == mitogen.context_id:
            return self._invoke(msg, in_stream)
        if msg.dst_id is None or msg.handle is None:
            return LOG.debug('%r: no destination: %r', self, msg)
        out_stream = streams.get(msg.dst_id)
        if out_stream is None and upward:
            out_stream = parent_stream
        if out_stream is None:
            return self._maybe_send_dead(True, msg, self.no_route_msg,
                                         msg.dst_id, mitogen.context_id)
        if crossing:
            self._pass_on(msg, in_stream, out_stream)
        else:
            out_stream.protocol._send(msg)

    @_seldom
    def _hook_fails(self, msg, in_stream):
        try:
            in_stream.protocol.on_message(in_stream, msg)
        except Exception:
            LOG.exception('%r: on_message crashed', in_stream.protocol)
            # An answer, too, is waited for.
            self._maybe_send_dead(False, msg, self.refused_msg)
            return True

    @_seldom
    def _refuse_bad_ids(self, msg, in_stream):
        """Return whether a message claims to come from where it cannot."""
        for name, value in ('auth_id', msg.auth_id), ('src_id', msg.src_id):
            if name == 'src_id' and value == msg.auth_id:
                break
            stream = self.stream_by_id(value)
            if stream is not in_stream:
                self.refused += 1
                LOG.error('%r: bad %s: got %r via %r, not %r: %r',
                          self, name, value, in_stream, stream, msg)
                return True

    @_seldom
    def _pass_on(self, msg, in_stream, out_stream):
        """Forward what came from another stream."""
        protocol = in_stream.protocol
        if self.unidirectional and not (
                protocol.is_privileged or out_stream.protocol.is_privileged):
            return self._maybe_send_dead(
                True, msg, self.unidirectional_msg, protocol.remote_id,
                out_stream.protocol.remote_id, mitogen.context_id)
        protocol._forwarded += 1
        out_stream.protocol._forward(msg, in_stream)

    def route(self, msg):
        """
        Send `msg` where its `dst_id` says. Any thread.

        :raises Error: the broker has exited.
        """
        # The sender writes for itself. Everything else, handlers above all,
        # belongs to the broker thread.
        dst_id = msg.dst_id
        if (dst_id != mitogen.context_id and dst_id is not None and
                msg.handle is not None and
                len(msg.data) <= self.max_message_size):
            stream = self.stream_by_id(dst_id)
            if stream is not None:
                protocol = stream.protocol
                if protocol._send(msg) is not False:
                    # Who sends a log record holds a lock of `logging`, which
                    # the broker thread may want.
                    if msg.handle != FORWARD_LOG:
                        protocol._wait_room()
                    return
        self.broker.defer(self._async_route, msg)


class Waker(Protocol):
    """
    Run functions on the broker thread, waking it by a byte in a pipe.

    `_lock` is re-entrant because a signal handler may defer while it
    interrupts a thread that defers.
    """
    read_size = 64
    broker_shutdown_msg = (
        'the broker has exited: was it shut down before this was sent?')

    @classmethod
    def build_stream(cls, broker):
        stream = cls.stream_class()
        stream.set_protocol(cls(broker))
        stream.accept(*pipe(blocking=False))
        # It stays open to the end, so what is deferred while streams drain
        # still runs, but it does not itself delay that end.
        stream.receive_side.keep_alive = False
        return stream

    def __init__(self, broker):
        self._broker = broker
        self._lock = threading.RLock()
        self._deferred = collections.deque()
        # A byte is in the pipe. Set after it is written: when an exception
        # comes between, there is one byte too many, never one too few.
        self._woken = False
        #: How often a byte was written.
        self.wakes = 0

    def on_shutdown(self, broker):
        pass

    def on_receive(self, broker, buf):
        with self._lock:
            self._woken = False
        self.drain()

    def drain(self):
        """Run what is queued, and what that queues. Broker thread."""
        while self._deferred:
            func, args, kwargs = self._deferred.popleft()
            try:
                func(*args, **kwargs)
            except Exception:
                LOG.exception('%r failed on the broker thread', func)
                self._broker.shutdown()

    def stop(self):
        with self._lock:
            self._broker._exitted = True

    def defer(self, func, *args, **kwargs):
        """
        Run a function on the broker thread: now and with its result if this
        is that thread, else later. Any thread, and signal handlers.

        :raises Error: the broker has exited.
        """
        if thread.get_ident() == self._broker._ident:
            return func(*args, **kwargs)
        with self._lock:
            # Under the lock, since the broker closes the pipe after `stop`.
            if self._broker._exitted:
                raise Error(self.broker_shutdown_msg)
            self._deferred.append((func, args, kwargs))
            if not self._woken:
                try:
                    self.stream.transmit_side.write(b'x')
                except OSError:
                    # Full, so it wakes; or closed behind our back by a fork.
                    if sys.exc_info()[1].errno not in (
                            errno.EBADF, errno.EAGAIN, errno.EWOULDBLOCK):
                        raise
                self._woken = True
                self.wakes += 1


class Broker(object):
    """
    The I/O thread, named `mitogen.broker`.

    :param poller_class: not used, see the class attribute.
    :param activate_compat: not used.
    """
    poller_class = Poller
    #: Seconds that streams have to end by themselves.
    shutdown_timeout = 3.0
    timers = NullTimerList()
    _ident = None
    #: id -> weak reference, of each that has not been freed.
    _all = {}

    def __init__(self, poller_class=None, activate_compat=True, _start=True):
        # With `_start` false the caller starts the thread, later: what it
        # defers until then costs no wake-up.
        self._alive = True
        self._exitted = False
        _remember(Broker._all, self)
        self._waker = Waker.build_stream(self)
        #: Any thread: see :meth:`Waker.defer`.
        self.defer = self._waker.protocol.defer
        self.poller = self.poller_class()
        self._watch_receive(self._waker)
        self._thread = threading.Thread(target=self._broker_main,
                                        name='mitogen.broker')
        if _start:
            self._thread.start()

    @_seldom
    def __repr__(self):
        return 'Broker(%04x)' % (id(self) & 0xffff)

    @_seldom
    def _on_fork(self):
        """We are a copy, and our thread is in the other process."""
        self._alive = False
        self._exitted = True
        self._ident = None
        self._waker.protocol._lock = threading.RLock()
        fire(self, '_fork')

    @staticmethod
    def _live(side):
        assert side and not side.closed
        return side

    def _watch_receive(self, stream):
        side = stream.receive_side
        self.poller.start_receive(side.fd, (side, stream.on_receive))

    def start_receive(self, stream):
        """Read `stream` from now on. Any thread."""
        self._live(stream.receive_side)
        self.defer(self._watch_receive, stream)

    def stop_receive(self, stream):
        """Read `stream` no more. Any thread."""
        fd = self._live(stream.receive_side).fd
        self.defer(lambda: self.poller.stop_receive(fd))

    def _start_transmit(self, stream):
        side = self._live(stream.transmit_side)
        self.poller.start_transmit(side.fd, (side, stream.on_transmit))

    def _stop_transmit(self, stream):
        self.poller.stop_transmit(self._live(stream.transmit_side).fd)

    @_seldom
    def defer_sync(self, func):
        """Run a function on the broker thread and return what it returns, or
        raise what it raises. Any thread."""
        outcome = Latch()

        def run():
            try:
                value = func()
            except Exception:
                value = sys.exc_info()[1]
            outcome.put(value)

        self.defer(run)
        value = outcome.get()
        if isinstance(value, Exception):
            raise value
        return value

    def keep_alive(self):
        """Tell whether something still has to end: a timer, what has not
        been written yet, or a stream that asks for it. Broker thread."""
        return (self.timers.get_timeout() is not None or
                bool(self.poller.writers) or
                any(side.keep_alive
                    for _, (side, _) in self.poller.readers))

    def shutdown(self):
        """Ask the broker to end. Any thread, and signal handlers;
        repeatable."""
        LOG.debug('%r: shutting down', self)
        if self._alive:
            try:
                self.defer(self._stop)
            except Error:
                # It ended meanwhile.
                pass

    def _stop(self):
        self._alive = False

    @_seldom
    def join(self):
        """Wait for the broker thread to end. Any other thread."""
        self._thread.join()

    def _call(self, stream, func):
        try:
            func(self)
        except Exception:
            LOG.exception('%r: %r crashed', self, func)
            try:
                stream.on_disconnect(self)
            except Exception:
                LOG.exception('%r: on_disconnect() crashed', stream)
                # It would be called for ever.
                Protocol.on_disconnect(stream.protocol, self)

    def _loop_once(self, timeout=None):
        """Wait for I/O or a timer, at most `timeout` seconds, and serve it."""
        due = self.timers.get_timeout()
        if timeout is None or (due is not None and due < timeout):
            timeout = due
        for side, on_ready in self.poller.poll(timeout):
            self._call(side.stream, on_ready)
        if due is not None:
            self.timers.expire()

    def _sides(self):
        """Return one registered side of each stream."""
        poller = self.poller
        return list(dict((side.stream, side) for _, (side, _) in
                         poller.writers + poller.readers).values())

    def _broker_shutdown(self):
        """Let the streams end by themselves, within the grace period."""
        end = now() + self.shutdown_timeout
        for side in self._sides():
            self._call(side.stream, side.stream.on_shutdown)
        while self.keep_alive():
            left = end - now()
            if left <= 0:
                return LOG.error('%r: work is left over after %s seconds',
                                 self, self.shutdown_timeout)
            self._loop_once(left)

    def _broker_exit(self):
        self._waker.protocol.stop()
        # Nothing is queued any more, but someone may wait for what was.
        self._waker.protocol.drain()
        for side in self._sides():
            if not side.closed:
                self._call(side.stream, side.stream.on_disconnect)
        self.poller.close()

    def _crashed(self):
        text = 'broker crashed: %r' % (sys.exc_info()[1],)
        LOG.exception(text)
        try:
            # Logging may depend on this very broker.
            _module('syslog').syslog(3, text)
        except Exception:
            pass

    def _broker_loop(self):
        try:
            while self._alive:
                self._loop_once()
        except BaseException:
            self._crashed()
            self._alive = False
        try:
            # Also after a crash: children are to end, and to be reaped.
            for name in 'before_shutdown', 'shutdown':
                self._fire(name)
            self._broker_shutdown()
        except Exception:
            self._crashed()
        self._broker_exit()

    def _fire(self, name):
        """As `fire`, but a listener that raises keeps nobody from hearing."""
        for func in list(_listeners(self, name)):
            try:
                func()
            except Exception:
                LOG.exception('%r: listener %r crashed', self, func)

    def _broker_main(self):
        self._ident = thread.get_ident()
        try:
            _profile_hook('mitogen.broker', self._broker_loop)
        finally:
            self._exitted = True
            self._fire('exit')
            # The number may be another thread's next.
            self._ident = None


#
# Importing from the parent.
#

class ImportPolicy(object):
    """
    What a child may ask its parent for. A name matches a set if it, or a
    package it lies in, is there.

    :param overrides: fetch these even if there is a local copy; if there are
        any, nothing else may be fetched.
    :param blocks: never fetch these.
    """
    def __init__(self, overrides=(), blocks=()):
        self.overrides = set(overrides)
        self.blocks = set(blocks)

    @_seldom
    def __repr__(self):
        return 'ImportPolicy(overrides=%r, blocks=%r)' % (
            sorted(self.overrides), sorted(self.blocks))

    def overriden(self, fullname):
        """Return whether `fullname` is to be fetched even if it is here."""
        return not self.overrides.isdisjoint(module_lineage(fullname))

    @_seldom
    def denied(self, fullname):
        """Return the exception class that says why not, or False."""
        if self.overrides and not self.overriden(fullname):
            return ModuleDeniedByOverridesError
        for names, cls in ((self.blocks, ModuleDeniedByBlocksError),
                           (Importer.ALWAYS_BLACKLIST, ModuleUnsuitableError)):
            if not set(names).isdisjoint(module_lineage(fullname)):
                return cls
        return False

    def denied_raise(self, fullname):
        """
        Return if `fullname` may be fetched.

        :raises ModuleNotFoundError: as :meth:`denied` says.
        """
        if (self.overrides and not self.overriden(fullname) or
                not self.blocks.union(Importer.ALWAYS_BLACKLIST).isdisjoint(
                    module_lineage(fullname))):
            cls = self.denied(fullname)
            raise cls(cls.fmt % (fullname,))


class _Fetcher(object):
    """
    Ask the parent for things by key, each once, whoever waits. The lock is
    never held while sending or calling back: the broker thread takes it too.
    """
    def __init__(self, router, context):
        self._context = context
        #: key -> answer; kept for ever, "absent" too.
        self._cache = {}
        #: key -> functions to call when the answer comes.
        self._callbacks = {}
        self._lock = thread.allocate_lock()
        self._install_handler(router)

    def _request(self, key, callback, make_msg):
        with self._lock:
            context = key not in self._cache and self._context
            if context:
                waiting = self._callbacks.setdefault(key, [])
                first = not waiting
                waiting.append(callback)
        if not context:
            callback()
        elif first:
            context.send(make_msg())

    def _abandon(self):
        """There is no parent any more: wake who waits for it, and send
        nothing again. Broker thread."""
        with self._lock:
            self._context = None
            waiting, self._callbacks = self._callbacks, {}
        for callback in sum(waiting.values(), []):
            callback()

    @_seldom
    def _forked(self):
        """This is a copy: nobody answers us."""
        self._lock = thread.allocate_lock()
        self._callbacks = {}
        self._context = None

    def _answer(self, key, value):
        with self._lock:
            self._cache[key] = value
            waiting = self._callbacks.pop(key, ())
        for callback in waiting:
            callback()

    def _get(self, request, *key):
        latch = Latch()
        request(*(key + (latch.put,)))
        latch.get()


class ResourceRequester(_Fetcher):
    """Fetch data files of packages. `_cache`: (package, name) -> bytes or
    None."""

    def _install_handler(self, router):
        router.add_handler(self._on_load_resource, LOAD_RESOURCE,
                           policy=has_parent_authority)

    def _on_load_resource(self, msg):
        if msg.is_dead:
            return self._abandon()
        key, content = msg.unpickle_iter()
        self._answer(tuple(key), content)

    def _request_resource(self, fullname, resource, callback):
        key = to_text(fullname), to_text(resource)
        self._request(key, callback, lambda: Message.pickled(
            key, handle=GET_RESOURCE))

    def _get_resource(self, fullname, resource):
        self._get(self._request_resource, fullname, resource)
        return self._cache.get((to_text(fullname), to_text(resource)))


@_seldom
class ResourceReader(object):
    """`importlib.resources` for one package that came from the parent."""

    def __init__(self, requester, fullname):
        self._read = lambda name: requester._get_resource(fullname, name)

    def is_resource(self, name):
        return self._read(name) is not None

    def open_resource(self, resource):
        content = self._read(resource)
        return BytesIO(content) if content is not None else \
            self.resource_path(resource)

    def resource_path(self, resource):
        raise FileNotFoundError(resource)

    def contents(self):
        raise NotImplementedError('the parent cannot list resources')

    def files(self):
        """Return what ``importlib.resources.files()`` does, 3.10 and later."""
        return self.Entry(self, ())

    class Entry(object):
        """
        A place in the package, whether or not anything is there: what is no
        file counts as a folder, which cannot be listed.
        """
        def __init__(self, reader, parts):
            self._reader = reader
            self._parts = parts
            self.name = parts[-1] if parts else ''

        def __repr__(self):
            return 'Entry(%r)' % ('/'.join(self._parts),)

        def joinpath(self, *names):
            parts = '/'.join(map(str, names)).split('/')
            return type(self)(self._reader, self._parts + tuple(filter(None, parts)))

        __truediv__ = joinpath

        def is_file(self):
            return bool(self._parts) and \
                self._reader.is_resource('/'.join(self._parts))

        def is_dir(self):
            return not self.is_file()

        def iterdir(self):
            # is_resource() of 3.11 and 3.12 lists the package to find the one
            # name it was asked for: that entry can be given to it.
            caller = sys._getframe(1)
            if caller.f_code.co_name == 'is_resource' and \
                    caller.f_globals.get('__name__', '').endswith('resources._legacy'):
                return iter([self.joinpath(caller.f_locals['resource'])])
            return iter(self._reader.contents())

        def open(self, mode='r', *args, **kwargs):
            import io
            fp = self._reader.open_resource('/'.join(self._parts))
            return fp if 'b' in mode else \
                io.TextIOWrapper(fp, *args, **kwargs)

        def read_bytes(self):
            return self.open('rb').read()

        def read_text(self, *args, **kwargs):
            return self.open('r', *args, **kwargs).read()


class Importer(_Fetcher):
    """
    Import what is not there from the parent. Entry of `sys.meta_path`.

    :param context: where requests go.
    :param bytes core_src: source of this module, to be shown and passed on.
    :param ImportPolicy policy:
    """
    #: Modules that are useless, or harmful, in another interpreter.
    ALWAYS_BLACKLIST = ['builtins', '__builtin__', 'msvcrt', 'thread',
                        'org'] + ['cStringIO'] * PY3
    if _SELDOM:
        absent_msg = (
            'the parent is unable to serve %r: it is missing there too, or is a '
            'native extension; see the debug log of the master')
        #: Sub-modules of `mitogen` that may be asked for; an import of another
        #: one fails without a request.
        MITOGEN_PKG_CONTENT = [
            'buildah', 'compat', 'core', 'debug', 'doas', 'docker', 'fakessh',
            'fork', 'imports', 'incus', 'jail', 'kubectl', 'lxc', 'lxd', 'master',
            'minify', 'os_fork', 'parent', 'podman', 'profiler', 'select',
            'service', 'setns', 'ssh', 'su', 'sudo', 'unix', 'utils',
        ]
        pkg_resources_msg = (
            'pkg_resources may not import __main__ here: that would fetch, and '
            'run, the main program')

    if _REDUCED:
        _loader = bool
        _late_lock = thread.allocate_lock()

    def __init__(self, router, context, core_src, policy):
        _Fetcher.__init__(self, router, context)
        self.policy = policy
        #: Package -> names of its sub-modules, but for `mitogen`.
        self._present = {}
        # True while other finders are asked on this thread.
        self._asking = threading.local()
        self._router = router
        if _REDUCED:
            Importer._loader = self._load_late
        self._resource_requester = ResourceRequester(router, context)
        self._core_source = core_src
        if not _REDUCED and core_src:
            self._keep_core()

    @_seldom
    def __repr__(self):
        return 'Importer'

    @_seldom
    def _adopt(self, router, parent):
        """Serve a fork of our process: what we know of modules is still true,
        but nobody will answer what we have asked."""
        self._forked()
        self._router = router
        self._context = parent
        self._install_handler(router)
        self._resource_requester = ResourceRequester(router, parent)

    @_seldom
    def _keep_core(self):
        """Have this module for others, and for who wants to see it."""
        import zlib
        # Not compressed: that takes longer than it could ever save.
        self._cache['mitogen.core'] = (
            'mitogen.core', None, 'x/mitogen/core.py',
            zlib.compress(self._core_source, 0), [])

    def _install_handler(self, router):
        router.add_handler(self._on_load_module, LOAD_MODULE,
                           policy=has_parent_authority)

    def _on_load_module(self, msg):
        if msg.is_dead:
            return self._abandon()
        tup = msg.unpickle()
        _importer_log.debug('received %r', tup[0])
        self._answer(tup[0], tup)

    def _request_module(self, fullname, callback):
        """Call `callback()` when `_cache` has the module: now, or on the
        broker thread. Any thread."""
        self._request(fullname, callback, lambda: Message(
            data=utf_8_encode(fullname)[0], handle=GET_MODULE))

    def _refuse_imports(self, fullname):
        self.policy.denied_raise(fullname)
        if fullname == 'pbr' or (fullname == '__main__' and
                                 'pkg_resources' in sys.modules):
            self._refuse_special(fullname)

    @_seldom
    def _refuse_special(self, fullname):
        if fullname == '__main__':
            frame = sys._getframe(1)
            while frame and frame.f_globals.get('__name__') in (
                    __name__, 'importlib', 'importlib._bootstrap'):
                frame = frame.f_back
            if frame and frame.f_globals.get('__name__') == 'pkg_resources':
                raise ModuleNotFoundError(self.pkg_resources_msg)
        if fullname == 'pbr':
            # It looks for the version in package metadata, which a module
            # without a file does not have.
            os.environ['PBR_VERSION'] = '0.0.0'

    def _fetch(self, fullname):
        """Return (sub-module names or None, file name) once it is known."""
        self._refuse_imports(fullname)
        self._get(self._request_module, fullname)
        path = self.get_filename(fullname)
        if path is None:
            raise ModuleNotFoundError(self.absent_msg % (fullname,))
        present = self._cache[fullname][1]
        if present is not None:
            self._present[fullname] = present
        return present, path

    def _execute(self, module, fullname, path):
        import zlib
        try:
            code = compile(zlib.decompress(self._cache[fullname][3]), path,
                           'exec', 0, 1)
        except SyntaxError:
            _importer_log.exception('while importing %r', fullname)
            raise
        exec(code, module.__dict__)

    def _decide(self, fullname):
        """Return None for "not from here", False for "only if nobody else has
        it", True for "from here"."""
        if getattr(self._asking, 'on', False) or fullname[-1:] == '.':
            return None
        if thread.get_ident() == self._router.broker._ident:
            # It would wait for itself.
            return None
        pkgname, _, suffix = fullname.rpartition('.')
        if pkgname:
            if suffix not in (
                    self._present.get(pkgname, ()) if pkgname != 'mitogen'
                    else self.MITOGEN_PKG_CONTENT):
                _importer_log.debug('%r has no %r', pkgname, suffix)
                return None
            pkg = sys.modules.get(pkgname)
            if getattr(pkg, '__loader__', None) is not self:
                return None
        return fullname == '__main__' or self.policy.overriden(fullname)

    def _ask_others(self, method, *args):
        before = getattr(self._asking, 'on', False)
        self._asking.on = True
        try:
            for finder in sys.meta_path:
                func = getattr(finder, method, None)
                found = finder is not self and func and func(*args)
                if found:
                    return found
        finally:
            self._asking.on = before

    def find_spec(self, fullname, path, target=None):
        """Finder protocol of Python 3."""
        from _frozen_importlib import ModuleSpec
        mine = self._decide(fullname)
        # Whoever imports it, and wherever.
        hook = fullname == 'logging' and LazyLogger.sink and _complete()
        if not mine and (hook or mine is not None):
            spec = self._ask_others('find_spec', fullname, path, target)
            if spec and hook:
                spec.loader = _LoggingLoader(spec.loader)
            if spec:
                return spec
        if mine is None:
            return None
        _importer_log.debug('will ask for %r', fullname)
        return ModuleSpec(fullname, self, is_package=fullname in self._present)

    def create_module(self, spec):
        """Loader protocol of Python 3. Waits for the source."""
        present, spec.origin = self._fetch(spec.name)
        if present is not None:
            spec.submodule_search_locations = []
        module = type(sys)(spec.name)
        module.__file__ = spec.origin
        return module

    def exec_module(self, module):
        """Run the source of a module. The thread that imports."""
        spec = module.__spec__
        # Of a module that is reloaded nothing was created.
        self._execute(module, spec.name, module.__file__)
        if spec.name == 'logging' and LazyLogger.sink:
            LazyLogger.sink.install()

    if not PY3:
        def find_module(self, fullname, path=None):
            """Finder protocol of Python 2."""
            mine = self._decide(fullname)
            if mine is None:
                return None
            if not mine and self.builtin_find_module(fullname, path):
                return None
            _importer_log.debug('will ask for %r', fullname)
            return self

        def builtin_find_module(self, fullname, path=None):
            """Tell whether Python finds a module without us."""
            if self._ask_others('find_module', fullname, path):
                return True
            if path is None:
                # Zip files and the like.
                for entry in sys.path:
                    finder = sys.path_importer_cache.get(entry)
                    if finder and finder.find_module(fullname):
                        return True
            try:
                fp, _, _ = imp.find_module(fullname.rpartition('.')[2], path)
            except ImportError:
                return False
            if fp:
                fp.close()
            return True

        def load_module(self, fullname):
            """Loader protocol of Python 2. Waits for the source."""
            fullname = str(fullname)
            present, path = self._fetch(fullname)
            module = sys.modules.setdefault(fullname,
                                            imp.new_module(fullname))
            module.__file__ = path
            module.__loader__ = self
            module.__package__ = fullname.rpartition('.')[0] or None
            if present is not None:
                module.__path__ = []
                module.__package__ = fullname
            try:
                self._execute(module, fullname, path)
            except:
                sys.modules.pop(fullname, None)
                raise
            # Not `module`: it may have put something else in its place.
            return sys.modules[fullname]

    if _REDUCED:
        def _load_late(self):
            """Run the part of this text that was not sent, if it can be had,
            and return whether it could."""
            key = 'mitogen', 'core.late'
            requester = self._resource_requester
            if thread.get_ident() != self._router.broker._ident:
                requester._get_resource(*key)
            source = requester._cache.get(key)
            if source:
                import zlib
                with self._late_lock:
                    if _LATE:
                        exec(zlib.decompress(source), globals())
                        self._keep_core()
            return source

    def get_filename(self, fullname):
        """Return the name of a module's file, or None if nothing is known
        about the module."""
        if fullname not in self._cache:
            return None
        path = self._cache[fullname][2]
        if path is None:
            raise ModuleNotFoundError(self.absent_msg % (fullname,))
        path = to_text(path)
        if not PY3:
            path = path.encode('utf-8')
        return 'master:' + path

    @_seldom
    def get_source(self, fullname):
        """Return a module's source as `str`, or None if nothing is known."""
        if self.get_filename(fullname):
            import zlib
            source = zlib.decompress(self._cache[fullname][3])
            if PY3:
                from importlib.util import decode_source
                source = decode_source(source)
            return source

    @_seldom
    def get_resource_reader(self, fullname):
        """Return the :class:`ResourceReader` of a package."""
        return ResourceReader(self._resource_requester, fullname)


@_seldom
class _LoggingLoader(object):
    """Load `logging` with its own loader, then let the child's log handler
    take its place before anybody can use the module."""

    def __init__(self, loader):
        self._loader = loader

    def create_module(self, spec):
        pass

    def exec_module(self, module):
        loader = self._loader
        module.__loader__ = module.__spec__.loader = loader
        # Before Python 3.10 there is no `exec_module` for zip files.
        getattr(loader, 'exec_module',
                lambda _module: loader.load_module('logging'))(module)
        if LazyLogger.sink:
            LazyLogger.sink.install()


#
# The child.
#

class LogHandler(object):
    """
    Logging handler that sends records to the master. Any thread.

    It becomes a `logging.Handler` when that module is there, and serves
    :class:`LazyLogger` before.

    :param Context context: the master.
    """
    def __init__(self, context):
        self.context = context
        #: Messages that wait for `uncork`, then None.
        self._buffer = []
        self._buffer_lock = thread.allocate_lock()
        # True while this thread sends: what is logged by that goes nowhere.
        self._sending = threading.local()
        if not _REDUCED and 'logging' in sys.modules:
            self._join_logging()

    @_seldom
    def _join_logging(self):
        import logging
        _graft(self, 'Handler')
        logging.Handler.__init__(self)

    @_seldom
    def emit(self, record):
        # What is logged about each read and write would never end.
        if record.name != 'mitogen.io' and \
                not getattr(self._sending, 'on', False):
            try:
                text = self.format(record)
            except Exception:
                # The program goes on, as with every handler.
                return self.handleError(record)
            self.send(record.name, record.levelno, text)

    def send(self, name, level, text):
        """Send one record, or keep it until `uncork`."""
        if getattr(self._sending, 'on', False):
            return
        self._sending.on = True
        try:
            if isinstance(text, BytesType):
                text = UnicodeType(text, 'utf-8', 'replace')
            msg = Message(handle=FORWARD_LOG, data=utf_8_encode(
                u'%s\x00%d\x00%s' % (to_text(name), level, text),
                'replace')[0])
            if self._buffer is not None:
                with self._buffer_lock:
                    # Looked at again: `uncork` may have been first.
                    if self._buffer is not None:
                        self._buffer.append(msg)
                        return
            self.context.send(msg)
        except Error:
            # The broker has exited: there is nobody to tell.
            pass
        finally:
            self._sending.on = False

    def uncork(self):
        """Send what was kept, in order, and everything from now on."""
        self._sending.on = True
        try:
            with self._buffer_lock:
                for msg in self._buffer:
                    self.context.send(msg)
                self._buffer = None
        finally:
            self._sending.on = False


class Dispatcher(object):
    """
    Run the functions that CALL_FUNCTION asks for, one at a time on the main
    thread.

    :param ExternalContext econtext:
    """
    #: Receiver of CALL_SERVICE until there is a pool to take it over.
    _service_recv = None

    def __init__(self, econtext):
        self.econtext = econtext
        #: Chain id -> CallError of its first failed call.
        self._error_by_chain_id = {}
        self.recv = Receiver(econtext.router, CALL_FUNCTION,
                             policy=has_parent_authority)
        Dispatcher._service_recv = Receiver(econtext.router, CALL_SERVICE,
                                            policy=has_parent_authority)
        Dispatcher._service_recv.notify = self._on_call_service
        listen(econtext.broker, 'shutdown', self._on_broker_shutdown)

    @_seldom
    @classmethod
    @takes_econtext
    def forget_chain(cls, chain_id, econtext):
        """Run calls of that chain again after one has failed."""
        econtext.dispatcher._error_by_chain_id.pop(chain_id, None)

    def _on_broker_shutdown(self):
        if self._service_recv.notify == self._on_call_service:
            self._service_recv.notify = None
        self.recv.close()

    def _on_call_service(self, _recv):
        """Have the main thread make the pool: it imports, and the broker
        thread must not."""
        try:
            self.recv._on_receive(Message(handle=STUB_CALL_SERVICE))
        except LatchError:
            # The child is shutting down.
            pass

    @_seldom
    def _make_pool(self):
        try:
            import_module('mitogen.service').get_or_create_pool(
                router=self.econtext.router)
        except Exception:
            LOG.exception('cannot start the service pool')

    def _resolve(self, msg):
        """Return (chain id, function, args, kwargs)."""
        chain_id, modname, klass, func, args, kwargs = msg.unpickle()
        obj = None
        if chain_id not in self._error_by_chain_id:
            obj = import_module(modname)
            if klass:
                obj = getattr(obj, klass)
            obj = getattr(obj, func)
            if getattr(obj, 'mitogen_takes_econtext', None):
                kwargs.setdefault('econtext', self.econtext)
            if getattr(obj, 'mitogen_takes_router', None):
                kwargs.setdefault('router', self.econtext.router)
        return chain_id, obj, args, kwargs

    def _dispatch_one(self, msg):
        """Return (chain id, result or CallError)."""
        try:
            chain_id, func, args, kwargs = self._resolve(msg)
        except Exception:
            # No call was made, so this does not break its chain.
            return None, CallError(sys.exc_info()[1])
        if chain_id in self._error_by_chain_id:
            return chain_id, self._error_by_chain_id[chain_id]
        try:
            return chain_id, func(*args, **kwargs)
        except Exception:
            error = CallError(sys.exc_info()[1])
            if chain_id is not None:
                self._error_by_chain_id[chain_id] = error
            return chain_id, error

    def _serve(self, msg):
        chain_id, result = self._dispatch_one(msg)
        if msg.reply_to:
            try:
                reply = Message.pickled(result)
            except Exception:
                reply = Message.pickled(CallError(sys.exc_info()[1]))
            try:
                msg.reply(reply)
            except Error:
                LOG.debug('the broker exited during a call')
        elif chain_id is None and isinstance(result, CallError):
            LOG.error('call without reply failed: %s', result)

    def run(self):
        """Serve until the receiver is closed. Main thread."""
        if os.environ.get('MITOGEN_DEBUG_SIGNAL'):
            import_module('mitogen.debug').enable_dump()
        if self.econtext.config.get('on_start'):
            self.econtext.config['on_start'](self.econtext)
        for msg in self.recv:
            # Only `_on_call_service` can have put that handle here.
            if msg.handle == STUB_CALL_SERVICE:
                self._make_pool()
            else:
                self._serve(msg)
            msg = None


class ExternalContext(object):
    """
    The run of a child, from the end of the bootstrap to the end of the
    process. Attributes after start, for functions that take `econtext`:
    config, broker, router, master, parent, stream, importer, log_handler,
    dispatcher, detached; loggers, if stdio was set up.

    :param dict config: see `main`.
    """
    #: True after :meth:`detach`.
    detached = False
    #: Whether to look for garbage once the child has started.
    _collects = True
    #: Replaced by the fork hook.
    service_stub_lock = threading.Lock()

    def __init__(self, config):
        self.config = config

    def _on_broker_exit(self):
        if not self.config['profiling']:
            # SIGTERM, by number to spare an import: even a main thread that
            # is stuck in a function ends now.
            os.kill(os.getpid(), 15)
            # Where somebody ignores or handles it, not much later.
            thread.start_new_thread(self._insist, ())

    def _insist(self):
        time.sleep(1.5)
        os.kill(os.getpid(), 9)

    def _on_parent_disconnect(self):
        if self.detached:
            self._on_detached()
        else:
            self.broker.shutdown()

    @_seldom
    def _on_detached(self):
        mitogen.parent_id, mitogen.parent_ids = None, []
        self.importer._abandon()
        self.importer._resource_requester._abandon()
        LOG.info('detached')

    def _on_shutdown_msg(self, msg):
        if not msg.is_dead:
            self.broker.shutdown()

    @_seldom
    def detach(self):
        """Live on without a parent, in a session of our own. Main thread."""
        self.detached = True
        stream = self.router.stream_by_id(mitogen.parent_id)
        if not stream:
            return
        try:
            os.setsid()
        except OSError:
            # Already the leader of a group.
            pass
        self.parent.send_await(Message(handle=DETACHING))
        LOG.info('detaching from %r', self.parent)
        for _ in range(20):
            if not self.broker.defer_sync(stream.protocol.pending_bytes):
                break
            time.sleep(0.05)
        else:
            LOG.error('%r: not everything was sent before detaching', stream)
        self.broker.defer(stream.on_disconnect, self.broker)

    def _setup_title(self, name):
        """
        Show the name in `ps`, and nothing of the bootstrap's arguments.

        Linux only, by writing over them: the kernel shows the area from its
        start to the first NUL if its last byte is not NUL.
        """
        sys.argv = ['']
        if hasattr(sys, 'orig_argv'):
            sys.orig_argv = ['']
        try:
            fp = open('/proc/self/stat', 'rb')
            # The second field may contain anything, even parentheses.
            fields = fp.read().rpartition(b')')[2].split()
            fp.close()
            # Fields 48 and 49; what is left here begins with field 3.
            start, end = int(fields[45]), int(fields[46])
            title = to_text('%s(mitogen:%s)') % (to_text(sys.executable),
                                                 to_text(name))
            title = title.encode('utf-8')[:end - start - 2]
            fp = open('/proc/self/mem', 'r+b', 0)
            fp.seek(start)
            fp.write(title.ljust(end - start - 1, b'\0') + b' ')
            fp.close()
        except Exception:
            LOG.debug('no process title: %s', sys.exc_info()[1])

    def _setup_globals(self):
        parent_ids = self.config['parent_ids']
        mitogen.is_master = False
        mitogen.__version__ = self.config['version']
        mitogen.context_id = self.config['context_id']
        mitogen.parent_ids = parent_ids[:]
        mitogen.parent_id = parent_ids[0]
        if self.config.get('setup_package', True):
            mitogen.core = sys.modules[__name__]
            # In a child, @mitogen.main() means nothing.
            mitogen.main = lambda *_args, **_kwargs: lambda _func: None
            # An import of it then fetches the master's.
            main = sys.modules.pop('__main__', None)
            if not PY3:
                # Which wipes the globals of a module it frees, and its code
                # still runs.
                self._main = main

    def _setup_master(self):
        config = self.config
        # Whoever starts us may have closed stderr. Nothing of ours may get its
        # number.
        fd = os.open('/dev/null', os.O_RDWR)
        while fd < 3:
            fd = os.dup(fd)
        os.close(fd)
        Router.max_message_size = config['max_message_size']
        self.broker = Broker(_start=False)
        self.router = Router(self.broker)
        self.router.debug = config.get('debug', False)
        self.router.unidirectional = config['unidirectional']
        self.router.add_handler(self._on_shutdown_msg, SHUTDOWN,
                                policy=has_parent_authority)
        self.master = Context(self.router, 0, 'master')
        self.parent = self.master
        if mitogen.parent_id:
            self.parent = Context(self.router, mitogen.parent_id, 'parent')
        in_fd, out_fd = config.get('in_fd', 0), config.get('out_fd', 1)
        in_fp = os.fdopen(os.dup(in_fd), 'rb', 0)
        out_fp = os.fdopen(os.dup(out_fd), 'wb', 0)
        # Number 0 is not merely closed, the next file would get it; 1 stays
        # for those who do without `setup_stdio`.
        if in_fd <= 2:
            self._null(in_fd, os.O_RDONLY)
        for fd in in_fd, out_fd:
            if fd > 2:
                os.close(fd)
        for fp in in_fp, out_fp:
            set_blocking(fp.fileno(), False)
        self.stream = MitogenProtocol.build_stream(
            self.router, mitogen.parent_id, local_id=mitogen.context_id,
            parent_ids=mitogen.parent_ids)
        self.stream.name = u'parent'
        self.stream.accept(in_fp, out_fp)
        self.stream.receive_side.keep_alive = False
        listen(self.stream, 'disconnect', self._on_parent_disconnect)
        listen(self.broker, 'exit', self._on_broker_exit)

    @staticmethod
    def _null(fd, flags):
        null = os.open('/dev/null', flags)
        if null != fd:
            os.dup2(null, fd)
            os.close(null)
        elif PY3:
            os.set_inheritable(fd, True)

    def _setup_logging(self):
        self.log_handler = LogHandler(self.master)
        self.log_handler.install = lambda: self._install_log_handler()
        LazyLogger.levels = dict(zip(LOGGERS, self.config['log_levels']))
        LazyLogger.levels[_IMPORTER] = LazyLogger.levels['mitogen']
        LazyLogger.sink = self.log_handler
        if self.config['debug']:
            self._install_log_handler()
            enable_debug_logging()

    @_seldom
    def _install_log_handler(self):
        """Make `logging`, now that it is there, what it always seemed to
        be."""
        import logging
        self.log_handler._join_logging()
        LazyLogger.sink = None
        for i, name in enumerate(LOGGERS):
            logging.getLogger(name).setLevel(self.config['log_levels'][i])
        logging.getLogger().handlers[:] = [self.log_handler]
        for stream in getattr(self, 'loggers', ()):
            stream.protocol.attach_logger()

    def _setup_importer(self):
        importer = self.config.get('importer')
        if importer:
            importer._adopt(self.router, self.parent)
        else:
            importer = Importer(
                self.router, self.parent, _core_source,
                ImportPolicy(self.config.get('import_overrides', ()),
                             self.config.get('import_blocks', ())))
        self.importer = self.router.importer = importer
        if importer not in sys.meta_path:
            sys.meta_path.insert(0, importer)
        if _core_source and self.config.get('setup_package', True):
            for name in 'mitogen', 'mitogen.core':
                sys.modules[name].__loader__ = importer

    def _setup_stdio(self):
        if os.isatty(2):
            # Some tools hang up the terminal, and thereby us, when nobody has
            # it open any more.
            self.reserve_tty_fp = os.fdopen(os.dup(2), 'r+b', 0)
            set_cloexec(self.reserve_tty_fp.fileno())
        if sys.stdin is not None:
            self._null(0, os.O_RDONLY)
        if sys.stderr is not None:
            self._null(2, os.O_RDWR)
        if sys.stdout is not None:
            # Twice, as closing may close the descriptor, and before that
            # writes what a forked process had not flushed.
            self._null(1, os.O_RDWR)
            sys.stdout.close()
            self._null(1, os.O_RDWR)
        self.loggers = []
        for name, fd in ('stdout', 1), ('stderr', 2):
            stream = IoLoggerProtocol.build_stream(name, fd)
            self.broker.start_receive(stream)
            self.loggers.append(stream)
        sys.stdout = os.fdopen(1, 'w', 1)
        if sys.stderr is None:
            sys.stderr = os.fdopen(2, 'w', 1)

    def _start(self):
        config = self.config
        self._setup_logging()
        if config.get('remote_name'):
            self._setup_title(config['remote_name'])
        self._setup_importer()
        if config.get('setup_stdio', True):
            self._setup_stdio()
        self.dispatcher = Dispatcher(self)
        # From here on messages come in; everything that takes them is there.
        self.router.register(self.parent, self.stream)
        if not _REDUCED and CORE == 'native':
            self.stream.protocol._end_with(5.0)
        self.broker._thread.start()
        if config.get('send_ec2', True):
            self.stream.transmit_side.write(b'MITO002\n')
        self.log_handler.uncork()
        if LazyLogger.sink and 'logging' in sys.modules:
            # Imported before the importer could notice.
            self._install_log_handler()
        if LOG.isEnabledFor(10):
            self._log_start()

    @_seldom
    def _log_start(self):
        LOG.debug('Python version is %s', sys.version)
        LOG.debug('Parent is context %s (%s), this is context %s',
                  self.parent.context_id, self.parent.name,
                  mitogen.context_id)
        LOG.debug('host %s, process %s of %s, user %s, group %s',
                  os.uname()[1], os.getpid(), os.getppid(),
                  (os.getuid(), os.geteuid()), (os.getgid(), os.getegid()))

    def main(self):
        """Run the child. Returns, or raises, when it has been told to end;
        the process then ends by the broker's SIGTERM."""
        self._setup_globals()
        if self.config['profiling']:
            enable_profiling(self)
        self._setup_master()
        try:
            self._start()
            # What is here stays: it need not be looked through as if it were
            # young.
            if hasattr(gc, 'freeze') and not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            if self._collects:
                gc.enable()
            _profile_hook('mitogen.child_main', self.dispatcher.run)
        except BaseException:
            if not isinstance(sys.exc_info()[1], KeyboardInterrupt):
                LOG.exception('the external context main crashed')
                raise
        finally:
            self.broker.shutdown()


def _choose_core():
    """
    Put the compiled core in the place of the classes above where there is one,
    and return the name of the core in use.

    :raises ImportError: MITOGEN_CORE is 'native', and it cannot be had.
    """
    if not _REDUCED:
        wanted = os.environ.get('MITOGEN_CORE')
        # What the bootstrap has sent has no extension beside it.
        if not _core_source and wanted != 'pure':
            try:
                # In a function, so that it does not count among the modules
                # that a child which imports this one will need.
                from mitogen import _native
            except ImportError:
                if wanted == 'native':
                    raise
            else:
                return _native.install(globals())
    return 'pure'


#: Which core this process uses: 'pure' or 'native'.
CORE = _choose_core()

#: Functions without arguments, called in the child of a fork: to replace locks
#: that another thread may have held.
_fork_hooks = []


@_seldom
def _on_fork():
    """Give up, in the child of a fork, what belongs to the parent. May be
    repeated."""
    for broker in [ref() for ref in list(Broker._all.values())]:
        if broker:
            broker._on_fork()
    Latch._on_fork()
    Side._on_fork()
    ExternalContext.service_stub_lock = threading.Lock()
    for hook in _fork_hooks:
        hook()


if hasattr(os, 'register_at_fork'):
    # A copy has nobody to ask for what is not here.
    os.register_at_fork(before=_complete,
                        after_in_child=lambda: _complete() and _on_fork())
