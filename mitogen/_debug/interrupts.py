# SPDX-License-Identifier: BSD-3-Clause
"""
Interrupts of system calls again and again, to find code that does not expect them.
"""

from __future__ import absolute_import  # house

import signal  # house


def _ignore_signal(signum, frame):
    pass


def enable_evil_interrupts():
    """
    Interrupt system calls a hundred times a second, to find code that does
    not expect it. Main thread.
    """
    signal.signal(signal.SIGALRM, _ignore_signal)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)


def disable_evil_interrupts():
    """
    Undo :func:`enable_evil_interrupts`.
    """
    signal.setitimer(signal.ITIMER_REAL, 0, 0)
