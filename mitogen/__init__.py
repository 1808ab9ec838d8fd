# SPDX-License-Identifier: BSD-3-Clause
"""
Run Python functions in other processes, users, containers and hosts, without
installing anything there.

This module holds only what identifies the running process in the tree of
contexts. In a child the same names are set by the bootstrap. It imports
nothing, because every child that has the package installed pays for it.
"""

#: Version as a tuple.
__version__ = (1, 0, 0, 'dev0')

#: Both ends of a connection compare this before a child uses its own installed
#: copy. `setup.py` puts a checksum of the sources behind the version.
__build__ = '.'.join(map(str, __version__))

#: True in the process that started the tree, False in every child.
is_master = True

#: Id of this process; the master is 0.
context_id = 0

#: Id of the process that started this one, None in a master.
parent_id = None

#: Ids of all ancestors, nearest first. Read at every use, never copied:
#: detaching and UNIX socket clients replace it.
parent_ids = []


#: Names of :mod:`mitogen._tree`, which is imported when one is first used.
_TREE_NAMES = frozenset([
    'AuthError', 'CallOptions', 'Caller', 'CommandError', 'CommandTimeout', 'Completed', 'ConnectError',
    'ConnectTimeout', 'ConnectionLost', 'Copied', 'DeadlineExceeded', 'DownHost', 'FileError', 'Group', 'Host',
    'HostDown', 'HostExecutor', 'HostInfo', 'HostKeyError', 'HostLink', 'NoPython', 'ObservedTask', 'Progress',
    'RemoteError', 'Result', 'Stream', 'Synced', 'Tree', 'ValueRefused', 'connect',
])


def __getattr__(name):
    if name == 'aio':
        # Imported only when it is asked for: it imports asyncio.
        import mitogen.aio
        return mitogen.aio
    if name == 'register':
        import mitogen.values
        return mitogen.values.register
    if name not in _TREE_NAMES:
        raise AttributeError('module %r has no attribute %r' % (__name__, name))
    import mitogen._tree
    return getattr(mitogen._tree, name)


def main(log_level='INFO', profiling=None):
    """
    Make a decorator that turns a function into the program's main function.

    In the master's `__main__` the function is called at once as
    ``func(router)`` with a fresh :class:`mitogen.master.Router`, whose broker
    is shut down and joined afterwards; the decorated name becomes the result.
    Elsewhere in a master the function comes back unchanged, and in a child
    it is never run: the name becomes None.

    :param str log_level: level name for :func:`mitogen.utils.log_to_file`.
    :param profiling: true to profile, None to obey `MITOGEN_PROFILING`.
    """
    def decorate(func):
        if func.__module__ != '__main__':
            return func

        import os
        import mitogen.core
        import mitogen.master
        import mitogen.utils
        enabled = profiling
        if enabled is None:
            enabled = 'MITOGEN_PROFILING' in os.environ
        if enabled:
            mitogen.core.enable_profiling()
            mitogen.master.Router.profiling = True
        mitogen.utils.log_to_file(level=log_level)
        return mitogen.core._profile_hook(
            'app.main', mitogen.utils.run_with_router, func)
    return decorate
