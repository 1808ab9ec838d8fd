# SPDX-License-Identifier: BSD-3-Clause
"""
Let other processes of the same user join a tree, by way of a UNIX socket.

The one that listens gives each client a context id and its own authority. The
mode of the socket file protects it. Where the system tells which user is at
the other end, each side checks that this is the same user, or root.

Before the ordinary frames, the client sends its process id, 4 bytes, and is
sent 12: its new context id, the listener's context id, and the listener's
process id. All are unsigned and in network order.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import errno
import logging
import os
import socket
import stat
import struct
import sys
import tempfile
import threading
import time

import mitogen
import mitogen.core
import mitogen.parent

from mitogen.core import b


LOG = logging.getLogger(__name__)


class Error(mitogen.core.Error):
    """
    Base of the errors of this module.
    """
    pass


class ConnectError(Error):
    """
    :func:`connect` failed. `errno` is the number of the system's error, or
    :data:`None`.
    """
    errno = None
