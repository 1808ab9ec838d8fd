# SPDX-License-Identifier: BSD-3-Clause
"""
Which files and modules belong to the standard library.
"""

from __future__ import absolute_import  # house

import os  # house
import sys  # house


def _stdlib_paths():
    """
    Return the set of directories that hold the standard library, as the
    interpreter names them and with symbolic links resolved.
    """
    version = 'python%d.%d' % sys.version_info[:2]
    found = set()
    for attr in ('prefix', 'real_prefix', 'base_prefix'):
        prefix = getattr(sys, attr, None)
        if prefix:
            for lib in set(['lib', getattr(sys, 'platlibdir', 'lib')]):
                found.add(os.path.join(prefix, lib, version))
    # This is sysconfig's DESTLIB, found without loading sysconfig. A frozen
    # application has its own modules in the same directory.
    if getattr(os, '__file__', None) and not getattr(sys, 'frozen', False):
        found.add(os.path.dirname(os.path.abspath(os.__file__)))
    return found | set(os.path.realpath(path) for path in found)


_STDLIB_PATHS = _stdlib_paths()

#: Directory -> is it in the standard library. Asked for every import of every
#: module that is served.
_stdlib_dir_cache = {}


def _is_stdlib_dir(path):
    for candidate in (path, os.path.realpath(path)):
        for libpath in _STDLIB_PATHS:
            if candidate == libpath or candidate.startswith(libpath + os.sep):
                return True
    return False


def is_stdlib_path(path):
    """
    Return :data:`True` if the absolute `path` belongs to the standard
    library. Third party packages installed below it do not.
    """
    if 'site-packages' in path or 'dist-packages' in path:
        return False
    dirname = os.path.dirname(path)
    try:
        return _stdlib_dir_cache[dirname]
    except KeyError:
        result = _stdlib_dir_cache[dirname] = _is_stdlib_dir(dirname)
        return result


def is_stdlib_name(modname):
    """
    Return :data:`True` if the module `modname` is built in, or is loaded and
    came from the standard library.
    """
    module = sys.modules.get(modname)
    if module is None or modname in sys.builtin_module_names:
        return modname in sys.builtin_module_names
    if getattr(sys, 'frozen', False):
        return modname.partition('.')[0] in getattr(sys, 'stdlib_module_names', ())
    path = getattr(module, '__file__', None)
    if path is None:
        spec = getattr(module, '__spec__', None)
        return getattr(spec, 'origin', None) == 'frozen'
    try:
        return is_stdlib_path(os.path.abspath(path))
    except (AttributeError, TypeError, ValueError):
        # The object may make up its attributes.
        return False
