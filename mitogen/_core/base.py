# SPDX-License-Identifier: BSD-3-Clause
"""
Everything a child process needs, in one text that imports no other module of
the package: messages, latches, the router, the broker and its streams, the
importer, and the start-up of a child.

The bootstrap ships this text to targets that have nothing installed, and it is
the twin of the C core everywhere else. It runs on CPython 2.7 and 3.6 and
newer.

Threads: one broker thread per process owns the poller, the routing of what
arrives, and every handler. It alone closes descriptors. Any thread may send:
`Router.route` hands a message for another process straight to the stream's
`BufferedWriter`, whose lock is only ever tried and never waited for, so a
sender costs no wake-up unless the kernel's buffer is full.

Every child pays for each import here. A module that is rarely used is imported
where it is used, with one limit: on Python 2 a thread that imports holds a lock
while it waits for a module to arrive, so the code that delivers messages must
not import.
"""

from __future__ import absolute_import

import errno
import gc
import itertools
import os
import sys
import time
import _weakref
# The codecs themselves: a look-up by name imports, and code that delivers
# messages must not.
from _codecs import latin_1_encode, utf_8_encode
# The class itself: `collections` imports much more, and a child imports that
# later.
from _collections import deque as _deque

import mitogen

PY3 = sys.version_info > (3,)
