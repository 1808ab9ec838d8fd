# SPDX-License-Identifier: BSD-3-Clause
"""
Argv: a command line, put into words.
"""

from __future__ import absolute_import  # house

import re  # house

from mitogen.parent import _native_str  # house


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
