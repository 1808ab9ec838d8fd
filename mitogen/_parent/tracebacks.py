# SPDX-License-Identifier: BSD-3-Clause
"""
_TracebackFilter: the tracebacks of this package in a log.
"""

from __future__ import absolute_import  # house

import logging  # house

import mitogen.core  # house
from mitogen.parent import _native_str  # house


class _TracebackFilter(logging.Filter):
    """
    Has the traceback of a record escaped before a handler shows it, whoever made
    the handler. A child may have sent the exception: its text is no more to be
    trusted than that of a record which the child logs. Any thread.
    """
    #: Begins each line but the first.
    mark = u'  '

    def filter(self, record):
        if record.exc_info and not record.exc_text:
            text = logging.Formatter().formatException(record.exc_info)
            record.exc_text = _native_str(
                mitogen.core._printable(text, self.mark))
        return True


#: The loggers that this package logs by, for itself.
_LOGGERS = ('mitogen', 'mitogen.io', 'mitogen.fakessh', 'mitogen.importer',
            'mitogen.limits', 'mitogen.responder', 'mitogen.route_monitor',
            'mitogen.service')

for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_TracebackFilter())
