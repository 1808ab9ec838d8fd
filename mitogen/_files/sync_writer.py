# SPDX-License-Identifier: BSD-3-Clause
"""
SyncWriter: the writer of a tree to where an older copy of it may be. It does not trust the items.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

from mitogen._files import telling
from mitogen._files.blocks import unpacked
from mitogen._files.items import NoTree
from mitogen._files.sync_items import AS_IT_WAS, COPY, HOLE, ITEMS, KEEP, PACKED, SUM, TIME
from mitogen._files.synced_file import SyncedFile
from mitogen._files.writer import Writer


class SyncWriter(Writer):
    """
    Writes the items of one file or tree below a target, and nowhere else. Not for use by several
    threads.

    :param resumes: whether files that do not become whole stay as parts.
    """
    def __init__(self, target, name, resumes):
        super(SyncWriter, self).__init__(target, name)
        self._resumes = resumes

    def _new_file(self, *args):
        return SyncedFile(*args, resumes=self._resumes)

    def _file_of(self, what):
        if self._new is None:
            raise NoTree('%s of no file' % (what,))
        return self._new

    def _time(self, time):
        self._file_of('a time').time = time

    def _sum(self, digest):
        new = self._file_of('a checksum')
        new.digest = digest if new.digest is None else new.digest

    def _packed(self, data, size):
        new = self._file_of('data')
        data = unpacked(data, size)
        if data is None:
            raise NoTree('compressed data that is none')
        with telling(new.path):
            new.write(data)

    def _hole(self, count):
        new = self._file_of('a hole')
        with telling(new.path):
            new.skip(count)

    def _copy(self, count):
        new = self._file_of('a copy')
        with telling(new.path):
            new.copy(count)

    def _keep(self):
        new = self._file_of('a copy')
        with telling(new.path):
            new.keep()

    def _as_it_was(self, name, size):
        if not self._begun:
            name = self._begin(False)
        self._here(name)
        self._end()

    _SHAPES = ITEMS
    _KINDS = dict(Writer._KINDS)
    _KINDS.update({
        TIME: _time, PACKED: _packed, HOLE: _hole, COPY: _copy, KEEP: _keep, SUM: _sum, AS_IT_WAS: _as_it_was,
    })
