"""
A chain of ten contexts, each the child of the one before, and the tree of processes that they are.

    python examples/nested.py

The last one is called like any other. Its answer passes nine processes that only forward it, and
none of them had to be told about it: a route is announced upwards when a child starts.
"""

from __future__ import print_function

import os

import mitogen
import mitogen.core

DEPTH = 10


def describe():
    return os.getpid(), os.getppid()


@mitogen.main()
def main(router):
    print('%d is this process' % (os.getpid(),))
    contexts, parent = [], os.getpid()
    for depth in range(1, DEPTH + 1):
        # Started by the last one so far, on our behalf.
        context = router.local(via=contexts[-1] if contexts else None, name='%d' % (depth,))
        contexts.append(context)
        pid, ppid = context.call(describe)
        assert ppid == parent
        print('%s%d is %s' % ('  ' * depth, pid, context.name))
        parent = pid

    start = mitogen.core.now()
    calls = [contexts[-1].call_async(describe) for _ in range(1000)]
    assert set(call.get().unpickle() for call in calls) == set([(pid, ppid)])
    print('1000 calls into the last one took %.0f ms' % (1000 * (mitogen.core.now() - start),))
