# SPDX-License-Identifier: BSD-3-Clause
"""
The two texts of the core: the one that a child is sent, and the rest, which it
may fetch.
"""

from __future__ import absolute_import  # house

import sys  # house

import mitogen  # house


# A child is sent this text without the code that is marked as seldom used, if
# the Python there can ask for it later: functions and methods are marked by
# `_seldom`, blocks by `if _SELDOM:`. `mitogen._shrink` divides the text, and
# `_complete` of the part that is sent fetches the other one. That needs the
# broker thread, so a function that may be called there before anything else has
# asked is not seldom.
_SELDOM = True
_REDUCED = False

if _REDUCED:
    import threading

    #: The other part is not here. Once it is, it sets this to true.
    _LATE = not _SELDOM

    def __getattr__(name):
        if name[:2] != '__':
            _complete()
        if name in globals():
            return globals()[name]
        raise AttributeError(name)

    class _Late(object):
        """Stand for a method that is in the other part."""

        def __set_name__(self, owner, name):
            self._at = owner, name

        def __get__(self, obj, owner=None):
            cls, name = self._at
            if _complete():
                return getattr(owner if obj is None else obj, name)
            if name == '__repr__':
                return object.__repr__.__get__(obj)
            raise AttributeError(name)


def _complete():
    """Fetch the rest of the text, which a parent needs, and return whether it
    is here: the broker thread cannot wait for it."""
    if _REDUCED:
        return not _LATE or mitogen.core.Importer._loader()
    if not _REDUCED:
        return True


if not _REDUCED:
    def _seldom(func):
        return func

    def __getattr__(name):
        # Programs may look here for what a child imports late, or not at all.
        if name in ('collections', 'select', 'struct', 'threading'):
            return __import__(name)
        raise AttributeError('module %r has no attribute %r' %
                             (__name__, name))

    if sys.version_info < (3, 7):
        # Those programs do not call a function to look.
        import collections  # noqa: F401
        import select  # noqa: F401
        import struct  # noqa: F401
        import threading  # noqa: F401
