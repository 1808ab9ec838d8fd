# SPDX-License-Identifier: BSD-3-Clause
"""
The main module of ``python -m package``: in a child it is no part of the package, so its relative
imports are written out.
"""

from __future__ import absolute_import  # house

import re  # house

from mitogen.master import b  # house


#: An import by dots, up to the word after it.
_RELATIVE = re.compile(b(r'\bfrom[ \t]*((?:\.[ \t]*)+)(import\b)?'))


def _package_above(package, level):
    """
    Return the name of the package that so many dots mean, or :data:`None`.
    """
    names = package.split('.')
    if level > len(names):
        return None
    return '.'.join(names[:len(names) - level + 1])


def _with_absolute_imports(src, package):
    """
    Return the source of a main module with relative imports made absolute.
    Statements that are not understood stay as they are.

    :param bytes src: the source, which can be parsed.
    :param str package: of which the main module is a part.
    """
    import ast

    def write_out(match):
        above = _package_above(package, match.group(1).count(b('.')))
        if above is None:
            return match.group()
        return b('from ') + above.encode('utf-8') + (b(' import') if match.group(2) else b('.'))

    lines = src.splitlines(True)
    for node in ast.walk(ast.parse(src)):
        # Lines within a text that only look like an import have no such node.
        if isinstance(node, ast.ImportFrom) and node.level:
            lines[node.lineno - 1] = _RELATIVE.sub(write_out, lines[node.lineno - 1])
    return b('').join(lines)
