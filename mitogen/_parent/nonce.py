# SPDX-License-Identifier: BSD-3-Clause
"""
Words that nobody can foresee, by which a prompt or a marker of ours is known.
"""

from __future__ import absolute_import  # house

import binascii  # house
import os  # house


def _make_nonce():
    """
    Return 16 random letters, as `str`.
    """
    return str(binascii.hexlify(os.urandom(8)).decode('ascii'))
