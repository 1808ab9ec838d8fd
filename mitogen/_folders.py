# SPDX-License-Identifier: BSD-3-Clause
"""
Folders of packages that came from the parent: as real ones for a while, and together with those of
this disk. A child fetches this module if it needs it.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import contextlib
import os
import pathlib
import shutil
import tempfile

import mitogen.core


def _copy(entry, path):
    """
    Write a file or folder that the parent has to a path.
    """
    if entry.is_dir():
        os.mkdir(path)
        for inside in entry.iterdir():
            _copy(inside, os.path.join(path, inside.name))
    else:
        with open(path, 'wb') as fp:
            fp.write(entry.read_bytes())


@contextlib.contextmanager
def _copied(entry):
    """
    Context manager: the path of a copy of a file or folder. The copy is deleted at the end of the
    block.
    """
    folder = tempfile.mkdtemp()
    try:
        path = pathlib.Path(folder, entry.name)
        _copy(entry, str(path))
        yield path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Joined(object):
    """
    `importlib.resources` for a package of which some folders are here and one is the parent's. A
    file that both have is taken from here.

    :param folders: paths of those that are here.
    :param reader: :class:`mitogen.core.ResourceReader` of the parent's one.
    """
    def __init__(self, folders, reader):
        self._places = [pathlib.Path(folder) for folder in folders] + [reader.files()]

    def files(self):
        """
        Return what ``importlib.resources.files()`` does, 3.10 and later.
        """
        mitogen.core._register_folders(self.Folder)
        return self.Folder(self._places)

    class Folder(object):
        """
        A folder that is in several places.
        """
        def __init__(self, places):
            self._places = places
            self.name = places[0].name

        def __repr__(self):
            return 'Folder(%r)' % (self._places,)

        def joinpath(self, *names):
            place = self
            for name in '/'.join(map(str, names)).split('/'):
                place = place._join(name) if isinstance(place, type(self)) else place.joinpath(name)
            return place

        __truediv__ = joinpath

        def _join(self, name):
            places = [place.joinpath(name) for place in self._places]
            found = []
            for place in places:
                if place.is_dir():
                    found.append(place)
                elif place.is_file():
                    found = found or [place]
                    break
            return type(self)(found) if found[1:] else (found or places)[0]

        def is_file(self):
            return False

        def is_dir(self):
            return True

        def iterdir(self):
            names = set(inside.name for place in self._places for inside in place.iterdir())
            return iter([self._join(name) for name in sorted(names)])

        def open(self, mode='r', *args, **kwargs):
            raise IsADirectoryError(self.name)

        def read_bytes(self):
            self.open()

        def read_text(self, *args, **kwargs):
            self.open()
