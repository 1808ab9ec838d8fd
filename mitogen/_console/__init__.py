# SPDX-License-Identifier: BSD-3-Clause
"""
A console: lines of Python that a person types elsewhere, as they are run here. This module is
fetched by a host that ``mitogen shell`` is for.

The text runs on the main thread, one at a time. While it runs, a message to the handle
that :func:`begin` returns interrupts it as Ctrl-C at a terminal does: KeyboardInterrupt
is raised, and the processes that were started here get SIGINT. It needs Python 3.6.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import code
import os
import platform
import signal
import sys
import threading
import time

import mitogen.core
from mitogen.core import takes_econtext

#: How a piece of text came out: it needs further lines, or it has run, or it ended the console.
MORE, DONE, EXIT = 'more', 'done', 'exit'

#: Names that are proposed at a time.
NAMES_MAX = 500


class _Interpreter(code.InteractiveInterpreter):
    def write(self, data):
        sys.stderr.write(data)


class _Console(object):
    """
    The console of this process. Main thread, but for `interrupt`.

    :ivar running: whether text runs that may be interrupted.
    :ivar wanted: whether it is to be.
    """
    def __init__(self, econtext):
        self._router = econtext.router
        self.running = self.wanted = False
        self._interpreter = _Interpreter({'__name__': '__console__', '__doc__': None})
        self._main_ident = mitogen.core.thread.get_ident()
        signal.signal(signal.SIGINT, self._on_signal)
        self.handle = econtext.router.add_handler(self._on_interrupt, policy=mitogen.core.has_parent_authority)

    def _on_signal(self, _number, _frame):
        if self.running and self.wanted:
            # Once for each message, however many signals it takes.
            self.wanted = False
            raise KeyboardInterrupt()

    def _on_interrupt(self, msg):
        """
        Handle the message that interrupts. Broker thread.
        """
        if not msg.is_dead and self.running:
            self.wanted = True
            # To read /proc takes time, and the loop has others to serve.
            thread = threading.Thread(target=self._interrupt, name='mitogen.console.interrupt')
            thread.daemon = True
            thread.start()

    def _interrupt(self):
        _interrupt_processes(self._of_contexts())
        # The system ends no wait for a signal that came just before it.
        for pause in (0.01, 0.05, 0.2, 0.5):
            if self.wanted and self.running:
                signal.pthread_kill(self._main_ident, signal.SIGINT)
                time.sleep(pause)

    def _of_contexts(self):
        """
        Return the processes of our connections, which stay.
        """
        procs = [getattr(getattr(stream, 'conn', None), 'proc', None) for stream in list(self._router._streams())]
        return set(proc.pid for proc in procs if proc is not None)

    def _run(self, text):
        """
        Run some text, and return how it came out, and an exit status.
        """
        more = self._interpreter.runsource(text, '<console>')
        self.running = False
        return MORE if more else DONE, None

    def run(self, text):
        try:
            self.wanted, self.running = False, True
            return self._run(text)
        except KeyboardInterrupt:
            self._interpreter.write('\nKeyboardInterrupt\n')
            return DONE, None
        except SystemExit as e:
            return EXIT, exit_status(e.code)
        finally:
            self.running = False

    def names(self, text):
        import rlcompleter
        completer = rlcompleter.Completer(self._interpreter.locals)
        found = []
        while len(found) < NAMES_MAX:
            name = completer.complete(text, len(found))
            if name is None:
                break
            found.append(name)
        return found


def exit_status(code):
    """
    Return the exit status for what ``exit()`` was given. A text is written to stderr.
    """
    if code is None or isinstance(code, int):
        return (code or 0) & 0xff
    sys.stderr.write('%s\n' % (code,))
    return 1


def _interrupt_processes(spared):
    """
    Send SIGINT to the processes below this one, as a terminal would. Nothing happens where there is
    no /proc.

    :param spared: those that get none, nor what they have started.
    """
    parents = {}
    try:
        for name in os.listdir('/proc'):
            if name.isdigit():
                parents[int(name)] = _parent_of(name)
    except OSError:
        return
    below = [os.getpid()]
    for pid in below:
        below.extend(child for child in parents if parents[child] == pid and child not in spared)
    for pid in below[1:]:
        try:
            os.kill(pid, signal.SIGINT)
        except OSError:
            # It has ended, or is another user's.
            pass


def _parent_of(name):
    try:
        with open('/proc/%s/stat' % (name,), 'rb') as fp:
            return int(fp.read().rpartition(b')')[2].split()[1])
    except (OSError, IndexError, ValueError):
        # It ended just now.
        return 0


#: The :class:`_Console` of this process, once there is one.
_console = None


@takes_econtext
def begin(econtext):
    """
    Make the console, and return the handle that interrupts, and a line about this Python. Main
    thread; repeatable.
    """
    if sys.version_info < (3, 6):
        raise mitogen.core.Error('a console needs Python 3.6, and this is %d.%d' % sys.version_info[:2])
    return use(_console or _Console(econtext))


def use(console, more=''):
    """
    Have a console run what follows, and return its handle, and a line about this Python.
    """
    global _console
    _console = console
    version = '%s %s' % (platform.python_implementation(), platform.python_version())
    return console.handle, '%s on %s (%s)%s' % (version, platform.node(), sys.platform, more)


def run(text):
    """
    Run some text, and return (MORE, DONE or EXIT, exit status or number of the next cell).
    """
    return _console.run(text)


def names(text):
    """
    Return the names that may continue a text.
    """
    return _console.names(text)
