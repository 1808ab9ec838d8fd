# SPDX-License-Identifier: BSD-3-Clause
"""
Argv and CallSpec, for the log; and the last lines of a log, for an error.
"""

from __future__ import absolute_import  # house

import re  # house

import mitogen.core  # house
from mitogen.core import b  # house
from mitogen.parent import _CLASS_TYPES, _native_str, IM_SELF_ATTR  # house


class Argv(object):
    """
    A command line that is put into words only when somebody reads it: for
    logs, and for tools that want a whole shell command as one argument.

    :param argv: list of strings.
    """
    _must_quote = re.compile(r'[ \\$"`!]')
    _must_escape = re.compile(r'([\\$"`!])')

    def __init__(self, argv):
        self.argv = argv

    def escape(self, x):
        """
        Return one element as a shell reads it back.
        """
        word = _native_str(x)
        if self._must_quote.search(word):
            return '"%s"' % (self._must_escape.sub(r'\\\1', word),)
        return word

    def __str__(self):
        return ' '.join([self.escape(word) for word in self.argv])

    __repr__ = __str__


class CallSpec(object):
    """
    A call that is put into words only when somebody reads it.
    """
    def __init__(self, func, args, kwargs):
        self.func = func
        self.args = args
        self.kwargs = kwargs

    def _name(self):
        func = self.func
        owner = getattr(func, IM_SELF_ATTR, None)
        parts = [getattr(func, '__module__', None)]
        if isinstance(owner, _CLASS_TYPES):
            parts.append(owner.__name__)
        parts.append(getattr(func, '__name__', None) or repr(func))
        return '.'.join([part for part in parts if part])

    def __repr__(self):
        words = [repr(arg) for arg in self.args]
        words.extend('%s=%r' % item for item in sorted(self.kwargs.items()))
        return '%s(%s)' % (self._name(), ', '.join(words))


def get_history(streams):
    """
    Return, as text, the last lines that arrived on some streams in the order
    of their arrival.

    :param streams: iterable of streams, whose protocols keep `logged_lines`,
        or None.
    """
    lines = []
    for stream in streams:
        if stream is None:
            continue
        lines.extend(stream.protocol.logged_lines)
        # The stream that ends last is asked before its protocol has taken
        # notice, so its final line may be waiting for a newline still.
        tail = getattr(stream.protocol, 'logged_partial', None)
        if tail and isinstance(tail, mitogen.core.BytesType):
            lines.append((mitogen.core.now(), tail))

    lines.sort(key=lambda line: line[0])
    return b('\n').join([line for _, line in lines]).decode('utf-8', 'replace')
