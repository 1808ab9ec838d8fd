"""
The garbage collector and the tests themselves. Some hundred modules and
thousands of tests last as long as the process: while they are made the
collector finds nothing, and to look through them takes a tenth of a second
each time that a test collects garbage. So it is not told of them.
"""

import gc

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_collection():
    gc.disable()
    yield
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture
def nothing_frozen():
    """
    For tests of what a program does that froze nothing.
    """
    gc.unfreeze()
    yield
    gc.collect()
    gc.freeze()
