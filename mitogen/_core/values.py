# SPDX-License-Identifier: BSD-3-Clause
"""
Values with a type of their own that may cross a message.
"""

from __future__ import absolute_import  # house

from _codecs import utf_8_encode  # house

from mitogen.core import _seldom, b, BytesType, integer_types, iteritems, PY3, to_text, UnicodeType  # house


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
