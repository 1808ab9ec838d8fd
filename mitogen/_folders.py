# SPDX-License-Identifier: BSD-3-Clause
"""
Folders of packages that came from the parent, as real ones for a while. A child fetches this module
if it needs it.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import contextlib
import os
import pathlib
import shutil
import tempfile


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
