"""
The harness of the suite.
"""

import logging
import os
import subprocess
import sys
import threading

import pytest
from _pytest.logging import catching_logs

import loggers
import places


def make_logger_unless_locked(name):
    """
    Do what a broker does when the first record of a child arrives, but do not wait for logging's
    lock.
    """
    if logging._lock.acquire(blocking=False):
        try:
            logging.getLogger(name)
        finally:
            logging._lock.release()


class Nosy(logging.Logger):
    """
    A logger that, whenever it is asked whether it propagates, has another thread make a logger.
    """
    asked = 0

    @property
    def propagate(self):
        self.asked += 1
        name = '%s.%d' % (self.name, self.asked)
        thread = threading.Thread(target=make_logger_unless_locked, args=(name,))
        thread.start()
        thread.join()
        return True

    @propagate.setter
    def propagate(self, value):
        pass


def test_no_thread_makes_a_logger_while_pytest_goes_through_all_loggers(monkeypatch):
    table = logging.root.manager.loggerDict
    monkeypatch.setitem(table, 'tests.nosy', Nosy('tests.nosy'))
    logging.getLogger('tests.behind')
    with catching_logs(logging.NullHandler()):
        pass
    assert 'tests.nosy.1' not in table


@pytest.mark.once
def test_the_loggers_that_children_made_are_forgotten_after_a_test():
    table = logging.root.manager.loggerDict
    kept = logging.getLogger('tests.kept')
    logging.getLogger('tests.made.up.[child.grandchild]')
    loggers.pytest_runtest_logfinish()
    assert table['tests.kept'] is kept
    assert [name for name in table if name.startswith('tests.made')] == []


@pytest.mark.once
def test_what_is_run_once_has_no_router_in_this_process(request):
    of_a_core = {'broker', 'router', 'make_router', 'family', 'own_tree', 'quiet_tree'}
    assert [item.nodeid for item in request.session.items
            if item.get_closest_marker('once') and of_a_core & set(item.fixturenames)] == []


HANGS = '''
import os, time

def test_before():
    pass

def test_hangs():
    # The copy keeps what it can of its parent's.
    if not os.fork():
        while not os.path.exists('done'):
            time.sleep(0.05)
        os._exit(0)
    time.sleep(60)

def test_after():
    pass
'''


@pytest.mark.once
def test_a_test_that_hangs_is_named_and_the_rest_of_its_file_runs(tmp_path):
    pytest.importorskip('xdist')
    (tmp_path / 'conftest.py').write_text('import sys\nsys.path[:0] = [%r]\npytest_plugins = ["hanging", "scheduler"]\n' % (
        places.LIB,))
    (tmp_path / 'test_hangs.py').write_text(HANGS)
    # Its output goes to a file: the copy would hold a pipe open.
    with open(str(tmp_path / 'output'), 'w+') as output:
        try:
            subprocess.call(
                [sys.executable, '-m', 'pytest', '-p', 'xdist', '-n', '1', '--dist', 'loadfile', '-p', 'no:cacheprovider',
                 '--rootdir', str(tmp_path), str(tmp_path)], stdout=output, stderr=output, cwd=str(tmp_path), timeout=100,
                env=dict(os.environ, MITOGEN_TEST_SECONDS='2', PYTEST_DISABLE_PLUGIN_AUTOLOAD='1', PYTEST_ADDOPTS=''))
        finally:
            (tmp_path / 'done').touch()
        output.seek(0)
        text = output.read()
    assert '1 failed, 2 passed' in text
    assert "crashed while running 'test_hangs.py::test_hangs'" in text
