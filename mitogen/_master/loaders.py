# SPDX-License-Identifier: BSD-3-Clause
"""
Asks the import system about a module, without importing anything for it.
"""

from __future__ import absolute_import  # house

import collections  # house
import os  # house
import sys  # house

from mitogen.master import _ask_finder, _loaded_path, _locations, _with_portions, PY3, to_text  # house


class _Kept(object):
    """
    Results of functions for names of modules, kept while the broker thread does one slice of work:
    the modules of a package are looked for in a row, and each in several ways.
    """
    def __init__(self):
        #: (function, name) -> result. None between two slices.
        self._found = None

    def begin(self):
        """
        Keep what is found from now on.
        """
        self._found = {}

    def end(self):
        """
        Forget all.
        """
        self._found = None

    def get(self, func, fullname):
        """
        Return the result of a function for a name. An exception is not kept.
        """
        found, key = self._found, (func, fullname)
        if found is None:
            return func(fullname)
        if key not in found:
            found[key] = func(fullname)
        return found[key]


_kept = _Kept()


def _find_spec(fullname):
    """
    Return the import system's spec of `fullname`, or :data:`None`, and import no parent package:
    names come from children, which must not choose the code that runs here.

    :raises Exception:
        Any exception that a finder raises.
    """
    return _kept.get(_find_spec_now, fullname)


def _find_spec_now(fullname):
    import importlib.util
    parent = fullname.rpartition('.')[0]
    if not parent or parent in sys.modules or fullname in sys.modules:
        return importlib.util.find_spec(fullname)
    path = _kept.get(_package_path, parent)
    if path is None:
        return None
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


def _package_path(fullname):
    """
    Return the folders that the modules of a package are looked for in, :data:`None` if it is none.
    """
    spec = _find_spec(fullname)
    return spec and _spec_path(fullname, spec)


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
        return list(_kept.get(_package_path, fullname) or ())
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


def _folders_of(path, fullname):
    """
    Return the folders that the modules of a package are looked for in.

    :param path:
        Path of the package's ``__init__.py``.
    """
    dirname = os.path.dirname(path)
    try:
        return [dirname] + [folder for folder in _search_path(fullname) if folder != dirname]
    except Exception:
        # A finder of another package.
        return [dirname]


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
    if not os.path.dirname(path):
        return [(entry[1], entry[2]) for entry in _iter_loader(fullname)]
    folders = _folders_of(path, fullname)
    found = collections.OrderedDict()
    for entry in pkgutil.iter_modules(folders):
        found.setdefault(entry[1], entry[2])
    for folder in folders:
        for name in _iter_plain_folders(folder):
            found.setdefault(name, True)
    return list(found.items())


def _name_of(entry, suffixes):
    """
    Return the name of the module that an entry of a folder is, or :data:`None`. Each folder that
    can be imported is a package, even if nothing says so.
    """
    name = entry.name
    for suffix in suffixes:
        if name.endswith(suffix):
            name = name[:-len(suffix)]
            return None if name == '__init__' else name
    if '.' not in name and name != '__pycache__' and entry.is_dir() and (
            name.isidentifier() or os.path.exists(os.path.join(entry.path, '__init__.py'))):
        return name
    return None


def _names_on_disk(folder):
    """
    Return the names of the modules in a folder as a set, :data:`None` if another finder than that
    for folders knows them.
    """
    import importlib.machinery
    import pkgutil
    if type(pkgutil.get_importer(folder)) is not importlib.machinery.FileFinder:
        return None
    suffixes = sorted(importlib.machinery.all_suffixes(), key=len, reverse=True)
    try:
        with os.scandir(folder) as entries:
            return set(_name_of(entry, suffixes) for entry in entries) - set([None])
    except OSError:
        # The import system ignores it, too.
        return set()


def get_child_modules(path, fullname):
    """
    Return the names (last component only) of the modules directly inside a
    package.

    :param path:
        Path of the package's ``__init__.py``.
    :param fullname:
        Name of the package, whose loader is asked if `path` has no directory.
    """
    folders = _folders_of(path, fullname) if PY3 and os.path.dirname(path) else [None]
    found = [folder and _names_on_disk(folder) for folder in folders]
    if None not in found:
        return sorted(set().union(*found))
    return [to_text(name) for name, _ in _list_submodules(path, fullname)]
