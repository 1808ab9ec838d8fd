# SPDX-License-Identifier: BSD-3-Clause
"""
Both ends of a sync, for a program elsewhere, as in :mod:`mitogen._files.opened`.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

from mitogen._files import expanded
from mitogen._files.comparison import Comparison
from mitogen._files.opened import close, note, of_number
from mitogen._files.sync_source import SyncSource
from mitogen._files.sync_writer import SyncWriter
from mitogen.core import takes_econtext


class Receiving(object):
    """
    A comparison, and the writer of what it wants.
    """
    def __init__(self, target, name, checksum, sums, resumes, removes):
        self.comparison = Comparison(target, name, checksum, sums, resumes)
        self._writer = SyncWriter(target, name, resumes, removes)
        self.take, self.finish, self.give_up = self._writer.take, self._writer.finish, self._writer.give_up

    def close(self):
        """
        Let all go. May be repeated.
        """
        self.comparison.close()
        self._writer.close()


def _on(number, name, *args):
    """
    Call a method of the object that has a number, and close the object if that fails.
    """
    try:
        return getattr(of_number(number), name)(*args)
    except BaseException:
        close(number)
        raise


@takes_econtext
def start_receiving(target, name, checksum, resumes, removes, econtext):
    """
    Begin to compare and to write. Return the number for `compare_on`, and for `write_on`,
    `finish_writing` and `close`.
    """
    # A program that may write here may also know the older content.
    return note(Receiving(expanded(target), name, checksum, True, resumes, removes), econtext=econtext)


def compare_on(number, offers):
    """
    Return the answers to some offers.
    """
    try:
        return of_number(number).comparison.take(offers)
    except BaseException:
        close(number)
        raise


@takes_econtext
def start_sending(path, packs, econtext):
    """
    Begin to offer what is at a path. Return the number for `offer_on`, `answer_on`, `send_on` and
    `close`.
    """
    return note(SyncSource(expanded(path), packs), econtext=econtext)


def offer_on(number):
    """
    Return some offers, None if there are no more.
    """
    return _on(number, 'offers')


def answer_on(number, answers):
    """
    Take the answers to the first offers that have none.
    """
    _on(number, 'answer', answers)


def send_on(number):
    """
    Return (items, whether all of the first answered offers are read now); None if no offers are
    answered.
    """
    return _on(number, 'read')
