"""
Functions of hosts in tests of files: of those that have no room, and of those that lie.
"""

import errno
import os

import mitogen._files

_lies = []


def limit_size(size):
    """
    Have no file of this process become larger, as on a full disk.
    """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def no_space(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_loudly(path):
    """
    Raise an error whose text would write on a terminal.
    """
    raise mitogen._files.FileError(u'\x1b[2J\nall is well')


def give_back(value):
    return value


def set_home(path):
    os.environ['HOME'] = path


def set_lies(lists):
    _lies[:] = lists


def start_to_lie(path):
    return 1


def lie(number):
    """
    Return what a hostile host sends in place of a tree.
    """
    return _lies.pop(0) if _lies else None
