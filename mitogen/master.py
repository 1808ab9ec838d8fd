# SPDX-License-Identifier: BSD-3-Clause
"""
The root of a tree: what only the first process has. It finds the source of
modules and serves it to children, hands out context ids, and receives the
logs of the whole tree.

Masters start often, so whatever only some of them need (the import machinery's
helpers, resources, :mod:`pkgutil`) is imported where it is used.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import logging
import os
import re
import string
import sys
import threading
import types
import zlib

import mitogen
import mitogen.core
import mitogen.parent

from mitogen.core import b
from mitogen.core import to_text


LOG = logging.getLogger('mitogen')
FINDER_LOG = logging.getLogger('mitogen.importer')
RESPONDER_LOG = logging.getLogger('mitogen.responder')

PY3 = sys.version_info >= (3,)

#: Base names that stand for a module made in memory; there is no such file.
SPECIAL_FILE_PATHS = set([
    '__synthetic__',
    '<ansible_synthetic_collection_package>',
])


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
    # What sysconfig calls DESTLIB, without loading sysconfig.
    if getattr(os, '__file__', None):
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
    path = getattr(module, '__file__', None)
    if path is None:
        spec = getattr(module, '__spec__', None)
        return getattr(spec, 'origin', None) == 'frozen'
    try:
        return is_stdlib_path(os.path.abspath(path))
    except (AttributeError, TypeError, ValueError):
        # An object that makes up its attributes.
        return False


def _is_namespace(spec):
    # Its import runs nobody's code.
    return spec.origin is None and spec.submodule_search_locations is not None


def _find_spec(fullname):
    """
    Return what the import system knows of `fullname`, or :data:`None`, and
    import no parent package: names come from children, who are not to choose
    what runs here.

    :raises Exception:
        Whatever the finders raise.
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
        Whatever the finders raise.
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


#: The core's source as children get it, once a child has needed it.
_core_source = None

_get_full_core_source = None


def _get_core_source():
    """
    Return the source of the core, minified, in the type that
    :func:`mitogen.parent._get_core_source` has. Any thread. The core on disk
    is read once: a child must run what this process runs, even if it is
    upgraded meanwhile.
    """
    global _core_source
    if _core_source is None:
        import mitogen.minify
        full = _get_full_core_source()
        source = mitogen.minify.minimize_source(full, fill=True)
        if isinstance(full, bytes):
            source = source.encode('utf-8')
        _core_source = source
    return _core_source


def _reduce_core_source(py3, whole):
    """
    Return what :data:`mitogen.parent._reduce_core_source` describes.
    """
    import mitogen._shrink
    source = mitogen.parent._get_core_source()
    constants = {'PY3': py3, '_REDUCED': True}
    try:
        text = source.replace(mitogen.parent._FUTURE, b'') if py3 else source
        if whole:
            return mitogen._shrink.shrink_source(text, constants), None
        return mitogen._shrink.divide_source(text, constants)
    except Exception:
        # PyPy, for one, has no symbol tables. The whole then, since a child
        # may pass it on to one of the other kind.
        LOG.debug('cannot reduce the core', exc_info=True)
        return mitogen.core.to_text(source), None


if mitogen.is_master and \
        mitogen.parent._get_core_source.__module__ != __name__:
    _get_full_core_source = mitogen.parent._get_core_source
    mitogen.parent._get_core_source = _get_core_source
    mitogen.parent._reduce_core_source = _reduce_core_source


_PRINTABLE = frozenset(bytearray(string.printable.encode('ascii')))


def _looks_like_script(path):
    """
    Return :data:`True` if the file begins with plain ASCII text.
    """
    if os.path.isdir(path):
        return False
    try:
        fp = open(path, 'rb')
    except (IOError, OSError):
        return False
    try:
        return _PRINTABLE.issuperset(bytearray(fp.read(512)))
    finally:
        fp.close()


def _py_filename(path):
    """
    Return `(path of the source, is_special)` for a module's file, or
    `(None, False)` if it has no source. A special path exists in name only.
    """
    if not path:
        return None, False
    if path[-4:] in ('.pyc', '.pyo'):
        return path[:-1], False
    if path.endswith('.py'):
        return path, False
    if os.path.basename(path) in SPECIAL_FILE_PATHS:
        return path, True
    if os.path.exists(path) and _looks_like_script(path):
        return path, False
    return None, False


