# SPDX-License-Identifier: BSD-3-Clause
"""
The ways of finding the source of a module.
"""

from __future__ import absolute_import  # house

import os  # house
import sys  # house
import types  # house

import mitogen.core  # house

from mitogen.master import _ask_finder, _find_loader, _find_spec, _is_namespace, _locations, _log_swallowed  # house
from mitogen.master import _log_unreadable, _looks_like_script, _py_filename, _read_file, _search_path, _to_source_bytes  # house
from mitogen.master import _with_portions, b, FINDER_LOG, PY3  # house


_NO_SOURCE = 'cannot read the source of %r, which children may be told not to exist'


def _source_beside(path, fullname):
    """
    Return the path of the source that stands beside a native extension, :data:`None` if there is
    none: some modules are compiled only to make them faster.
    """
    name = os.path.basename(path).partition('.')[0]
    if not path.endswith(('.so', '.pyd')) or name not in ('__init__', fullname.rpartition('.')[2]):
        return None
    path = os.path.join(os.path.dirname(path), name + '.py')
    return path if os.path.isfile(path) else None


class FinderMethod(object):
    """
    One way to find the source of a module.
    """
    def __repr__(self):
        return '%s()' % (type(self).__name__,)

    def find(self, fullname):
        """
        Look for the module `fullname`.

        :returns:
            Tuple `(path text, source bytes, is_pkg)`, or :data:`None`.
        """
        raise NotImplementedError()


class DefectivePython3xMainMethod(FinderMethod):
    """
    Find ``__main__``, which the import system does not describe when it is a
    script.
    """
    def find(self, fullname):
        if fullname != '__main__':
            return None
        path = getattr(sys.modules.get(fullname), '__file__', None)
        if not path or not os.path.exists(path) or \
                not _looks_like_script(path):
            return None
        return path, _read_file(path), False


class PkgutilMethod(FinderMethod):
    """
    Ask the module's loader. This finds normal modules, modules in archives
    and those of any importer that implements the optional methods.
    """
    def _get_source(self, loader, fullname, path):
        """
        Return the source, as the bytes of the file where the loader is known
        to read just that file, so that encoding and line ends stay.
        """
        raw = False
        if PY3:
            import importlib.machinery
            raw = type(loader) is importlib.machinery.SourceFileLoader
        if not raw and 'zipimport' in sys.modules:
            raw = type(loader) is sys.modules['zipimport'].zipimporter
        if raw:
            try:
                return loader.get_data(path)
            except (IOError, OSError):
                _log_unreadable(FINDER_LOG, _NO_SOURCE, fullname)
        return loader.get_source(fullname)

    def find(self, fullname):
        try:
            loader = _find_loader(fullname)
        except (ImportError, AttributeError, TypeError, ValueError):
            return None
        except Exception:
            _log_swallowed(FINDER_LOG, 'a finder of sys.meta_path failed on '
                           '%r', fullname)
            return None
        if loader is None:
            return None

        try:
            path, is_special = _py_filename(loader.get_filename(fullname))
            is_pkg = loader.is_package(fullname)
            if path is None:
                return None
            source = self._get_source(loader, fullname, path)
        except (AttributeError, ImportError, ValueError, SyntaxError,
                IOError, OSError):
            return None

        if source is None and is_special and is_pkg:
            source = '\n'
        if source is None:
            return None
        return path, _to_source_bytes(source), bool(is_pkg)


class SysModulesMethod(FinderMethod):
    """
    Look into :data:`sys.modules`, which also knows modules that were loaded
    in unusual ways.
    """
    def _get_source(self, module, path):
        try:
            return _read_file(path)
        except (IOError, OSError):
            _log_unreadable(FINDER_LOG, _NO_SOURCE, module.__name__)
            # The module's loader may still be able to tell.
            import linecache
            return ''.join(linecache.getlines(path, module.__dict__)) or None

    def find(self, fullname):
        module = sys.modules.get(fullname)
        if not isinstance(module, types.ModuleType):
            return None
        if getattr(module, '__name__', None) != fullname:
            return None
        try:
            path, _ = _py_filename(getattr(module, '__file__', None))
        except (TypeError, AttributeError):
            return None
        if path is None:
            return None

        is_pkg = hasattr(module, '__path__')
        source = self._get_source(module, path)
        if is_pkg and not source:
            source = '\n'
        if source is None:
            return None
        return path, _to_source_bytes(source), is_pkg


class ParentEnumerationMethod(FinderMethod):
    """
    Base of the methods that do not trust the object in :data:`sys.modules`, since modules may
    replace themselves there. They start from the nearest parent package that can be trusted, and
    look for the file.
    """
    def _trusted_path(self, name):
        """
        Return the search path of the loaded package `name`, or :data:`None` if the loaded module is
        no such package.
        """
        raise NotImplementedError()

    def _find_nearest_parent(self, fullname):
        """
        Return `(search path or None, prefix, remaining components)`.
        """
        parts = fullname.split('.')
        for count in range(len(parts) - 1, 0, -1):
            name = '.'.join(parts[:count])
            path = self._trusted_path(name)
            if path:
                return path, name + '.', parts[count:]
        return None, '', parts


