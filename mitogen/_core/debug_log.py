# SPDX-License-Identifier: BSD-3-Clause
"""
A log file for each process, for debugging.
"""

from __future__ import absolute_import  # house

import os  # house
import sys  # house
import time  # house

from mitogen.core import _module, _seldom, LOGGERS, set_cloexec  # house


@_seldom
def _graft(obj, base_name):
    """Make `obj` also an instance of a class of `logging`, whose import the
    definition of its own class must not need."""
    cls = obj.__class__
    base = getattr(_module('logging'), base_name)
    if not isinstance(obj, base):
        obj.__class__ = type(cls.__name__, (cls, base), {})


@_seldom
class PidfulStreamHandler(object):
    """
    Logging handler that writes to a file of this process, and to another one
    after a fork.
    """
    #: File name with slots for the process id and the time.
    template = '/tmp/mitogen.%s.%s.log'
    open_pid = None

    def __init__(self):
        import logging
        _graft(self, 'StreamHandler')
        logging.StreamHandler.__init__(self, sys.stderr)
        self.setFormatter(logging.Formatter(
            '%(asctime)s %(process)d %(levelname).1s %(threadName)s '
            '%(name)s: %(message)s'))

    def emit(self, record):
        pid = os.getpid()
        if self.open_pid != pid:
            path = self.template % (pid, time.strftime('%Y%m%d_%H%M%S'))
            self.stream = open(path, 'w', 1)
            set_cloexec(self.stream.fileno())
            self.open_pid = pid
        _module('logging').StreamHandler.emit(self, record)


@_seldom
def enable_debug_logging():
    """Log everything this process does to a file of its own."""
    import logging
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG)
    logging.getLogger().handlers.insert(0, PidfulStreamHandler())
