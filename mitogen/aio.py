# SPDX-License-Identifier: BSD-3-Clause
"""
The classes of :mod:`mitogen` for asyncio, for masters of Python 3.9 and newer.
"""

from mitogen._tree.aio import Group, Host, Stream, Tree  # noqa: F401
