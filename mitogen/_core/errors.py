# SPDX-License-Identifier: BSD-3-Clause
"""
The exceptions that a program sees, and the one that crosses from a child.
"""

from __future__ import absolute_import  # house

import sys  # house

from mitogen.core import _frames_of, _seldom, _SELDOM, _split_told, _tell, _text_of, _understand  # house
from mitogen.core import _within, BytesType, to_text, UnicodeType  # house


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
    exception being handled, if any, and by what else is known of it.

    These attributes tell what the text tells. Each is None, or empty, where it
    does not:

    :ivar type: module and class of the exception.
    :ivar message: its own text.
    :ivar traceback: its frames, as text.
    :ivar errno: its number.
    :ivar cause: a CallError for the exception that it was raised from.
    :ivar context: one for the exception that was handled then, if it has no
        cause.
    :ivar notes: list of texts that were added to it.
    :ivar members: list of a CallError for each exception of a group.
    """
    def __init__(self, fmt=None, *args):
        if isinstance(fmt, BaseException):
            fmt = self._describe(fmt)
        Error.__init__(self, fmt, *args)

    @_seldom
    def _describe(self, exc):
        # First: in Python 2 the exceptions below would replace sys.exc_info().
        tb = sys.exc_info()[2]
        text, told = _text_of(exc), u''
        if isinstance(exc, CallError):
            # The exception is itself a CallError, which is passed on.
            text, told = _split_told(text)
        frames = _frames_of(tb)
        told = _within(told + _tell(exc, text))
        text += (u'\n' + frames if frames else u'')
        if told:
            text = text.rstrip(u'\n') + told
        _understand(self, text)
        return text

    @_seldom
    def __reduce__(self):
        text = to_text(self.args[0])
        if len(text) > self.MSG_MAX_LEN:
            # The message is at the start and the failing line at the end.
            head, told = _split_told(text)
            told = _within(told)
            text = head[:5000] + '\n[...]\n' + head[len(told) - 4900:] + told
        return _unpickle_call_error, (text,)


if _SELDOM:
    # Within the class these texts would be sent to each child.
    CallError.type = CallError.message = CallError.traceback = None
    CallError.errno = CallError.cause = CallError.context = None
    CallError.notes = CallError.members = ()
    # Readers refuse a longer text.
    CallError.MSG_MAX_LEN = 9999


@_seldom
def _unpickle_call_error(s):
    if type(s) is not UnicodeType or len(s) > CallError.MSG_MAX_LEN:
        raise TypeError('cannot unpickle CallError: bad input')
    error = CallError(s)
    _understand(error, s)
    return error


class ModuleDeniedByOverridesError(ModuleNotFoundError):
    """The policy fetches a few modules only, and this is not one of them."""
    fmt = 'import of %s was denied: overrides are set, and it is not in them.'


class ModuleDeniedByBlocksError(ModuleNotFoundError):
    """The policy never fetches this module."""
    fmt = 'import of %s was denied: it, or a parent, is blocked.'


class ModuleUnsuitableError(ModuleNotFoundError):
    """No context ever fetches this module from another."""
    fmt = 'import of %s was denied: it is never served to another context.'
