"""
Functions that children of Python 2 call, which has no module `builtins`.
"""

import sys


def value_in(name, what):
    """
    Import a module, and return the value of an expression in it.
    """
    __import__(name)
    return eval(what, vars(sys.modules[name]))
