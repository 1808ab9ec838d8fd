# SPDX-License-Identifier: BSD-3-Clause
"""
Modules that came from the parent, for processes that :mod:`multiprocessing` starts by other means
than fork. These have no importer: they get the modules as files, in a private folder that is the
last entry of their path. A child fetches this module if it needs it.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import os
import sys
import threading
import types
import zlib

import mitogen.core
import mitogen._private_folder


# Guards what follows.
_lock = threading.Lock()
_folder = None
_written = set()    # names of modules in the folder


def _replace_lock():
    """
    In a child made by fork: the thread that may have held it is not there.
    """
    global _lock
    _lock = threading.Lock()


mitogen.core._fork_hooks.append(_replace_lock)


def _path_of(name, is_package, content):
    """
    Return the path of a module's file, below the folder.
    """
    parts = name.split('.') + (['__init__'] if is_package else [])
    return os.path.join(*parts) + ('.pyc' if b'\0' in content[:9] else '.py')


def _write(path, content):
    """
    Have a whole file or none, since others may look already.
    """
    if not os.path.isdir(os.path.dirname(path)):
        os.makedirs(os.path.dirname(path), 0o700)
    with open(path + '~', 'wb') as fp:
        fp.write(content)
    os.rename(path + '~', path)


def _write_new(importer, folder):
    """
    Write the modules that have come and are not in the folder yet.
    """
    for name, entry in list(importer._cache.items()):
        present, path, content = entry[1:4]
        if path is None or name in _written or name == 'mitogen.core':
            continue
        content = zlib.decompress(bytes(content))
        # Those of distributions that came whole are files already.
        if not content.startswith(b'import mitogen._freight\n'):
            if path.endswith('/'):
                path = os.path.join(folder, *name.split('.'))
                if not os.path.isdir(path):
                    os.makedirs(path, 0o700)
            else:
                _write(os.path.join(folder, _path_of(name, present is not None, content)), content)
        _written.add(name)


def _get_folder(importer):
    """
    Return the folder with all modules that have come.

    :raises OSError: they cannot be written.
    """
    global _folder
    with _lock:
        if _folder is None:
            size = sum(len(entry[3] or ()) for entry in list(importer._cache.values()))
            with mitogen._private_folder.new_folder(8 * size) as _folder:
                pass
        _write_new(importer, _folder)
        return _folder


def _prepare(importer, prepare, name):
    """
    Return what a new process is told.

    :param prepare: the function of :mod:`multiprocessing` that makes it.
    """
    # Looked up by name: a child has no such module before it has come from the
    # master.
    stand_in = types.ModuleType('__main__')
    stand_in.__spec__ = None
    main = sys.modules.setdefault('__main__', stand_in)
    try:
        data = prepare(name)
    finally:
        if main is stand_in:
            del sys.modules['__main__']
    data.pop('init_main_from_name', None)
    folder = _get_folder(importer)
    data['sys_path'] = list(data.get('sys_path', sys.path)) + [folder]
    if main is not stand_in:
        data['init_main_from_path'] = os.path.join(folder, '__main__.py')
    return data
