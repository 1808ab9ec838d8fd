# SPDX-License-Identifier: BSD-3-Clause
"""
How the large modules are put together from parts.

A module such as :mod:`mitogen.core` is one text where it is installed and in a
child, and many files in a checkout: a part in the folder `_core` for each
class or subject. All parts share the module's namespace, as if they stood in one file, so
a name that a program replaces in `mitogen.core` is replaced for every part.

A part begins with imports that end in ``# house``. They say which names of
the parts below it a part uses. A linter or an editor follows them, and
tools/check_layers.py looks whether they are true. Neither the joined text nor
a checkout runs them.

`setup.py` joins the parts when it builds. This module is not installed.
"""

from __future__ import absolute_import

import marshal
import os
import sys

#: Module -> its parts, in the order in which they are run, and joined. A part
#: uses names of those before it only; tools/check_layers.py looks.
PARTS = {
    'core': [
        'base', 'seldom', 'pythons', 'handles', 'modules', 'core_source',
        'text', 'printable', 'old_names', 'log', 'platform', 'causes',
        'errors', 'values', 'authority', 'signals', 'descriptors', 'own_files', 'debug_log',
        'profiling', 'pickles', 'message', 'poller', 'latch', 'receiver',
        'sender', 'context', 'stream', 'delimited', 'link', 'lost_ids', 'router',
        'waker', 'broker', 'choice', 'pure_message', 'sleeper', 'pure_latch',
        'pure_receiver', 'pure_sender', 'channel', 'pure_context', 'writer',
        'pure_link', 'pure_router', 'pure_broker', 'references',
        'io_logger', 'fetcher', 'resources', 'importer', 'loader', 'entries', 'policy', 'log_handler',
        'dispatcher', 'child', 'fork', 'limits',
    ],
    '_native': [
        'base', 'message', 'latch', 'receiver', 'sender', 'context',
        'identity', 'poller', 'router', 'link', 'events', 'broker', 'start',
    ],
    'parent': [
        'base', 'errors', 'tracebacks', 'nonce', 'terminal', 'argv', 'timers',
        'pollers', 'sleeper', 'shipping', 'core_texts', 'first_stage', 'process', 'popen', 'pty',
        'reaper', 'lines', 'child_stream', 'handshake', 'options', 'failure', 'launch',
        'connection', 'belonging', 'unsendable', 'lent', 'calls', 'context', 'losses', 'room', 'requests',
        'grants', 'routes', 'id_allocator', 'announcement', 'forwarder', 'module_forwarder',
        'resource_forwarder', 'router', 'upgrade', 'keys', 'depth', 'guard',
        'broken_pipe',
    ],
    'master': [
        'base', 'swallowed', 'core_source', 'stdlib', 'source_files', 'file_cache', 'portions', 'loaders',
        'by_source', 'finder_methods', 'module_finder', 'bytecode', 'closure',
        'platform_tags', 'distribution_files', 'installed', 'archive', 'freight',
        'parcels', 'shipments', 'distance', 'push', 'server', 'main_guard', 'main_imports', 'module_responder',
        'kept_texts', 'folder_lists', 'distributions', 'resource_responder', 'log_rate', 'log_forwarder', 'id_allocator',
        'thread_watcher', 'broker', 'router',
    ],
    'service': [
        'base', 'declarations', 'policies', 'hurry', 'tally', 'coming_calls', 'calls',
        'request', 'invokers', 'activator', 'admission', 'service', 'pool', 'process_pool',
        'file_common', 'below', 'offered_files', 'transfer', 'file_stream_state',
        'push_file_service', 'file_service',
    ],
    'debug': [
        'base', 'interrupts', 'routers', 'stacks', 'terminal', 'statistics',
        'waits', 'description', 'dump', 'periodic',
    ],
    'fakessh': [
        'base', 'endpoint', 'arguments', 'destination', 'ssh', 'program', 'run',
    ],
    'unix': ['base', 'socket_path', 'peer_user', 'handshake', 'teller', 'listener', 'client'],
}


