# SPDX-License-Identifier: BSD-3-Clause
"""
Protocols of lines: logged, matched with patterns, asked for passwords; and the
last lines of a log.
"""

from __future__ import absolute_import  # house

import collections  # house
import logging  # house

import mitogen.core  # house
from mitogen.core import b  # house
from mitogen.parent import ConnectError, LOG  # house


def _printable_line(line):
    """
    Return a line of bytes, without the end of it, as a log may show it.
    """
    return mitogen.core._printable(line.rstrip(b('\r')))


class LineLoggingProtocolMixin(object):
    """
    For a line protocol: keeps the last lines, so that a failure can show them.

    :ivar logged_lines: deque of (time, line without newline).
    :ivar logged_partial: the line that has no newline yet.
    """
    history_size = 100

    #: Bytes that are kept of a line without end. Each read looks at all of them.
    max_tail = 8192

    #: Bytes that stay of such a line: they may begin a prompt or a marker.
    _kept_tail = 1024

    def __init__(self, *args, **kwargs):
        super(LineLoggingProtocolMixin, self).__init__(*args, **kwargs)
        self.logged_lines = collections.deque(maxlen=self.history_size)
        self.logged_partial = b('')

    def on_receive(self, broker, buf):
        super(LineLoggingProtocolMixin, self).on_receive(broker, buf)
        if len(self._trailer) > self.max_tail:
            cut = len(self._trailer) - self._kept_tail
            line, self._trailer = self._trailer[:cut], self._trailer[cut:]
            self._on_piece(line)
            self.logged_partial = self._shown(self._trailer)

    def _on_piece(self, line):
        """Called with the part of a long line that is not kept."""
        self._log_line(line)

    def _shown(self, line):
        """Return a line as logs and failures may show it."""
        return line

    def _log_line(self, line):
        self.logged_partial = b('')
        self.logged_lines.append((mitogen.core.now(), self._shown(line)))

    def on_line_received(self, line):
        self._log_line(line)
        parent = super(LineLoggingProtocolMixin, self)
        return parent.on_line_received(line)

    def on_partial_line_received(self, line):
        self.logged_partial = self._shown(line)
        parent = super(LineLoggingProtocolMixin, self)
        return parent.on_partial_line_received(line)

    def on_disconnect(self, broker):
        # The end of the stream is the end of its last line.
        if self.logged_partial:
            self._log_line(self.logged_partial)
        parent = super(LineLoggingProtocolMixin, self)
        parent.on_disconnect(broker)


class RegexProtocol(LineLoggingProtocolMixin, mitogen.core.DelimitedProtocol):
    """
    A line protocol driven by tables.

    `PATTERNS` is tried on complete lines and `PARTIAL_PATTERNS` on a line that
    has no newline yet, that is, prompts. Each is a list of (compiled bytes
    expression, function); the first whose `search` succeeds has its function
    called with (self, line, match), and what it returns is returned.

    A prompt is answered once. As a line grows it is offered again and again,
    so after the function of a partial pattern ran, none is tried until a
    newline was seen. A function that finds it was not meant yet (the line may
    turn into something else) returns `NOT_ANSWERED`, and is asked again.
    """
    PATTERNS = []
    PARTIAL_PATTERNS = []

    #: Returned by the function of a partial pattern that did nothing.
    NOT_ANSWERED = object()

    _answered = False

    def _find(self, table, line):
        """Return (function, match) of the first hit in a table, or Nones."""
        for regex, function in table:
            found = regex.search(line)
            if found:
                return function, found
        return None, None

    def on_line_received(self, line):
        super(RegexProtocol, self).on_line_received(line)
        self._answered = False
        function, found = self._find(self.PATTERNS, line)
        if function is None:
            return self.on_unrecognized_line_received(line)
        return function(self, line, found)

    def on_partial_line_received(self, line):
        super(RegexProtocol, self).on_partial_line_received(line)
        if self._answered:
            # It is not logged, as it may begin with an echo of the answer.
            return None
        if LOG.isEnabledFor(logging.DEBUG):
            LOG.debug('%s: (partial): %s', self._stream_name(),
                      _printable_line(self._shown(line)))
        function, found = self._find(self.PARTIAL_PATTERNS, line)
        if function is None:
            return self.on_unrecognized_partial_line_received(line)
        result = function(self, line, found)
        if result is self.NOT_ANSWERED:
            return None
        self._answered = True
        return result

    def on_unrecognized_line_received(self, line):
        """Called for a complete line that no pattern fits."""
        LOG.debug('%s: (unrecognized): %s', self._stream_name(),
                  _printable_line(self._shown(line)))

    def on_unrecognized_partial_line_received(self, line):
        """Called for an unfinished line that no pattern fits."""
        pass

    def _stream_name(self):
        return getattr(self.stream, 'name', None)


