# SPDX-License-Identifier: BSD-3-Clause
"""
The compiled leaf of Latch.
"""

from __future__ import absolute_import  # house

import sys  # house

import _mitogen_core as _c  # house
from mitogen._native import _Signature, core  # house


class Latch(core._LatchBase, _c.Latch):
    # The name that pickles and programs know.
    __module__ = 'mitogen.core'
    if sys.version_info < (3, 10):
        __signature__ = _Signature('')

    def __repr__(self):
        try:
            size = self.size()
        except core.LatchError:
            size = 0
        return 'Latch(%#x, size=%d, t=%r)' % (
            id(self), size, core._module('threading').current_thread().name)

    def close(self):
        _c.Latch.close(self)
        if self._on_close:
            self._on_close()

    @classmethod
    def _on_fork(cls):
        """Nothing to close: waiting takes no descriptor."""
        pass
