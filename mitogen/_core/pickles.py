# SPDX-License-Identifier: BSD-3-Clause
"""
Pickles, read and written without any class that was not agreed on.
"""

from __future__ import absolute_import  # house

from _codecs import latin_1_encode  # house

from mitogen.core import _module, _seldom, BytesType, import_module, pickle, PY3, StreamError, UnicodeType  # house
from mitogen.core import UnpicklingError  # house


@_seldom
class DamagedError(StreamError, UnpicklingError, EOFError, ValueError):
    """A message holds no pickle, or part of one, or one that is made to do
    harm. It is also what the interpreter's own unpickler raises, for programs
    that look for that."""
    pass


@_seldom
def _as_damage(e):
    """Return the exception to raise for an error of the interpreter's
    unpickler."""
    if isinstance(e, (UnpicklingError, EOFError, LookupError, AttributeError,
                      OverflowError, MemoryError, ImportError)) and \
            not isinstance(e, StreamError):
        return DamagedError('invalid message: %s', e)
    return e


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
                self._file.write(b'\x80\x02T' + len(obj).to_bytes(4, 'little'))
                self._file.write(obj)
                self._file.write(b'.')
            else:
                pickle.Pickler.dump(self, obj)

        def __init__(self, file, protocol=2):
            pickle.Pickler.__init__(self, file, protocol)
            self._file = file

    @_seldom
    class _Reducers(dict):
        """The functions by which a pickler takes values of a class apart."""
        #: Those of `mitogen._values.register`.
        registered = {}

        def __missing__(self, cls):
            if cls is memoryview or cls.__module__ in ('array', 'numpy'):
                return import_module('mitogen._buffers').reducer_of(cls)
            found = self.registered.get(cls)
            if cls.__module__ in ('collections', 'uuid'):
                found = import_module('mitogen._values').reducer_of(cls)
            return found or _module('copyreg').dispatch_table[cls]

        def get(self, cls, default=None):
            try:
                return self[cls]
            except KeyError:
                return default

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


@_seldom
def _unpickle_buffer(*args):
    return import_module('mitogen._buffers').unpickle(*args)


#: Reads messages. `mitogen.parent` has one for untrusted messages.
_unpickler = Unpickler


def _read_bytes(s=u'', _encoding=None):
    # How Python 3 writes nested bytes: text to be encoded. The name of
    # the encoding is ignored, since a look-up by name could import.
    if type(s) is not UnicodeType:
        raise TypeError('bytes expected as text')
    return latin_1_encode(s)[0]
