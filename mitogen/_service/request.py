# SPDX-License-Identifier: BSD-3-Clause
"""
Request: the names of service and method that a call asks for, and its arguments.

A caller without authority may send much that takes long to unpickle. So its
names are read first, from the bytes that a pickled call begins with, and its
arguments once the policy of the method has agreed.
"""

from __future__ import absolute_import  # house

import struct  # house
import sys  # house

import mitogen.core  # house

from mitogen.service import _peer_of  # house


#: A call of that many bytes is unpickled at once if it does not begin with the
#: names: there is little in it.
_SHORT = 4096

#: Longer names are nobody's, and would be written into errors and logs.
_LONGEST_NAME = 1000

#: Opcode of a text -> how its length, which comes next, is packed. Pickles of
#: protocol 2 have the first one only, except those of some versions of PyPy.
_TEXTS = {b'X': struct.Struct('<L'), b'\x8c': struct.Struct('<B')}

#: Opcode that keeps the text before it for later -> bytes that it takes.
_NOTES = {b'q': 2, b'r': 5, b'\x94': 1}

_no_call_msg = 'this is not a service call'
_too_long_msg = 'the call is refused: its size is %d bytes, and the limit is %d'


def _read_name(data, at):
    """
    Return the text that is pickled at an offset, and the offset of what
    follows it.

    :raises ValueError:
        Something else stands there.
    """
    length = _TEXTS.get(data[at:at + 1])
    start = at + 1 + (length.size if length else 0)
    if length is None or len(data) < start:
        raise ValueError(at)
    end = start + length.unpack(data[at + 1:start])[0]
    if end - start > _LONGEST_NAME or end > len(data):
        raise ValueError(at)
    return data[start:end].decode('utf-8'), end + _NOTES.get(data[end:end + 1], 0)


def _names_of(data):
    """
    Return the names of service and method that a pickled call begins with;
    :data:`None` if it begins otherwise.
    """
    if data[:1] != b'\x80':
        return None
    try:
        service_name, at = _read_name(data, 2)
        return service_name, _read_name(data, at)[0]
    except ValueError:
        return None


def _unpickle_request(msg):
    """
    Return the names of service and method, and the arguments.

    :raises mitogen.core.CallError:
        It is not a call.
    """
    request = msg.unpickle(throw=False)
    types = (mitogen.core.UnicodeType, mitogen.core.UnicodeType, dict)
    if not (isinstance(request, tuple) and len(request) == len(types) and
            all(map(isinstance, request, types))):
        raise mitogen.core.CallError(_no_call_msg)
    return request


def _request_of(msg):
    """
    Return the names of service and method, and the arguments, or :data:`None`
    for them: then :func:`_arguments_of` has them once the call is permitted.

    :raises mitogen.core.CallError:
        It is not a call, or a longer one than its caller may make.
    """
    if mitogen.core.has_parent_authority(msg):
        return _unpickle_request(msg)
    _check_length(msg)
    names = _names_of(msg.data)
    if names:
        return names + (None,)
    if len(msg.data) > _SHORT:
        raise mitogen.core.CallError(_no_call_msg)
    return _unpickle_request(msg)


def _check_length(msg):
    length, limit = len(msg.data), mitogen.core._limits_of(msg.router).service_call_bytes
    if length > limit:
        mitogen.core._refuse(msg.router, _peer_of(msg)[0], 'service_call_bytes',
                             'a call of a service was refused: it has %d bytes', length)
        raise mitogen.core.CallError(_too_long_msg, length, limit)


def _arguments_of(msg):
    """
    Return the arguments of a call that may be made.

    :raises mitogen.core.CallError:
        They cannot be read; or it begins as one call and is another one.
    """
    try:
        request = _unpickle_request(msg)
    except mitogen.core.CallError:
        raise
    except Exception:
        raise mitogen.core.CallError(sys.exc_info()[1])
    if request[:2] != _names_of(msg.data):
        raise mitogen.core.CallError(_no_call_msg)
    return request[2]
