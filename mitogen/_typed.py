# SPDX-License-Identifier: BSD-3-Clause
"""
Typed functions: those of a main program that has no file, since it was typed at a prompt or in a
notebook, or given by ``-c``. They travel as their source. This is the side that runs them.
"""

from __future__ import absolute_import


#: Texts that are kept, with the names that they have made.
_KEPT_MAX = 100

_made = {}


def call(text, values, name, args, kwargs):
    """
    Call a function of a text.

    :param text: statements that make it, and all that it uses.
    :param values: name -> value that it uses, too.
    """
    names = _made.get(text)
    if names is None:
        path = '<typed %d>' % (len(_made) + 1,)
        # Tracebacks show the lines.
        import linecache
        linecache.cache[path] = len(text), None, text.splitlines(True), path
        # Default arguments may need the values.
        names = dict(values, __name__='__main__', __builtins__=__builtins__)
        exec(compile(text, path, 'exec'), names)
        if len(_made) < _KEPT_MAX:
            _made[text] = names
    names.update(values)
    return names[name](*args, **kwargs)
