# SPDX-License-Identifier: BSD-3-Clause
"""
Look into a running process: its routers, its streams, and what its threads are
doing. The functions are meant to be called in other contexts, too.

When a program hangs: :func:`enable_dump`, or MITOGEN_DEBUG_SIGNAL in the
environment, makes SIGUSR2 write :func:`describe`. Nothing here costs anything
before it is asked.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import gc
import logging
import os
import signal
import sys
import threading

import mitogen.core


LOG = logging.getLogger(__name__)

# Looked up here: it may have to be fetched, which a process that hangs could
# not do.
_open_own = mitogen.core._open_own
