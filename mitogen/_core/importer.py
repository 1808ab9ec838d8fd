# SPDX-License-Identifier: BSD-3-Clause
"""
Importer: modules that are not there come from the parent.
"""

from __future__ import absolute_import  # house

import os  # house
import sys  # house
from _codecs import utf_8_encode  # house

import mitogen  # house
from mitogen.core import _complete, _Fetcher, _importer_log, _module, _REDUCED, _SELDOM, _seldom, GET_MODULE  # house
from mitogen.core import import_module, LazyLogger, LOAD_MODULE, Message, PY3  # house
from mitogen.core import ResourceReader, ResourceRequester, _SOURCE_RESOURCE, thread, to_text  # house

if not PY3:  # house
    import imp  # house


@_seldom
def _checked(entry):
    """Return the tuple that tells of a module.

    :raises ValueError: it is something else."""
    name, present, path, content, needs = entry
    texts = [name] + [text for text in (path,) if text is not None] + list(present or ()) + list(needs)
    if not all(isinstance(text, (bytes, type(u''))) for text in texts) or \
            path is not None and not isinstance(content, bytes):
        raise ValueError('no description of a module')
    return entry


class Importer(_Fetcher):
    """
    Import what is not there from the parent. Entry of `sys.meta_path`.

    :param context: where requests go.
    :param bytes core_src: source of this module, to be shown and passed on.
    :param ImportPolicy policy:
    """
    #: Modules that are useless, or harmful, in another interpreter.
    ALWAYS_BLACKLIST = ['builtins', '__builtin__', 'msvcrt', 'thread',
                        'nt', '_winapi', 'org'] + ['cStringIO'] * PY3
    # False in a child whose parent does not know which modules are here.
    _told = True
    _handle = LOAD_MODULE
    if _SELDOM:
        absent_msg = (
            'the parent is unable to serve %r: it is missing there too, or is a '
            'native extension; see the debug log of the master')
        _lost_msg = 'the parent was lost before it could serve %r'
        _damaged_msg = 'the parent was asked for %r, and has sent something that cannot be read: %s'
        #: Why that is so, as far as it is known.
        _damage = 'see the log'
        #: Sub-modules of `mitogen` that may be asked for; an import of another
        #: one fails without a request.
        MITOGEN_PKG_CONTENT = [
            '_buffers', '_console', '_distributions', '_facts', '_files', '_folders', '_freight', '_kept_archives',
            '_links', '_private_folder', '_processes', '_promises', '_running', '_spawning', '_tasks', '_tree', '_typed',
            '_values', 'aio', 'ansible', 'buildah', 'compat', 'core', 'debug', 'doas', 'docker',
            'fakessh', 'fork', 'imports', 'incus', 'jail', 'kubectl', 'limits', 'lxc', 'lxd',
            'master', 'minify', 'os_fork', 'otel', 'parent', 'podman', 'profiler', 'prometheus',
            'select', 'service', 'setns', 'srun', 'ssh', 'su', 'sudo', 'unix', 'utils', 'values',
        ]
        pkg_resources_msg = (
            'pkg_resources may not import __main__ here: that would fetch, and '
            'run, the main program')

    if _REDUCED:
        @staticmethod
        def _loader():
            """Fetch the part of this text that was not sent: `_load_late` of
            the importer, once there is one."""
            return False

        _late_lock = thread.allocate_lock()

    def __init__(self, router, context, core_src, policy):
        _Fetcher.__init__(self, router, context)
        self.policy = policy
        #: Package -> names of its sub-modules, but for `mitogen`.
        self._present = {}
        # True while other finders are asked on this thread.
        self._asking = thread._local()
        self._router = router
        if _REDUCED:
            Importer._loader = self._load_late
        self._resource_requester = ResourceRequester(router, context)
        self._core_source = core_src
        if not _REDUCED and core_src:
            self._keep_core()

    @_seldom
    def __repr__(self):
        return 'Importer'

    @_seldom
    def _adopt(self, router, parent):
        """Serve a fork of our process: our knowledge of modules is still true,
        but nobody will answer our pending requests."""
        self._forked()
        vars(self).pop('_tell_unused', None)
        self._router = router
        self._context = parent
        self._install_handler(router)
        self._resource_requester = ResourceRequester(router, parent)

    @_seldom
    def _keep_core(self):
        """Keep the text of this module for children, and for a program that
        looks at it."""
        import zlib
        # Not compressed: that takes longer than it could ever save.
        self._cache['mitogen.core'] = (
            'mitogen.core', None, 'x/mitogen/core.py',
            zlib.compress(self._core_source, 0), [])

    # A name of upstream.
    if _SELDOM:
        def _on_load_module(self, msg):
            self._take(msg)

    @_seldom
    def _read(self, msg):
        """Take what the parent has sent about modules. If that cannot be read,
        all imports that wait fail, and later ones ask again."""
        try:
            tup = msg.unpickle()
            if tup[0]:
                name, _, path, why, _ = _checked(tup)
                if path is None and why:
                    self._fail(to_text(name), to_text(why))
                else:
                    self._answer(name, tup)
            else:
                self._read_many(*msg.unpickle_iter())
        except Exception:
            e = sys.exc_info()[1]
            self._damage = '%s: %s' % (type(e).__name__, e)
            _importer_log.error('the parent has sent modules that cannot be read: %s', self._damage)
            # Else the parent might believe that they are on their way.
            self._report(u'!')
            with self._lock:
                self._held = []
            self._abandon(self._context)
            self._on_last_module()

    @_seldom
    def _fail(self, fullname, why):
        """Wake the threads that wait for a module that the parent cannot have
        now. It may be asked for again. Broker thread."""
        vars(self).setdefault('_reasons', {})[fullname] = why
        with self._lock:
            waiting = self._callbacks.pop(fullname, ())
        for callback in waiting:
            callback()

    @_seldom
    def _why_not(self, fullname):
        """Return the exception for a module about which there was no answer."""
        if self._context is None:
            return ModuleNotFoundError(self._lost_msg % (fullname,))
        return ImportError(
            vars(self).get('_reasons', {}).get(fullname) or self._damaged_msg % (fullname, self._damage))

    @_seldom
    def _read_many(self, head, data):
        """Take modules that the parent sends of its own accord. As long as it
        says that there are more, nothing is asked for."""
        _, more, entries = head
        def tell_unused():
            # The broker thread, between two answers and as it ends.
            used = set(vars(self).get('_used_below', ()))
            used.update(self._present, ['mitogen.core'])
            self._report(u'-' + u' '.join([
                name for name, entry in list(self._cache.items())
                if entry[2] is not None and name not in used]))

        if '_tell_unused' not in vars(self):
            self._tell_unused = tell_unused
            mitogen.core.listen(self._router.broker, 'shutdown', tell_unused)
        elif self._held is None:
            tell_unused()
        self._report(u'+')
        with self._lock:
            if self._held is None:
                self._held = []
        start = 0
        for name, present, path, needs, size in entries:
            _importer_log.debug('received %r', name)
            content = None if path is None else data[start:start + size]
            self._answer(name, _checked((name, present, path, content, needs)))
            start += size
        if not more:
            self._on_last_module()

    @_seldom
    def _report(self, text):
        """Tell a parent that sends several modules at a time what became of
        them. Any thread."""
        if PY3 and self._told and self._context:
            # The handle is HAVE_MODULES.
            self._context.send(Message(data=utf_8_encode(text)[0], handle=114))

    @_seldom
    def _on_last_module(self):
        """The parent sends no more of its own accord. Broker thread."""
        with self._lock:
            held, self._held = self._held, None
        # Modules that were wanted meanwhile and have not come.
        for msg in [make_msg() for make_msg in held or ()]:
            if to_text(msg.data) not in self._cache and self._context:
                self._context.send(msg)
        for func in vars(self).pop('_waiting', ()):
            func()

    def _tell(self):
        """Tell the parent what it need not send: names on our path. If several
        threads import first at the same time, each tells, as each asks
        next."""
        names = [sys.version]
        for path in sys.path:
            try:
                names += os.listdir(path)
            except OSError:
                pass
        # There is no answer. The handle is HAVE_MODULES: its name would be sent
        # to each child.
        self._request(-thread.get_ident(), int, lambda: Message(
            data=ascii(names).encode(), handle=114))
        self._told = True

    def _look_ahead(self, fullname):
        """Ask for the module for which this one, a package, is imported."""
        if fullname not in self._cache:
            self._told or self._tell()
            frame = sys._getframe(3)
            while frame.f_code.co_filename[:8] == '<frozen ':
                fullname = frame.f_locals.get('name', fullname)
                frame = frame.f_back
            self._request_module(fullname, int)

    def _request_module(self, fullname, callback):
        """Call `callback()` when `_cache` has the module: now, or on the
        broker thread. Any thread."""
        self._request(fullname, callback, lambda: Message(
            data=utf_8_encode(fullname)[0], handle=GET_MODULE))

    def _refuse_imports(self, fullname):
        self.policy.denied_raise(fullname)
        if fullname == 'pbr' or (fullname == '__main__' and
                                 'pkg_resources' in sys.modules):
            self._refuse_special(fullname)

    @_seldom
    def _refuse_special(self, fullname):
        if fullname == '__main__':
            frame = sys._getframe(1)
            while frame and frame.f_globals.get('__name__') in (
                    __name__, 'importlib', 'importlib._bootstrap'):
                frame = frame.f_back
            if frame and frame.f_globals.get('__name__') == 'pkg_resources':
                raise ModuleNotFoundError(self.pkg_resources_msg)
        if fullname == 'pbr':
            # It looks for the version in package metadata, which a module
            # without a file does not have.
            os.environ['PBR_VERSION'] = '0.0.0'

    def _fetch(self, fullname):
        """Wait until the parent has told of a module."""
        self._refuse_imports(fullname)
        self._look_ahead(fullname)
        self._get(self._request_module, fullname)
        self._note_present(fullname)

    @_seldom
    def _note_present(self, fullname):
        """Note what is inside a module of which the parent has told.

        :raises ImportError: there is no such module, or no answer."""
        if self.get_filename(fullname) is None:
            raise self._why_not(fullname)
        self._present[fullname] = self._cache[fullname][1] or ()

    @_seldom
    def _execute(self, module, fullname):
        path = self.get_filename(fullname)
        try:
            code = self._read_content(fullname, path)
        except SyntaxError:
            _importer_log.exception('while importing %r', fullname)
            raise
        exec(code, module.__dict__)
        if fullname == 'logging' and LazyLogger.sink:
            LazyLogger.sink.install()

    @_seldom
    def _read_content(self, fullname, path):
        """Return the code of a module.

        :raises ImportError: the parent has sent something else. The next
            import asks again."""
        import zlib
        try:
            source = zlib.decompress(self._cache[fullname][3])
            if b'\0' in source[:9]:
                return self._read_code(fullname, source, path)
        except (EOFError, TypeError, ValueError, zlib.error):
            e = sys.exc_info()[1]
            self._cache.pop(fullname, None)
            self._present.pop(fullname, None)
            # Else the next request might be taken for one that is being answered.
            self._report(u'!')
            raise ImportError(self._damaged_msg % (fullname, e))
        return compile(source, path, 'exec', 0, 1)

    @_seldom
    def _read_code(self, fullname, data, path):
        """Return the code of a module whose parent has sent bytecode, as a
        file would have it: a head of 16 bytes, then what marshal writes."""
        import _imp
        import marshal
        from _frozen_importlib_external import MAGIC_NUMBER
        if data[:4] != MAGIC_NUMBER:
            return compile(self.get_source(fullname), path, 'exec', 0, 1)
        code = marshal.loads(memoryview(data)[16:])
        _imp._fix_co_filename(code, path)
        return code

    def _decide(self, fullname):
        """Return None for "not from here", False for "only if nobody else has
        it", True for "from here"."""
        if getattr(self._asking, 'on', False) or fullname[-1:] == '.':
            return None
        if thread.get_ident() == self._router.broker._ident:
            # It would wait for itself.
            return None
        pkgname, _, suffix = fullname.rpartition('.')
        if pkgname:
            if suffix not in (
                    self._present.get(pkgname, ()) if pkgname != 'mitogen'
                    else self.MITOGEN_PKG_CONTENT):
                return None
            pkg = sys.modules.get(pkgname)
            # Not a package of that name on our disk, unless half of it is here.
            if getattr(pkg, '__loader__', self) not in (self, None) and \
                    getattr(pkg, '__file__', None):
                return None
        return fullname == '__main__' or self.policy.overriden(fullname)

    def _ask_others(self, method, *args):
        before = getattr(self._asking, 'on', False)
        self._asking.on = True
        try:
            for finder in sys.meta_path:
                func = getattr(finder, method, None)
                found = finder is not self and func and func(*args)
                if found:
                    return found
        finally:
            self._asking.on = before

    def find_spec(self, fullname, path, target=None):
        """Finder protocol of Python 3."""
        from _frozen_importlib import ModuleSpec
        mine = self._decide(fullname)
        # Also if it is not imported through this finder.
        hook = (fullname == 'logging' and LazyLogger.sink or
                fullname == 'multiprocessing.spawn') and _complete()
        spec = None
        if not mine and (hook or mine is not None):
            spec = self._ask_others('find_spec', fullname, path, target)
            if spec and hook:
                spec.loader = _HookLoader(spec.loader, self)
            # Without a loader it is a mere folder, which gives way to a module.
            if spec and spec.loader:
                return spec
        if mine is None:
            return None
        spec = ModuleSpec(fullname, self, loader_state=spec)
        # An import holds a lock now, and waits in `create_module`.
        return self._know(spec) if fullname in self._present or \
            sys._getframe(2).f_code.co_name == 'find_spec' else spec

    def create_module(self, spec):
        """Loader protocol of Python 3. Waits for the source."""
        try:
            self._fetch(spec.name)
        except ImportError:
            if not vars(spec).get('loader_state'):
                raise
        self._fill(spec)

    def exec_module(self, module):
        """Run the source of a module. The thread that imports."""
        self._execute(module, module.__spec__.name)

    @_seldom
    def _fill(self, spec):
        """Complete the spec of a module of which the parent has told. If it
        has nothing better than a folder that is here, too, the module is made
        from that one, and the parent's is a part of it."""
        self._settle()
        path, local = self._path_of(spec.name), spec.loader_state
        spec.loader_state = None
        if 'mitogen._promises' in self._cache[spec.name][4] and path:
            path = import_module('mitogen._promises')._promise(self, spec.name, path)
        if path and path[-1:] != '/':
            spec.origin, spec.has_location = path, True
        if local and spec.origin is None:
            self._join(spec, local.submodule_search_locations, path)
        elif self._cache[spec.name][1] is not None:
            spec.submodule_search_locations = [os.path.dirname(path)]

    @_seldom
    def _join(self, spec, folders, path):
        """Make the spec that of a package of which some folders are here, and
        perhaps one is the parent's."""
        import _frozen_importlib_external as external
        kind = getattr(external, 'NamespaceLoader', None) or \
            external._NamespaceLoader
        if path:
            kind = type('NamespaceLoader', (kind,), {
                'get_resource_reader': lambda _, fullname: import_module('mitogen._folders')._Joined(
                    folders, self.get_resource_reader(fullname))})
        # Namespace paths have no constructor before Python 3.11.
        spec.loader = kind.__new__(kind)
        spec.loader._path = spec.submodule_search_locations = folders
        if path:
            spec.submodule_search_locations = \
                list(folders) + [os.path.dirname(path)]

    @_seldom
    def _path_of(self, fullname):
        """Return the name of a module's file, which ends in a slash if it is
        only a folder; None if the parent has none."""
        try:
            return self.get_filename(fullname)
        except ImportError:
            return None

    @_seldom
    def _know(self, spec):
        """Return the whole spec of a module that is not imported yet, None if
        there is no such module. Others may import meanwhile: the broker thread
        could not bring the answer otherwise."""
        import _imp
        held = 0
        try:
            while True:
                _imp.release_lock()
                held += 1
        except RuntimeError:
            # It had been replaced meanwhile.
            pass
        try:
            self.create_module(spec)
            return spec
        except ModuleNotFoundError:
            _importer_log.debug('there is no %r', spec.name, exc_info=True)
        finally:
            for _ in range(held):
                _imp.acquire_lock()

    if not PY3:
        def find_module(self, fullname, path=None):
            """Finder protocol of Python 2."""
            mine = self._decide(fullname)
            if mine is None:
                return None
            if not mine and self.builtin_find_module(fullname, path):
                return None
            _importer_log.debug('will ask for %r', fullname)
            return self

        def builtin_find_module(self, fullname, path=None):
            """Tell whether Python finds a module without us."""
            if self._ask_others('find_module', fullname, path):
                return True
            if path is None:
                # Zip files and the like.
                for entry in sys.path:
                    finder = sys.path_importer_cache.get(entry)
                    if finder and finder.find_module(fullname):
                        return True
            try:
                fp, _, _ = imp.find_module(fullname.rpartition('.')[2], path)
            except ImportError:
                return False
            if fp:
                fp.close()
            return True

        def load_module(self, fullname):
            """Loader protocol of Python 2. Waits for the source."""
            fullname = str(fullname)
            self._fetch(fullname)
            self._settle()
            path = self.get_filename(fullname)
            module = sys.modules.setdefault(fullname,
                                            imp.new_module(fullname))
            module.__file__ = path
            module.__loader__ = self
            module.__package__ = fullname.rpartition('.')[0] or None
            if self._cache[fullname][1] is not None:
                module.__path__ = [os.path.dirname(path)]
                module.__package__ = fullname
            try:
                self._execute(module, fullname)
            except:
                sys.modules.pop(fullname, None)
                raise
            # Not `module`: it may have replaced itself in sys.modules.
            return sys.modules[fullname]

    if _REDUCED:
        def _load_late(self):
            """Run the part of this text that was not sent, and return whether
            it could be had."""
            key = 'mitogen', 'core.late'
            requester = self._resource_requester
            if thread.get_ident() != self._router.broker._ident:
                requester._get_resource(*key)
            source = requester._cache.get(key)
            if source:
                import zlib
                with self._late_lock:
                    if mitogen.core._LATE:
                        exec(zlib.decompress(source), globals())
                        self._keep_core()
            return source

    def get_filename(self, fullname):
        """Return the name of a module's file, or None if nothing is known
        about the module."""
        if fullname not in self._cache:
            return None
        path = self._cache[fullname][2]
        if path is None:
            raise ModuleNotFoundError(self.absent_msg % (fullname,))
        path = to_text(path)
        if not PY3:
            path = path.encode('utf-8')
        return 'master:' + path

    @_seldom
    def get_source(self, fullname):
        """Return a module's source as `str`, or None if nothing is known."""
        if self.get_filename(fullname):
            # For example, the broker thread shows an error.
            source = _module('zlib').decompress(self._cache[fullname][3])
            if b'\0' in source[:9]:
                if thread.get_ident() == self._router.broker._ident:
                    # It would wait for itself.
                    return
                source = self._resource_requester._get_resource(
                    fullname, _SOURCE_RESOURCE)
            if PY3 and source is not None:
                from importlib.util import decode_source
                source = decode_source(source)
            return source

    @_seldom
    def find_distributions(self, context=None):
        """Yield the distributions that the parent has and this process lacks,
        for `importlib.metadata`."""
        return import_module('mitogen._distributions')._find(self, context)

    @_seldom
    def get_resource_reader(self, fullname):
        """Return the :class:`ResourceReader` of a package."""
        return ResourceReader(self._resource_requester, fullname)


@_seldom
class _HookLoader(object):
    """Load a module with its own loader, then change it before anybody can
    use it: `logging` gets the child's log handler, and processes that
    `multiprocessing.spawn` starts get modules that came from the parent."""

    def __init__(self, loader, importer):
        self._loader = loader
        self._importer = importer

    def create_module(self, spec):
        pass

    def exec_module(self, module):
        loader, name = self._loader, module.__name__
        module.__loader__ = module.__spec__.loader = loader
        # Before Python 3.10 there is no `exec_module` for zip files.
        getattr(loader, 'exec_module',
                lambda _module: loader.load_module(name))(module)
        if name != 'logging':
            self._hook_spawn(sys.modules[name])
        elif LazyLogger.sink:
            LazyLogger.sink.install()

    def _hook_spawn(self, spawn):
        prepare = spawn.get_preparation_data
        spawn.get_preparation_data = lambda name: import_module(
            'mitogen._spawning')._prepare(self._importer, prepare, name)
