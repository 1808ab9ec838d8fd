"""
Inputs that the fuzzers of pickles and of a starting child's output begin with,
and that the suite replays: a file for each that failed once or shows a thing,
in tests/fuzz/corpus/TARGET, and those that libFuzzer found to reach more of
the code, a line of hexadecimal digits each, in tests/fuzz/corpus/TARGET.rows.
"""

import binascii
import os

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'corpus')


def rows_path(target):
    return os.path.join(FOLDER, target + '.rows')


def rows(target):
    """
    Return the inputs that coverage chose.
    """
    with open(rows_path(target)) as fp:
        return [binascii.unhexlify(line.strip()) for line in fp]


def files(target):
    """
    Return the inputs that were kept by hand, by name.
    """
    found = {}
    for name in sorted(os.listdir(os.path.join(FOLDER, target))):
        with open(os.path.join(FOLDER, target, name), 'rb') as fp:
            found[name] = fp.read()
    return found
