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

Every child pays for each import here. A module that is rarely used is imported
where it is used, with one limit: on Python 2 a thread that imports holds a lock
while it waits for a module to arrive, so the code that delivers messages must
not import.
"""

from __future__ import absolute_import

import errno
import gc
import itertools
import os
import select
import struct
import sys
import time
import _weakref
# The codecs themselves: a look-up by name imports, which see above.
from _codecs import latin_1_encode, utf_8_encode
# The class itself: `collections` imports much more, which a child does later.
from _collections import deque as _deque

import mitogen

PY3 = sys.version_info > (3,)

# A child is sent this text without the code that is marked as seldom used, if
# the Python there can ask for it later: functions and methods are marked by
# `_seldom`, blocks by `if _SELDOM:`. `mitogen._shrink` divides the text, and
# `_complete` of the part that is sent fetches the other one. That needs the
# broker thread, so a function that may be called there before anything else has
# asked is not seldom.
_SELDOM = True
_REDUCED = False

if _REDUCED:
    import threading

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
        return not _LATE or mitogen.core.Importer._loader()
    if not _REDUCED:
        return True


if not _REDUCED:
    def _seldom(func):
        return func

    def __getattr__(name):
        # Programs may look here for what a child imports late, or not at all.
        if name in ('collections', 'threading'):
            return __import__(name)
        raise AttributeError('module %r has no attribute %r' %
                             (__name__, name))

    if sys.version_info < (3, 7):
        # They ask no such function.
        import collections  # noqa: F401
        import threading  # noqa: F401


if not _REDUCED:
    if PY3 and 'functools' not in sys.modules and \
            not __import__('_thread')._count():
        # `_pickle` takes one class from `functools`, which that has from its
        # C module. So the C module stands in for it here, while there is no
        # other thread that could see it. The whole of `functools` comes with
        # `threading`, and a child imports that after it has said that it is
        # ready.
        sys.modules['functools'] = __import__('_functools')
        try:
            import _pickle  # noqa: F401
        except ImportError:
            # Tried again below, with the module itself.
            pass
        finally:
            del sys.modules['functools']

if PY3:
    # The C module by itself: `pickle` would bring `re` along.
    try:
        import _pickle as pickle
    except ImportError:
        import pickle
    import _thread as thread
    from _thread import RLock as _RLock
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
    from threading import RLock as _RLock
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
