# SPDX-License-Identifier: BSD-3-Clause
"""
Services: objects whose methods other contexts may call, on threads of a pool.

A call is one message to the handle `CALL_SERVICE`. In a master somebody makes
a :class:`Pool` for it. A child makes one when the first call arrives, and
loads the services that its parents ask for.

Each process serves one pool's handle. Every context that can reach the process
can send to it, so each method says by a policy which of them may call it.

Threads: service methods run on the threads of the pool, any number at once
unless the service's invoker says otherwise. Nothing here waits on the broker
thread, except that the pool is stopped there at shutdown.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import collections
import os
import stat
import struct
import sys
import threading

import mitogen
import mitogen.core
import mitogen.select

from mitogen.core import to_text


LOG = mitogen.core.LazyLogger('mitogen.service')


class Error(Exception):
    """
    A service or a pool was set up wrongly, or asked for the impossible.
    """
    pass
