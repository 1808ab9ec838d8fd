"""
Needs nobody.
"""


def add(x, y):
    # A comment that travels.
    return x + y


def file_and_line():
    import sys
    return __file__, sys._getframe().f_lineno


def fail():
    raise ValueError('on line 17')
