"""
A test that hangs: every thread's stack is printed, and the process ends. ``scheduler`` says what
becomes of the others.
"""

import faulthandler
import os
import signal

import pytest

from both_cores import REPORT

#: Seconds one test may take, set-up and tear-down included.
TEST_SECONDS = float(os.environ.get('MITOGEN_TEST_SECONDS', '300'))

STDERR = pytest.StashKey()


class LeaveToParent(object):
    """
    A plugin of a process that pytest-xdist has started: a copy that a test makes by ``os.fork()``
    does not keep its pipes. Otherwise the end of the process would be seen only with the end of the
    copy, which may hang, too.
    """
    def __init__(self, channel):
        pipes = channel.gateway._io
        self._fds = [pipes.infile.fileno(), pipes.outfile.fileno()]
        os.register_at_fork(after_in_child=self.leave)

    def leave(self):
        # Not closed: the copy still has the objects that close them.
        null = os.open(os.devnull, os.O_RDWR)
        for fd in self._fds:
            os.dup2(null, fd, inheritable=False)
        os.close(null)


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session):
    for plugin in session.config.pluginmanager.get_plugins():
        if hasattr(session.config, 'workerinput') and hasattr(plugin, 'channel'):
            LeaveToParent(plugin.channel)


def pytest_configure(config):
    config.stash[STDERR] = os.fdopen(os.dup(2), 'w')
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # A shell starts what it runs in the background like that, and the tests send interrupts.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    path = os.environ.get(REPORT)
    if path:
        with open(path + '.running', 'w') as fp:
            fp.write(item.nodeid)
    marker = item.get_closest_marker('seconds')
    seconds = TEST_SECONDS if marker is None else max(TEST_SECONDS, marker.args[0])
    faulthandler.dump_traceback_later(seconds, exit=True, file=item.config.stash[STDERR])
    yield
    faulthandler.cancel_dump_traceback_later()
