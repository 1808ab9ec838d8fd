# SPDX-License-Identifier: BSD-3-Clause
"""
Import by name, also where an import must not wait.
"""

from __future__ import absolute_import  # house

import sys  # house

from mitogen.core import PY3  # house


def import_module(modname):
    """Import `modname` and return that very module."""
    # Level 0: on Python 2 the default would look for siblings of this module.
    __import__(modname, {}, {}, (), 0)
    return sys.modules[modname]


def _module(name):
    """
    Return a module that may not be imported yet.

    An `import` statement is no substitute: on Python 2 it waits for the
    import lock even if the module is there, and the thread that holds that
    may wait for us.
    """
    if not PY3 and name in sys.modules:
        return sys.modules[name]
    return import_module(name)
