# SPDX-License-Identifier: BSD-3-Clause
"""
Values of Ansible's, as plain Python ones. Since ansible-core 2.19 texts and containers that come
from a playbook are of classes of its own; nothing but plain ones can be marshalled, and none of the
others crosses to a target.
"""

from __future__ import absolute_import


def plain(value):
    """
    Return a value made of plain classes that equals this one.
    """
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, str):
        # A copy even of `str`'s own methods' results may be of the subclass.
        return value if type(value) is str else ''.join(list(str.__iter__(value)))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value if type(value) is bytes else bytes(memoryview(value))
    if isinstance(value, dict):
        return dict((plain(key), plain(item)) for key, item in value.items())
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, (frozenset, set)):
        return frozenset(plain(item) for item in value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, bool):
        return bool(value)
    if isinstance(value, int):
        return int.__int__(value) + 0
    if isinstance(value, float):
        return float.__float__(value) + 0.0
    return plain(str(value))
