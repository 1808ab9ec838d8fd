# SPDX-License-Identifier: BSD-3-Clause
"""
LogForwarder: emits the log records of the whole tree.
"""

from __future__ import absolute_import  # house

import logging  # house

import mitogen.core  # house

from mitogen.master import _Server, LOG, PY3  # house


class LogForwarder(_Server):
    """
    Emit the log records that descendants send. Runs on the broker thread.
    """
    def __init__(self, router):
        #: (context id, its name, logger name) -> logger.
        self._loggers = {}
        super(LogForwarder, self).__init__(
            router, mitogen.core.FORWARD_LOG, self._on_forward_log)

    #: How many loggers children may bring into being, which stay for ever.
    loggers_max = 5000

    #: How long the name of one may be, and how many dots it may have: each
    #: makes an object that stays, too.
    name_max = 500
    dots_max = 20

    def _get_logger(self, context, name):
        key = (context.context_id, context.name, name)
        if key not in self._loggers:
            if len(self._loggers) >= self.loggers_max:
                # One that nobody configures, and nobody remembers.
                logger = logging.Logger('%s.[%s]' % (name, context.name))
                logger.parent = logging.getLogger()
                return logger
            self._loggers[key] = logging.getLogger(
                '%s.[%s]' % (name, context.name))
        return self._loggers[key]

    def _on_forward_log(self, msg):
        if msg.is_dead:
            return
        context = self._router.context_by_id(msg.src_id)
        text = bytes(msg.data).decode('utf-8', 'replace')
        try:
            name, level, message = text.split(u'\0', 2)
            # The time that these take grows faster than their length.
            if len(name) > self.name_max or len(level) > 20 or \
                    name.count(u'.') > self.dots_max:
                raise ValueError(name)
            level = int(level)
        except ValueError:
            LOG.warning('%r: ignoring a bad log record from %r', self, context)
            return
        if not PY3:
            # The logging module of Python 2 wants names of type str.
            name = name.encode('utf-8')

        logger = self._get_logger(context, name)
        # This goes through the record factory, if somebody has set one.
        logger.handle(logging.makeLogRecord({
            'name': logger.name,
            'levelno': level,
            'levelname': logging.getLevelName(level),
            'msg': message,
            'args': (),
            'pathname': '(unknown file)',
            'filename': '(unknown file)',
            'lineno': 0,
            'exc_info': None,
            'mitogen_message': message,
            'mitogen_context': context,
            'mitogen_name': name,
        }))
