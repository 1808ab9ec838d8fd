# SPDX-License-Identifier: BSD-3-Clause
"""
How a thread waits on Linux before Python 3.13.
"""

from __future__ import absolute_import  # house

import os  # house
import sys  # house

import mitogen.core  # house


class _YieldingSleeper(mitogen.core._Sleeper):
    """
    On a single core, yields to the thread that is waited for before this one
    goes to sleep. If the answer is there by then, nobody need wake this thread.
    A thread woken while another holds the GIL can only block again. If any
    other process wants the core, a yield would cost a time slice, so the load
    is looked at before.
    """
    #: Seconds for which a look at the load holds.
    FRESH = 0.1

    #: Threads that may want to run: this one, and the one that it waits for.
    MOST_RUNNING = 2

    #: The file that tells how many threads want to run, see proc(5).
    LOADAVG = '/proc/loadavg'

    _pays = False
    _looked_at = 0

    @classmethod
    def _look(cls):
        cls._looked_at = mitogen.core.now()
        cls._pays = False
        try:
            with open(cls.LOADAVG) as fp:
                running = int(fp.read().split()[3].split('/')[0])
            cls._pays = (running <= cls.MOST_RUNNING and
                         len(os.sched_getaffinity(0)) == 1)
        except (OSError, IndexError, ValueError):
            # The system does not tell, so do not yield.
            pass

    def sleep(self, timeout):
        cls = _YieldingSleeper
        if self.since - cls._looked_at > cls.FRESH:
            cls._look()
        if cls._pays:
            os.sched_yield()
        super(_YieldingSleeper, self).sleep(timeout)


# Before 3.10.7 `sched_yield` keeps the GIL. Not every Python has it. A value of
# MITOGEN_SPIN that means nothing is an error with each of them.
if (mitogen.core._spin_wanted() != 0 and hasattr(os, 'sched_yield') and
        sys.platform == 'linux' and sys.version_info >= (3, 10, 7)):
    mitogen.core._Sleeper = _YieldingSleeper
