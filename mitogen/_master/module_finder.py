# SPDX-License-Identifier: BSD-3-Clause
"""
ModuleFinder: the source of modules, and which modules a module needs.
"""

from __future__ import absolute_import  # house

import re  # house
import sys  # house
import types  # house

import mitogen  # house
import mitogen.parent  # house

from mitogen.master import _BySource, _log_swallowed, _to_source_bytes, _whole, DefectivePython3xMainMethod  # house
from mitogen.master import FINDER_LOG, is_stdlib_name, NamespaceMethod, ParentImpEnumerationMethod  # house
from mitogen.master import ParentSpecEnumerationMethod, PkgutilMethod, PY3, SourceBesideMethod  # house
from mitogen.master import SysModulesMethod, to_text  # house


#: Module name -> the imports of its source. To load the code of the core and
#: look through it for each router takes longer than to start a child.
_imports_by_source = _BySource()

#: Like `_imports_by_source`, with texts that may be names of modules.
_needs_by_source = _BySource()


#: Like `_imports_by_source`, of the functions and classes in the module.
_later_by_source = _BySource()


_NAME_RE = re.compile(r'[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$')


def _texts_in(code):
    """
    Yield the texts in code that are neither names of what it imports or exports, nor of its classes
    and functions.
    """
    names = set(code.co_names)
    own = set(const.co_name for const in code.co_consts if isinstance(const, types.CodeType))
    consts = list(code.co_consts)
    while consts:
        const = consts.pop(0)
        if isinstance(const, str):
            if const not in own:
                yield const
        elif isinstance(const, (tuple, frozenset)) and not names.issuperset(const):
            consts.extend(const)


def _imports_by_name(code):
    """
    Yield the modules that code may import by name: each text in it that may
    be the name of a module, as a tuple like those of the imports.
    """
    if not set(code.co_names) & set(['__import__', 'import_module']):
        return
    for const in _texts_in(code):
        if _NAME_RE.match(const):
            yield None, const, ()


def _imports_at_top(code):
    """
    Yield the imports that a module performs as it is imported, and those that it may perform by
    name.
    """
    import mitogen.imports
    for found in mitogen.imports._imports_when_run(code):
        yield found
    for found in _imports_by_name(code):
        yield found


def _imports_inside(code):
    """
    Yield the imports in the functions and classes of a module.
    """
    import mitogen.imports
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            for found in mitogen.imports.codeobj_imports(const):
                yield found
            for found in _imports_inside(const):
                yield found


