# SPDX-License-Identifier: BSD-3-Clause
"""
The compiled leaf of Context.
"""

from __future__ import absolute_import  # house

import _mitogen_core as _c  # house
from mitogen._native import core  # house


class Context(core._ContextBase, _c.Context):
    # The name that pickles and programs know.
    __module__ = 'mitogen.core'
    # `send` and `send_async` are compiled.
    name = None
