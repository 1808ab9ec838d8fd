"""
The harness of the suite.
"""

import logging
import threading

import pytest
from _pytest.logging import catching_logs


def make_logger_unless_locked(name):
    """
    Do what a broker does when the first record of a child arrives, but do not wait for logging's lock.
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
def test_what_is_run_once_has_no_router_in_this_process(request):
    of_a_core = {'broker', 'router', 'make_router', 'family', 'own_tree', 'quiet_tree'}
    assert [item.nodeid for item in request.session.items
            if item.get_closest_marker('once') and of_a_core & set(item.fixturenames)] == []
