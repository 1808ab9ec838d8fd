# SPDX-License-Identifier: BSD-3-Clause
"""
printable: untrusted text, in a form that a log may show.
"""

from __future__ import absolute_import  # house

import sys  # house

from mitogen.core import _SELDOM, _seldom, BytesType, range, UnicodeType  # house


if _SELDOM:
    #: First and last of the characters that a terminal obeys, that end a line
    #: for some program, or that change the direction of what follows.
    _UNPRINTABLE = [(0, 8), (10, 31), (0x7f, 0x9f), (0x61c, 0x61c),
                    (0x200e, 0x200f), (0x2028, 0x202e), (0x2066, 0x2069)]
    if sys.maxunicode > 0xffff:
        # Halves of characters, which no file takes. Elsewhere all beyond
        # 16 bits consist of two.
        _UNPRINTABLE.append((0xd800, 0xdfff))

    #: Character -> its escaped form.
    _escapes = {}
    for _first, _last in _UNPRINTABLE:
        for _code in range(_first, _last + 1):
            _escapes[_code] = (u'\\x%02x' if _code < 256 else
                               u'\\u%04x') % _code
    _escapes.update({10: u'\\n', 13: u'\\r'})

    #: Lines that a text may have. Each gets a mark.
    _MOST_LINES = 1000


@_seldom
def _printable(text, mark=None):
    """
    Return untrusted text, or UTF-8 bytes, in a form that a log may show:
    control characters, also those that end a line or change the direction of
    writing, are escaped; tabs and the letters of all languages stay.

    :param mark: if given, lines stay lines, and each but the first begins
        with this.
    """
    if isinstance(text, BytesType):
        text = UnicodeType(text, 'utf-8', 'replace')
    if mark is None or u'\n' not in text:
        return text.translate(_escapes)
    lines = [line.translate(_escapes)
             for line in text.split(u'\n', _MOST_LINES)]
    return u'\n'.join(lines[:1] + [line and mark + line for line in lines[1:]])


@_seldom
def _printable_record(text):
    """
    Return a whole record as a handler of ours shows it. It begins with its
    time, so no further line may begin with a digit.
    """
    if isinstance(text, BytesType):
        text = UnicodeType(text, 'utf-8', 'replace')
    lines = [line.translate(_escapes) for line in text.split(u'\n')]
    return u'\n'.join(lines[:1] + [u' ' * line[:1].isdigit() + line
                                   for line in lines[1:]])
