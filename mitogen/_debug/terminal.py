# SPDX-License-Identifier: BSD-3-Clause
"""
The signal that has the stacks written to the terminal.
"""

from __future__ import absolute_import  # house

import os  # house
import signal  # house

import mitogen.core  # house

from mitogen.debug import get_snapshot  # house


def _handle_signal(signum, frame):
    try:
        fd = os.open('/dev/tty', os.O_WRONLY | os.O_NOCTTY)
    except OSError:
        return
    try:
        text = get_snapshot()
        if isinstance(text, mitogen.core.UnicodeType):
            text = text.encode('utf-8', 'replace')
        os.write(fd, text)
    finally:
        os.close(fd)


def install_handler():
    """
    Have SIGUSR2 write a snapshot to the terminal. Main thread.
    """
    signal.signal(signal.SIGUSR2, _handle_signal)
