"""
Functions that hosts call with buffers, in any Python.
"""


import sys


def forget_numpy():
    sys.modules['numpy'] = None


def total(values):
    return sum(values)


def made_there():
    import array
    return [array.array('i', [1, 2]), memoryview(b'abc')]
