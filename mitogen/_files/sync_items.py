# SPDX-License-Identifier: BSD-3-Clause
"""
The forms in which a tree travels to where an older copy of it may be. The end that reads offers its
files, the end that writes answers which of them it wants, and items of those are sent.

Offers are items of the tree without data: FOLDER, UP, LINK, SKIPPED, and (FILE, name, mode, size,
time). The names in a folder are in order. Answers are for each FILE and LINK, in order:

* SAME: it is there.
* WANTED: all of it is to be sent.
* KEPT: the content is there, and the mode is another.
* bytes: digests of the blocks that are there, see :mod:`mitogen._files.blocks`.
* (CHECK, bytes): the digests of a file, which is the same if all of them are equal.

The items of a file then are (FILE, name, mode, size), (TIME, time), its blocks, (SUM, digest),
(DONE,). A block is DATA, or one of these:

* (PACKED, bytes, size) is data that zlib has compressed.
* (HOLE, size): zeros that take no room.
* (COPY, size): bytes of the file that was there, at the same place.

(KEEP,) in place of blocks keeps all of the older content. (AS_IT_WAS, name, size) is a file that is
the same, and a link if the size is -1. Times are nanoseconds since 1970.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

from mitogen._files.items import CHUNK, FILE, FOLDER, is_bytes, is_number, LINK, SHAPES, SKIPPED, UP

TIME, PACKED, HOLE, COPY, KEEP, SUM, AS_IT_WAS = range(20, 27)

SAME, WANTED, KEPT, CHECK = range(4)

#: Larger numbers are no sizes, or times, of any file system.
_MOST_SIZE, _MOST_TIME = 1 << 62, 1 << 65

#: Nanoseconds by which the times of the same file may differ, if one end has them as fractions of a
#: second.
_NEAR = 2000


def time_of(found):
    """
    Return the time of the last change of a file, by its status.
    """
    exact = getattr(found, 'st_mtime_ns', None)
    return int(found.st_mtime * 1000000000) if exact is None else exact


def are_near(time, other):
    """
    Tell whether two times are the same, as far as older Pythons know.
    """
    return abs(time - other) < _NEAR


def _is_size(value):
    return is_number(value) and 0 <= value < _MOST_SIZE


def _is_count(value):
    return _is_size(value) and value > 0


def _is_piece(value):
    return is_number(value) and 0 < value <= CHUNK


def _is_time(value):
    return is_number(value) and abs(value) < _MOST_TIME


def _is_size_or_link(value):
    return is_number(value) and -1 <= value < _MOST_SIZE


#: Kind of an offer -> what its members have to be.
OFFERS = dict((kind, SHAPES[kind]) for kind in (FOLDER, UP, LINK, SKIPPED))
OFFERS[FILE] = is_bytes, is_number, _is_size, _is_time

#: Kind of an item -> what its members have to be.
ITEMS = dict(SHAPES)
ITEMS.update({
    FILE: (is_bytes, is_number, _is_size),
    TIME: (_is_time,),
    PACKED: (is_bytes, _is_piece),
    HOLE: (_is_count,),
    COPY: (_is_count,),
    KEEP: (),
    SUM: (is_bytes,),
    AS_IT_WAS: (is_bytes, _is_size_or_link),
})
