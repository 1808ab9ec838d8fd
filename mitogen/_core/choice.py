# SPDX-License-Identifier: BSD-3-Clause
"""
Which core this process uses, and what the child of a fork gives up.
"""

from __future__ import absolute_import  # house

import os  # house
import threading  # house

from mitogen.core import _complete, _core_source, _REDUCED, _seldom, Broker, ExternalContext, Latch, Side  # house


def _choose_core():
    """
    Put the compiled core in the place of the classes above where there is one,
    and return the name of the core in use.

    :raises ImportError: MITOGEN_CORE is 'native', and it cannot be had.
    """
    if not _REDUCED:
        wanted = os.environ.get('MITOGEN_CORE')
        # What the bootstrap has sent has no extension beside it.
        if not _core_source and wanted != 'pure':
            try:
                # In a function, so that it does not count among the modules
                # that a child which imports this one will need.
                from mitogen import _native
            except ImportError:
                if wanted == 'native':
                    raise
            else:
                return _native.install(globals())
    return 'pure'


#: Which core this process uses: 'pure' or 'native'.
CORE = _choose_core()

#: Functions without arguments, called in the child of a fork: to replace locks
#: that another thread may have held.
_fork_hooks = []


@_seldom
def _on_fork():
    """Give up, in the child of a fork, what belongs to the parent. May be
    repeated."""
    for broker in [ref() for ref in list(Broker._all.values())]:
        if broker:
            broker._on_fork()
    Latch._on_fork()
    Side._on_fork()
    ExternalContext.service_stub_lock = threading.Lock()
    for hook in _fork_hooks:
        hook()


if hasattr(os, 'register_at_fork'):
    # A copy has nobody to ask for what is not here.
    os.register_at_fork(before=_complete,
                        after_in_child=lambda: _complete() and _on_fork())
