# SPDX-License-Identifier: BSD-3-Clause
"""
Comparison: looks up offered files among those that are there. It changes nothing, and does not
trust the offers.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import os
import stat
import sys

from mitogen._files import error
from mitogen._files.basis import Basis, is_file, is_our_part, open_to_read, part_of
from mitogen._files.items import checked, FILE, FOLDER, is_name, LINK, MOST_FOLDERS, NoTree, SKIPPED, UP
from mitogen._files.open_folder import OpenFolder
from mitogen._files.sync_items import are_near, CHECK, KEPT, OFFERS, SAME, time_of, WANTED


class Comparison(object):
    """
    Answers offers of one file or tree, of which a :class:`mitogen._files.sync_writer.SyncWriter`
    with the same target writes what is wanted.

    :param checksum: whether the content of files with the same size and time is compared.
    :param sums: whether digests of older content are sent. They are not sent to a process that may
        not know the content.
    :param resumes: whether parts that an interrupted copy has left are used.
    """
    def __init__(self, target, name, checksum, sums, resumes):
        self._target, self._name = target, name
        self._checksum, self._sums, self._resumes = checksum, sums, resumes
        #: (folder that is open, or None; the last name in it that was offered), each in the one
        #: before.
        self._levels = []
        self._begun = self._whole = False

    def take(self, offers):
        """
        Return the answers to some offers.

        :raises FileError: they are none.
        """
        try:
            answers = [self._answer(offer) for offer in checked(offers, OFFERS)]
            return [answer for answer in answers if answer is not None]
        except NoTree:
            found = error(self._target, 'what is offered is no tree of files: %s' % (sys.exc_info()[1],))
        raise found

    def close(self):
        """
        Let all go. May be repeated.
        """
        while self._levels:
            self._leave()

    def _answer(self, offer):
        if self._whole:
            raise NoTree('more than one')
        answer = self._KINDS[offer[0]](self, *offer[1:])
        self._whole = not self._levels
        return answer

    def _leave(self):
        folder = self._levels.pop()[0]
        if folder is not None:
            folder.close()

    def _next(self, name):
        """
        Return the innermost folder, in which this name is offered. A name may be offered once.
        """
        if not self._levels:
            raise NoTree('an entry outside of any folder')
        folder, before = self._levels[-1]
        if not is_name(name) or name <= before:
            raise NoTree('file names that are not valid, or not in order')
        self._levels[-1] = folder, name
        return folder

    def _folder(self, name, mode):
        if not self._begun:
            self._begun = True
            into = self._target.endswith(b'/') and self._name
            folder = _or_none(OpenFolder.at, os.path.join(self._target, self._name) if into else self._target)
        else:
            here = self._next(name)
            if len(self._levels) > MOST_FOLDERS:
                raise NoTree('folders are nested more than %d deep' % (MOST_FOLDERS,))
            folder = here and _or_none(here.folder, name)
        self._levels.append((folder, b''))

    def _up(self):
        if not self._levels:
            raise NoTree('no folder is open')
        self._leave()

    def _skipped(self, name, why):
        self._next(name)

    def _link(self, name, text):
        here = self._next(name)
        there = here and _or_none(here.call, os.readlink, name)
        return SAME if there is not None and there == text else WANTED

    def _file(self, name, mode, size, time):
        if self._begun:
            here = self._next(name)
            return WANTED if here is None else self._file_in(here, name, mode, size, time)
        self._begun = True
        path = self._target
        if self._name is not None and (path.endswith(b'/') or os.path.isdir(path)):
            path = os.path.join(path, self._name)
        folder, name = os.path.split(path)
        here = _or_none(OpenFolder.at, folder or b'.')
        if here is None:
            return WANTED
        try:
            return self._file_in(here, name, mode, size, time)
        finally:
            here.close()

    def _file_in(self, here, name, mode, size, time):
        found = _or_none(here.stat, name)
        is_alike = found is not None and is_file(found) and found.st_size == size and are_near(time_of(found), time)
        is_same = is_alike and stat.S_IMODE(found.st_mode) == mode & 0o777
        if is_alike and (not self._checksum or not size):
            return SAME if is_same else KEPT
        sums = self._sums_in(here, name, size)
        # A part may have content that the file does not have.
        has_part = self._resumes and _or_none(here.stat, part_of(name)) is not None
        return (CHECK, sums) if is_same and sums and not has_part else sums or WANTED

    def _sums_in(self, here, name, size):
        """
        Return the digests of what there is of a file, empty if there is nothing.
        """
        old = open_to_read(here, name, is_file) if self._sums else None
        part = open_to_read(here, part_of(name), is_our_part) if self._resumes else None
        try:
            return Basis(part, old).sums(size)
        finally:
            for fd in part, old:
                if fd is not None:
                    os.close(fd)

    _KINDS = {FOLDER: _folder, UP: _up, FILE: _file, LINK: _link, SKIPPED: _skipped}


def _or_none(func, *args):
    """
    Return what a function of the system returns; None if it fails. The writer will find out why.
    """
    try:
        return func(*args)
    except EnvironmentError:
        return None
