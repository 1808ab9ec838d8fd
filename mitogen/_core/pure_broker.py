# SPDX-License-Identifier: BSD-3-Clause
"""
The pure leaf of Broker: a poller, and a pipe that wakes it.
"""

from __future__ import absolute_import  # house

from mitogen.core import _BrokerBase, _chosen, Waker  # house


@_chosen
class Broker(_BrokerBase):
    def _open(self):
        self._waker = Waker.build_stream(self)
        self.poller = self.poller_class()
        self._watch_receive(self._waker)

    def _watch_receive(self, stream):
        side = stream.receive_side
        self.poller.start_receive(side.fd, (side, stream.on_receive))
