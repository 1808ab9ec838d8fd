# SPDX-License-Identifier: BSD-3-Clause
"""
IoLoggerProtocol: lines that are written to stdout and stderr become log records.
"""

from __future__ import absolute_import  # house

import os  # house

from mitogen.core import _REDUCED, _seldom, CORE, DelimitedProtocol, IS_WSL, LazyLogger, UnicodeType  # house


class IoLoggerProtocol(DelimitedProtocol):
    """Log each line that anything writes to a standard descriptor."""
    #: A longer line is logged in pieces: a line without an end would fill
    #: memory.
    MAX_LINE = 1048576

    @classmethod
    def build_stream(cls, name, dest_fd):
        """
        Replace `dest_fd` by one end of a socket pair and return the stream
        that reads the other.

        :param str name: of the logger.
        """
        # Not `socket`, which costs more to import than anything else here.
        if not _REDUCED and CORE == 'native':
            from _mitogen_core import socketpair
        else:
            from _socket import socketpair
        rsock, wsock = socketpair()
        os.dup2(wsock.fileno(), dest_fd)
        stream = cls.stream_class()
        stream.name = name
        stream.set_protocol(cls(name))
        stream.accept(rsock, wsock)
        return stream

    def __init__(self, name):
        self._log = LazyLogger(name)
        if LazyLogger.sink is None:
            self.attach_logger()

    @_seldom
    def attach_logger(self):
        """Make the logger independent of what is later done to the root."""
        import logging
        log = logging.getLogger(self._log.name)
        log.propagate = False
        log.handlers = logging.getLogger().handlers[:]

    def on_shutdown(self, broker):
        """End the output of every process that inherited the descriptor, and
        read on until nothing is left."""
        if not IS_WSL:
            # 1 is SHUT_WR. WSL crashes on shutdown of a socket pair.
            self.stream.transmit_side.fp.shutdown(1)
        self.stream.transmit_side.close()

    def on_line_received(self, line):
        self._log.info('%s', UnicodeType(line, 'utf-8', 'replace'))

    def on_disconnect(self, broker):
        # The last line need not end.
        if self._trailer:
            self.on_line_received(self._trailer)
        self._trailer = b''
        DelimitedProtocol.on_disconnect(self, broker)

    def on_partial_line_received(self, line):
        if len(line) > self.MAX_LINE:
            self._trailer = b''
            self.on_line_received(line)
