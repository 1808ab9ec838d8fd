# SPDX-License-Identifier: BSD-3-Clause
"""
How the large modules are put together from parts.

A module such as :mod:`mitogen.core` is one text where it is installed and in a
child, and many files in a checkout: a part in the folder `_core` for each
noun. All parts share the module's namespace, as if they stood in one file, so
a name that a program replaces in `mitogen.core` is replaced for every part.

A part begins with imports that end in ``# house``. They say which names of
the parts below it a part uses. They are true when a checkout runs them, and a
linter or an editor follows them; :func:`join` leaves them out.

`setup.py` joins the parts when it builds. This module is not installed.
"""

from __future__ import absolute_import

import os
import sys

#: Module -> its parts, in the order in which they are run, and joined. A part
#: uses names of those before it only; tools/check_layers.py looks.
PARTS = {
    'core': [
        'base', 'seldom', 'pythons', 'handles', 'modules', 'core_source',
        'text', 'old_names', 'log', 'platform', 'errors', 'values',
        'authority', 'signals', 'descriptors', 'debug_log', 'profiling',
        'pickles', 'message', 'poller', 'latch', 'receiver', 'sender',
        'context', 'stream', 'delimited', 'link', 'router', 'waker', 'broker',
        'choice', 'pure_message', 'sleeper', 'pure_latch', 'pure_receiver',
        'pure_sender', 'channel', 'pure_context', 'writer', 'pure_link',
        'pure_router', 'pure_broker', 'references', 'io_logger', 'fetcher',
        'resources', 'importer', 'policy', 'log_handler', 'dispatcher',
        'child', 'fork',
    ],
    '_native': [
        'base', 'message', 'latch', 'receiver', 'sender', 'context',
        'identity', 'poller', 'router', 'link', 'events', 'broker', 'start',
    ],
    'parent': [
        'base', 'errors', 'terminal', 'argv', 'timers', 'pollers', 'sleeper',
        'core_texts', 'first_stage', 'process', 'popen', 'pty', 'reaper',
        'lines', 'handshake', 'options', 'failure', 'launch', 'connection',
        'calls', 'context', 'requests', 'routes', 'id_allocator', 'forwarder',
        'module_forwarder', 'resource_forwarder', 'router', 'upgrade', 'guard',
    ],
    'master': [
        'base', 'core_source', 'stdlib', 'loaders', 'source_files',
        'finder_methods', 'module_finder', 'server', 'module_responder',
        'resource_responder', 'log_forwarder', 'id_allocator',
        'thread_watcher', 'broker', 'router',
    ],
    'service': [
        'base', 'declarations', 'policies', 'invokers', 'activator', 'service',
        'pool', 'process_pool', 'file_common', 'push_file_service',
        'file_service',
    ],
}


def body(text):
    """Return the text of a part without its head, which ends with the last
    line that ends in ``# house``."""
    return text.rpartition('  # house\n')[2].strip('\n')


def part_path(path, part):
    """Return the file of a part of the module whose file is `path`."""
    if os.path.islink(path):
        # By an editable install of setuptools' strict kind.
        path = os.path.realpath(path)
    base, name = os.path.split(path)
    return os.path.join(base, '_' + name.partition('.')[0].strip('_'), part + '.py')


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
    name = os.path.basename(path).partition('.')[0]
    first, rest = PARTS[name][0], PARTS[name][1:]
    texts = [read(part_path(path, first), loader).strip('\n')]
    texts += [body(read(part_path(path, part), loader)) for part in rest]
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


def _code(name, path, loader):
    """Return the code of a part, from the interpreter's cache if it is there."""
    if sys.version_info > (3,) and os.path.exists(path):
        from _frozen_importlib_external import SourceFileLoader
        return SourceFileLoader(name, path).get_code(name)
    return compile(read(path, loader).encode('utf-8'), path, 'exec', 0, 1)


def furnish(names):
    """
    Run the parts of a module in its namespace.

    :param dict names: ``globals()`` of the module.
    """
    module = names['__name__'].rpartition('.')[2]
    path = names['__file__']
    if path[-4:] in ('.pyc', '.pyo'):
        path = path[:-1]
    inner = names.get('__loader__')
    for part in PARTS[module]:
        where = part_path(path, part)
        exec(_code('mitogen._%s.%s' % (module, part), where, inner), names)
        if part == PARTS[module][0]:
            # Each part has a docstring. That of the first is the module's.
            text = names['__doc__']
    names['__doc__'] = text
    names['__loader__'] = Loader(path, inner)
    if names.get('__spec__'):
        names['__spec__'].loader = names['__loader__']
