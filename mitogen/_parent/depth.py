# SPDX-License-Identifier: BSD-3-Clause
"""
How deep the values that children send may nest, where threads have little stack.
"""

from __future__ import absolute_import  # house

import os  # house
import threading  # house

import mitogen.core  # house
from mitogen.parent import _count  # house


#: A value may nest this deep on a large stack: the interpreter's own limit.
_MOST_DEPTH = 1000

#: A value may nest this deep on any stack.
_LEAST_DEPTH = 16

#: Stack that a program needs for each level of a value when it walks the value,
#: and stack that stays free.
_LEVEL_BYTES, _RESERVE_BYTES = 1024, 32768


def _default_stack():
    """
    Return the size of a thread's stack, in bytes, if the program does not set
    one.
    """
    try:
        if os.confstr('CS_GNU_LIBC_VERSION'):
            return 2 << 20
    except (AttributeError, OSError, ValueError):
        pass
    # The default of musl is the smallest.
    return 128 << 10


def _most_depth():
    """
    Return how deep values may nest for the threads of this process.
    """
    # The call that returns the size also resets it.
    size = threading.stack_size()
    if size:
        threading.stack_size(size)
    size = size or _default_stack()
    return max(_LEAST_DEPTH,
               min(_MOST_DEPTH, (size - _RESERVE_BYTES) // _LEVEL_BYTES))


def _items_of(value):
    if isinstance(value, dict):
        return [item for pair in value.items() for item in pair]
    return value if isinstance(value, (list, tuple)) else ()


def _is_deeper(value, most):
    """
    Tell whether containers nest deeper than that in a value. Does not recurse.
    """
    heights = {}   # id -> levels below it, or None while they are looked at
    todo = [value]
    while todo:
        top = todo[-1]
        if heights.get(id(top)) is not None:
            todo.pop()
            continue
        items = _items_of(top)
        inside = [item for item in items
                  if isinstance(item, (list, tuple, dict))]
        if id(top) not in heights:
            heights[id(top)] = None
            todo.extend(item for item in inside if id(item) not in heights)
            continue
        todo.pop()
        heights[id(top)] = 1 + max(
            [heights.get(id(item)) or 0 for item in inside] or [0])
        if heights[id(top)] > most:
            return True
    return False


class _ShallowUnpickler(object):
    """
    Refuses what another unpickler has loaded, if it nests too deep.
    """
    def __init__(self, unpickler, most):
        self._unpickler = unpickler
        self._most = most

    def load(self):
        value = self._unpickler.load()
        if _is_deeper(value, self._most):
            raise mitogen.core.UnpicklingError(
                'containers are nested too deep')
        return value


def _with_depth(unpickler, data):
    """
    Return an unpickler of `data` that respects the stack of the thread.
    """
    containers = _count(data, b']})ldt\x85\x86\x87')
    if containers > _LEAST_DEPTH:
        most = _most_depth()
        if containers > most and most < _MOST_DEPTH:
            return _ShallowUnpickler(unpickler, most)
    return unpickler