class ParentSpecEnumerationMethod(ParentEnumerationMethod):
    """
    Look for the file by way of import specs.
    """
    def _trusted_path(self, name):
        spec = getattr(sys.modules.get(name), '__spec__', None)
        if getattr(spec, 'name', None) != name:
            return None
        return spec.submodule_search_locations

    def _find_spec(self, fullname, path):
        for finder in list(sys.meta_path):
            if isinstance(finder, mitogen.core.Importer):
                continue
            try:
                spec = _ask_finder(finder, fullname, path)
            except Exception:
                _log_swallowed(FINDER_LOG, '%r of sys.meta_path failed',
                               getattr(finder, '__name__',
                                       type(finder).__name__))
                continue
            if spec is not None:
                return spec
        return None

    def _find(self, fullname):
        path, prefix, parts = self._find_nearest_parent(fullname)
        while True:
            spec = self._find_spec(prefix + parts[0], path)
            if spec is None:
                return None
            prefix += parts.pop(0) + '.'
            path = spec.submodule_search_locations and _locations(spec)
            if not parts:
                return spec
            if path is None:
                return None

    def find(self, fullname):
        if sys.version_info < (3, 4) or fullname == '__main__':
            return None
        spec = self._find(fullname)
        if spec is None or not spec.has_location or \
                not spec.origin.endswith('.py'):
            return None
        path = os.path.abspath(spec.origin)
        try:
            source = _read_file(path)
        except (IOError, OSError):
            _log_unreadable(FINDER_LOG, _NO_SOURCE, fullname)
            return None
        return path, source, spec.submodule_search_locations is not None


class ParentImpEnumerationMethod(ParentEnumerationMethod):
    """
    Find modules by :mod:`imp`, for Pythons older than import specs.
    """
    def _trusted_path(self, name):
        module = sys.modules.get(name)
        if getattr(module, '__name__', None) != name:
            return None
        path = getattr(module, '__path__', None)
        return list(path) if path else None

    def _find_module(self, name, path):
        """
        Return `(path, is_pkg)` of the source of one component, or
        :data:`None`. For a package the path is its directory.
        """
        import imp
        try:
            fp, path, (_, _, kind) = imp.find_module(name, path)
        except (ImportError, TypeError):
            return None
        if fp:
            fp.close()
        if kind == imp.PKG_DIRECTORY:
            return path, True
        if kind == imp.C_EXTENSION:
            path = _source_beside(path, name)
        return (path, False) if path and kind in (imp.PY_SOURCE, imp.C_EXTENSION) else None

    def find(self, fullname):
        if sys.version_info >= (3, 4) or fullname == '__main__':
            return None
        search_path, _, parts = self._find_nearest_parent(fullname)
        for index, part in enumerate(parts):
            found = self._find_module(part, search_path)
            if found is None:
                return None
            path, is_pkg = found
            search_path = _with_portions(
                '.'.join(parts[:index + 1]), [path], os.path.join(path, '__init__.py'),
                lambda above=search_path or sys.path: above) if is_pkg else None
            if not is_pkg and index + 1 < len(parts):
                return None
        if is_pkg:
            path = os.path.join(path, '__init__.py')
        path = os.path.abspath(path)
        try:
            return path, _read_file(path), is_pkg
        except (IOError, OSError):
            _log_unreadable(FINDER_LOG, _NO_SOURCE, fullname)
            return None


class SourceBesideMethod(FinderMethod):
    """
    Look for the source of a module that is a native extension here.
    """
    def find(self, fullname):
        try:
            loader = _find_loader(fullname)
            path = _source_beside(loader.get_filename(fullname), fullname)
            if path is None:
                return None
            return path, _read_file(path), os.path.basename(path) == '__init__.py'
        except Exception:
            # It may fail in any way, as a finder that was asked before may.
            return None


class NamespaceMethod(FinderMethod):
    """
    Find packages that are nothing but folders. The path ends in a slash, and there is no source.
    """
    def _folders(self, fullname):
        module = sys.modules.get(fullname)
        if isinstance(module, types.ModuleType) and getattr(module, '__spec__', None) is None:
            # Such a module is made by a .pth file.
            return _search_path(fullname) if getattr(module, '__file__', None) is None else []
        spec = _find_spec(fullname)
        return _locations(spec) if spec and _is_namespace(spec) else []

    def find(self, fullname):
        if not PY3 or fullname == '__main__':
            return None
        try:
            folders = self._folders(fullname)
        except Exception:
            return None
        return (os.path.join(folders[0], ''), b(''), True) if folders else None
