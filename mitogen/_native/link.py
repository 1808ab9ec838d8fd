# SPDX-License-Identifier: BSD-3-Clause
"""
The compiled leaf of MitogenProtocol: the frames are the engine's.
"""

from __future__ import absolute_import  # house

import mitogen  # house
import _mitogen_core as _c  # house
from mitogen._native import core, Router  # house


class MitogenProtocol(core._MitogenProtocolBase):
    # The name that pickles and programs know.
    __module__ = 'mitogen.core'

    def _begin(self, remote_id):
        if not isinstance(self._router, Router):
            # A router of another kind (in tests) gets the pure leaf.
            self.__class__ = mitogen.core._pure['MitogenProtocol']
            self._begin(remote_id)
            return
        self._on_message = None
        self._link = _c.Link(self._router, remote_id, self)
        # A subclass may have the hook as a method.
        self._link.hooked = self.on_message is not None

    def _end_with(self, grace):
        """End this process when the other side is gone and the interpreter
        has not been released for `grace` seconds."""
        self._opened_link().end_with(grace)

    def _forked(self):
        """Nothing to do: the engine knows."""
        pass

    def _opened_link(self):
        stream = self.stream
        if stream is not None and stream.transmit_side is not None:
            self._link.open(stream.receive_side.fd, stream.transmit_side.fd)
        return self._link

    @property
    def remote_id(self):
        return self._link.remote_id

    @remote_id.setter
    def remote_id(self, value):
        self._link.remote_id = value

    @property
    def auth_id(self):
        return self._link.auth_id

    @auth_id.setter
    def auth_id(self, value):
        self._link.auth_id = value

    @property
    def is_privileged(self):
        return self._link.privileged

    @is_privileged.setter
    def is_privileged(self, value):
        self._link.privileged = value

    @property
    def on_message(self):
        return self._on_message

    @on_message.setter
    def on_message(self, func):
        self._on_message = func
        self._link.hooked = func is not None

    @property
    def egress_ids(self):
        return self._link.egress()

    def on_receive(self, broker, buf):
        """Take bytes that another protocol of the stream has read."""
        self._opened_link().feed(buf)

    def on_transmit(self, broker):
        """The loop writes by itself."""
        pass

    def pending_bytes(self):
        return self._link.pending()

    def _send(self, msg):
        self._opened_link().send(msg)

    def on_disconnect(self, broker):
        self._link.close()
        loop, sides = self._router._loop, []
        for side, stop in ((self.stream.receive_side, broker.stop_receive),
                           (self.stream.transmit_side,
                            broker._stop_transmit)):
            if side is not None and not side.closed:
                stop(self.stream)
                sides.append(side)
        # The loop may still hear of a stopped descriptor, so the file has to
        # end before the number may be another's.
        for side in sides:
            loop.retire(side.fd)
        try:
            for side in sides[:1]:
                side.close()
        finally:
            for side in sides[1:]:
                side.close()
