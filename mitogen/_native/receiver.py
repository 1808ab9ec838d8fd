# SPDX-License-Identifier: BSD-3-Clause
"""
The compiled leaf of Receiver.
"""

from __future__ import absolute_import  # house

import sys  # house

import _mitogen_core as _c  # house
from mitogen._native import _Signature, core  # house


class Receiver(core._ReceiverBase, _c.Receiver):
    # The name that pickles and programs know.
    __module__ = 'mitogen.core'
    if sys.version_info < (3, 10):
        __signature__ = _Signature(
            'router, handle=None, persist=True, respondent=None, policy=None, overwrite=False, '
            'max_bytes=None')
    # Its queue is a compiled latch, into which the engine puts messages.
    raise_channelerror = True
