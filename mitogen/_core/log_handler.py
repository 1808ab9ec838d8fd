# SPDX-License-Identifier: BSD-3-Clause
"""
LogHandler: log records go to the master.
"""

from __future__ import absolute_import  # house

import sys  # house
from _codecs import utf_8_encode  # house

from mitogen.core import _graft, _REDUCED, _seldom, BytesType, Error, FORWARD_LOG, Message, thread, to_text  # house
from mitogen.core import UnicodeType  # house


class LogHandler(object):
    """
    Logging handler that sends records to the master. Any thread.

    It becomes a `logging.Handler` when that module is there, and serves
    :class:`LazyLogger` before.

    :param Context context: the master.
    """
    def __init__(self, context):
        self.context = context
        #: Messages that wait for `uncork`, then None.
        self._buffer = []
        self._buffer_lock = thread.allocate_lock()
        # True while this thread sends: records that sending itself logs are
        # dropped, or they would be sent in turn.
        self._sending = thread._local()
        if not _REDUCED and 'logging' in sys.modules:
            self._join_logging()

    @_seldom
    def _join_logging(self):
        import logging
        _graft(self, 'Handler')
        logging.Handler.__init__(self)

    @_seldom
    def emit(self, record):
        # Records of each read and write would cause others, for ever.
        if record.name != 'mitogen.io' and \
                not getattr(self._sending, 'on', False):
            try:
                text = self.format(record)
            except Exception:
                # The program goes on, as with every handler.
                return self.handleError(record)
            self.send(record.name, record.levelno, text)

    def send(self, name, level, text):
        """Send one record, or keep it until `uncork`."""
        if getattr(self._sending, 'on', False):
            return
        self._sending.on = True
        try:
            if isinstance(text, BytesType):
                text = UnicodeType(text, 'utf-8', 'replace')
            msg = Message(handle=FORWARD_LOG, data=utf_8_encode(
                u'%s\x00%d\x00%s' % (to_text(name), level, text),
                'replace')[0])
            if self._buffer is not None:
                with self._buffer_lock:
                    # Looked at again, with the lock: `uncork` may have run
                    # meanwhile.
                    if self._buffer is not None:
                        self._buffer.append(msg)
                        return
            self.context.send(msg)
        except Error:
            # The broker has exited: there is nobody to tell.
            pass
        finally:
            self._sending.on = False

    def uncork(self):
        """Send what was kept, in order, and everything from now on."""
        self._sending.on = True
        try:
            with self._buffer_lock:
                for msg in self._buffer:
                    self.context.send(msg)
                self._buffer = None
        finally:
            self._sending.on = False
