# SPDX-License-Identifier: BSD-3-Clause
"""
From the first stage's lines to frames: the protocols of a child that starts.
"""

from __future__ import absolute_import  # house

import re  # house

import mitogen.core  # house
from mitogen.core import b  # house
from mitogen.parent import _ChildStream, LineLoggingProtocolMixin, LOG, _printable_line, RegexProtocol, _ship_choice  # house


class BootstrapProtocol(RegexProtocol):
    """
    Speaks with the first stage on the child's standard files, from the start
    of the process until the child says it is ready.

    Lines before the first marker, such as a login banner, are let pass. A
    marker counts only with the random word of this connection, so a
    banner cannot contain one.

    :param mitogen.core.Broker broker: whose thread calls us.
    """
    stream_class = _ChildStream

    EC0_MARKER = b('MITO000')
    EC1_MARKER = b('MITO001')
    EC2_MARKER = b('MITO002')

    #: The first marker, and what a first stage of ours says about itself:
    #: whether our version of the package is there, `sys.hexversion`, and what
    #: we have told it to say.
    _ec0_re = re.compile(EC0_MARKER + b(' ([01]) ([0-9a-f]{7,8}) ([0-9a-f]+)'))

    #: Bytes of the lines that have come, and of what was sent.
    _bytes_in = _bytes_out = 0

    def __init__(self, broker):
        super(BootstrapProtocol, self).__init__()
        #: Keeps what the kernel does not take at once.
        self._writer = mitogen.core.BufferedWriter(broker, self)

    def on_line_received(self, line):
        self._bytes_in += len(line) + 1
        return super(BootstrapProtocol, self).on_line_received(line)

    def on_transmit(self, broker):
        """There is room for more of the answer."""
        self._writer.on_transmit(broker)

    def _on_ec0_received(self, line, match):
        conn = self.stream.conn
        for match in self._ec0_re.finditer(line):
            if match.group(3) == b(conn._stage_nonce):
                break
        else:
            # A banner, or the first stage of another program.
            return self.on_unrecognized_line_received(line)
        LOG.debug('%r: first stage runs: %r', conn, match.group(0))
        if conn._stage == conn.STAGE_SENT:
            # It gets one answer. A peer that asks again and again must not
            # fill our memory.
            return
        conn._enter_stage(conn.STAGE_SENT)
        try:
            self._send_answer(conn, match)
        except Exception as e:
            # A connection method of an application may raise anything.
            LOG.debug('%r: cannot answer', conn, exc_info=True)
            conn._fail_connection(e)

    def _send_answer(self, conn, match):
        have = match.group(1) == b('1')
        if have and not _ship_choice():
            self._answer(b'C', conn._get_short_preamble())
        else:
            conn._get_preamble_for(int(match.group(2), 16), self._answer_source)

    def _answer_source(self, preamble):
        self._answer(b'S', preamble)

    def _answer(self, kind, payload):
        data = kind + ('%08x' % (len(payload),)).encode('ascii') + payload
        self._bytes_out += len(data)
        self._writer.write(data)

    def _on_ec1_received(self, line, match):
        LOG.debug('%r: first stage got its input', self.stream.conn)

    def _on_ec2_received(self, line, match):
        token = b(self.stream.conn._ready_nonce)
        if self.EC2_MARKER + b(' ') + token not in line:
            return self.on_unrecognized_line_received(line)
        LOG.debug('%r: child is ready', self.stream.conn)
        self.stream.conn._complete_connection()
        return False

    def on_unrecognized_line_received(self, line):
        LOG.debug('%s: stdout: %s', self._stream_name(),
                  _printable_line(self._shown(line)))

    PATTERNS = [
        (_ec0_re, _on_ec0_received),
        (re.compile(EC1_MARKER), _on_ec1_received),
        (re.compile(EC2_MARKER), _on_ec2_received),
    ]


class LogProtocol(LineLoggingProtocolMixin, mitogen.core.DelimitedProtocol):
    """
    Logs each line of a child's stderr, or of a terminal that is not read
    otherwise but has to stay open.
    """
    # No pattern is searched for, so a long line is logged as one.
    max_tail = mitogen.core.CHUNK_SIZE
    _kept_tail = 0

    def _on_piece(self, line):
        self.on_line_received(line)

    def on_line_received(self, line):
        super(LogProtocol, self).on_line_received(line)
        LOG.info(u'%s: %s', self.stream.name, _printable_line(line))


class MitogenProtocol(mitogen.core.MitogenProtocol):
    """
    The framed protocol, as a parent speaks it with a child.
    """
    def on_shutdown(self, broker):
        """
        Ask the child to end. The stream stays open until it does, so that its
        last words arrive. A child that has left us is not asked.
        """
        if getattr(getattr(self.stream, 'conn', None), 'detached', False):
            # The process at the other end is not our child any more.
            self.stream.on_disconnect(broker)
            return
        LOG.debug('%r: asking the child to shut down', self)
        self._send(mitogen.core.Message(
            src_id=mitogen.context_id,
            dst_id=self.remote_id,
            handle=mitogen.core.SHUTDOWN,
        ))
