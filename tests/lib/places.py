"""
Where the parts of this checkout and of the suite are.
"""

import glob
import os

LIB = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(LIB)
ROOT = os.path.dirname(TESTS)

#: Modules with functions that children call. Their importer has this folder on its path; children
#: ask for it.
TARGETS = os.path.join(TESTS, 'targets')

#: Files that tests read, and packages for children to import.
DATA = os.path.join(TESTS, 'data')
IMPORTER_DATA = os.path.join(DATA, 'importer')

#: Programs that stand for those of containers.
STUBS = os.path.join(DATA, 'stubs')

FUZZ = os.path.join(TESTS, 'fuzz')
CORPUS = os.path.join(FUZZ, 'corpus')
LOAD = os.path.join(TESTS, 'load')


def test_file(name):
    """
    Return the path of a file of tests, of whichever subject it is.
    """
    found = glob.glob(os.path.join(TESTS, '*', name))
    assert len(found) == 1, (name, found)
    return found[0]
