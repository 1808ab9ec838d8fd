# SPDX-License-Identifier: BSD-3-Clause
"""
_BySource: results that were worked out from the source of each module.
"""

from __future__ import absolute_import  # house


class _BySource(object):
    """
    Remembers, for all routers of this process, results that were worked out
    from the source of each module: the same source has the same result. Only
    the last source of a name is kept. Any thread.
    """
    def __init__(self):
        #: Module name -> (source, result made from it). A pair is replaced
        #: as a whole, so no lock is needed.
        self._made = {}

    def find(self, fullname, source):
        """
        Return the result for `fullname` if it had this source before, or
        :data:`None`.
        """
        pair = self._made.get(fullname)
        if pair is not None and pair[0] == source:
            return pair[1]

    def add(self, fullname, source, made):
        """
        Remember a result, and return it.
        """
        self._made[fullname] = source, made
        return made

    def get(self, fullname, source, make, *args):
        """
        Return ``make(*args)``, or the earlier result if `fullname` had this
        source before. An exception of `make` is not remembered.
        """
        made = self.find(fullname, source)
        if made is None:
            made = self.add(fullname, source, make(*args))
        return made
