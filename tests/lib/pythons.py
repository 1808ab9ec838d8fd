"""
The other interpreters of this machine, for tests of what must run on all of them.
"""

import glob
import os
import shutil
import subprocess
import sys

import pytest

NAMES = ['python2.7'] + ['python3.%d' % minor for minor in range(6, 16)]

#: The one that runs the tests, for which the extension is built.
OWN = 'python%d.%d' % sys.version_info[:2]

_found = {}


def _candidates(name):
    root = os.environ.get('PYENV_ROOT', os.path.expanduser('~/.pyenv'))
    for path in sorted(glob.glob(os.path.join(root, 'versions', '*', 'bin', name))):
        yield path
    path = shutil.which(name)
    if path:
        yield path


def _find(name):
    program = ('import sys; pypy = hasattr(sys, "pypy_version_info"); '
               'print(("pypy%d" if pypy else "python%d.%d") % sys.version_info[:1 if pypy else 2])')
    for path in _candidates(name):
        try:
            out = subprocess.check_output([path, '-c', program], stderr=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError):
            continue
        if out.decode().strip() == name:
            return path
    return None


def is_here(name):
    if name not in _found:
        _found[name] = _find(name)
    return _found[name] is not None


def find_python(name):
    """
    Return the path of an interpreter such as ``python3.8``; skip the test if there is none.
    """
    if not is_here(name):
        pytest.skip('there is no %s here' % (name,))
    return _found[name]


def keep_bytecode(env, path):
    """
    Let an interpreter keep what it compiles, though the one that runs the tests may be told not to:
    each process of it would compile the package anew. Python 2 leaves it beside the sources, and is
    told nothing else.
    """
    if 'python2' not in os.path.basename(os.path.realpath(path)):
        env.pop('PYTHONDONTWRITEBYTECODE', None)
