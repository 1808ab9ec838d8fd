# SPDX-License-Identifier: BSD-3-Clause
"""
The frames of a worker and the daemon: marshalled tuples, each after
four bytes with its length, over a socket in a folder that only their user may
enter. Either looks at the other's user, too.
"""

from __future__ import absolute_import

import marshal
import os
import socket
import struct

LENGTH = struct.Struct('>I')
PEER = struct.Struct('3i')

#: Which every Python 3 reads.
MARSHAL = 2


class GoneError(Exception):
    """
    The other side has closed the socket.
    """
    pass


def is_same_user(sock):
    """
    Return whether the peer of a UNIX socket is a process of our user.
    """
    if not hasattr(socket, 'SO_PEERCRED'):
        # The folder's permissions have to do.
        return True
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
    return PEER.unpack(data)[1] == os.geteuid()


def send(sock, value):
    data = marshal.dumps(value, MARSHAL)
    try:
        sock.sendall(LENGTH.pack(len(data)) + data)
    except (IOError, OSError) as error:
        raise GoneError(str(error))


def receive(sock):
    """
    Return the next tuple. Blocks.

    :raises GoneError: there is none to come.
    """
    length, = LENGTH.unpack(receive_exactly(sock, LENGTH.size))
    return marshal.loads(receive_exactly(sock, length))


def receive_exactly(sock, size):
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        try:
            count = sock.recv_into(view[done:])
        except (IOError, OSError) as error:
            raise GoneError(str(error))
        if not count:
            raise GoneError('the other side has closed the connection')
        done += count
    return bytes(data)
