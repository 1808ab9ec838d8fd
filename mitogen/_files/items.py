# SPDX-License-Identifier: BSD-3-Clause
"""
Items: the form in which a file or a tree travels. A tree is a sequence of them, whose first member
says what they are:

* (FOLDER, name, mode) begins a folder; the items after it lie in it, up to (UP,).
* (FILE, name, mode, size) begins a file, (DATA, bytes) is a piece of it, (DONE,) ends it. A size of
  -1 is not known. If the mode is None, the file keeps the mode of the one that it replaces.
* (LINK, name, text) is a symbolic link.
* (SKIPPED, name, why) is anything else, such as a fifo, which does not travel.

Names are bytes, and have no slash: the writer decides where they lie. The name of the first item
counts for nothing.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import mitogen.core

FOLDER, UP, FILE, DATA, DONE, LINK, SKIPPED = range(7)

#: Bytes that are read at a time, and are in one item at most.
CHUNK = 1 << 17

#: Items that travel together, and bytes of them, about: a message for each chunk would take both
#: ends a fifth more of their processors for a large file.
TOGETHER, TOGETHER_BYTES = 128, 1 << 19

#: Folders that may lie in each other: either end has a descriptor for each.
MOST_FOLDERS = 200

#: Bytes of a name: more than any file system takes.
MOST_NAME = 4096

#: Characters of the reason why something does not travel.
MOST_WHY = 200


class NoTree(Exception):
    """
    A sequence of items is no tree. The text says why.
    """
    pass


def is_name(value):
    """
    Return whether some bytes name a file in its folder, and nothing else.
    """
    return len(value) <= MOST_NAME and value not in (b'', b'.', b'..') and b'/' not in value and b'\0' not in value


def is_bytes(value):
    return isinstance(value, bytes)


def is_number(value):
    return isinstance(value, mitogen.core.integer_types)


def _is_mode(value):
    return value is None or is_number(value)


def _is_text(value):
    return is_bytes(value) and b'\0' not in value


def _is_why(value):
    return isinstance(value, (str, mitogen.core.UnicodeType)) and len(value) <= MOST_WHY


#: Kind -> what its members have to be.
SHAPES = {
    FOLDER: (is_bytes, is_number),
    UP: (),
    FILE: (is_bytes, _is_mode, is_number),
    DATA: (is_bytes,),
    DONE: (),
    LINK: (is_bytes, _is_text),
    SKIPPED: (is_bytes, _is_why),
}


def _is_item(value, shapes):
    if not isinstance(value, (tuple, list)) or not value or not is_number(value[0]):
        return False
    shape = shapes.get(value[0])
    return shape is not None and len(value) == 1 + len(shape) and all(
        test(member) for test, member in zip(shape, value[1:]))


def checked(items, shapes=SHAPES):
    """
    Yield items that came from a process which may say anything. Each has the members of its kind.

    :param shapes: kind -> what its members have to be.
    :raises NoTree: there is something else.
    """
    if not isinstance(items, (tuple, list)):
        raise NoTree('no list of items')
    for item in items:
        if not _is_item(item, shapes):
            raise NoTree('an item of an unknown kind')
        yield item
