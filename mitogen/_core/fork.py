# SPDX-License-Identifier: BSD-3-Clause
"""
The child of a fork gives up what belongs to its parent.
"""

from __future__ import absolute_import  # house

import os  # house

from mitogen.core import _complete, _seldom, Broker, ExternalContext, Latch, Side, thread  # house


#: Functions without arguments, called in the child of a fork: to replace locks
#: that another thread may have held.
_fork_hooks = []


@_seldom
def _on_fork():
    """Give up, in the child of a fork, all that belongs to the parent. May be
    repeated."""
    for broker in [ref() for ref in list(Broker._all.values())]:
        if broker:
            broker._on_fork()
    Latch._on_fork()
    Side._on_fork()
    ExternalContext.service_stub_lock = thread.allocate_lock()
    for hook in _fork_hooks:
        hook()


if hasattr(os, 'register_at_fork'):
    # A fork has no parent to ask for the other text.
    os.register_at_fork(before=_complete,
                        after_in_child=lambda: _complete() and _on_fork())
