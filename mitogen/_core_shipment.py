# SPDX-License-Identifier: BSD-3-Clause
"""
The package itself, with its compiled core, for a target that lacks it: a child that lives long, or
is called often, gains more by that core than it takes to send it. The child unpacks all files into
a private folder, and starts from there as if they had been installed. The folder is gone when its
last process is.

If the extension cannot be loaded over there, the pure core of the same files runs.
"""

from __future__ import absolute_import

import os
import sys
import threading

import mitogen
import mitogen.parent

#: The compression of the whole. The broker's thread waits for it, once.
LEVEL = 1

#: Parts of the package that no child imports.
_ABSENT = ('_cli', '_core_texts.py', '_tree', 'aio.py', 'ansible', 'command.py')

#: Modules that each child imports as it starts, so that it gets their bytecode, too.
_FIRST = ('__init__', '_native', '_private_folder', 'core')

#: Stands before the files, and ends with an empty line. It runs in the namespace of the first
#: stage, where `d` is the whole text. The last file has no name, and is the configuration. Where it
#: is possible, the folder is in memory.
_UNPACK = b'''
import shutil,tempfile
t=[p for p in('/dev/shm',tempfile.gettempdir(),'/var/tmp')if os.access(p,3)and not os.statvfs(p).f_flag&8]
t=tempfile.mkdtemp(prefix='mitogen-freight-',dir=t and t[0]or None)
try:
 e=d.index(b'\\n\\n')+1
 while 1:
  i=e+1
  e=d.index(b'\\n',i)
  n,s,m=d[i:e].decode().split('\\t')
  i=e+1
  e=i+int(s)
  if not n:break
  n=os.path.join(t,n)
  if not os.path.isdir(os.path.dirname(n)):os.makedirs(os.path.dirname(n))
  with open(n,'wb')as h:h.write(d[i:e])
  os.utime(n,(int(m),int(m)))
except:
 shutil.rmtree(t,1)
 raise
[sys.modules.pop(s)for s in list(sys.modules)if s.split('.')[0]=='mitogen']
sys.path.insert(0,t)
import mitogen.core,mitogen._private_folder
sys.path.append(sys.path.pop(0))
mitogen._private_folder.keep(t)
mitogen.core.ExternalContext(eval(d[i:e])).main()
'''.lstrip() + b'\n'


# Guards the next name.
_lock = threading.Lock()
_partial = None     # PartialZlib, False if there is nothing to send


def _replace_lock():
    global _lock
    _lock = threading.Lock()


mitogen.core._fork_hooks.append(_replace_lock)


def _find_paths(folder):
    """
    Yield the paths of the files that travel, relative to the folder that the package is installed
    in.
    """
    import importlib.util
    for base, folders, names in os.walk(os.path.join(folder, 'mitogen')):
        within = os.path.relpath(base, folder)
        if within == 'mitogen':
            folders[:] = [name for name in folders if name not in _ABSENT]
        folders[:] = [name for name in folders if name != '__pycache__']
        for name in sorted(names):
            if name.endswith('.py') and not (within == 'mitogen' and name in _ABSENT):
                yield os.path.join(within, name)
    for name in _FIRST:
        source = os.path.join(folder, 'mitogen', name + '.py')
        cached = importlib.util.cache_from_source(source)
        if os.path.exists(cached):
            yield os.path.relpath(cached, folder)
    for name in sorted(os.listdir(folder)):
        if name.startswith('_mitogen_core.') and name.endswith('.so'):
            yield name
        elif name == 'mitogen.libs':
            for inner in sorted(os.listdir(os.path.join(folder, name))):
                yield os.path.join(name, inner)


def _entry(path, content, moment):
    return b'%s\t%d\t%d\n%s\n' % (path.encode('utf-8'), len(content), moment, content)


def _make():
    """
    Return the text without its last file; False if this process has no extension, or runs in a
    checkout.
    """
    folder = os.path.dirname(os.path.dirname(os.path.abspath(mitogen.__file__)))
    paths = list(_find_paths(folder))
    if not any('_mitogen_core.' in path for path in paths) or os.path.join('mitogen', '_house.py') in paths:
        return False
    text = _UNPACK
    for path in paths:
        with open(os.path.join(folder, path), 'rb') as fp:
            text += _entry(path, fp.read(), int(os.fstat(fp.fileno()).st_mtime))
    return mitogen.parent.PartialZlib(text, LEVEL)


def preamble(python, config):
    """
    Return the bytes that start a child, :data:`None` if it could not use our extension. Any thread.

    :param int python: the child's :data:`sys.hexversion`.
    :param bytes config: its configuration, as an expression.
    """
    global _partial
    if python >> 16 != sys.hexversion >> 16:
        return None
    with _lock:
        if _partial is None:
            _partial = _make()
        return _partial.append(_entry('', config, 0)) if _partial else None