class PasswordMixin(object):
    """
    For a `RegexProtocol` on the stream where a tool asks for a password. A
    connection method names its texts and lists the functions in its tables.

    Nothing is answered once the first stage has spoken. If the word "password"
    is written then, it is not the tool that asks.

    :ivar bool password_sent: the password has been typed.
    """
    #: Class of the exceptions, a `ConnectError`, and their texts.
    password_error = ConnectError
    required_msg = None
    incorrect_msg = None

    password_sent = False
    _writer = None

    def _find(self, table, line):
        if table is self.PARTIAL_PATTERNS and not self._tool_may_ask():
            return None, None
        return super(PasswordMixin, self)._find(table, line)

    def _tool_may_ask(self):
        """
        Return whether the tool has not run the command yet: the first stage is
        what runs last before a child is ready, and nobody asks beyond it.
        """
        conn = self.stream.conn
        return conn._pending and conn._stage in (conn.STAGE_STARTED,
                                                 conn.STAGE_ANSWERED)

    def _shown(self, line):
        # Some tools echo the password.
        if self.password_sent:
            password = self.stream.conn.options.password.encode('utf-8')
            line = line.replace(password or b('\n'), b('********'))
        return line

    def on_password_prompt(self, line, match):
        """
        Partial pattern: type the password, the first time that it is asked.
        """
        if self.stream.conn.options.password is None:
            self.fail_password(self.required_msg)
        elif self.password_sent:
            self.fail_password(self.incorrect_msg)
        else:
            self.type_password()

    def on_password_rejected(self, line, match):
        """Pattern: the tool says that the password is wrong."""
        self.fail_password(self.incorrect_msg)

    def type_password(self):
        """Type the password, of which there is one."""
        LOG.debug('%s: typing the password', self._stream_name())
        self.password_sent = True
        conn = self.stream.conn
        if conn._pending and conn._stage == conn.STAGE_STARTED:
            conn._enter_stage(conn.STAGE_ANSWERED)
        self.type_line(self.stream.conn.options.password)

    def fail_password(self, text):
        """Give the connection up."""
        self.stream.conn._fail_connection(self.password_error(text))

    def type_line(self, text):
        """Answer the tool with `text` and a newline."""
        conn = self.stream.conn
        if not conn._pending:
            return
        if self._writer is None:
            self._writer = mitogen.core.BufferedWriter(
                conn._router.broker, self)
        self._writer.write((text + u'\n').encode('utf-8'))

    def on_transmit(self, broker):
        """There is room for more of the answer."""
        self._writer.on_transmit(broker)


def get_history(streams):
    """
    Return, as text, the last lines that arrived on some streams in the order
    of their arrival.

    :param streams: iterable of streams, whose protocols keep `logged_lines`,
        or None.
    """
    lines = []
    for stream in streams:
        if stream is None:
            continue
        lines.extend(stream.protocol.logged_lines)
        # The stream that ends last is asked before its protocol has taken
        # notice, so its final line may be waiting for a newline still.
        tail = getattr(stream.protocol, 'logged_partial', None)
        if tail and isinstance(tail, mitogen.core.BytesType):
            lines.append((mitogen.core.now(), tail))

    lines.sort(key=lambda line: line[0])
    return b('\n').join([line for _, line in lines]).decode('utf-8', 'replace')
