# SPDX-License-Identifier: BSD-3-Clause
"""
Process: a child's process, our ends of its standard files, and how it ended.
"""

from __future__ import absolute_import  # house

import os  # house
import signal  # house


class Process(object):
    """
    A child process, and our ends of its standard files.

    Fires ``exit`` on the broker thread when a `Reaper` finds it gone.

    :ivar int pid: process id.
    :ivar stdin: file that it reads from.
    :ivar stdout: file that it writes to; may be the same object.
    :ivar stderr: file that its diagnostics come from, or None.
    :ivar name: name of its stream, once there is one.
    """
    name = None

    def __init__(self, pid, stdin, stdout, stderr=None):
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr

    def __repr__(self):
        return '%s %s pid %d' % (type(self).__name__, self.name, self.pid)

    def poll(self):
        """
        Return None while it runs, otherwise its exit status, or minus the
        number of the signal that ended it. Reaps it; never blocks.
        """
        raise NotImplementedError()

    def send_signal(self, sig):
        """Send it a signal; OSError if that is not possible or allowed."""
        os.kill(self.pid, sig)

    def kill(self):
        """Have the kernel end it."""
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


class PopenProcess(Process):
    """
    A `Process` started by :func:`popen`.

    :ivar proc: the :class:`subprocess.Popen`.
    """
    def __init__(self, proc, stdin, stdout, stderr=None):
        self.proc = proc
        Process.__init__(self, proc.pid, stdin, stdout, stderr=stderr)

    def poll(self):
        return self.proc.poll()

    def send_signal(self, sig):
        self.proc.send_signal(sig)


def _signal_names():
    names = {}
    # Backwards, so that of several names for one number the first in the
    # alphabet stays.
    for name in sorted(dir(signal), reverse=True):
        if name.startswith('SIG') and not name.startswith('SIG_'):
            names[int(getattr(signal, name))] = name
    return names


#: Signal number -> name.
SIGNAL_BY_NUM = _signal_names()


def returncode_to_str(n):
    """
    Describe a `subprocess` style return code for people.
    """
    if n >= 0:
        return 'exited with return code %d' % (n,)
    signum = -n
    return 'exited due to signal %d (%s)' % (
        signum, SIGNAL_BY_NUM.get(signum))
