# SPDX-License-Identifier: BSD-3-Clause
"""
A Context belongs to one router of this process: another one must not send it.
"""

from __future__ import absolute_import  # house


import mitogen.core  # house


#: Weak references to the routers of this process that may have children.
_routers = []


def _raise_foreign(router, context):
    raise mitogen.core.Error(
        '%r belongs to %r: to %r its number means another context' % (
            context, context.router, router))


def _refuse_foreign(context, *values):
    """
    Raise :class:`mitogen.core.Error` if a Context or Sender of another router
    than that of `context`, which they are to be sent to, is in `values`: its
    number would be sent, and be taken for a context of this tree. Costs nothing
    while there is one router.
    """
    router = getattr(context, 'router', None)
    if len(_routers) < 2 or router is None:
        return
    seen = set()
    stack = list(values)
    while stack:
        value = stack.pop()
        if isinstance(value, mitogen.core.Sender):
            value = value.context
        if isinstance(value, mitogen.core.Context):
            if value.router is not None and value.router is not router:
                _raise_foreign(router, value)
        elif isinstance(value, (list, tuple, dict)) and id(value) not in seen:
            seen.add(id(value))
            stack.extend(value)
            if isinstance(value, dict):
                stack.extend(value.values())


def _note_router(router):
    """
    Check all values that are sent from now on, if this is not the only router.
    """
    _routers[:] = [ref for ref in _routers if ref() is not None]
    _routers.append(mitogen.core._weakref.ref(router))
    if len(_routers) > 1:
        mitogen.core._value_check = _refuse_foreign
        if mitogen.core.CORE == 'native':
            import _mitogen_core
            _mitogen_core.set_value_check(_refuse_foreign)


def _forget_routers():
    """
    In a child made by fork, the parent's routers are of no use.
    """
    del _routers[:]


mitogen.core._fork_hooks.append(_forget_routers)
