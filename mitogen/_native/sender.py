# SPDX-License-Identifier: BSD-3-Clause
"""
The compiled leaf of Sender.
"""

from __future__ import absolute_import  # house

import _mitogen_core as _c  # house
from mitogen._native import core  # house


class Sender(core._SenderBase, _c.Sender):
    # The name that pickles and programs know.
    __module__ = 'mitogen.core'
    # `send` is compiled.
