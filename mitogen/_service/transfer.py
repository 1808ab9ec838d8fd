# SPDX-License-Identifier: BSD-3-Clause
"""
_Transfer: one file that a FileService sends.
"""

from __future__ import absolute_import  # house


class _Transfer(object):
    """
    A file that is being sent. The thread that reads the file closes it. While
    no thread reads it, the thread that ends the transfer does.
    """
    def __init__(self, sender, fp):
        self.sender = sender
        self.fp = fp
        self.is_read = False
        self.ended = False

    @property
    def context_id(self):
        return self.sender.context.context_id
