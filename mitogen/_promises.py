# SPDX-License-Identifier: BSD-3-Clause
"""
Files of distributions whose modules come one by one, because they have much data.

Such a module is told that it lies in a folder which does not exist yet. Once a program looks for
something in that folder, the distribution is fetched whole, and its files are put there. A child
fetches this module if it needs it. Programs that look for nothing fetch nothing.

The program's looks are seen by an audit hook (Python 3.8 and newer) and in place of :func:`os.stat`
and :func:`os.access`, for which there is no audit event.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import errno
import os
import posixpath
import sys
import threading

import mitogen.core


#: Audit events whose first argument is a path that is looked at. The second one of those in the
#: other set may be a list of paths.
_EVENTS = frozenset(['open', 'os.listdir', 'os.scandir', 'os.chdir', 'glob.glob', 'sqlite3.connect', 'ctypes.dlopen'])
_STARTS = frozenset(['subprocess.Popen', 'os.exec', 'os.posix_spawn'])

#: Functions of :mod:`os` that raise no event, and those that raise none in older Pythons.
_SILENT, _OLD = ('stat', 'access'), ('open', 'listdir', 'scandir', 'chdir')

#: Where the folder may be.
_PLACES = '/dev/shm', os.environ.get('TMPDIR') or '/tmp', '/var/tmp'

#: The one of this process, once there is one.
_promises = None


class _Promises(object):
    """
    The promises of one process. Any thread, but for the broker thread, which cannot wait.

    :param importer: that brings the modules.
    """
    def __init__(self, importer):
        place = next((place for place in _PLACES if os.access(place, os.W_OK | os.X_OK)), _PLACES[-1])
        #: The folder. Nobody can guess its name, and so make it before we do.
        self.folder = '%s/mitogen-freight-%s' % (place, ''.join('%02x' % byte for byte in bytearray(os.urandom(16))))
        self._importer = importer
        #: Path of a package's folder, or of a module, below ours -> (the parent's folder with it,
        #: its name, path of its file below ours).
        self._owners = {}
        #: Name of a module -> why its distribution is not sent.
        self._refused = {}
        self._taken = set()     # names of modules whose distributions are here
        self.adopt()

    def adopt(self):
        """
        Take over in a process that was made by fork: a thread that held the lock is not there.
        """
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._busy = None   # the thread that fetches

    def add(self, name, path):
        """
        Return the path that a module is told.

        :param str path: that the parent knows it by.
        """
        inside = name.replace('.', '/')
        is_package = self._importer._cache[name][1] is not None
        full = inside + ('/__init__.py' if is_package else '.py')
        if not path.endswith('/' + full):
            return path
        self._owners[inside if is_package else full] = path[:-len(full) - 1], name, full
        return '%s/%s' % (self.folder, full)

    def _inside(self, path):
        """
        Return the part of a path below our folder, empty for that itself, None for any other path.
        """
        if not isinstance(path, str):
            if isinstance(path, (int, type(None))):
                return None
            try:
                path = os.fsdecode(path)
            except TypeError:
                return None
        if path.startswith('file:'):
            # A URI, as sqlite3 takes it.
            path = path[5:]
        if not path.startswith(self.folder):
            return None
        path = posixpath.normpath(path) + '/'
        return path[len(self.folder) + 1:-1] if path.startswith(self.folder + '/') else None

    def _owner_of(self, inside):
        """
        Return what is known of the innermost package around a path, None if there is none.
        """
        while inside and inside not in self._owners:
            inside = inside.rpartition('/')[0]
        return self._owners.get(inside)

    def at_parent(self, path):
        """
        Return the path that the parent knows a path by; the same one if that is not ours.
        """
        inside = self._inside(path)
        owner = inside and self._owner_of(inside)
        return '%s/%s' % (owner[0], inside) if owner else path

    def look(self, path):
        """
        See to it that what is promised at a path is there.

        :raises FileNotFoundError: it cannot be had. The text says why.
        """
        inside = self._inside(path)
        if inside is None or threading.get_ident() in (self._busy, self._importer._router.broker._ident):
            return
        owner = self._owner_of(inside)
        # A path beside all packages may be of any distribution.
        for _, name, full in [owner] if owner else [found for found in list(self._owners.values()) if '.' not in found[1]]:
            why = self._have(name, full)
            if why:
                raise OSError(errno.ENOENT, why, path)

    def _is_made(self):
        """
        Tell whether our folder is there.

        :raises OSError: somebody else has made it.
        """
        try:
            found = os.lstat(self.folder)
        except OSError:
            return False
        # The type, and all permissions.
        if found.st_mode != 0o40700 or found.st_uid != os.geteuid():
            raise OSError(errno.EEXIST, 'somebody else has made it', self.folder)
        return True

    def _have(self, name, full):
        """
        Have the files of the distribution of a module here, and return None, or why they are not.

        :param str full: path of the module's file, below our folder.
        """
        with self._lock:
            self._busy = threading.get_ident()
            try:
                if self._is_made() and (name in self._taken or os.path.lexists('%s/%s' % (self.folder, full))):
                    return None
                if name not in self._refused:
                    self._take(name)
                return self._refused.get(name)
            except (ImportError, OSError) as e:
                return str(e)
            finally:
                self._busy = None

    def _take(self, name):
        """
        Fetch the distribution of a module.

        :raises OSError: its files cannot be written.
        :raises ImportError: it has not come.
        """
        import mitogen._freight
        if os.getpid() != self._pid:
            raise ImportError('the files of %r are not here, and this process has no parent to ask' % (name,))
        try:
            folder = mitogen._freight._receive(self._importer, name)
        except mitogen._freight.Refused as e:
            self._refused[name] = str(e)
            mitogen.core._importer_log.warning('the files of %r are not here: %s', name, e)
            return
        self._make_folder()
        _move(folder, self.folder)
        self._taken.add(name)

    def _make_folder(self):
        """
        Make our folder, unless it is there: a fork of this process may have made it.

        :raises OSError: it cannot be made, or somebody else has made it.
        """
        import mitogen._private_folder
        if not self._is_made():
            os.mkdir(self.folder, 0o700)
            mitogen._private_folder.keep(self.folder)

    def find(self, path):
        """
        Path hook: return the finder for a folder of ours.

        :raises ImportError: it is none.
        """
        if self._inside(path) is None:
            raise ImportError('not a promised folder: %r' % (path,))
        return _Finder(self, self._importer, path)


def _move(source, target):
    """
    Move all that is in a folder into another one, which may have some of it.
    """
    for name in os.listdir(source):
        old, new = os.path.join(source, name), os.path.join(target, name)
        if os.path.isdir(old) and os.path.isdir(new):
            _move(old, new)
        elif not os.path.lexists(new):
            try:
                os.rename(old, new)
            except OSError:
                # It is on another file system, since there was no room on this one.
                os.symlink(old, new)


class _Finder(object):
    """
    Finder for the ``__path__`` of a package whose files are promised. Its modules come from the
    parent all the same.
    """
    def __init__(self, promises, importer, path):
        self._promises = promises
        self._importer = importer
        self._path = path

    def find_spec(self, fullname, target=None):
        """
        Return the spec of a module of a package that goes by another name. For the right name the
        importer was asked.
        """
        return self._importer._find_alias(self._promises.at_parent(self._path), fullname)

    def iter_modules(self, prefix=''):
        """
        List what is inside, as :func:`pkgutil.iter_modules` does.
        """
        path = self._promises.at_parent(self._path)
        if self._importer._package_at(path):
            return iter([(prefix + name, is_package) for name, is_package in self._importer._list_modules(path)])
        import pkgutil
        from importlib.machinery import FileFinder, SourceFileLoader
        self._promises.look(self._path)
        return pkgutil.iter_importer_modules(FileFinder(self._path, (SourceFileLoader, ['.py'])), prefix)


class _Watched(object):
    """
    A function that looks at a path, in its place. It is no function, so that classes may have it as
    an attribute, as they may have a built-in one.
    """
    def __init__(self, func):
        self._func = func
        self.__doc__ = func.__doc__
        # Pickled by name.
        self.__name__ = self.__qualname__ = func.__name__
        self.__module__ = 'os'

    def __repr__(self):
        return repr(self._func)

    def __reduce__(self):
        return self.__name__

    def __call__(self, *args, **kwargs):
        _promises.look(args[0] if args else kwargs.get('path', kwargs.get('file')))
        return self._func(*args, **kwargs)


def _watch(names):
    """
    Put ourselves in the place of functions of :mod:`os`.
    """
    # pathlib of Python 3.10 and older keeps the functions.
    accessor = getattr(sys.modules.get('pathlib'), '_NormalAccessor', None)
    for name in names:
        func = getattr(os, name)
        watched = _Watched(func)
        setattr(os, name, watched)
        if hasattr(accessor, name):
            setattr(accessor, name, watched)
        for found in os.supports_dir_fd, os.supports_effective_ids, os.supports_fd, os.supports_follow_symlinks:
            if func in found:
                found.add(watched)


def _audit(event, args):
    """
    Audit hook.
    """
    if event in _EVENTS:
        _promises.look(args[0])
    elif event in _STARTS:
        for path in [args[0]] + list(args[1] if isinstance(args[1], (list, tuple)) else ()):
            _promises.look(path)


def _begin(importer):
    """
    Begin to watch for looks at promised paths.
    """
    global _promises
    _promises = importer._promises = _Promises(importer)
    sys.path_hooks.insert(0, _promises.find)
    _watch(_SILENT)
    if hasattr(sys, 'addaudithook'):
        sys.addaudithook(_audit)
    else:
        import builtins
        import io
        _watch(_OLD)
        builtins.open = io.open = _Watched(io.open)
    mitogen.core._fork_hooks.append(_promises.adopt)


# Two threads may import their first such modules.
_begin_lock = threading.Lock()


def _replace_lock():
    global _begin_lock
    _begin_lock = threading.Lock()


mitogen.core._fork_hooks.append(_replace_lock)


def _promise(importer, name, path):
    """
    Return the path that a module is told, of a distribution whose files are promised.

    :param str path: that the parent knows it by.
    """
    with _begin_lock:
        if _promises is None:
            _begin(importer)
    return _promises.add(name, path)