class ModuleFinder(object):
    """
    Find the source of modules, and which modules a module needs. Not
    thread-safe: used by the broker thread, once it has been set up.
    """
    #: Modules that are never sent unasked.
    _related_modules_denylist = frozenset(['__main__'])

    #: Finder methods in the order in which they are tried: the exact ones
    #: first.
    get_module_methods = [method() for method in (
        DefectivePython3xMainMethod,
        PkgutilMethod, SysModulesMethod,
        ParentSpecEnumerationMethod, ParentImpEnumerationMethod,
        SourceBesideMethod, NamespaceMethod,
    )]

    def __init__(self):
        #: Module name -> (path, source, is_pkg), three times None if absent.
        self._found_cache = {}
        #: Module name -> sorted list of the names it imports.
        self._related_cache = {}
        self._modifiers = {}
        #: Names whose source differs from the file.
        self._altered = set()

    def __repr__(self):
        return 'ModuleFinder()'

    def add_source_override(self, fullname, path, source, is_pkg):
        """
        Serve `source` for `fullname` instead of looking for it.

        :param path:
            Path to claim. The submodules of a package are those beside it.
        :param source:
            Bytes, or text.
        """
        self._altered.add(fullname)
        self._related_cache.pop(fullname, None)
        self._found_cache[fullname] = (path, _to_source_bytes(source), is_pkg)

    def add_source_modifier(self, fullname, callable):
        """
        Have `callable(fullname, path, source, is_pkg)` return the
        `(path, source, is_pkg)` to serve, when `fullname` is first found.
        Several are called in the order in which they were added.
        """
        self._modifiers.setdefault(fullname, []).append(callable)

    def _find(self, fullname):
        for method in self.get_module_methods:
            found = method.find(fullname)
            if found is not None:
                FINDER_LOG.debug('%r found %r at %r',
                                 method, fullname, found[0])
                path, source, is_pkg = found
                return path, _whole(fullname, path, source), is_pkg
            FINDER_LOG.debug('%r did not find %r', method, fullname)
        return None

    def get_module_source(self, fullname):
        """
        Find the source of a module. Either outcome is remembered.

        :returns:
            Tuple `(path text, source bytes, is_pkg)`, or
            `(None, None, None)`.
        """
        found = self._found_cache.get(fullname)
        if found is None:
            found = self._find(fullname)
            if found is None:
                found = (None, None, None)
            else:
                for modifier in self._modifiers.get(fullname, ()):
                    self._altered.add(fullname)
                    path, source, is_pkg = modifier(fullname, *found)
                    found = path, _to_source_bytes(source), is_pkg
                found = (to_text(found[0]),) + tuple(found[1:])
            if found[0] is not None or \
                    len(self._found_cache) < mitogen.parent.ABSENT_MAX:
                self._found_cache[fullname] = found
        return found

    def resolve_relpath(self, fullname, level):
        """
        Return the prefix, ending in a dot, that a relative import of `level`
        dots in the module `fullname` has; empty if there is none.
        """
        if not fullname or not level:
            return ''
        parts = fullname.split('.')
        if hasattr(sys.modules.get(fullname), '__path__'):
            parts.append('__init__')
        if level >= len(parts):
            return ''
        return '.'.join(parts[:-level]) + '.'

    def generate_parent_names(self, fullname):
        """
        Yield the names of the packages that hold `fullname`, nearest first.
        """
        while '.' in fullname:
            fullname = fullname.rpartition('.')[0]
            yield fullname

    def _get_code(self, fullname, path, source):
        """
        Return the module's code object, from the interpreter's own cache if
        that is possible: compiling takes far longer than reading it.
        """
        if PY3 and fullname not in self._altered:
            import importlib.machinery
            spec = getattr(sys.modules.get(fullname), '__spec__', None)
            loader = getattr(spec, 'loader', None)
            if type(loader) is importlib.machinery.SourceFileLoader and \
                    loader.path == path and loader.name == fullname:
                return loader.get_code(fullname)
        return compile(source, path, 'exec', 0, True)

    def _generate_imports(self, fullname, imports):
        """
        Yield the absolute names that a module may mean by its imports.

        :param imports: as of :func:`mitogen.imports.codeobj_imports`.
        """
        for level, modname, names in imports:
            if level == -1:
                # Python 2 looks beside the module, then at the top level.
                prefixes = ['', fullname + '.']
            elif level:
                prefixes = [self.resolve_relpath(fullname, level)]
            else:
                prefixes = ['']
            for prefix in prefixes:
                yield prefix + modname
                for name in names:
                    yield '%s%s.%s' % (prefix, modname, name)

    def _is_altered(self, fullname):
        """
        Tell whether the source served for a module differs from the file.
        """
        return fullname in self._altered

    def _forget(self, fullname):
        """
        Look for a module anew when it is asked for again.
        """
        self._found_cache.pop(fullname, None)
        self._related_cache.pop(fullname, None)

    def _find_imports(self, fullname, is_pkg, get_code=None):
        """
        Yield the imports of a module at its top level, in order: pairs of name and whether that is
        a module for sure, since a name that is imported from a package may be anything; None if a
        text may be the name. A module that does not compile here imports nothing.

        :param get_code:
            Function that returns the code of the module, if there is a better
            way than to compile the source.
        """
        imports = self._scan(_needs_by_source, _imports_at_top, fullname, get_code)
        return self._resolve(fullname, is_pkg, imports)

    def _find_later_imports(self, fullname, is_pkg, get_code=None):
        """
        Yield the imports in functions and classes of a module, like :meth:`_find_imports`.
        """
        imports = self._scan(_later_by_source, _imports_inside, fullname, get_code)
        return self._resolve(fullname, is_pkg, imports)

    def _scan(self, known, scan, fullname, get_code):
        """
        Return imports in the code of a module, as the list of what a function yields for it.

        :param _BySource known: lists that were made before.
        """
        path, source, _ = self.get_module_source(fullname)
        if source is None:
            # An extension, for example. Nothing tells what it imports.
            return []
        imports = known.find(fullname, source)
        if imports is None:
            try:
                code = get_code() if get_code else \
                    compile(source, path, 'exec', 0, True)
                imports = list(scan(code))
            except SyntaxError:
                FINDER_LOG.debug('%r: cannot compile %r', self, fullname,
                                 exc_info=True)
                imports = []
            except Exception:
                _log_swallowed(FINDER_LOG, 'cannot tell what %r imports, so '
                               'children fetch that one by one', fullname)
                imports = []
            known.add(fullname, source, imports)
        return imports

    @staticmethod
    def _resolve(fullname, is_pkg, imports):
        """
        Yield the absolute names of the modules that imports mean.
        """
        package = fullname if is_pkg else fullname.rpartition('.')[0]
        for level, modname, names in imports:
            if level is None:
                yield modname, None
                continue
            base = modname
            if level > 0:
                parts = package.split('.')
                above = parts[:len(parts) - level + 1]
                base = '.'.join(above + [modname] if modname else above)
                if not all(above) or level > len(parts):
                    continue
            yield base, True
            for name in names:
                yield '%s.%s' % (base, name), False

    def _is_related(self, name):
        return (
            sys.modules.get(name) is not None
            and name not in self._related_modules_denylist
            and 'six.moves' not in name
            and not is_stdlib_name(name)
        )

    def find_related_imports(self, fullname):
        """
        Return the sorted names of the loaded modules, standard library
        excepted, that `fullname` imports at its top level, and of the
        packages that hold it. A module that does not compile here imports
        nothing.
        """
        related = self._related_cache.get(fullname)
        if related is not None:
            return related

        path, source, _ = self.get_module_source(fullname)
        if source is None:
            return []

        names = set(self.generate_parent_names(fullname))
        imports = _imports_by_source.find(fullname, source)
        try:
            code = imports is None and self._get_code(fullname, path, source)
        except SyntaxError:
            FINDER_LOG.debug('%r: cannot compile %r', self, fullname,
                             exc_info=True)
        except Exception:
            _log_swallowed(FINDER_LOG, 'cannot compile %r, so children fetch '
                           'what it imports one by one', fullname)
        else:
            if imports is None:
                import mitogen.imports
                imports = _imports_by_source.add(
                    fullname, source,
                    list(mitogen.imports.codeobj_imports(code)))
            names.update(self._generate_imports(fullname, imports))

        related = sorted(name for name in names if self._is_related(name))
        self._related_cache[fullname] = related
        return related

    def find_related(self, fullname):
        """
        Return the sorted names of the modules `fullname` needs, directly or
        not, without `fullname` itself.
        """
        found = set([fullname])
        stack = [fullname]
        while stack:
            name = stack.pop()
            try:
                related = self.find_related_imports(name)
            except Exception:
                # One bad module must not prevent the modules that need it from
                # being sent.
                _log_swallowed(FINDER_LOG, 'cannot tell what %r needs, so '
                               'children fetch that one by one', name)
                continue
            new = set(related) - found
            found |= new
            stack.extend(new)
        found.discard(fullname)
        return sorted(found)
