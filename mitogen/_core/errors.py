# SPDX-License-Identifier: BSD-3-Clause
"""
The exceptions that a program sees, and the one that crosses from a child.
"""

from __future__ import absolute_import  # house

import sys  # house

from mitogen.core import _module, _seldom, BytesType, PY3, to_text, UnicodeType  # house


class Error(Exception):
    """
    Base of all errors raised here.

    :param fmt: text, UTF-8 bytes or None; interpolated only if there are
        `args`.
    """
    def __init__(self, fmt=None, *args):
        if args:
            fmt %= args
        if isinstance(fmt, BytesType):
            fmt = UnicodeType(fmt, 'utf-8', 'replace')
        Exception.__init__(self, fmt)


class LatchError(Error):
    """The latch is closed."""
    pass


class ChannelError(Error):
    """A receiver is closed, or was told that nothing will arrive any more."""
    local_msg = 'closed at this end'
    remote_msg = 'closed at the other end'
    #: Which connection ended, when and why; None if that is not known.
    detail = None

    def __init__(self, fmt=None, *args):
        Error.__init__(self, fmt, *args)
        text, newline, detail = (self.args[0] or u'').partition('\n')
        if newline:
            self.args = (text,)
            self.detail = detail

    def __str__(self):
        text = Error.__str__(self)
        return '%s: %s' % (text, self.detail) if self.detail else text


class StreamError(Error):
    """A connection could not be made, or a message could not be read."""
    pass


class TimeoutError(Error):
    """Nothing arrived in time."""
    pass


class CallError(Error):
    """
    A remote function failed. Built from text, or from an exception: then the
    text names its class and message, followed by the traceback of the
    exception being handled, if any.
    """
    # Readers refuse a longer text.
    MSG_MAX_LEN = 9999

    def __init__(self, fmt=None, *args):
        if isinstance(fmt, BaseException):
            fmt = self._describe(fmt)
        Error.__init__(self, fmt, *args)

    @_seldom
    @staticmethod
    def _describe(exc):
        cls = exc.__class__
        # First: in Python 2 the exceptions below would take its place.
        tb = sys.exc_info()[2]
        try:
            try:
                text = to_text(exc)
            except UnicodeError:
                text = UnicodeType(str(exc), 'utf-8', 'replace')
        except Exception:
            # Not even `repr` can be trusted now.
            text = u'(no text)'
        text = to_text('%s.%s: ') % (cls.__module__, cls.__name__) + text
        if tb:
            lines = ''.join(_module('traceback').format_tb(tb))
            if not PY3:
                lines = UnicodeType(lines, 'utf-8', 'replace')
            text += '\n' + lines
        return text

    @_seldom
    def __reduce__(self):
        text = to_text(self.args[0])
        if len(text) > self.MSG_MAX_LEN:
            # The message is at the start and the failing line at the end.
            text = text[:5000] + '\n[...]\n' + text[-4900:]
        return _unpickle_call_error, (text,)


@_seldom
def _unpickle_call_error(s):
    if type(s) is not UnicodeType or len(s) > CallError.MSG_MAX_LEN:
        raise TypeError('cannot unpickle CallError: bad input')
    return CallError(s)


class ModuleDeniedByOverridesError(ModuleNotFoundError):
    """The policy fetches a few modules only, and this is not one of them."""
    fmt = 'import of %s was denied: overrides are set, and it is not in them.'


class ModuleDeniedByBlocksError(ModuleNotFoundError):
    """The policy never fetches this module."""
    fmt = 'import of %s was denied: it, or a parent, is blocked.'


class ModuleUnsuitableError(ModuleNotFoundError):
    """No context ever fetches this module from another."""
    fmt = 'import of %s was denied: it is never served to another context.'
