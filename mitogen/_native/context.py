# SPDX-License-Identifier: BSD-3-Clause
"""
The compiled leaves of Sender and Context.
"""

from __future__ import absolute_import  # house

import _mitogen_core as _c  # house
from mitogen._native import core  # house


class Sender(core._SenderBase, _c.Sender):
    # What it is to everybody else.
    __module__ = 'mitogen.core'
    # `send` is compiled.


class Context(core._ContextBase, _c.Context):
    # What it is to everybody else.
    __module__ = 'mitogen.core'
    # `send` and `send_async` are compiled.
    name = None
