# SPDX-License-Identifier: BSD-3-Clause
"""
Names that programs made for other releases import.
"""

from __future__ import absolute_import  # house

import os  # house

from mitogen.core import _module, _seldom, _SELDOM, BytesType, PY3, UnicodeType  # house


if _SELDOM:
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
