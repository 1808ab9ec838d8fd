# SPDX-License-Identifier: BSD-3-Clause
"""
The part of a main module that runs the program, found by its syntax tree: text that only looks like
a guard does not count, be it in a string or in a comment.
"""

from __future__ import absolute_import  # house


def _is_guard(node):
    """
    Return whether it is ``if __name__ == '__main__'``.
    """
    import ast
    test = node.test
    if not (isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and
            test.left.id == '__name__' and len(test.ops) == 1 and
            isinstance(test.ops[0], ast.Eq)):
        return False
    try:
        return ast.literal_eval(test.comparators[0]) == '__main__'
    except ValueError:
        return False


def _guard_offset(tree, src, pattern):
    """
    Return where in `src` its guard begins, or :data:`None`.

    :param pattern:
        Expression for other statements that are guards as well.
    """
    import ast
    for node in tree.body:
        if isinstance(node, ast.If):
            offset = sum(map(len, src.splitlines(True)[:node.lineno - 1]))
            if _is_guard(node) or pattern.match(src, offset):
                return offset
    return None


def _is_decorator(node):
    """
    Return whether an expression is a call of :func:`mitogen.main`.
    """
    import ast
    func = getattr(node, 'func', None)
    return (isinstance(node, ast.Call) and isinstance(func, ast.Attribute) and
            func.attr == 'main' and isinstance(func.value, ast.Name) and
            func.value.id == 'mitogen')


def _cut_main(src, pattern):
    """
    Return the source of a main module without the guard and the lines after
    it; the whole source, if :func:`mitogen.main` runs it, which does nothing
    in a child; or :data:`None`, if it would run as a whole.
    """
    # Few masters are asked for their main module.
    import ast
    try:
        tree = ast.parse(src)
    except (SyntaxError, ValueError):
        return None
    offset = _guard_offset(tree, src, pattern)
    if offset is not None:
        return src[:offset]
    if any(_is_decorator(node) for node in ast.walk(tree)):
        return src
    return None
