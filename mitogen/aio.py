# SPDX-License-Identifier: BSD-3-Clause
"""
The classes of :mod:`mitogen` for asyncio, for masters of Python 3.9 and newer.
"""

from mitogen._tree.aio import Group, Host, Stream, Tree

__all__ = ['Group', 'Host', 'Stream', 'Tree']
