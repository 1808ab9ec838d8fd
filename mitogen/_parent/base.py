# SPDX-License-Identifier: BSD-3-Clause
# !mitogen: minify_safe
"""
All that a context needs in order to have children: starting an interpreter
somewhere, bringing the core up in it, routing to what lies behind it, and
seeing it off again.

A master always uses this module. Any other context loads it the first time
it has to start a child of its own, see :func:`upgrade_router`.

Design
------

Starting a child takes one interpreter start and one round trip:

1. A `Connection` makes an argument list, `get_boot_command`, and runs it, or
   a tool such as ssh or sudo that runs it elsewhere. The list holds a short
   decoder, the *first stage* (compressed) and the version of this package.
2. The first stage prints ``MITO000``, whether it found this very version of
   the package installed, its Python version, and a random word from its command
   line. `BootstrapProtocol` answers with the configuration alone, or with source
   text and configuration.
3. The child's core starts and prints ``MITO002`` and another such word, from its
   configuration. From the next byte on the stream carries frames;
   `BootstrapProtocol` gives way to `MitogenProtocol`.

Everything here that touches a stream, a timer or a process runs on the broker
thread. `Router.connect`, `CallChain.call`, `ChildIdAllocator.allocate` and
`Context.shutdown(wait=True)` block, and so must run on any other thread.
"""

# There is a mitogen.select, and Python 2 would find that first.
from __future__ import absolute_import

import binascii
import bisect
import collections
import errno
import fcntl
import functools
import getpass
import heapq
import itertools
import logging
import marshal
import math
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import types
import zlib

import mitogen
import mitogen.core

from mitogen.core import b
from mitogen.core import to_text


# A child may have been sent only a part of the core; a parent needs all of it.
mitogen.core._complete()

LOG = logging.getLogger(__name__)
IOLOG = mitogen.core.IOLOG
PY3 = mitogen.core.PY3


# Python 2 imports a codec when it is first looked up by name. Done here, on a
# thread that may import, since the broker thread must not: it would wait for
# the import lock, whose owner may in turn wait for a module to arrive.
for _codec in 'ascii', 'utf-8', 'latin-1':
    u''.encode(_codec)
