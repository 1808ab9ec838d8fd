# SPDX-License-Identifier: BSD-3-Clause
"""
Import by name, also where an import must not wait, and the source of this module.
"""

from __future__ import absolute_import  # house

import sys  # house

from mitogen.core import _core_source, _REDUCED, PY3  # house


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


def get_core_source():
    """
    Return the source of this module as bytes, as a child of this process may
    be given it: what this process was shipped, or the installed file.
    """
    if not _REDUCED:
        if not _core_source:
            path = __file__
            if path[-4:] in ('.pyc', '.pyo'):
                path = path[:-1]
            read = getattr(globals().get('__loader__'), 'get_data', None)
            if read:
                # Also right for a package inside a zip file.
                return read(path)
            with open(path, 'rb') as fp:
                return fp.read()
    return _core_source
