"""
pytest's capture of log records, and threads that make loggers meanwhile.

At the start of each phase of a test pytest goes through the table of all loggers, for it attaches a
handler to those that do not propagate. It does so without logging's lock. A broker that a test
leaves running makes a logger at that moment when a child sends its first record, and the phase
fails: "dictionary changed size during iteration". So the lock is held here.

pytest does so six times for each test, while each child whose record comes makes a logger that
stays for ever: a test that has ten thousand of them made would cost each later one of its process
40 milliseconds. So they are forgotten.
"""

import logging

from _pytest.logging import catching_logs

_enter = catching_logs.__enter__


def enter_with_lock(self):
    with logging._lock:
        return _enter(self)


catching_logs.__enter__ = enter_with_lock


def pytest_runtest_logfinish():
    table = logging.root.manager.loggerDict
    with logging._lock:
        if len(table) != _size:
            forget_children(table)


#: Of the table of all loggers, when it was last gone through.
_size = 0


def forget_children(table):
    """
    Remove the loggers that are named for contexts, and then the places in the table that were kept
    for none but them.
    """
    global _size
    for name in [name for name in table if '.[' in name]:
        del table[name]
    for name in [name for name, item in table.items() if is_empty(item, table)]:
        del table[name]
    _size = len(table)


def is_empty(item, table):
    return isinstance(item, logging.PlaceHolder) and not any(logger.name in table for logger in item.loggerMap)
