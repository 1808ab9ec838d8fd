# SPDX-License-Identifier: BSD-3-Clause
"""
The reader: items of what is there.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import errno
import os
import stat
import sys

from mitogen._files import error, telling
from mitogen._files.items import CHUNK, DATA, DONE, FILE, FOLDER, LINK, MOST_FOLDERS, SKIPPED, TOGETHER, TOGETHER_BYTES, UP
from mitogen._files.open_folder import NO_FOLLOW, OpenFolder
from mitogen.core import Blob

GONE = 'it went away meanwhile'

# A fifo that takes the place of a file must not keep us waiting.
TO_READ = os.O_RDONLY | os.O_NONBLOCK


def kind_of(mode):
    """
    Return the kind of file that a mode tells, in words for people.
    """
    for test, name in (
            (stat.S_ISREG, 'a file'), (stat.S_ISDIR, 'a folder'), (stat.S_ISLNK, 'a link'), (stat.S_ISFIFO, 'a fifo'),
            (stat.S_ISSOCK, 'a socket'), (stat.S_ISCHR, 'a device'), (stat.S_ISBLK, 'a device')):
        if test(mode):
            return name
    return 'a special file'


def items_of(path, one_file=None, file_in=None):
    """
    Yield the items of a file, or of a folder and all that lies in it. A symbolic link at `path`
    itself is followed; those in the folder travel as links.

    :param bytes path: where it is.
    :param one_file: called with the path, in place of reading it, if a file is there.
    :param file_in: called with a folder, and with the name, the path and the status of a file in
        it, for its items.
    :raises FileError: it cannot be read, or a file changed meanwhile.
    """
    with telling(path):
        mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        return _tree(path, file_in or _file_in)
    if stat.S_ISREG(mode):
        return (one_file or _one_file)(path)
    raise error(path, 'it is %s, which cannot be copied' % (kind_of(mode),))


def send(path):
    """
    Yield lists of the items of what is at a path.
    """
    return together(items_of(path))


def together(items):
    """
    Yield lists of items, each as large as a message should be.
    """
    found, size = [], 0
    try:
        for item in items:
            found.append(item)
            size += len(item[1]) if item[0] == DATA else 0
            if size >= TOGETHER_BYTES or len(found) >= TOGETHER:
                yield found
                found, size = [], 0
        if found:
            yield found
    finally:
        items.close()


class _Level(object):
    """
    A folder whose entries are read.
    """
    def __init__(self, folder):
        self.folder = folder
        with telling(folder.path):
            self.mode = stat.S_IMODE(os.fstat(folder.fd).st_mode)
            self.names = iter(folder.names())


def _tree(top, file_in):
    levels = []
    try:
        with telling(top):
            level = _enter(levels, OpenFolder.at(top))
        yield FOLDER, Blob(os.path.basename(top)), level.mode
        while levels:
            name = next(levels[-1].names, None)
            if name is None:
                levels.pop().folder.close()
                yield UP,
                continue
            for item in _entry(levels, name, file_in):
                yield item
    finally:
        for level in levels:
            level.folder.close()


def _enter(levels, folder):
    try:
        level = _Level(folder)
    except BaseException:
        folder.close()
        raise
    levels.append(level)
    return level


def _entry(levels, name, file_in):
    """
    Yield the items of an entry of the innermost folder. If the entry is a folder, it becomes the
    innermost one.
    """
    here = levels[-1].folder
    path = here.path_of(name)
    with telling(path):
        found = here.stat(name)
    if found is None:
        yield SKIPPED, Blob(name), GONE
    elif stat.S_ISDIR(found.st_mode):
        yield _folder(levels, here, name, path)
    elif stat.S_ISLNK(found.st_mode):
        text = _unless_gone(path, here.call, os.readlink, name)
        yield (SKIPPED, Blob(name), GONE) if text is None else (LINK, Blob(name), Blob(text))
    elif stat.S_ISREG(found.st_mode):
        for item in file_in(here, name, path, found):
            yield item
    else:
        yield SKIPPED, Blob(name), 'it is %s' % (kind_of(found.st_mode),)


def _file_in(here, name, path, found):
    fd = opened(here, name, path)
    return [(SKIPPED, Blob(name), GONE)] if fd is None else _content(fd, path, name)


def opened(here, name, path):
    """
    Return a descriptor of a file that lies in a folder; None if it is there no more.
    """
    return _unless_gone(path, here.call, os.open, name, TO_READ | NO_FOLLOW)


def _folder(levels, here, name, path):
    if len(levels) >= MOST_FOLDERS:
        raise error(path, 'folders are nested more than %d deep' % (MOST_FOLDERS,))
    folder = _unless_gone(path, here.folder, name)
    if folder is None:
        return SKIPPED, Blob(name), GONE
    return FOLDER, Blob(name), _enter(levels, folder).mode


def _unless_gone(path, func, *args):
    """
    Return what a function of the system returns; None if the file that it is called for is gone.
    """
    with telling(path):
        try:
            return func(*args)
        except EnvironmentError:
            if sys.exc_info()[1].errno != errno.ENOENT:
                raise
            return None


def _one_file(path):
    with telling(path):
        fd = os.open(path, TO_READ)
    for item in _content(fd, path, os.path.basename(path)):
        yield item


def _content(fd, path, name):
    """
    Yield the items of an open file, and close it.
    """
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise error(path, 'it became %s meanwhile' % (kind_of(before.st_mode),))
        data = _read(fd, path, before.st_size or CHUNK)
        # Files of /proc have content, and say that they have none.
        size = -1 if data and not before.st_size else before.st_size
        yield FILE, Blob(name), stat.S_IMODE(before.st_mode), size
        sent = 0
        while data:
            sent += len(data)
            yield DATA, Blob(data)
            data = _read(fd, path, CHUNK if size < 0 else size - sent)
        after = os.fstat(fd)
        if size >= 0 and (sent, after.st_size, after.st_mtime) != (size, size, before.st_mtime):
            raise error(path, 'it changed while it was read')
        yield DONE,
    finally:
        os.close(fd)


def _read(fd, path, left):
    with telling(path):
        return os.read(fd, min(left, CHUNK))
