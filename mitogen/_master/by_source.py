# SPDX-License-Identifier: BSD-3-Clause
"""
_BySource: what was worked out from the source of each module.
"""

from __future__ import absolute_import  # house


class _BySource(object):
    """
    Remembers, for all routers of this process, what was worked out from the
    source of each module: from the same source comes the same. Only the last
    source of a name is kept. Any thread.
    """
    def __init__(self):
        #: Module name -> (source, what was made from it). A pair is replaced
        #: as a whole, so no lock is needed.
        self._made = {}

    def get(self, fullname, source, make, *args):
        """
        Return ``make(*args)``, or what that returned when `fullname` had this
        source before. What `make` raises is not remembered.
        """
        pair = self._made.get(fullname)
        if pair is None or pair[0] != source:
            pair = self._made[fullname] = source, make(*args)
        return pair[1]
