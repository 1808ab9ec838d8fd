"""
pytest's capture of log records, and threads that make loggers meanwhile.

At the start of each phase of a test pytest goes through the table of all loggers, for it attaches a handler to those
that do not propagate. It does so without logging's lock. A broker that a test leaves running makes a logger at that
moment when a child sends its first record, and the phase fails: "dictionary changed size during iteration". So the
lock is held here.
"""

import logging

from _pytest.logging import catching_logs

_enter = catching_logs.__enter__


def enter_with_lock(self):
    with logging._lock:
        return _enter(self)


catching_logs.__enter__ = enter_with_lock
