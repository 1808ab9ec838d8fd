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
    On a single core, lets the thread that is waited for run before this one
    goes to sleep: then it need not be woken. Whoever is woken while another
    thread has the GIL only runs to find that out. With anything else to run
    there, a yield would cost the waiter a time slice.
    """
    #: Seconds for which a look at the machine holds.
    FRESH = 0.1

    #: Those that may want to run: this thread, and the one it waits for.
    MOST_RUNNING = 2

    #: What runs, as proc(5) has it.
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
            # It cannot be known.
            pass

    def sleep(self, timeout):
        cls = _YieldingSleeper
        if self.since - cls._looked_at > cls.FRESH:
            cls._look()
        if cls._pays:
            os.sched_yield()
        super(_YieldingSleeper, self).sleep(timeout)


# Before 3.10.7 `sched_yield` keeps the GIL. Not every Python has it.
if (hasattr(os, 'sched_yield') and sys.platform == 'linux' and
        sys.version_info >= (3, 10, 7) and
        float(os.environ.get('MITOGEN_SPIN') or 1)):
    mitogen.core._Sleeper = _YieldingSleeper
