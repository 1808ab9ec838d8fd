# SPDX-License-Identifier: BSD-3-Clause
"""
Readers and writers that are open for a program elsewhere. The program calls these functions one by
one, so the host needs no thread for a copy, and does other calls between them. When a call fails,
the reader or writer is closed, so later calls find nothing open.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import itertools
import sys

import mitogen.core
from mitogen._files import expanded
from mitogen._files.reader import send
from mitogen._files.writer import Writer
from mitogen.core import takes_econtext

#: Number -> writer, or iterator of lists of items.
_open = {}
_numbers = itertools.count(1)
_listening = []


def _remove_all():
    for opened in list(_open.values()):
        if hasattr(opened, 'give_up'):
            opened.give_up()


@takes_econtext
def note(opened, econtext):
    """
    Keep a writer or an iterator, and return its number. This process leaves nothing half-written
    when it ends.
    """
    if not _listening:
        _listening.append(True)
        mitogen.core.listen(econtext.broker, 'shutdown', _remove_all)
    number = next(_numbers)
    _open[number] = opened
    return number


def of_number(number):
    """
    Return the writer or iterator that has a number.

    :raises KeyError: it was closed, or was never there.
    """
    return _open[number]


@takes_econtext
def start_reading(path, econtext):
    """
    Begin to read what is at a path, and return the number for `read_on` and `close`.
    """
    return note(send(expanded(path)), econtext=econtext)


def read_on(number):
    """
    Return some items, None if there are no more.
    """
    try:
        return next(_open.get(number, iter(())))
    except BaseException:
        close(number)
        if isinstance(sys.exc_info()[1], StopIteration):
            return None
        raise


@takes_econtext
def start_writing(target, name, econtext):
    """
    Begin to write, and return the number for `write_on`, `finish_writing` and `close`.
    See :class:`Writer`.
    """
    return note(Writer(expanded(target), name), econtext=econtext)


def write_on(number, items):
    """
    Write some items.
    """
    try:
        _open[number].take(items)
    except BaseException:
        close(number)
        raise


def finish_writing(number):
    """
    Finish a writer, and return its result.

    :raises FileError: not all has come.
    """
    try:
        return _open[number].finish()
    finally:
        close(number)


def close(number):
    """
    Close the writer or iterator that has a number, and leave nothing half-written. May be repeated.
    """
    opened = _open.pop(number, None)
    if opened is not None:
        opened.close()
