# SPDX-License-Identifier: BSD-3-Clause
"""
The path of a socket, and the file that is there.
"""

from __future__ import absolute_import  # house

import errno  # house
import os  # house
import socket  # house
import stat  # house
import sys  # house
import tempfile  # house

import mitogen.core  # house


def _make_socket():
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def is_path_dead(path):
    """
    Return :data:`True` if nobody listens at `path`.
    """
    sock = _make_socket()
    # A listener with a full queue of clients lives, too.
    sock.setblocking(False)
    try:
        sock.connect(path)
    except socket.error:
        number = sys.exc_info()[1].args[0]
    else:
        number = None
    sock.close()
    return number in (errno.ENOENT, errno.ECONNREFUSED)


def make_socket_path():
    """
    Return a path that does not exist, in a folder that only this user can look
    into: XDG_RUNTIME_DIR, or one in the temporary directory.
    """
    return tempfile.mktemp(prefix='mitogen_unix_', suffix='.sock',
                           dir=mitogen.core._private_folder())


def _identity(path):
    """
    Return a value that tells the socket at a path from all others that may be
    there at another time; :data:`None` if there is none.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISSOCK(found.st_mode):
        return None
    return found.st_dev, found.st_ino
