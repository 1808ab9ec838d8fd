# SPDX-License-Identifier: BSD-3-Clause
"""
Asks the import system about a module, without importing anything for it.
"""

from __future__ import absolute_import  # house

import os  # house
import sys  # house

from mitogen.master import PY3, to_text  # house


def _is_namespace(spec):
    # Its import runs nobody's code.
    return spec.origin is None and spec.submodule_search_locations is not None


def _find_spec(fullname):
    """
    Return what the import system knows of `fullname`, or :data:`None`, and
    import no parent package: names come from children, who are not to choose
    what runs here.

    :raises Exception:
        Any exception that a finder raises.
    """
    import importlib
    import importlib.util
    parent = fullname.rpartition('.')[0]
    if not parent or parent in sys.modules or fullname in sys.modules:
        return importlib.util.find_spec(fullname)
    spec = _find_spec(parent)
    if spec is None or spec.submodule_search_locations is None:
        return None
    above = parent.rpartition('.')[0]
    if _is_namespace(spec) and (not above or above in sys.modules):
        # Those below one of these are not found before that.
        importlib.import_module(parent)
        return importlib.util.find_spec(fullname)
    for finder in list(sys.meta_path):
        find = getattr(finder, 'find_spec', None)
        found = find and find(fullname, spec.submodule_search_locations)
        if found:
            return found
    return None


def _find_loader(fullname):
    """
    Return the loader the import system has for `fullname`, or
    :data:`None`. Imports no parent package.

    :raises Exception:
        Any exception that a finder raises.
    """
    if PY3:
        spec = _find_spec(fullname)
        return spec and spec.loader
    parent = fullname.rpartition('.')[0]
    if parent and parent not in sys.modules:
        return None
    import pkgutil
    return pkgutil.find_loader(fullname)


def _iter_submodules(path, fullname):
    import pkgutil
    dirname = os.path.dirname(path)
    if dirname:
        return pkgutil.iter_modules([dirname])
    try:
        loader = _find_loader(fullname)
    except (ImportError, AttributeError, TypeError, ValueError):
        return ()
    try:
        return loader.iter_modules(None)
    except AttributeError:
        return ()


def get_child_modules(path, fullname):
    """
    Return the names (last component only) of the modules directly inside a
    package.

    :param path:
        Path of the package's ``__init__.py``.
    :param fullname:
        Name of the package, whose loader is asked if `path` has no directory.
    """
    return [to_text(entry[1]) for entry in _iter_submodules(path, fullname)]
