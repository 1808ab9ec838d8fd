# SPDX-License-Identifier: BSD-3-Clause
"""
The pure leaf of Sender.
"""

from __future__ import absolute_import  # house

import mitogen  # house
from mitogen.core import _chosen, _seldom, _SenderBase, Message  # house


@_seldom
@_chosen
class Sender(_SenderBase):
    def send(self, data, enc=Message.ENC_PKL):
        """
        Send `data`, which is pickled; or bytes as they are, if `enc` is
        ENC_BIN. May wait for room where the core has a high-water mark.

        :raises Error: the broker has exited.
        """
        if mitogen.core._value_check:
            mitogen.core._value_check(self.context, data)
        self.context.send(Message.encoded(data, enc, handle=self.dst_handle))
