# SPDX-License-Identifier: BSD-3-Clause
"""
A tree of hosts, with context managers, futures and typed errors.

Only a master uses this package, so it is written for Python 3.9 and newer. Each of its modules is
about one subject. It stands on the interface of :mod:`mitogen.master` and changes nothing there: a
tree is a router, and a host a context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mitogen._tree.caller import Caller
from mitogen._tree.errors import (
    AuthError, ConnectError, ConnectionLost, ConnectTimeout, DeadlineExceeded, HostDown, HostKeyError, NoPython,
    RemoteError,
)
from mitogen._tree.group import DownHost, Group, Result
from mitogen._tree.host import Host
from mitogen._tree.observing import Task as ObservedTask
from mitogen._tree.options import CallOptions
from mitogen._tree.running import CommandError, CommandTimeout, Completed
from mitogen._tree.stream import Stream
from mitogen._tree.tree import connect, Tree
from mitogen.parent import ValueRefused

if TYPE_CHECKING:
    from mitogen._tree.executor import HostExecutor
    from mitogen._tree.files import FileError
    from mitogen._tree.info import HostInfo, HostLink
    from mitogen._tree.meter import Copied, Progress
    from mitogen._tree.sync_meter import Synced

__all__ = [
    'AuthError', 'CallOptions', 'Caller', 'CommandError', 'CommandTimeout', 'Completed', 'ConnectError',
    'ConnectTimeout', 'ConnectionLost', 'Copied', 'DeadlineExceeded', 'DownHost', 'FileError', 'Group', 'Host',
    'HostDown', 'HostExecutor', 'HostInfo', 'HostKeyError', 'HostLink', 'NoPython', 'ObservedTask', 'Progress',
    'RemoteError', 'Result', 'Stream', 'Synced', 'Tree', 'ValueRefused', 'connect',
]

#: Name -> the module that has it, which is imported when it is first used: most programs do
#: without, and start sooner.
_SELDOM = {'HostExecutor': 'executor', 'FileError': 'files', 'HostInfo': 'info', 'HostLink': 'info', 'Copied': 'meter',
           'Progress': 'meter', 'Synced': 'sync_meter'}


def __getattr__(name: str) -> Any:
    if name not in _SELDOM:
        raise AttributeError('module %r has no attribute %r' % (__name__, name))
    import importlib
    value = getattr(importlib.import_module('mitogen._tree.' + _SELDOM[name]), name)
    globals()[name] = value
    return value
