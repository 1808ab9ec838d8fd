# SPDX-License-Identifier: BSD-3-Clause
"""
Portions: the folders that the modules of one package are in, as some packages have several.
"""

from __future__ import absolute_import  # house

import os  # house
import re  # house
import sys  # house
import types  # house

from mitogen.master import _file_cache, _read_file, _stamp_of, b, PY3  # house


#: A package whose source calls one of these is put together from all folders of its name.
_EXTENDS_RE = re.compile(b(r'\b(extend_path|declare_namespace)\b'))


def _extends_its_path(path):
    """
    Tell whether the file of a package looks for further folders of the same name.
    """
    def make():
        try:
            return _EXTENDS_RE.findall(_read_file(path))[:1]
        except (IOError, OSError):
            return ()

    return bool(_file_cache.get(path, _stamp_of(path), 'extends', make))


def _portion_in(folder, fullname):
    """
    Return the folders of a package below an entry of the path, as :func:`pkgutil.extend_path` finds
    them. Nothing is imported.
    """
    if not PY3:
        path = os.path.join(folder, fullname.rpartition('.')[2])
        return [path] if os.path.isfile(os.path.join(path, '__init__.py')) else []
    spec = _find_in(folder, fullname)
    return _locations(spec) if spec else []


def _find_in(folder, fullname):
    """
    Return the spec of a module in an entry of a path, or :data:`None`.
    """
    import pkgutil
    finder = pkgutil.get_importer(folder)
    if hasattr(finder, 'find_spec'):
        return finder.find_spec(fullname)
    if not hasattr(finder, 'find_loader'):
        return None
    # An archive, before Python 3.10.
    import importlib.util
    loader, portions = finder.find_loader(fullname)
    if loader:
        return importlib.util.spec_from_loader(fullname, loader)
    return _namespace_spec(fullname, portions) if portions else None


def _namespace_spec(fullname, portions):
    """
    Return the spec of a package that is nothing but folders.
    """
    from importlib.machinery import ModuleSpec
    spec = ModuleSpec(fullname, None, is_package=True)
    spec.submodule_search_locations = portions
    return spec


def _find_on_path(fullname, path):
    """
    Return the spec of a module inside a package, as the import system's own finder
    does, or :data:`None`. That one needs the package to be imported if it finds nothing
    but a folder.
    """
    portions = []
    for folder in path:
        spec = _find_in(folder, fullname)
        if spec and spec.loader:
            return spec
        portions += _locations(spec) if spec else []
    return _namespace_spec(fullname, portions) if portions else None


def _ask_finder(finder, fullname, path):
    """
    Return the spec that a finder has of a module, or :data:`None`.

    :param path: folders, :data:`None` for a module at the top level.
    """
    from importlib.machinery import PathFinder
    if finder is PathFinder and path is not None:
        return _find_on_path(fullname, path)
    find = getattr(finder, 'find_spec', None)
    return find and find(fullname, path)


def _locations(spec):
    """
    Return the folders of a package as its spec has them, as a list.
    """
    found = spec.submodule_search_locations
    # The path of a namespace looks for the package above, which need not be imported.
    return list(getattr(found, '_path', found) or ())


def _loaded_path(fullname):
    """
    Return the path of a package that is loaded here, else :data:`None`.
    """
    module = sys.modules.get(fullname)
    if not isinstance(module, types.ModuleType):
        return None
    try:
        return [folder for folder in module.__path__ if isinstance(folder, str)]
    except (AttributeError, TypeError):
        return None


def _with_portions(fullname, found, path, above):
    """
    Return the folders of a package, with those that its source would add.

    :param list found: folders that are known.
    :param path: of its source, or :data:`None`.
    :param above: function that returns the folders that the package is looked for in.
    """
    if path is not None and _extends_its_path(path):
        for folder in above():
            found = found + [portion for portion in _portion_in(folder, fullname) if portion not in found]
    return found


_NAMESPACE_LOADERS = ('NamespaceLoader', '_NamespaceLoader')


def _is_namespace(spec):
    """
    Tell whether a package has folders and no source. Importing it runs no code.
    """
    return bool(spec.submodule_search_locations) and (
        spec.loader is None or type(spec.loader).__name__ in _NAMESPACE_LOADERS)
