# SPDX-License-Identifier: BSD-3-Clause
"""
_Grants: the ids that contexts behind one child may have.
"""

from __future__ import absolute_import  # house

import bisect  # house

import mitogen.core  # house


def _parse_id(data):
    """
    Return the id that `data` is in decimal, or None if it is none.
    """
    if isinstance(data, mitogen.core.BytesType) and data.isdigit() and \
            len(data) <= 10 and int(data) < 1 << 32:
        return int(data)


class _Grants(object):
    """
    The blocks of ids that were handed out by way of one child, to it or to
    contexts behind it, and the ids of them that a context has had.

    An id belongs to the holder of its block, and to one process for the life
    of the tree: once it was announced it is not accepted again, whatever
    became of that process. A block costs one bit for each id.

    Broker thread only.

    :ivar int asked: how many blocks were asked for.
    """
    def __init__(self):
        self.asked = 0
        self._starts = []   # sorted
        self._blocks = {}   # start -> (end, holder, bits of the ids in use)

    def add(self, start, end, holder):
        """
        Note that the ids from `start` to before `end` are the context
        `holder`'s to give.
        """
        if start not in self._blocks:
            bisect.insort(self._starts, start)
            self._blocks[start] = end, holder, bytearray((end - start + 7) // 8)

    def _find(self, target_id):
        """
        Return the start of the block that an id is in, or None.
        """
        index = bisect.bisect_right(self._starts, target_id) - 1
        if index >= 0 and target_id < self._blocks[self._starts[index]][0]:
            return self._starts[index]

    def holder(self, target_id):
        """
        Return the id of the context that gives `target_id` to its children,
        or None if it was not handed out this way.
        """
        start = self._find(target_id)
        return None if start is None else self._blocks[start][1]

    def was_used(self, target_id):
        """
        Return whether a context has ever had that id, which was handed out here.
        """
        start = self._find(target_id)
        at = target_id - start
        return bool(self._blocks[start][2][at // 8] & 1 << at % 8)

    def use(self, target_id):
        """
        Note that a context has that id, which was handed out this way.
        """
        start = self._find(target_id)
        at = target_id - start
        self._blocks[start][2][at // 8] |= 1 << at % 8
