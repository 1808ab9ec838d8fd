# SPDX-License-Identifier: BSD-3-Clause
"""
The writer: files of items, which it does not trust.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import errno
import os
import stat
import sys

from mitogen._files import error, telling
from mitogen._files.items import checked, DATA, DONE, FILE, FOLDER, is_name, LINK, MOST_FOLDERS, NoTree, SHAPES, SKIPPED, UP
from mitogen._files.new_entry import NewFile, NewLink
from mitogen._files.open_folder import OpenFolder
from mitogen._files.reader import kind_of


def _newly(func, *args):
    """
    Call a function of the system that makes a folder. Return whether it did; if not, somebody else
    was faster.
    """
    try:
        func(*args)
        return True
    except OSError:
        if sys.exc_info()[1].errno != errno.EEXIST:
            raise
        return False


class Writer(object):
    """
    Writes the items of one file or tree below a target, and nowhere else. Not for use by several
    threads.

    :param bytes target: where it goes. If it ends in a slash, it is a folder that the file or tree
        is put into.
    :param name: bytes, the name that it gets in such a folder; None if only the content of a tree
        goes there.
    """
    def __init__(self, target, name):
        self._target, self._name = target, name
        self._into = target.endswith(b'/')
        #: Folders that are open, each in the one before. The first one is the target, or the folder
        #: that the target lies in.
        self._folders = []
        #: How many of these folders were opened for the target, and not by an item.
        self._lowest = 0
        #: The file or link that has no name yet.
        self._new = None
        self._begun = self._gave_up = self._made_top = self._whole = False

    def take(self, items):
        """
        Write what items say.

        :raises FileError: it cannot be written, or they are no tree.
        """
        try:
            for item in checked(items, self._SHAPES):
                if self._whole:
                    raise NoTree('more than one')
                self._KINDS[item[0]](self, *item[1:])
            return
        except NoTree:
            found = error(self._target, 'what comes is no tree of files: %s' % (sys.exc_info()[1],))
        raise found

    def finish(self):
        """
        Check that all has come. The result goes to the program elsewhere.

        :raises FileError: not all has come.
        """
        if not self._whole:
            raise error(self._target, 'the end of the file did not arrive')

    def close(self):
        """
        Remove what is half-written, and close all folders. May be repeated.
        """
        if self._new is not None:
            self._new.close()
            self._new = None
        while self._folders:
            try:
                self._folders.pop().close()
            except OSError:
                # Its mode is not ours to give.
                pass

    def give_up(self):
        """
        Remove what is half-written, and begin nothing any more. Any thread; another one may be at
        work, so nothing is closed.
        """
        self._gave_up = True
        new = self._new
        if new is not None:
            new.remove()

    def _begin(self, is_folder):
        """
        Open what the first item goes to. Return the name that the item gets there; None if it is
        the folder itself.
        """
        self._begun = True
        target = self._target
        name = self._name
        if self._into or (name is not None and not is_folder and os.path.isdir(target)):
            if name is None and not is_folder:
                raise error(target, 'the target is a folder, and the name of the file is not known')
            self._open_top(target, 0o777 if name else 0o700)
        elif is_folder:
            self._open_top(target, 0o700)
            name = None
        else:
            path, name = os.path.split(target)
            self._open_top(path or b'.')
        self._lowest = len(self._folders)
        return name

    def _open_top(self, path, mode=None):
        """
        Open a folder that the caller has named. A symbolic link to one will do.

        :param mode: to make it with if it is not there; None not to make it.
        """
        plain = path.rstrip(b'/') or b'/'
        with telling(path):
            self._made_top = mode is not None and not os.path.lexists(plain) and _newly(os.mkdir, path, mode)
            if os.path.exists(plain) and not os.path.isdir(plain):
                raise error(path, 'it is a file where a folder is to be')
            self._folders.append(OpenFolder.at(path))

    def _here(self, name):
        """
        Return the innermost folder, in which something of this name begins.
        """
        self._between_files()
        if not is_name(name):
            raise NoTree('a file name that is not valid')
        return self._folders[-1]

    def _between_files(self):
        if self._new is not None:
            raise NoTree('a file that has not ended')

    def _end(self):
        self._whole = len(self._folders) == self._lowest

    def _folder(self, name, mode):
        mode &= 0o777
        if not self._begun:
            name = self._begin(True)
            if name is None:
                self._folders[0].mode = mode if self._made_top else None
                self._lowest = 0
                return
        here = self._here(name)
        path = here.path_of(name)
        if len(self._folders) > MOST_FOLDERS:
            raise error(path, 'folders are nested more than %d deep' % (MOST_FOLDERS,))
        with telling(path):
            self._folders.append(self._made(here, name, mode))

    def _made(self, here, name, mode):
        """
        Return a folder, and make it unless it is there. One that is keeps its mode.
        """
        found = here.stat(name)
        if found is None:
            return here.folder(name, mode if _newly(here.call, os.mkdir, name, 0o700) else None)
        if not stat.S_ISDIR(found.st_mode):
            raise error(here.path_of(name), 'it is %s where a folder is to be' % (kind_of(found.st_mode),))
        return here.folder(name)

    def _up(self):
        self._between_files()
        if len(self._folders) <= self._lowest:
            raise NoTree('no folder is open')
        folder = self._folders.pop()
        with telling(folder.path):
            folder.close()
        self._end()

    def _file(self, name, mode, size):
        if not self._begun:
            name = self._begin(False)
        here = self._here(name)
        with telling(here.path_of(name)):
            found, owner = self._replaced(here, name), None
            if found is not None and stat.S_ISREG(found.st_mode):
                owner = found.st_uid, found.st_gid
                mode = found.st_mode if mode is None else mode
            self._new = self._new_file(here, name, None if mode is None else mode & 0o777, size, owner)
            self._new.open()
        if self._gave_up:
            self._new.remove()
            raise error(self._new.path, 'this process is about to end')

    def _replaced(self, here, name):
        """
        Return the status of the file or link that is replaced, None if there is none.
        """
        found = here.stat(name)
        if found is not None and not stat.S_ISREG(found.st_mode) and not stat.S_ISLNK(found.st_mode):
            raise error(here.path_of(name), 'it is %s where a file is to be' % (kind_of(found.st_mode),))
        return found

    def _data(self, data):
        if self._new is None:
            raise NoTree('data of no file')
        with telling(self._new.path):
            self._new.write(data)

    def _done(self):
        if self._new is None:
            raise NoTree('the end of no file')
        with telling(self._new.path):
            self._new.finish()
        self._new = None
        self._end()

    def _link(self, name, text):
        if len(self._folders) <= self._lowest:
            raise NoTree('a link outside of any folder')
        here = self._here(name)
        with telling(here.path_of(name)):
            self._replaced(here, name)
            self._new = self._new_link(here, name)
            self._new.make(bytes(text))
        self._new = None

    def _skipped(self, name, why):
        if len(self._folders) <= self._lowest:
            raise NoTree('a skipped entry outside of any folder')
        self._here(name)

    _new_file, _new_link = NewFile, NewLink
    _SHAPES = SHAPES
    _KINDS = {FOLDER: _folder, UP: _up, FILE: _file, DATA: _data, DONE: _done, LINK: _link, SKIPPED: _skipped}
