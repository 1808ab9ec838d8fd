# SPDX-License-Identifier: BSD-3-Clause
# !mitogen: minify_safe
"""
The classes of :mod:`mitogen.core` over the compiled core.

`mitogen.core` imports this module in its middle, by its part `choice`: the
bases are there, the leaves are not. Each class here is the compiled leaf of a
base class, which has the docstrings and the rare methods. The path of a
message is in `_mitogen_core`.

Threads: as in `mitogen.core`. Any thread that waits for a message may run the
loop, so the loop calls nothing here. An event that needs Python is handed to
the broker thread by `Poller.poll`.
"""

from __future__ import absolute_import

import errno
import os
import sys
import time

import mitogen

# By name: an unbuilt checkout imports as an empty namespace package.
from _mitogen_core import __version__ as _built_version
import _mitogen_core as _c

# So far it has only its parts before `choice`. A class that `choice` selects
# is named `mitogen.core.Message`, in a function.
core = sys.modules['mitogen.core']
LOG = core.LOG


class _Signature(object):
    """
    The signature of a compiled class, for :mod:`inspect` of Python 3.9, which finds none in its
    docstring.

    :param str text: the parameters.
    """
    def __init__(self, text):
        self._text = text

    def __set_name__(self, owner, name):
        self._owner = owner

    def __get__(self, obj, klass=None):
        if klass is not self._owner:
            # A class that derives from it may have a signature of its own.
            raise AttributeError('__signature__')
        import inspect
        return inspect.signature(eval('lambda %s: None' % (self._text,)))


_wanted_version = '.'.join(map(str, mitogen.__version__))
if _built_version != _wanted_version:
    _mismatch = (
        '_mitogen_core is version %s, and the package is version %s: install '
        'both from one source (pip install --force-reinstall PATH)'
        % (_built_version, _wanted_version))
    if os.environ.get('MITOGEN_CORE', '').lower() != 'native':
        # If there is no extension, say nothing; this one was meant to be used.
        import warnings
        warnings.warn(_mismatch + '; the pure core is used', RuntimeWarning)
    raise ImportError(_mismatch)
