"""
A test that hangs: every thread's stack is printed, and the process ends.
"""

import faulthandler
import os
import signal

import pytest

from both_cores import REPORT

#: Seconds one test may take, set-up and tear-down included.
TEST_SECONDS = float(os.environ.get('MITOGEN_TEST_SECONDS', '120'))

STDERR = pytest.StashKey()


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
