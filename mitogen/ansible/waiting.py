# SPDX-License-Identifier: BSD-3-Clause
"""
How the controller waits for its workers.

A strategy of Ansible's looks a thousand times a second whether a result has come, and looks at each
worker every time. Here it sleeps until one comes. The rest that it looks for, such as a worker that
has died, may be found some milliseconds later.
"""

from __future__ import absolute_import

import collections
import importlib
import threading
import time

#: Seconds that it sleeps at most.
LONGEST = 0.02


class Waiter(object):
    """
    Stands for the module `time` where strategies use it.
    """

    def __init__(self):
        self.arrived = threading.Event()
        self.patience = 0.0

    def __getattr__(self, name):
        return getattr(time, name)

    def sleep(self, seconds):
        """
        Sleep until a result comes, and longer each time that none does. The main thread.
        """
        self.patience = min(LONGEST, max(seconds, 2 * self.patience))
        if self.arrived.wait(self.patience):
            self.arrived.clear()
            self.patience = 0.0


class Results(collections.deque):
    """
    The results that a strategy is handed, by a thread of its own.
    """
    waiter = None

    def append(self, result):
        super(Results, self).append(result)
        self.waiter.arrived.set()


def install(strategy):
    """
    Have Ansible's strategies wait so.

    :param strategy: their package.
    :raises AttributeError: it has other parts than we know.
    """
    if strategy.time is not time or strategy.deque is not collections.deque:
        return
    waiter = Waiter()
    strategy.deque = type('Results', (Results,), {'waiter': waiter})
    strategy.time = waiter
    importlib.import_module(strategy.__name__ + '.free').time = waiter
