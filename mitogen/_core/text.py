# SPDX-License-Identifier: BSD-3-Clause
"""
Text and bytes, and names that older programs import.
"""

from __future__ import absolute_import  # house

from mitogen.core import _module, _SELDOM, _seldom, BytesType, UnicodeType  # house


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
    return _module('threading').current_thread()


@_seldom
def threading__thread_name(thread):
    return thread.name
