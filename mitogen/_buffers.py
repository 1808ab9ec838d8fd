# SPDX-License-Identifier: BSD-3-Clause
"""
Buffers: values that travel as the bytes of the numbers in them. These are `array.array`,
`memoryview`, and arrays and scalars of numpy.

On its way a buffer is its bytes, its kind, the type of its elements and its shape. The reader makes
a new one of them and runs nothing that the writer could choose. It refuses numbers that do not
match the bytes, so the size of a message bounds the memory that its buffers take. An array of
numpy, or a memoryview, refers to the bytes that arrived and can only be read.
"""

from __future__ import absolute_import

import re
import struct
import sys

import mitogen.core
from mitogen.core import BytesType, integer_types, PY3, StreamError, to_text, UnicodeType


#: Dimensions that a buffer may have. Each numpy takes as many.
NDIM_MAX = 32

#: Elements along a dimension that a buffer of no elements may have.
_EMPTY_MAX = 1 << 31

#: Order of bytes, kind of number, and size, as numpy writes them.
_DTYPE = re.compile(u'([<>|])(?:(b1|[iu][1248]|f[248]|c(?:8|16))|S1)\\Z').match

#: Kind of number -> codes of the `struct` module for it.
_CODES = {u'i': 'bhilqn', u'u': 'BHILQN', u'f': 'efd', u'b': '?', u'S': 'c'}

#: Those that `array.array` knows.
_ARRAY_CODES = 'bhilqBHILQfd'

_OWN_ORDER = u'<' if sys.byteorder == 'little' else u'>'


def _code_kind(code):
    """
    Return the kind of number of a code of the `struct` module, or None.
    """
    for kind, codes in _CODES.items():
        if code in codes:
            return kind


def _dtype_of(code, size):
    """
    Return the name of a type of elements in this machine's order, or None.
    """
    kind = _code_kind(code)
    return kind and u'%s%s%d' % (_OWN_ORDER if size > 1 else u'|', kind, size)


def _refused(value, what):
    return TypeError('a %s of %s may not be sent; those of numbers may' % (type(value).__name__, what))


#
# Writing. Each function returns the arguments of `unpickle`.
#

def _from_array(value):
    dtype = _dtype_of(value.typecode, value.itemsize)
    if dtype is None:
        raise _refused(value, 'characters')
    return value.tobytes(), u'array', dtype, (len(value),)


def _from_memoryview(value):
    dtype = len(value.format) == 1 and _dtype_of(value.format, value.itemsize)
    if not dtype or not value.ndim or (value.ndim > 1 and 0 in value.shape):
        raise _refused(value, 'format %r and shape %r' % (value.format, value.shape))
    whole = value.obj
    is_whole = type(whole) is BytesType and value.contiguous and value.nbytes == len(whole)
    return whole if is_whole else value.tobytes(), u'memoryview', dtype, value.shape


def _from_numpy(value, kind=u'ndarray'):
    dtype = to_text(value.dtype.str)
    if not _is_number(dtype) or value.ndim > NDIM_MAX:
        raise _refused(value, 'dtype %s with %d dimensions' % (value.dtype, value.ndim))
    return value.tobytes(), kind, dtype, value.shape


def _from_scalar(value):
    return _from_numpy(value, u'scalar')


def _is_number(dtype):
    found = _DTYPE(dtype)
    return bool(found and found.group(2))


def _writer_of(cls):
    """
    Return the function that takes values of a class apart, or None.
    """
    if cls is memoryview:
        return _from_memoryview
    array = sys.modules.get('array')
    if array is not None and cls is array.array:
        return _from_array
    # It may be imported just now.
    numpy = sys.modules.get('numpy')
    if cls is getattr(numpy, 'ndarray', None):
        return _from_numpy
    generic = getattr(numpy, 'generic', None)
    if generic is not None and issubclass(cls, generic) and cls.__module__ == 'numpy':
        return _from_scalar


def take_apart(value):
    """
    Return the arguments of `unpickle` for a buffer, or None for another value.

    :raises TypeError: it is a buffer of what may not travel.
    """
    writer = _writer_of(type(value))
    return writer and writer(value)


def reducer_of(cls):
    """
    Return the function by which a pickler takes values of a class apart.

    :raises KeyError: they are no buffers.
    """
    writer = _writer_of(cls)
    if writer is None:
        raise KeyError(cls)
    return lambda value: (mitogen.core._unpickle_buffer, writer(value))


#
# Reading.
#

def _check(data, dtype, shape):
    """
    Return the order, kind and size of elements.

    :raises ValueError: no buffer consists of these.
    """
    found = type(data) is BytesType and type(dtype) is UnicodeType and _DTYPE(dtype)
    size = int(dtype[2:]) if found else 0
    if not found or (dtype[0] == u'|') != (size == 1):
        raise ValueError('bad type of elements')
    if type(shape) is not tuple or len(shape) > NDIM_MAX:
        raise ValueError('bad number of dimensions')
    count = 1
    for length in shape:
        if type(length) not in integer_types or not 0 <= length <= max(len(data), _EMPTY_MAX):
            raise ValueError('bad shape')
        count *= length
    if count * size != len(data):
        raise ValueError('the shape does not match the bytes')
    return dtype[0], dtype[1], size


def _make_array(data, dtype, shape):
    order, kind, size = _check(data, dtype, shape)
    from array import array
    for code in _CODES[kind]:
        if code in _ARRAY_CODES and len(shape) == 1 and array(code).itemsize == size:
            made = array(code)
            getattr(made, 'frombytes' if PY3 else 'fromstring')(data)
            if order not in (u'|', _OWN_ORDER):
                made.byteswap()
            return made
    raise ValueError('an array cannot have elements of this type')


def _make_memoryview(data, dtype, shape):
    order, kind, size = _check(data, dtype, shape)
    if not PY3 or order not in (u'|', _OWN_ORDER):
        raise ValueError('a memoryview needs Python 3 and the byte order of this machine')
    for code in _CODES[kind]:
        if struct.calcsize(code) == size and shape:
            view = memoryview(data)
            return view.cast(code) if len(shape) == 1 else view.cast(code, shape)
    raise ValueError('a memoryview cannot have elements of this type')


def _make_numpy(data, dtype, shape):
    if _check(data, dtype, shape)[1] == u'S':
        raise ValueError('bad type of elements')
    try:
        numpy = mitogen.core.import_module('numpy')
    except Exception:
        # That of the master may come, and fail in its own ways.
        raise StreamError('a numpy array arrived and cannot be read: %s', sys.exc_info()[1])
    return numpy.ndarray(shape, str(dtype), data)


def _make_scalar(data, dtype, shape):
    if shape != ():
        raise ValueError('a scalar has no shape')
    return _make_numpy(data, dtype, shape)[()]


_MAKERS = {u'array': _make_array, u'memoryview': _make_memoryview, u'ndarray': _make_numpy, u'scalar': _make_scalar}


def unpickle(data, kind, dtype, shape):
    """
    Return the buffer that somebody took apart.

    :raises StreamError: nobody would have made these; or this Python has none of the kind.
    """
    maker = type(kind) is UnicodeType and _MAKERS.get(kind)
    if not maker:
        raise ValueError('bad kind of buffer')
    return maker(data, dtype, shape)