def divide(text):
    """Return the head of a part, which ends with the last line that ends in
    ``# house``, and its body."""
    head, end, rest = text.rpartition('  # house\n')
    return head + end, rest


def part_paths(path):
    """Return the files of the parts of the module whose file is `path`."""
    if os.path.islink(path):
        # By an editable install of setuptools' strict kind.
        path = os.path.realpath(path)
    base, name = os.path.split(path)
    module = name.partition('.')[0]
    folder = os.path.join(base, '_' + module.strip('_'))
    return [os.path.join(folder, part + '.py') for part in PARTS[module]]


def read(path, loader=None):
    """Return the text of a file; `loader` also knows of those in an archive."""
    if hasattr(loader, 'get_data'):
        return loader.get_data(path).decode('utf-8')
    with open(path, 'rb') as fp:
        return fp.read().decode('utf-8')


def join(path, loader=None):
    """
    Return the text of the module whose file is `path` as one: the first part
    as it is, then the bodies of the others.
    """
    texts = [divide(read(part, loader))[1].strip('\n') for part in part_paths(path)]
    return '\n\n\n'.join(texts) + '\n'


class Loader(object):
    """
    The loader of a module in parts. Its source is the joined text: that is
    what children are sent.
    """
    def __init__(self, path, inner):
        self._path = path
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def get_data(self, path):
        if path == self._path:
            return self.get_source().encode('utf-8')
        return self._inner.get_data(path)

    def get_filename(self, _fullname=None):
        return self._path

    def get_source(self, _fullname=None):
        return join(self._path, self._inner)

    def is_package(self, _fullname=None):
        return False


def _compile(path, loader):
    """Return the code of a part. Lines have the numbers that they have in its
    file."""
    head, rest = divide(read(path, loader))
    text = '\n' * head.count('\n') + rest
    return compile(text.encode('utf-8'), path, 'exec',
                   absolute_import.compiler_flag, True)


class Cache(object):
    """
    The compiled parts of a module, in one file beside the module's own
    bytecode. It holds as long as no part is moved or changed. Where there is
    none, or none can be written, the parts are compiled.

    :param str path: of the module.
    :param list paths: of its parts.
    """
    def __init__(self, path, paths):
        from _frozen_importlib_external import cache_from_source, MAGIC_NUMBER
        self._path = cache_from_source(path[:-3] + '.parts.py')
        # Before a part is read: it may change meanwhile.
        found = [(part, stat.st_mtime_ns, stat.st_size)
                 for part, stat in zip(paths, map(os.stat, paths))]
        self._key = MAGIC_NUMBER + repr(found).encode('utf-8') + b'\n'

    def load(self):
        """Return the list of code objects, or None."""
        try:
            with open(self._path, 'rb', 0) as fp:
                data = fp.read()
            if data.startswith(self._key):
                return marshal.loads(memoryview(data)[len(self._key):])
        except (EOFError, OSError, TypeError, ValueError):
            pass

    def store(self, codes):
        """Write the file at once or not at all."""
        from _frozen_importlib_external import SourceFileLoader
        if not sys.dont_write_bytecode:
            loader = SourceFileLoader('', self._path)
            loader.set_data(self._path, self._key + marshal.dumps(codes))


def _codes(path, loader):
    """Return the code objects of the parts of a module."""
    paths = part_paths(path)
    try:
        cache = Cache(path, paths)
    except (ImportError, NotImplementedError, OSError):
        # On Python 2, where nothing is cached, and in an archive.
        return [_compile(part, loader) for part in paths]
    codes = cache.load()
    if codes is None:
        codes = [_compile(part, loader) for part in paths]
        cache.store(codes)
    return codes


def furnish(names):
    """
    Run the parts of a module in its namespace.

    :param dict names: ``globals()`` of the module.
    """
    path = names['__file__']
    if path[-4:] in ('.pyc', '.pyo'):
        path = path[:-1]
    inner = names.get('__loader__')
    for code in _codes(path, inner):
        exec(code, names)
    names['__loader__'] = Loader(path, inner)
    if names.get('__spec__'):
        names['__spec__'].loader = names['__loader__']
