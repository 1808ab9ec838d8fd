# SPDX-License-Identifier: BSD-3-Clause
"""
Tell the engine which context this process is.
"""

from __future__ import absolute_import  # house

import sys  # house

import mitogen  # house
import _mitogen_core as _c  # house


#: Id -> weak reference of each router, all of which have to be told when
#: `mitogen.context_id` and its kin change.
_routers = {}

# `types.ModuleType`, without an import.
_Module = type(sys)


class _Package(_Module):
    """
    The class of the `mitogen` package: programs assign its `context_id`,
    `parent_id` and `parent_ids`, and the engine, which checks authority
    without Python, has to know.
    """
    def __setattr__(self, name, value):
        _Module.__setattr__(self, name, value)
        if name in ('context_id', 'parent_id', 'parent_ids'):
            _tell_identity()

    def __delattr__(self, name):
        _Module.__delattr__(self, name)


def _tell_identity():
    _c.set_own_id(mitogen.context_id)
    for ref in list(_routers.values()):
        router = ref()
        if router is not None:
            router._tell_identity()
