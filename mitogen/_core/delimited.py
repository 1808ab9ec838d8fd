# SPDX-License-Identifier: BSD-3-Clause
"""
DelimitedProtocol: the bytes that arrive, cut into lines.
"""

from __future__ import absolute_import  # house

from mitogen.core import Protocol  # house


def iter_split(buf, delim, func):
    """
    Call `func(chunk)` for each chunk of `buf` that `delim` ends, until a call
    returns exactly False.

    :returns: (unprocessed tail, whether no call returned False).
    """
    start = 0
    while True:
        end = buf.find(delim, start)
        if end < 0:
            return buf[start:], True
        chunk, start = buf[start:end], end + len(delim)
        if func(chunk) is False:
            return buf[start:], False


class DelimitedProtocol(Protocol):
    """Cut what arrives at each `delimiter`."""
    delimiter = b'\n'
    _trailer = b''

    def on_receive(self, broker, buf):
        """Cut `buf` and call the two methods below with its lines and its
        tail."""
        stream = self.stream
        rest, more = iter_split(self._trailer + buf, self.delimiter,
                                self.on_line_received)
        if more:
            self._trailer = rest
            if rest:
                self.on_partial_line_received(rest)
        else:
            self._trailer = b''
            if rest:
                # on_line_received returned False, so it must have switched the
                # stream's protocol.
                assert stream.protocol is not self
                stream.protocol.on_receive(broker, rest)

    def on_line_received(self, line):
        """Handle a line without its end. Return False after switching the
        stream to another protocol, which then gets the rest."""
        pass

    def on_partial_line_received(self, line):
        """Handle a line that has no end yet, once per read."""
        pass
