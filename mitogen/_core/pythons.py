# SPDX-License-Identifier: BSD-3-Clause
"""
The names that Python 2 and 3 spell differently.
"""

from __future__ import absolute_import  # house

import itertools  # house
import os  # house
import sys  # house
import time  # house

from mitogen.core import _REDUCED, PY3  # house


if not _REDUCED:
    if PY3 and 'functools' not in sys.modules and \
            '_functools' in sys.builtin_module_names and \
            not __import__('_thread')._count():
        # `_pickle` needs one class of `functools`, which is really from the C
        # module `_functools`. So the C module stands in for `functools` here,
        # while there is no other thread that could see it. The whole of
        # `functools` comes with `threading`, and a child imports that after it
        # has said that it is ready.
        sys.modules['functools'] = __import__('_functools')
        try:
            import _pickle  # noqa: F401
        except ImportError:
            # Tried again below, with the module itself.
            pass
        finally:
            del sys.modules['functools']

if PY3:
    if '__pypy__' in sys.modules:
        # Since version 8 PyPy has a `_pickle`, too. That writes lists of text
        # with an opcode that Python 2 does not know. `pickle` does not without it.
        if not _REDUCED:
            _others = [(name, sys.modules.pop(name, None))
                       for name in ('pickle', '_pickle')]
        sys.modules['_pickle'] = None
        import pickle
        if not _REDUCED:
            del sys.modules['_pickle']
            sys.modules.update(pair for pair in _others if pair[1])
    else:
        # The C module by itself: `pickle` would bring `re` along.
        import _pickle as pickle
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
