# SPDX-License-Identifier: BSD-3-Clause
"""
Broker: the broker of a master.
"""

from __future__ import absolute_import  # house

import os  # house
import threading  # house

import mitogen  # house
import mitogen.core  # house
import mitogen.parent  # house

from mitogen.master import ThreadWatcher  # house


class Broker(mitogen.core.Broker):
    """
    The broker of a master: has timers and the best poller, and shuts down
    when the thread that made it ends, lest a forgotten broker keep the
    program alive.

    :param bool install_watcher:
        If :data:`False`, :meth:`shutdown` must be called.
    """
    shutdown_timeout = 5.0
    poller_class = mitogen.parent.PREFERRED_POLLER

    _watcher = None

    def __init__(self, install_watcher=True):
        # Checked before anything is made that would have to be ended.
        if not getattr(threading, '_daemon_threads_allowed', lambda: True)():
            raise mitogen.core.Error(
                'a broker can be had in the main interpreter only: this one '
                'has no daemon threads')
        super(Broker, self).__init__()
        self.timers = mitogen.parent.TimerList()
        if install_watcher:
            self._end_with(mitogen.core.threading__current_thread())

    def _end_with(self, thread):
        """
        Shut down once a thread has ended.
        """
        try:
            self._watcher = ThreadWatcher.watch(thread, self.shutdown)
        except RuntimeError:
            # The system gives no thread, and the caller gets no broker.
            self.shutdown()
            self.join()
            raise

    def shutdown(self):
        """
        Start an orderly shutdown. Any thread, may be repeated; see
        :meth:`join`.
        """
        super(Broker, self).shutdown()
        if self._watcher is not None:
            self._watcher.remove()


def _finish_imports():
    """
    Before a fork, import the modules that the broker's thread imports when it
    first serves a module. The copy of a process cannot import a module that
    another thread was importing: the lock of that module is never released
    there.
    """
    if not Broker._all:
        return
    names = ['dis', 'importlib.machinery', 'importlib.util', 'pkgutil',
             'mitogen.imports', 'mitogen.minify']
    if mitogen.is_master:
        names.append('mitogen._shrink')
    for name in names:
        mitogen.core.import_module(name)


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(before=_finish_imports)
