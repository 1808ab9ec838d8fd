# SPDX-License-Identifier: BSD-3-Clause
"""
Reaper: sees a child's process to its end.
"""

from __future__ import absolute_import  # house

import errno  # house
import signal  # house
import time  # house

import mitogen.core  # house
from mitogen.parent import LOG, returncode_to_str, SIGNAL_BY_NUM  # house


class Reaper(object):
    """
    Waits for the end of a process: looks at growing intervals whether it still
    runs, and ends it if it runs too long. No signal handler is involved, since
    those belong to the program that uses us.

    :param broker: whose timers to use.
    :param Process proc: the process, whose files are closed already.
    :param bool kill: True to send signals, False to only wait.
    :param bool wait_on_shutdown: True to delay the end of the broker until the
        process is gone, within the broker's own limit.
    """
    max_tries = 20

    #: Number of a look at a process that still runs -> the signal that follows
    #: it.
    escalation = {2: signal.SIGTERM, 6: signal.SIGKILL}

    #: Seconds between peeks, which follow the first look. They only find out
    #: whether the child is gone, and send no signal. A child that ends in good
    #: order closes its stream some hundred microseconds before it is gone.
    #: Without peeks, each level of a chain of children would delay the end of
    #: the level above by 50 ms.
    peeks = (0.001, 0.002, 0.004, 0.008, 0.016)

    def __init__(self, broker, proc, kill, wait_on_shutdown):
        self.proc = proc
        self._broker = broker
        self._escalation = self.escalation if kill else {}
        self._delays_shutdown = wait_on_shutdown
        self._looks = 0
        self._timer = None
        self._peeks = iter(self.peeks)
        self._peek_timer = None
        self._listening = False

    def _calc_delay(self, count):
        """Seconds to wait after look number `count`, from zero."""
        return 0.05 * (1.72 ** count)

    def reap(self):
        """
        Look at the process now, and again later until it is gone. Broker
        thread.
        """
        if not self._is_gone():
            self._looks += 1
            self._on_running()

    def _is_gone(self):
        """Return whether the process is gone; if so, tell everybody."""
        code = self.proc.poll()
        if code is None:
            return False
        LOG.debug('%r: %s', self.proc, returncode_to_str(code))
        self._stop()
        for func in list(mitogen.core._listeners(self.proc, 'exit')):
            try:
                func()
            except Exception:
                # No caller would catch an exception from a timer.
                LOG.exception('%r: listener %r crashed', self.proc, func)
        return True

    def _peek(self):
        if not self._is_gone():
            self._schedule_peek()

    def _schedule_peek(self):
        for delay in self._peeks:
            self._peek_timer = self._broker.timers.schedule(
                mitogen.core.now() + delay, self._peek)
            return

    def _on_running(self):
        if self._looks > self.max_tries:
            LOG.warning('%r: still running after all its files were closed '
                        'and %d looks at it; giving up', self.proc,
                        self.max_tries)
            self._stop()
        elif getattr(self._broker, '_exitted', False) is True:
            # There are no timers any more, so this is the only chance.
            if self._escalation:
                self._end_at_once()
            else:
                self._stop()
        elif self._schedule() and self._looks in self._escalation:
            self._signal(self._escalation[self._looks])

    def _end_at_once(self):
        """End the process, and wait a moment for that. Nobody looks again."""
        self._signal(signal.SIGTERM)
        # A process that was stopped ends only when it goes on.
        self._signal(signal.SIGCONT)
        for delay in self.peeks:
            time.sleep(delay)
            if self._is_gone():
                return
        self._stop()

    def _schedule(self):
        """
        Have `reap` called again; return False if nobody should wait for it.
        """
        if not (self._delays_shutdown or self._listening):
            if getattr(self._broker, '_alive', True) is False:
                return False
            mitogen.core.listen(self._broker, 'shutdown', self._stop)
            self._listening = True
        due = mitogen.core.now() + self._calc_delay(self._looks - 1)
        self._timer = self._broker.timers.schedule(due, self.reap)
        if self._looks == 1:
            self._schedule_peek()
        return True

    def _stop(self):
        """Forget the process. Also the listener of the broker's shutdown."""
        for timer in self._timer, self._peek_timer:
            if timer is not None:
                timer.cancel()
        if self._listening:
            mitogen.core.unlisten(self._broker, 'shutdown', self._stop)
            self._listening = False

    def _signal(self, signum):
        LOG.debug('%r: sending %s', self.proc, SIGNAL_BY_NUM[int(signum)])
        try:
            self.proc.send_signal(signum)
        except OSError as e:
            # A front-end such as sudo runs as somebody else. It ends all the
            # same, as its files are closed; or it was reaped just now.
            if e.args[0] not in (errno.EPERM, errno.ESRCH):
                raise
