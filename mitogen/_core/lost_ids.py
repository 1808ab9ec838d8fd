# SPDX-License-Identifier: BSD-3-Clause
"""
_LostIds: which contexts were lost.
"""

from __future__ import absolute_import  # house

from mitogen.core import _seldom  # house


@_seldom
class _LostIds(object):
    """
    The ids of contexts that were lost, which no others will have: a bit for
    each, in pages of 1,024 ids. A master hands ids out one after the other, and
    a child has a limited number, so that a page seldom has one bit only. Any
    thread may read; the router's lock guards changes.
    """
    def __init__(self):
        self._pages = {}
        #: Idents of threads that are about to send to the respondent of a
        #: handler: something comes there, lost or not.
        self.asking = set()

    def __contains__(self, context_id):
        page = self._pages.get(context_id >> 10, 0)
        return bool(page >> (context_id & 1023) & 1)

    def add(self, context_id):
        page = self._pages.get(context_id >> 10, 0)
        self._pages[context_id >> 10] = page | 1 << (context_id & 1023)

    def discard(self, context_id):
        if context_id in self:
            self._pages[context_id >> 10] ^= 1 << (context_id & 1023)