def _read_file(path):
    fp = open(path, 'rb')
    try:
        return fp.read()
    finally:
        fp.close()


def _whole(fullname, path, source):
    """
    Return the source to serve for what was found. In a checkout some modules
    of this package only run their parts, which a child does not have.
    """
    if fullname.startswith('mitogen.') and b'_house.furnish(' in source:
        import mitogen._house
        source = mitogen._house.join(path).encode('utf-8')
    return source


def _to_source_bytes(source):
    if isinstance(source, mitogen.core.UnicodeType):
        source = source.encode('utf-8')
    return source


def _finish_imports():
    """
    Before a fork, import what the broker's thread imports when it first serves
    a module. The copy of a process cannot import what another thread was
    about to: the lock of that module is never let go there.
    """
    if not Broker._all:
        return
    names = ['dis', 'importlib.machinery', 'importlib.util', 'pkgutil',
             'mitogen.imports', 'mitogen.minify']
    if mitogen.is_master:
        names.append('mitogen._shrink')
    for name in names:
        mitogen.core.import_module(name)


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(before=_finish_imports)


class ThreadWatcher(object):
    """
    Call a function once a thread has ended. One helper thread per watched
    thread serves every watcher of it; helpers are daemons, for the thread
    that is watched is usually the main thread.
    """
    _lock = threading.Lock()
    _pid = None

    #: Watched thread -> list of watchers. Guarded by `_lock`.
    _watchers = {}

    def __init__(self, target, on_join):
        self.target = target
        self.on_join = on_join

    @classmethod
    def _check_fork(cls):
        # Threads do not survive a fork, and the lock may have been held.
        if cls._pid != os.getpid():
            cls._lock = threading.Lock()
            cls._watchers = {}
            cls._pid = os.getpid()

    @classmethod
    def _join_thread(cls, thread):
        thread.join()
        with cls._lock:
            watchers = cls._watchers.pop(thread, [])
        for watcher in watchers:
            try:
                watcher.on_join()
            except Exception:
                LOG.debug('%r failed', watcher, exc_info=True)

    @classmethod
    def watch(cls, target, on_join):
        """
        Arrange for `on_join()` to be called, on a helper thread, once
        `target` has ended. Any thread.

        :returns:
            The watcher. Its :meth:`remove` undoes the arrangement.
        """
        cls._check_fork()
        watcher = cls(target, on_join)
        with cls._lock:
            known = target in cls._watchers
            cls._watchers.setdefault(target, []).append(watcher)
        if not known:
            helper = threading.Thread(
                name='mitogen.master.join_thread_async',
                target=cls._join_thread,
                args=(target,)
            )
            helper.daemon = True
            helper.start()
        return watcher

    def remove(self):
        """
        Forget the watcher. Any thread, may be repeated.
        """
        self._check_fork()
        with self._lock:
            watchers = self._watchers.get(self.target, [])
            if self in watchers:
                watchers.remove(self)


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
                pass
        return loader.get_source(fullname)

    def find(self, fullname):
        try:
            loader = _find_loader(fullname)
        except (ImportError, AttributeError, TypeError, ValueError):
            return None
        except Exception:
            FINDER_LOG.debug('%r: a finder failed on %r',
                             self, fullname, exc_info=True)
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
    Base of the methods that do not trust what :data:`sys.modules` has for a
    name, since modules may replace themselves there. They start from the
    nearest parent package that can be trusted, and look for the file.
    """
    def _trusted_path(self, name):
        """
        Return the search path of the loaded package `name`, or
        :data:`None` if what is loaded is no such package.
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
                spec = finder.find_spec(fullname, path)
            except Exception:
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
            path = spec.submodule_search_locations
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
            return None
        return path, source, spec.submodule_search_locations is not None


