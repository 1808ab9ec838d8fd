# SPDX-License-Identifier: BSD-3-Clause
"""
Facts about a host, for ``mitogen ping``, ``info`` and ``doctor``. A module of its own, and a small
one, since a host fetches it before it answers for the first time.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import os
import sys
import time

import mitogen.core


def _user():
    import getpass
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid())


def python():
    """
    Return the version of Python.
    """
    # The modules that tell all facts take a third of the time that a host takes to start.
    return sys.version.split()[0]


def about():
    """
    Return the facts.
    """
    import platform
    return {
        'hostname': platform.node(), 'user': _user(), 'pid': os.getpid(), 'python': platform.python_version(),
        'executable': sys.executable, 'platform': platform.platform(), 'core': mitogen.core.CORE, 'time': time.time(),
    }
