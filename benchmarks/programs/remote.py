"""Functions that run in the other process, whatever the peer: standard library only."""

import os
import resource

_blocks = {}


def nothing():
    """The cheapest call there is."""


def size_of(block):
    """Take a block of bytes, return its length."""
    return len(block)


def random_block(size):
    """
    Return `size` random bytes, the same object each time, so that making them is not measured.
    """
    if size not in _blocks:
        _blocks[size] = os.urandom(size)
    return _blocks[size]


def never_end():
    """Use up a processor until the process is ended."""
    while True:
        pass


def cpu_seconds():
    """User and system time of this process so far, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
