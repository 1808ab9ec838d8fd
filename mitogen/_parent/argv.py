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
    #: Characters that shells take as they are, whatever stands around them.
    _plain = re.compile(r'[A-Za-z0-9%+,./:=@_-]+\Z')
    _must_escape = re.compile(r'([\\$"`])')

    def __init__(self, argv):
        self.argv = argv

    def escape(self, x):
        """
        Return one element as a shell reads it back.
        """
        word = _native_str(x)
        if self._plain.match(word):
            return word
        if '!' in word:
            # Between double quotes an interactive shell expands it, and other
            # shells keep a backslash in front of it.
            return "'%s'" % (word.replace("'", "'\\''"),)
        return '"%s"' % (self._must_escape.sub(r'\\\1', word),)

    def __str__(self):
        return ' '.join([self.escape(word) for word in self.argv])

    __repr__ = __str__


def _shell_line(argv):
    """
    Return a command line as one text for a shell. A word ``&&`` of it is left
    to the shell, for interpreters such as ``source FILE && python``.
    """
    parts = [[]]
    for word in argv:
        if word == '&&':
            parts.append([])
        else:
            parts[-1].append(word)
    return ' && '.join([str(Argv(part)) for part in parts])
