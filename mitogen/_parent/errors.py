# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: F821
"""
Why a connection could not be made.
"""

from __future__ import absolute_import  # house

import mitogen.core  # house


class ConnectError(mitogen.core.StreamError):
    """
    A child could not be started.

    What programs compare is `args[0]`. What a person reads, ``str()``, goes on
    with what is known of the attempt.

    :ivar detail: that, as text.
    """
    detail = u''

    def __str__(self):
        return _native_str(_full_text(self))


class EofError(mitogen.core.StreamError):
    """
    The child, or the tool that should have started it, closed its output
    before it was ready. The text has what it printed.
    """
    pass


class CancelledError(ConnectError):
    """
    The local broker began to shut down while the connection was being made.
    """
    pass
