# SPDX-License-Identifier: BSD-3-Clause
"""
Signals: functions that are called when something happens to an object.
"""

from __future__ import absolute_import  # house

from mitogen.core import _seldom  # house


def _listeners(obj, name):
    return obj.__dict__.setdefault('_signals', {}).setdefault(name, [])


def listen(obj, name, func):
    """Call `func` whenever signal `name` is fired on `obj`, in the firing
    thread. The same function may be added more than once."""
    _listeners(obj, name).append(func)


@_seldom
def unlisten(obj, name, func):
    """Undo one :func:`listen`.

    :raises ValueError: it was not there.
    """
    _listeners(obj, name).remove(func)


def fire(obj, name, *args, **kwargs):
    """Call every listener in order, over a snapshot. An exception reaches
    the caller and skips the rest."""
    for func in tuple(_listeners(obj, name)):
        func(*args, **kwargs)


@_seldom
def takes_econtext(func):
    """Mark a function to be called with the keyword argument `econtext`, the
    child's :class:`ExternalContext`."""
    func.mitogen_takes_econtext = True
    return func


@_seldom
def takes_router(func):
    """Mark a function to be called with the keyword argument `router`."""
    func.mitogen_takes_router = True
    return func
