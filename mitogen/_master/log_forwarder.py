# SPDX-License-Identifier: BSD-3-Clause
"""
LogForwarder: emits the log records of the whole tree.
"""

from __future__ import absolute_import  # house

import collections  # house
import logging  # house

import mitogen.core  # house
import mitogen.parent  # house
from mitogen.master import _LogRate, _Server, b, LOG, to_text  # house


class LogForwarder(_Server):
    """
    Emit the log records that descendants send. Runs on the broker thread.

    Any handler may show their text: sequences that a terminal would obey are
    escaped, and each line bears the name of the context. The attributes
    `mitogen_name` and `mitogen_message` have the logger name and the text as
    the child sent them.
    """
    def __init__(self, router):
        self._rate = _LogRate(router)
        #: (context id, its name, logger name) -> logger.
        self._loggers = {}
        super(LogForwarder, self).__init__(
            router, mitogen.core.FORWARD_LOG, self._on_forward_log)

    #: Number of loggers that children may cause to be made, which stay for
    #: ever.
    loggers_max = 5000

    #: How long the name of one may be, and how many dots it may have: each
    #: makes an object that stays, too.
    name_max = 500
    dots_max = 20

    #: Called with a context, ``stdout`` or ``stderr``, and what was printed
    #: there; None to make it a record.
    _on_output = None

    def _get_logger(self, context, name, mark):
        key = (context.context_id, mark, name)
        if key not in self._loggers:
            full = mitogen.parent._native_str(
                u'%s.%s' % (mitogen.core._printable(name), mark))
            if len(self._loggers) >= self.loggers_max:
                # Such a logger is neither configured nor remembered.
                logger = logging.Logger(full)
                logger.parent = logging.getLogger()
                return logger
            self._loggers[key] = logging.getLogger(full)
        return self._loggers[key]

    def _shorten(self, data):
        most = self._router.limits.log_record_bytes
        if len(data) <= most:
            return data
        return data[:most] + b(' [%d more bytes]') % (len(data) - most,)

    @staticmethod
    def _note_words(context, line):
        """Keep the last lines of a context: the error of its loss tells them."""
        words = context.__dict__.setdefault('_last_words', collections.deque(maxlen=5))
        words.append(line[:200])

    def _on_forward_log(self, msg):
        stream = self._stream_of(msg)
        # None: from this process.
        if stream and not self._rate.admits(stream, len(msg.data)):
            return
        context = self._router.context_by_id(msg.src_id)
        text = self._shorten(bytes(msg.data)).decode('utf-8', 'replace')
        try:
            name, level, message = text.split(u'\0', 2)
            # Names: the time that these take grows faster than their length.
            if len(name) > self.name_max or len(level) > 20 or \
                    name.count(u'.') > self.dots_max:
                raise ValueError(name)
            level = int(level)
        except ValueError:
            mitogen.core._tell_seldom(
                LOG.warning, stream or self._router, 'records', '%r: ignoring a bad log record from %r', self, context)
            return
        # Begins each further line of a text, so that none looks like a record
        # of ours. A client of a UNIX socket has no name.
        name_there = context.name or u'context %d' % (context.context_id,)
        mark = u'[%s]' % (mitogen.core._printable(to_text(name_there)),)
        if name == u'stderr':
            self._note_words(context, message)
        if self._on_output is not None and name in (u'stdout', u'stderr'):
            self._on_output(context, name, message)
            return
        logger = self._get_logger(context, name, mark)
        # This goes through the record factory, if the program has set one.
        logger.handle(logging.makeLogRecord({
            'name': logger.name,
            'levelno': level,
            'levelname': logging.getLevelName(level),
            'msg': mitogen.core._printable(message, mark + u' '),
            'args': (),
            'pathname': '(unknown file)',
            'filename': '(unknown file)',
            'lineno': 0,
            'exc_info': None,
            'mitogen_message': message,
            'mitogen_context': context,
            'mitogen_name': mitogen.parent._native_str(name),
        }))
