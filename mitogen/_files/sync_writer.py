# SPDX-License-Identifier: BSD-3-Clause
"""
SyncWriter: the writer of a tree to where an older copy of it may be. It does not trust the items.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import stat

from mitogen._files import telling
from mitogen._files.blocks import unpacked
from mitogen._files.items import FOLDER, NoTree, UP
from mitogen._files.new_entry import NewLink
from mitogen._files.sync_items import AS_IT_WAS, COPY, HOLE, ITEMS, KEEP, PACKED, SUM, TIME
from mitogen._files.synced_file import SyncedFile
from mitogen._files.writer import Writer


class SyncWriter(Writer):
    """
    Writes the items of one file or tree below a target, and nowhere else. Not for use by several
    threads.

    :param resumes: whether files that do not become whole stay as parts.
    :param removes: whether entries of a folder that have not come are removed, once all of the
        folder has come; and likewise an entry of another kind than the one that takes its place.
    """
    def __init__(self, target, name, resumes, removes=False):
        super(SyncWriter, self).__init__(target, name)
        self._resumes, self._removes = resumes, removes
        #: For each folder that items have begun, the names that were in it and have not come yet.
        #: They are those of the beginning: other programs may put files there meanwhile, and keep
        #: them.
        self._others = []
        self._removed = 0

    def finish(self):
        """
        Return how many entries of folders were removed.
        """
        super(SyncWriter, self).finish()
        return self._removed

    def _new_file(self, *args):
        return self._clearing(SyncedFile(*args, resumes=self._resumes))

    def _new_link(self, *args):
        return self._clearing(NewLink(*args))

    def _clearing(self, new):
        if self._removes:
            new.clear = self._clear
        return new

    def _clear(self, here, name):
        """
        Remove a folder of some name.
        """
        found = here.stat(name)
        if found is not None and stat.S_ISDIR(found.st_mode):
            self._removed += here.remove(name)

    def _replaced(self, here, name):
        found = here.stat(name) if self._removes else None
        if found is not None and not stat.S_ISREG(found.st_mode) and not stat.S_ISLNK(found.st_mode):
            # The new file takes its place once it is whole.
            return None
        return super(SyncWriter, self)._replaced(here, name)

    def _made(self, here, name, mode):
        found = here.stat(name) if self._removes else None
        if found is not None and not stat.S_ISDIR(found.st_mode):
            self._removed += here.remove(name)
        return super(SyncWriter, self)._made(here, name, mode)

    def _here(self, name):
        here = super(SyncWriter, self)._here(name)
        if self._others:
            self._others[-1].discard(bytes(name))
        return here

    def _folder(self, name, mode):
        super(SyncWriter, self)._folder(name, mode)
        folder = self._folders[-1]
        with telling(folder.path):
            self._others.append(set(folder.names() if self._removes else ()))

    def _up(self):
        self._between_files()
        if self._others:
            folder = self._folders[-1]
            for name in sorted(self._others.pop()):
                with telling(folder.path_of(name)):
                    self._removed += folder.remove(name)
        super(SyncWriter, self)._up()

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
            raise NoTree('compressed data that cannot be decompressed')
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
        FOLDER: _folder, UP: _up,
        TIME: _time, PACKED: _packed, HOLE: _hole, COPY: _copy, KEEP: _keep, SUM: _sum, AS_IT_WAS: _as_it_was,
    })
