# SPDX-License-Identifier: BSD-3-Clause
"""
Entries of paths that lead to the parent: by these the import system finds
modules in packages of the parent.
"""

from __future__ import absolute_import  # house

import sys  # house

from mitogen.core import _list_names, _MODULES_RESOURCE, _SELDOM, Importer, PY3, thread  # house


# There are no such entries before the first module has come, and the rest of
# this text with it.
if _SELDOM:
    class _Entry(object):
        """
        Finder for an entry of the `__path__` of a package that the parent has.

        :param Importer importer:
        :param str path: of a folder, as the parent's modules say it.
        """
        def __init__(self, importer, path):
            if path[:7] != 'master:':
                raise ImportError('not a folder of the parent: %r' % (path,))
            self._importer = importer
            self._path = path

        def find_module(self, fullname, path=None):
            """Finder protocol of Python 2. The importer itself was asked."""
            return None

        def find_spec(self, fullname, target=None):
            """Finder protocol of Python 3: a module of a package that goes by
            another name, too. For the right name the importer was asked."""
            return self._importer._find_alias(self._path, fullname)

        def iter_modules(self, prefix=''):
            """List what is inside, as :func:`pkgutil.iter_modules` does."""
            return iter([(prefix + name, is_package) for name, is_package
                         in self._importer._list_modules(self._path)])

    class _Halves(object):
        """
        The last finder: modules of packages that are here, but are put
        together from all folders of that name, of which the parent has one.

        :param Importer importer:
        """
        def __init__(self, importer):
            self._importer = importer

        def _is_half(self, fullname):
            importer = self._importer
            package = sys.modules.get(fullname.rpartition('.')[0])
            if getattr(importer._asking, 'on', False) or package is None or \
                    thread.get_ident() == importer._router.broker._ident:
                return False
            try:
                name = package.__name__
                loader = getattr(package, '__loader__', None) or \
                    __import__('pkgutil').find_loader(name)
                # Our own code need not be compiled from a source that the parent is asked for.
                code = importer._read_content(name, importer.get_filename(name)) \
                    if loader is importer else loader.get_code(name)
                return not importer.policy.denied(fullname) and \
                    not set(['extend_path', 'declare_namespace']).isdisjoint(code.co_names)
            except Exception:
                # A loader of another kind.
                return False

        def find_spec(self, fullname, path, target=None):
            """Finder protocol of Python 3."""
            if self._is_half(fullname):
                from _frozen_importlib import ModuleSpec
                spec = ModuleSpec(fullname, self._importer)
                return self._importer._know(spec) \
                    if sys._getframe(2).f_code.co_name == 'find_spec' else spec

        def find_module(self, fullname, path=None):
            """Finder protocol of Python 2."""
            if not PY3 and self._is_half(fullname) and \
                    not self._importer.builtin_find_module(fullname, path):
                # Each `import x` in a package asks for a module inside first.
                try:
                    self._importer._fetch(fullname)
                    return self._importer
                except ImportError:
                    return None

    def _settle(self):
        """Let the import system know of the packages that came from the
        parent."""
        if '_halves' not in vars(self):
            self._halves = _Halves(self)
            sys.meta_path.append(self._halves)
            sys.path_hooks.insert(0, lambda path: _Entry(self, path))

    def _package_at(self, path):
        """Return the name of the package of the parent's that is in a folder,
        or None."""
        for name in list(self._present):
            if self._cache[name][1] is not None and \
                    (self._path_of(name) or '').rpartition('/')[0] == path:
                return name

    def _find_alias(self, path, fullname):
        """Return the spec of a module in a folder, if its package is known by
        another name here."""
        above, _, name = fullname.rpartition('.')
        package = self._package_at(path)
        if package in (None, above) or getattr(self._asking, 'on', False) or \
                name not in self._present[package]:
            return None
        from _frozen_importlib import ModuleSpec
        return self._know(ModuleSpec(package + '.' + name, self))

    def _list_modules(self, path):
        """Return the modules in a folder as a list of pairs of name and whether
        it is a package."""
        package = self._package_at(path)
        found = package and _list_names(
            self._resource_requester, package, _MODULES_RESOURCE)
        return sorted(found.items()) if found else []

    Importer._settle = _settle
    Importer._package_at = _package_at
    Importer._find_alias = _find_alias
    Importer._list_modules = _list_modules
