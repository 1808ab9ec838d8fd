"""
Functions of hosts in tests of files: of those that have no room, and of those that lie.
"""

import errno
import os

import mitogen._files

_lies = []
_item_lies = []
_answers = []


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


def start_to_lie(path, packs=None):
    return 1


def lie(number):
    """
    Return what a hostile host sends in place of a tree.
    """
    return _lies.pop(0) if _lies else None


def set_sync_lies(offers, items):
    _lies[:] = offers
    _item_lies[:] = items
    del _answers[:]


def note_answers(number, answers):
    _answers.append(answers)


def answers():
    return list(_answers)


def lie_with_items(number):
    """
    Return what a hostile host sends in place of items that are wanted.
    """
    return _item_lies.pop(0) if _item_lies else None


def lie_with_answers(number, offers):
    """
    Return what a hostile host sends in place of answers.
    """
    return lie(number)
