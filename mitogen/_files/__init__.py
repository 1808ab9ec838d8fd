# SPDX-License-Identifier: BSD-3-Clause
"""
Files and trees of files on their way from one process to another. Both ends use this package; a
host fetches it when it is first asked for files. Hosts may have Python 2.7.

* `items`: the form in which a tree travels.
* `reader` makes items of what is there, `writer` makes files of items.
* `open_folder` is the folder in which they work, and `new_entry` a file or link that they make.
* `opened`: readers and writers for a program elsewhere, which calls them piece by piece.
* `folders` makes and removes folders for a program elsewhere.

A sync sends only what differs from what is there. Both ends know a file by its `blocks`, and
`sync_items` has the forms in which they talk of it.

* `sync_source` offers what is there, and makes items of what is wanted.
* `comparison` says what is wanted, `sync_writer` writes it, with a `synced_file` for each file,
  whose `basis` is what there was of it.
* `sync_opened`: both for a program elsewhere.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import contextlib
import os
import sys

import mitogen.core


class FileError(mitogen.core.Error):
    """
    A file or a folder cannot be read, or not be written. The text says which, and why.
    """
    pass


def error(path, why):
    """
    Return the error that tells what is wrong with a path.
    """
    return FileError(u'%s: %s' % (mitogen.core._printable(path or b'.'), why))


@contextlib.contextmanager
def telling(path):
    """
    Have errors of the system raised as :class:`FileError`.
    """
    try:
        yield
    except EnvironmentError:
        e = sys.exc_info()[1]
        found = error(path, e.strerror or str(e))
    else:
        return
    # Outside of the block: the older error says the same.
    raise found


def expanded(path):
    """
    Return a path as a shell of the user would see it: `~` and `~name` at its beginning are homes.

    :param bytes path: as the program elsewhere gave it.
    """
    if not path.startswith(b'~'):
        return path
    found = os.path.expanduser(bytes(path))
    if found.startswith(b'~'):
        raise error(path, 'there is no such home; a file of this name is written ./~')
    return found