class ParentImpEnumerationMethod(ParentEnumerationMethod):
    """
    The same for Pythons older than import specs, by way of :mod:`imp`.
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
        if kind == imp.PY_SOURCE:
            return path, False
        return None

    def find(self, fullname):
        if sys.version_info >= (3, 4) or fullname == '__main__':
            return None
        search_path, _, parts = self._find_nearest_parent(fullname)
        for index, part in enumerate(parts):
            found = self._find_module(part, search_path)
            if found is None:
                return None
            path, is_pkg = found
            search_path = [path]
            if not is_pkg and index + 1 < len(parts):
                return None
        if is_pkg:
            path = os.path.join(path, '__init__.py')
        path = os.path.abspath(path)
        try:
            return path, _read_file(path), is_pkg
        except (IOError, OSError):
            return None


class ModuleFinder(object):
    """
    Find the source of modules, and which modules a module needs. Not
    thread-safe: used by the broker thread, once it has been set up.
    """
    #: Modules that are never sent unasked.
    _related_modules_denylist = frozenset(['__main__'])

    #: In the order in which they are tried: the exact ones first.
    get_module_methods = [method() for method in (
        DefectivePython3xMainMethod,
        PkgutilMethod, SysModulesMethod,
        ParentSpecEnumerationMethod, ParentImpEnumerationMethod,
    )]

    def __init__(self):
        #: Module name -> (path, source, is_pkg), three times None if absent.
        self._found_cache = {}
        #: Module name -> sorted list of the names it imports.
        self._related_cache = {}
        self._modifiers = {}
        #: Names whose source is not what is in the file.
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

    def _generate_imports(self, fullname, code):
        """
        Yield the absolute names `code` may mean by its imports.
        """
        import mitogen.imports
        for level, modname, names in mitogen.imports.codeobj_imports(code):
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
        try:
            code = self._get_code(fullname, path, source)
        except Exception:
            FINDER_LOG.debug('%r: cannot compile %r', self, fullname,
                             exc_info=True)
        else:
            names.update(self._generate_imports(fullname, code))

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
                # One bad module must not cost the others that need it.
                FINDER_LOG.debug('%r: cannot tell what %r needs', self, name,
                                 exc_info=True)
                continue
            new = set(related) - found
            found |= new
            stack.extend(new)
        found.discard(fullname)
        return sorted(found)


class _Server(object):
    """
    Base of what answers the messages to one handle, on the broker thread.

    :param respond:
        Function to call with each message.
    """
    def __init__(self, router, handle, respond):
        self._router = router
        router.add_handler(respond, handle)

    def __repr__(self):
        return type(self).__name__

    def _stream_of(self, msg):
        """
        Return the stream a request came by, :data:`None` if there is nobody
        to answer.
        """
        return None if msg.is_dead else self._router.stream_by_id(msg.src_id)


class ModuleResponder(_Server):
    """
    Serve modules to children. Handlers run on the broker thread.
    """
    #: Names of the attributes that count what was done; see
    #: :meth:`Router.get_stats`. Those in seconds are floats once used.
    COUNTERS = (
        'bad_load_module_count', 'good_load_module_count',
        'good_load_module_size', 'get_module_count', 'get_module_secs',
        'minify_secs',
    )

    minify_safe_re = re.compile(b(r'\s#[ \t]*!mitogen:[ \t]*minify_safe'))

    MAIN_RE = re.compile(
        b(r'^if[ \t]+__name__[ \t]*==[ \t]*.__main__.[ \t]*:'),
        re.MULTILINE
    )

    main_guard_msg = (
        "A child tried to import __main__, but the main module, %r, has no "
        "execution guard, so importing it would run the whole program again "
        "in the child. Put what starts the program into a function, and end "
        "the file with:\n"
        "\n"
        "    if __name__ == '__main__':\n"
        "        main()\n"
    )

    def __init__(self, router, policy):
        self.policy = policy
        self._finder = ModuleFinder()
        #: Module name -> tuple as on the wire.
        self._cache = {}
        #: Module name -> the same, pickled. Many children ask for the same.
        self._packed_cache = {}
        #: Context id -> set of module names already forwarded to it.
        self._forwarded_by_context = {}

        for counter in self.COUNTERS:
            setattr(self, counter, 0)
        # Last: a request may come in at once.
        super(ModuleResponder, self).__init__(
            router, mitogen.core.GET_MODULE,
            mitogen.parent.Throttle(router, self._on_get_module))

    def add_source_modifier(self, fullname, callable):
        """
        Let a function change what is served; parameters as of the method of
        that name of :class:`ModuleFinder`. Before the first child asks.
        """
        self._finder.add_source_modifier(fullname, callable)

    def add_source_override(self, fullname, path, source, is_pkg):
        """
        Serve a given text for a module; parameters as of the method of that
        name of :class:`ModuleFinder`. Before the first child asks.
        """
        self._finder.add_source_override(fullname, path, source, is_pkg)

    def whitelist_prefix(self, fullname):
        """
        Serve `fullname` and what is inside it, and from the first call on
        nothing else but what was so listed, and Mitogen itself. Children
        learn of it when they are started.
        """
        if not self.policy.overrides:
            self.policy.overrides.add('mitogen')
        self.policy.overrides.add(fullname)

    def blacklist_prefix(self, fullname):
        """
        Do not serve `fullname`, nor anything inside it. Children started
        before will still ask.
        """
        self.policy.blocks.add(fullname)

    def neutralize_main(self, path, src):
        """
        Return the source of the main module without the part that runs the
        program.

        :param path:
            Path, for the error message.
        :param bytes src:
            Source of the main module.
        :raises ImportError:
            There is no telling which part that is.
        """
        guard = self.MAIN_RE.search(src)
        if guard is None and b('mitogen.main(') in src:
            # Its decorator runs nothing in a child.
            return src
        if guard is not None:
            return src[:guard.start()]
        RESPONDER_LOG.error(self.main_guard_msg, path)
        raise ImportError(self.main_guard_msg % (path,))

    def _minify(self, fullname, path, source):
        """
        Return `source` minified, or as it is if that is not possible.
        """
        import mitogen.minify
        start = mitogen.core.now()
        try:
            # Only from UTF-8: a source in another encoding says so in a
            # comment that stays, and must go on being right.
            minified = mitogen.minify.minimize_source(
                source.decode('utf-8'), fill=True).encode('utf-8')
            # Our own files are covered by a test.
            if fullname.partition('.')[0] != 'mitogen':
                compile(minified, path, 'exec', 0, True)
        except Exception:
            RESPONDER_LOG.debug('%r: cannot minify %r', self, fullname,
                                exc_info=True)
            minified = source
        self.minify_secs += mitogen.core.now() - start
        return minified

    def _make_negative_response(self, fullname):
        # Text even where names are bytes: Python 3 takes it for a key.
        return (to_text(fullname), None, None, None, ())

    def _find_servable(self, fullname):
        """
        Find a module that may be served; three times :data:`None` if there is
        none.
        """
        found = self._finder.get_module_source(fullname)
        if found[0] and is_stdlib_path(os.path.abspath(found[0])):
            # Of another version than the child's own.
            RESPONDER_LOG.debug('refusing to serve %r: %r is in the standard '
                                'library', fullname, found[0])
            return None, None, None
        return found

    def _prepare(self, fullname, path, source):
        """
        Return the text a child is to run, as bytes.
        """
        if self.minify_safe_re.search(source):
            source = self._minify(fullname, path, source)
        if fullname == '__main__':
            return self.neutralize_main(path, source)
        return source

    def _build_tuple(self, fullname):
        """
        Return the tuple that tells a child about a module.

        :raises ImportError:
            The policy denies the module, or it is a main module that cannot
            be imported.
        """
        tup = self._cache.get(fullname)
        if tup is None:
            # What it denies is not remembered: it may be changed.
            self.policy.denied_raise(fullname)
            tup = self._build_new_tuple(fullname)
            if self._keeps(tup, self._cache):
                self._cache[fullname] = tup
        return tup

    @staticmethod
    def _keeps(tup, cache):
        """
        Return whether a module is worth to be remembered: a child may ask
        for any number of those that do not exist.
        """
        return tup[2] is not None or len(cache) < mitogen.parent.ABSENT_MAX

    def _build_new_tuple(self, fullname):
        path, source, is_pkg = self._find_servable(fullname)
        if source is None:
            return self._make_negative_response(fullname)
        compressed = zlib.compress(self._prepare(fullname, path, source), 9)
        needs = self._finder.find_related(fullname)
        return (
            to_text(fullname),
            get_child_modules(path, fullname) if is_pkg else None,
            to_text(path),
            mitogen.core.Blob(compressed),
            [to_text(need) for need in needs if not self.policy.denied(need)],
        )

    def _send_tuple(self, stream, tup, data=None):
        if data is None:
            data = mitogen.core.Message.pickled(tup).data
        if tup[2] is not None:
            self.good_load_module_count += 1
            self.good_load_module_size += len(data)
        else:
            self.bad_load_module_count += 1
        self._router._async_route(mitogen.core.Message(
            dst_id=stream.protocol.remote_id,
            handle=mitogen.core.LOAD_MODULE,
            data=data,
            enc=mitogen.core.Message.ENC_PKL,
        ))
        return data

    def _send_load_module(self, stream, fullname):
        """
        Send one module.

        :raises Exception:
            Its tuple could not be built; nothing was sent.
        """
        tup = self._build_tuple(fullname)
        packed = self._send_tuple(stream, tup,
                                  self._packed_cache.get(fullname))
        if self._keeps(tup, self._packed_cache):
            self._packed_cache[fullname] = packed
        if self._keeps(tup, stream.protocol.sent_modules):
            stream.protocol.sent_modules.add(fullname)

    def _send_related(self, stream, fullname):
        """
        Send what the module needs, as far as the child is known to lack it:
        it asked for, or was sent, the package at the top.
        """
        sent = stream.protocol.sent_modules
        for name in self._build_tuple(fullname)[4]:
            top = name.partition('.')[0]
            if name in sent or (top != fullname and top not in sent):
                continue
            try:
                self._send_load_module(stream, name)
            except Exception:
                RESPONDER_LOG.debug('skipping %r, which %r needs', name,
                                    fullname, exc_info=True)

    def _send_late_core(self, stream):
        """
        Send the rest of the core, once, to a child that runs a person's code:
        so it need not wait for it, and has it on its broker thread, too.
        """
        conn = getattr(stream, 'conn', None)
        if getattr(conn, '_lacks_core', False) is True:
            conn._lacks_core = False
            key = u'mitogen', u'core.late'
            msg = mitogen.core.Message.pickled(
                key, mitogen.parent.get_late_source(*key))
            msg.dst_id = stream.protocol.remote_id
            msg.handle = mitogen.core.LOAD_RESOURCE
            self._router._async_route(msg)

    def _send_module_and_related(self, stream, fullname):
        """
        Send a module after those it needs, even if the stream had it before.
        Failure is reported to the child.
        """
        try:
            self._send_late_core(stream)
            self._send_related(stream, fullname)
            self._send_load_module(stream, fullname)
        except Exception:
            # Not marked as sent: the reason may go away.
            self._send_tuple(stream, self._make_negative_response(fullname))
            RESPONDER_LOG.debug('%r cannot be served to %s', fullname, stream,
                                exc_info=True)

    def _on_get_module(self, msg):
        stream = self._stream_of(msg)
        if stream is None:
            return
        if len(msg.data) > mitogen.parent.REQUEST_MAX:
            RESPONDER_LOG.error('%s asks for a module with a name of %d bytes',
                                stream, len(msg.data))
            return

        began = mitogen.core.now()
        name = bytes(msg.data).decode('utf-8', 'replace')
        if not PY3:
            # Module names are of type str.
            name = name.encode('utf-8')
        self.get_module_count += 1
        if name in stream.protocol.sent_modules:
            RESPONDER_LOG.warning('duplicate request for %r from %s', name,
                                  stream)
        else:
            RESPONDER_LOG.debug('%s asks for %s', stream, name)
        self._send_module_and_related(stream, name)
        self.get_module_secs += mitogen.core.now() - began

    def _forward_one_module(self, context, stream, fullname):
        forwarded = self._forwarded_by_context[context.context_id]
        if fullname in forwarded:
            return
        forwarded.add(fullname)
        if fullname not in stream.protocol.sent_modules:
            self._send_module_and_related(stream, fullname)
        if stream.protocol.remote_id != context.context_id:
            self._router._async_route(mitogen.core.Message(
                dst_id=stream.protocol.remote_id,
                handle=mitogen.core.FORWARD_MODULE,
                data=(u'%d\0%s' % (context.context_id,
                                   to_text(fullname))).encode('utf-8'),
            ))

    def _forward_modules(self, context, fullnames):
        target_id = context.context_id
        stream = self._router.stream_by_id(target_id)
        if not stream:
            RESPONDER_LOG.debug('dropping forward of %r: there is no way to '
                                '%r (any more)', fullnames, context)
            return
        if target_id not in self._forwarded_by_context:
            self._forwarded_by_context[target_id] = set()
            self._watch_context(target_id)
        for fullname in fullnames:
            for name in mitogen.core.module_lineage(fullname):
                self._forward_one_module(context, stream, name)

    def _watch_context(self, context_id):
        """
        Forget about a context when it disconnects.
        """
        context = self._router.context_by_id(context_id, create=False)
        if context is not None:
            mitogen.core.listen(
                context, 'disconnect',
                lambda: self._forwarded_by_context.pop(context_id, None))

    #: Seconds :meth:`forward_modules` waits for the broker thread. In vain if
    #: that waits for us in turn, to finish importing what it shall send.
    forward_timeout = 5.0

    def forward_modules(self, context, fullnames):
        """
        Send modules, the packages that hold them and what they need towards a
        context before it asks, so that every process on the way has them.
        What the calling thread sends next comes after them. Any thread.

        :param context:
            Target context.
        :param fullnames:
            Iterable of module names.
        :raises TypeError:
            One of them is no text.
        """
        names = list(fullnames)
        for name in names:
            if not isinstance(name, mitogen.core.AnyTextType):
                raise TypeError('not the name of a module: %r' % (name,))
        names = [mitogen.parent._native_str(name) for name in names]
        done = mitogen.core.Latch()

        def forward():
            try:
                self._forward_modules(context, names)
            except Exception:
                # The child asks for what it lacks.
                RESPONDER_LOG.exception('%r: cannot forward %r', self, names)
            finally:
                done.put()

        # Messages need not pass the broker thread, so a call that follows
        # could overtake what is merely deferred, and ask for the modules.
        self._router.broker.defer(forward)
        try:
            done.get(timeout=self.forward_timeout)
        except mitogen.core.TimeoutError:
            RESPONDER_LOG.debug('not waiting for the forward of %r', names)


class ResourceResponder(_Server):
    """
    Serve the data files of packages to children. Handlers run on the broker
    thread.
    """
    def __init__(self, router):
        super(ResourceResponder, self).__init__(
            router, mitogen.core.GET_RESOURCE,
            mitogen.parent.Throttle(router, self._on_get_resource))

    def _search_locations(self, fullname):
        """
        Return `(loader, directories)` of a package, without importing it.
        """
        if PY3:
            spec = _find_spec(fullname)
            if spec is None:
                return None, []
            return spec.loader, list(spec.submodule_search_locations or ())
        loader = _find_loader(fullname)
        if loader is None or not loader.is_package(fullname):
            return None, []
        return loader, [os.path.dirname(loader.get_filename(fullname))]

    def _get_resource(self, fullname, resource):
        """
        Return the content of a file in a package, or :data:`None` if there
        is no such file.

        :param fullname:
            Name of the package.
        :param resource:
            Path below the package, with slashes. It may not lead out of it: a
            child is not to read whatever the master can.
        """
        parts = resource.split('/')
        if os.path.isabs(resource) or '\0' in resource or \
                any(part in ('', os.curdir, os.pardir) or os.sep in part
                    for part in parts):
            return None
        loader, locations = self._search_locations(fullname)
        get_data = getattr(loader, 'get_data', _read_file)
        for location in locations:
            try:
                return get_data(os.path.join(location, *parts))
            except (IOError, OSError):
                continue
        get_reader = getattr(loader, 'get_resource_reader', None)
        reader = get_reader and get_reader(fullname)
        if reader is None:
            return None
        try:
            fp = reader.open_resource(resource)
        except (IOError, OSError):
            return None
        try:
            return fp.read()
        finally:
            fp.close()

    def _on_get_resource(self, msg):
        stream = self._stream_of(msg)
        if stream is None:
            return

        request = msg.unpickle(throw=False)
        try:
            if not mitogen.parent.is_sane_resource(request):
                raise ValueError('not two names')
            package, resource = request
            content = mitogen.parent.get_late_source(package, resource)
            if content is None:
                self._router.responder.policy.denied_raise(to_text(package))
                content = self._get_resource(package, resource)
        except Exception:
            # The child must have an answer, whatever it is.
            content = None
            RESPONDER_LOG.debug('%r: no answer to a request of %s', self,
                                stream, exc_info=True)
        answer = mitogen.core.Message.pickled(request, content)
        answer.dst_id = stream.protocol.remote_id
        answer.handle = mitogen.core.LOAD_RESOURCE
        self._router._async_route(answer)


class LogForwarder(_Server):
    """
    Emit the log records that descendants send. Runs on the broker thread.
    """
    def __init__(self, router):
        #: (context id, its name, logger name) -> logger.
        self._loggers = {}
        super(LogForwarder, self).__init__(
            router, mitogen.core.FORWARD_LOG, self._on_forward_log)

    #: How many loggers children may bring into being, which stay for ever.
    loggers_max = 5000

    #: How long the name of one may be, and how many dots it may have: each
    #: makes an object that stays, too.
    name_max = 500
    dots_max = 20

    def _get_logger(self, context, name):
        key = (context.context_id, context.name, name)
        if key not in self._loggers:
            if len(self._loggers) >= self.loggers_max:
                # One that nobody configures, and nobody remembers.
                logger = logging.Logger('%s.[%s]' % (name, context.name))
                logger.parent = logging.getLogger()
                return logger
            self._loggers[key] = logging.getLogger(
                '%s.[%s]' % (name, context.name))
        return self._loggers[key]

    def _on_forward_log(self, msg):
        if msg.is_dead:
            return
        context = self._router.context_by_id(msg.src_id)
        text = bytes(msg.data).decode('utf-8', 'replace')
        try:
            name, level, message = text.split(u'\0', 2)
            # The time that these take grows faster than their length.
            if len(name) > self.name_max or len(level) > 20 or \
                    name.count(u'.') > self.dots_max:
                raise ValueError(name)
            level = int(level)
        except ValueError:
            LOG.warning('%r: ignoring a bad log record from %r', self, context)
            return
        if not PY3:
            # The logging module of Python 2 wants names of type str.
            name = name.encode('utf-8')

        logger = self._get_logger(context, name)
        # This goes through the record factory, if somebody has set one.
        logger.handle(logging.makeLogRecord({
            'name': logger.name,
            'levelno': level,
            'levelname': logging.getLevelName(level),
            'msg': message,
            'args': (),
            'pathname': '(unknown file)',
            'filename': '(unknown file)',
            'lineno': 0,
            'exc_info': None,
            'mitogen_message': message,
            'mitogen_context': context,
            'mitogen_name': name,
        }))


class Broker(mitogen.core.Broker):
    """
    The broker of a master: has timers and the best poller, and shuts down
    when the thread that made it ends, lest a forgotten broker keep the
    program alive.

    :param bool install_watcher:
        If :data:`False`, :meth:`shutdown` must be called.
    """
    shutdown_timeout = 5.0
    poller_class = mitogen.parent.PREFERRED_POLLER

    _watcher = None

    def __init__(self, install_watcher=True):
        super(Broker, self).__init__()
        self.timers = mitogen.parent.TimerList()
        if install_watcher:
            us = mitogen.core.threading__current_thread()
            self._watcher = ThreadWatcher.watch(us, self.shutdown)

    def shutdown(self):
        """
        Start an orderly shutdown. Any thread, may be repeated; see
        :meth:`join`.
        """
        super(Broker, self).shutdown()
        if self._watcher is not None:
            self._watcher.remove()


class IdAllocator(_Server):
    """
    Hand out context ids, one by one here and in blocks to children, which
    hand them out to theirs. An id is never used twice.
    """
    #: How many ids a child gets at once.
    BLOCK_SIZE = 1000

    #: How many times a child, with all that is below it, gets them. One that
    #: asks for ever would leave none to others.
    blocks_max = 1000

    used_up_msg = 'all context ids are used up'

    def __init__(self, router):
        self._lock = threading.Lock()
        #: The least id that nobody has. Guarded by `_lock`.
        self._unused = 1
        super(IdAllocator, self).__init__(
            router, mitogen.core.ALLOCATE_ID, self.on_allocate_id)

    def __repr__(self):
        return 'IdAllocator(%r)' % (self._router,)

    def _take(self, count):
        with self._lock:
            if self._unused + count > 1 << 32:
                raise mitogen.core.Error(self.used_up_msg)
            self._unused += count
            return self._unused - count

    def allocate(self):
        """
        Return an unused context id. Any thread.
        """
        return self._take(1)

    def allocate_block(self):
        """
        Return `(start, end)` of a block of unused ids, which `end` is not
        part of. Any thread.
        """
        start = self._take(self.BLOCK_SIZE)
        return start, start + self.BLOCK_SIZE

    def on_allocate_id(self, msg):
        if msg.is_dead:
            return
        stream = self._stream_of(msg)
        if stream is not None:
            taken = getattr(stream, 'id_blocks', 0)
            if taken >= self.blocks_max:
                LOG.error('%r: %s asks for too many ids', self, stream)
                self._router._maybe_send_dead(True, msg, self.used_up_msg)
                return
            stream.id_blocks = taken + 1
        block = self.allocate_block()
        LOG.debug('%r: giving ids %d to %d to context %d', self, block[0],
                  block[1] - 1, msg.src_id)
        msg.reply(block)


class Router(mitogen.parent.Router):
    """
    The router of a master.

    :param broker:
        Broker to use; a new :attr:`broker_class` if :data:`None`.
    :param int max_message_size:
        Largest payload, in bytes, that this router and all its descendants
        accept.

    As a context manager, shuts the broker down and waits for it.
    """
    broker_class = Broker

    #: Whether children profile themselves. To be set before any is started.
    profiling = 'MITOGEN_PROFILING' in os.environ

    def __init__(self, broker=None, max_message_size=None):
        super(Router, self).__init__(
            self.broker_class() if broker is None else broker)
        if max_message_size:
            self.max_message_size = max_message_size
        self._install()
        if os.environ.get('MITOGEN_DEBUG_SIGNAL'):
            import mitogen.debug
            mitogen.debug.enable_dump()

    def _install(self):
        """
        Make everything that only the root of a tree has.
        """
        policy = mitogen.core.ImportPolicy()
        self.responder = ModuleResponder(self, policy)
        for name, klass in (('id_allocator', IdAllocator),
                            ('log_forwarder', LogForwarder),
                            ('resource_responder', ResourceResponder),
                            ('route_monitor', mitogen.parent.RouteMonitor)):
            setattr(self, name, klass(self))
        self._add_detaching_handler()
        mitogen.core.listen(self.broker, 'exit', self._log_stats)

    def _log_stats(self):
        stats = self.get_stats()
        count = stats['good_load_module_count']
        LOG.debug(
            '%r: %d module requests in %.1f ms; sent %d modules of %.1f KiB, '
            '%.1f KiB on average, and %d refusals; minifying took %.1f ms',
            self,
            stats['get_module_count'],
            stats['get_module_secs'] * 1e3,
            count,
            stats['good_load_module_size'] / 1024.0,
            stats['good_load_module_size'] / 1024.0 / max(1, count),
            stats['bad_load_module_count'],
            stats['minify_secs'] * 1e3,
        )

    def get_stats(self):
        """
        Return what the module server has done so far. Any thread.

        :returns:
            Dictionary: `get_module_count` requests received and
            `get_module_secs` spent on them, `good_load_module_count` modules
            sent, `good_load_module_size` bytes of them,
            `bad_load_module_count` refusals, `minify_secs` spent minifying.
        """
        return dict((counter, getattr(self.responder, counter))
                    for counter in self.responder.COUNTERS)

    def enable_debug(self):
        """
        Write a debug log file here, and in every child started from now on.
        """
        self.debug = True
        mitogen.core.enable_debug_logging()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        broker = self.broker
        broker.shutdown()
        broker.join()

    def disconnect_stream(self, stream):
        """
        Cut a stream off. Any thread; happens later.
        """
        self.broker.defer(mitogen.parent._disconnect, self.broker, stream)

    def disconnect_all(self):
        """
        Cut every stream off. Any thread; happens later.
        """
        for stream in self.get_streams():
            self.disconnect_stream(stream)
