# SPDX-License-Identifier: BSD-3-Clause
"""
A tree of hosts, for programs of today: context managers, futures, typed errors.

Only a master uses this package, so it is written for Python 3.9 and newer. Each of its modules is about one noun. It
stands on the interface of :mod:`mitogen.master` and changes nothing there: a tree is a router, and a host a context.
"""

from __future__ import annotations

from mitogen._tree.errors import (
    AuthError, ConnectError, ConnectionLost, ConnectTimeout, HostDown, HostKeyError, NoPython, RemoteError,
)
from mitogen._tree.group import DownHost, Group, Result
from mitogen._tree.host import Host
from mitogen._tree.tree import connect, Tree

__all__ = [
    'AuthError', 'ConnectError', 'ConnectionLost', 'ConnectTimeout', 'DownHost', 'Group', 'Host', 'HostDown',
    'HostKeyError', 'NoPython', 'RemoteError', 'Result', 'Tree', 'connect',
]
