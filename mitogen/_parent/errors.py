# SPDX-License-Identifier: BSD-3-Clause
"""
Why a connection could not be made, and the texts of exceptions.
"""

from __future__ import absolute_import  # house

import mitogen.core  # house
from mitogen.core import to_text  # house
from mitogen.parent import PY3  # house


def _native_str(s):
    """
    Return `s` as `str`, which is what a command line is made of.
    """
    if isinstance(s, str):
        return s
    if PY3:
        return to_text(s)
    return s.encode('utf-8')


class ConnectError(mitogen.core.StreamError):
    """
    A child could not be started.

    Programs compare `args[0]`. A person reads ``str()``, which adds `detail`.

    :ivar detail: what is known of the attempt, as text.
    """
    detail = u''

    def __str__(self):
        return _native_str(_full_text(self))


class EofError(mitogen.core.StreamError):
    """
    The child, or the tool that should have started it, closed its output
    before it was ready. `args[0]` has what it printed, ``str()`` all.

    :ivar detail: what else is known of the attempt, as text.
    """
    detail = u''

    def __str__(self):
        return _native_str(_full_text(self))


class ValueRefused(mitogen.core.CallError, TypeError):
    """
    A value may not be sent. Nothing was: the text says which one, and what to
    send in its place.

    :ivar where: the argument, and the function, as text.
    """
    where = host = None


class CancelledError(ConnectError):
    """
    The local broker began to shut down while the connection was being made.
    """
    pass


def _error_text(exc):
    """
    Return the whole text of an exception, as text on every Python.
    """
    if len(exc.args) == 1 and isinstance(exc.args[0],
                                         mitogen.core.AnyTextType):
        return to_text(exc.args[0])
    return to_text(str(exc))


def _full_text(exc):
    """
    Return `_error_text`, and the detail of a failed connection below it.
    """
    if not isinstance(exc, (ConnectError, EofError)):
        return _error_text(exc)
    text = to_text(exc.args[0] if exc.args else u'')
    return u'%s\n\n%s' % (text, exc.detail) if exc.detail else text
