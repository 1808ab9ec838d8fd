# SPDX-License-Identifier: BSD-3-Clause
"""
Peculiarities of the system and the interpreter that this runs on.
"""

from __future__ import absolute_import  # house

import os  # house
import sys  # house

from mitogen.core import _SELDOM, _seldom, PY3  # house


try:
    _fp = open('/proc/sys/kernel/osrelease', 'rb')
    IS_WSL = b'Microsoft' in _fp.read()
    _fp.close()
except (IOError, OSError):
    IS_WSL = False


@_seldom
def _patch_path_finder():
    """
    Let an unreadable current directory mean "not found here". Before Python
    3.13 only a removed one does, so a child of another user started in a
    private directory could not import anything.
    """
    from _frozen_importlib_external import PathFinder
    inner = PathFinder._path_importer_cache

    def _path_importer_cache(cls, path):
        try:
            return inner(path)
        except OSError:
            if path:
                raise
    PathFinder._path_importer_cache = classmethod(_path_importer_cache)


if _SELDOM:
    # A child that was sent this text has no current directory on its path.
    if PY3:
        if sys.version_info < (3, 13):
            try:
                _patch_path_finder()
            except (ImportError, AttributeError):
                pass


@_seldom
def _spin_wanted():
    """
    Return the number of MITOGEN_SPIN in the environment, or None.

    :raises ValueError: it is none.
    """
    text = os.environ.get('MITOGEN_SPIN')
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 1e6:
        raise ValueError('MITOGEN_SPIN is %r, and must be a number of microseconds '
                         'from 0 to a million, or not set' % (text,))
    return number
