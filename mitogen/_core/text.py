# SPDX-License-Identifier: BSD-3-Clause
"""
Text and bytes.
"""

from __future__ import absolute_import  # house

from mitogen.core import BytesType, UnicodeType  # house


def to_text(o):
    """Return `o` as exactly text; bytes are decoded as UTF-8."""
    if isinstance(o, BytesType):
        return UnicodeType(o, 'utf-8')
    return UnicodeType(o)
