# SPDX-License-Identifier: BSD-3-Clause
"""
The user whose process is at the other end of a socket.
"""

from __future__ import absolute_import  # house

import os  # house
import socket  # house
import struct  # house
import sys  # house

from mitogen.unix import LOG  # house


#: The credentials of a peer on Linux: process, user and group.
_UCRED = struct.Struct('iII')


def _peer_uid(sock):
    """
    Return the user id of the process that connected to, or listens at, the
    other end; :data:`None` where the system does not tell.
    """
    # Python 2 lacks the name. On systems with another number, the size
    # differs, too.
    option = getattr(socket, 'SO_PEERCRED',
                     17 if sys.platform.startswith('linux') else None)
    try:
        if option is not None:
            cred = sock.getsockopt(socket.SOL_SOCKET, option, _UCRED.size + 1)
            return _UCRED.unpack(cred)[1]
        import ctypes
        uid, gid = ctypes.c_uint(), ctypes.c_uint()
        getpeereid = ctypes.CDLL(None).getpeereid
        if getpeereid(sock.fileno(), ctypes.byref(uid), ctypes.byref(gid)):
            return None
        return uid.value
    except (ImportError, AttributeError, OSError, socket.error, struct.error):
        LOG.debug('cannot tell whose process is at the other end',
                  exc_info=True)
        return None


def _is_trusted(uid):
    """
    Return whether a process of that user may be at the other end.
    """
    return uid in (None, 0, os.geteuid())
