# SPDX-License-Identifier: BSD-3-Clause
"""
Asks the import system about a module, without importing anything for it.
"""

from __future__ import absolute_import  # house

import collections  # house
import os  # house
import sys  # house

from mitogen.master import _ask_finder, _loaded_path, _locations, _with_portions, PY3, to_text  # house


def _find_spec(fullname):
    """
    Return the import system's spec of `fullname`, or :data:`None`, and import no parent package:
    names come from children, which must not choose the code that runs here.

    :raises Exception:
        Any exception that a finder raises.
    """
    import importlib.util
    parent = fullname.rpartition('.')[0]
    if not parent or parent in sys.modules or fullname in sys.modules:
        return importlib.util.find_spec(fullname)
    spec = _find_spec(parent)
    if spec is None or spec.submodule_search_locations is None:
        return None
    path = _spec_path(parent, spec)
    for finder in list(sys.meta_path):
        found = _ask_finder(finder, fullname, path)
        if found:
            return found
    return None


def _spec_path(fullname, spec):
    """
    Return the folders that the modules of a package are looked for in, :data:`None` if it is no
    package.

    :param spec: of the package.
    """
    if spec.submodule_search_locations is None:
        return None
    return _with_portions(fullname, _locations(spec), spec.origin if spec.has_location else None,
                          lambda: _search_path(fullname.rpartition('.')[0]))


def _search_path(fullname):
    """
    Return the folders that the modules of a package are looked for in, those of the top level if
    the name is empty. There are none if it is no package.

    :raises Exception:
        Any exception that a finder raises.
    """
    if not fullname:
        return list(sys.path)
    found = _loaded_path(fullname)
    if found is not None:
        return found
    if PY3:
        spec = _find_spec(fullname)
        return list(spec and _spec_path(fullname, spec) or ())
    loader = _find_loader(fullname)
    if loader is None or not loader.is_package(fullname):
        return []
    path = loader.get_filename(fullname)
    return _with_portions(fullname, [os.path.dirname(path)], path,
                          lambda: _search_path(fullname.rpartition('.')[0]))


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


def _iter_loader(fullname):
    """
    Yield the names that the loader of a package without a folder lists.
    """
    try:
        return _find_loader(fullname).iter_modules(None)
    except (ImportError, AttributeError, TypeError, ValueError):
        return ()


def _iter_plain_folders(folder):
    """
    Yield the names of folders in a folder that can be imported: each is a package, even if nothing
    says so.
    """
    try:
        names = sorted(os.listdir(folder)) if PY3 else ()
    except (OSError, ValueError):
        return
    for name in names:
        if name.isidentifier() and name != '__pycache__' and os.path.isdir(os.path.join(folder, name)):
            yield name


def _list_submodules(path, fullname):
    """
    Return the modules directly inside a package, as a list of pairs of name and whether that is a
    package.

    :param path:
        Path of the package's ``__init__.py``.
    :param fullname:
        Name of the package, whose loader is asked if `path` has no directory.
    """
    import pkgutil
    dirname = os.path.dirname(path)
    if not dirname:
        return [(entry[1], entry[2]) for entry in _iter_loader(fullname)]
    try:
        folders = [dirname] + [folder for folder in _search_path(fullname) if folder != dirname]
    except Exception:
        # A finder of another package.
        folders = [dirname]
    found = collections.OrderedDict()
    for entry in pkgutil.iter_modules(folders):
        found.setdefault(entry[1], entry[2])
    for folder in folders:
        for name in _iter_plain_folders(folder):
            found.setdefault(name, True)
    return list(found.items())


def get_child_modules(path, fullname):
    """
    Return the names (last component only) of the modules directly inside a
    package.

    :param path:
        Path of the package's ``__init__.py``.
    :param fullname:
        Name of the package, whose loader is asked if `path` has no directory.
    """
    return [to_text(name) for name, _ in _list_submodules(path, fullname)]
