# SPDX-License-Identifier: BSD-3-Clause
"""
A log file for each process, for debugging.
"""

from __future__ import absolute_import  # house

import errno  # house
import os  # house
import sys  # house
import time  # house

from mitogen.core import _module, _open_own, _printable_record, _private_folder, _seldom, LOGGERS  # house


@_seldom
def _graft(obj, base_name):
    """Make `obj` also an instance of a class of `logging`: its own class is
    defined without importing that."""
    cls = obj.__class__
    base = getattr(_module('logging'), base_name)
    if not isinstance(obj, base):
        obj.__class__ = type(cls.__name__, (cls, base), {})


@_seldom
class PidfulStreamHandler(object):
    """
    Logging handler that writes to a file of this process, and to another one
    after a fork. It contains arguments of calls, so only its owner may read
    it.
    """
    #: File name with slots for the process id and the time. Unless it says
    #: where, the file is in a folder that only its owner can look into.
    template = 'mitogen.%s.%s.log'
    open_pid = None

    def __init__(self):
        import logging
        _graft(self, 'StreamHandler')
        logging.StreamHandler.__init__(self, sys.stderr)
        self.setFormatter(logging.Formatter(
            '%(asctime)s %(process)d %(levelname).1s %(threadName)s '
            '%(name)s: %(message)s'))

    def format(self, record):
        """Show a record."""
        return _printable_record(
            _module('logging').StreamHandler.format(self, record))

    def emit(self, record):
        pid = os.getpid()
        if self.open_pid != pid:
            self.stream = os.fdopen(self._open(pid), 'w', 1)
            self.open_pid = pid
        _module('logging').StreamHandler.emit(self, record)

    def _open(self, pid):
        """Make a file that was not there before."""
        when = time.strftime('%Y%m%d_%H%M%S')
        for count in range(100):
            name = self.template % (pid, when + ('.%d' % count) * (count > 0))
            if not os.path.isabs(name):
                name = os.path.join(_private_folder(), name)
            try:
                return _open_own(name, os.O_EXCL)
            except OSError:
                if sys.exc_info()[1].errno != errno.EEXIST:
                    raise
        raise OSError(errno.EEXIST, 'every name is taken', name)


@_seldom
def enable_debug_logging():
    """Log everything this process does to a file of its own."""
    import logging
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG)
    logging.getLogger().handlers.insert(0, PidfulStreamHandler())
