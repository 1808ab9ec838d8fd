"""
Tasks of tests/fuzz/task_fuzz.py: each notes when it begins.
"""

import asyncio
import threading
import time

_lock = threading.Lock()
_begun = []


def note(number):
    with _lock:
        _begun.append(number)


def quick(number):
    note(number)
    return number * number


def sleepy(number):
    note(number)
    time.sleep(0.05)
    return number * number


def spinning(number):
    note(number)
    until = time.time() + 0.05
    while time.time() < until:
        pass
    return number * number


def failing(number):
    note(number)
    raise ValueError('number %d' % number)


async def later(number):
    note(number)
    await asyncio.sleep(0.02)
    return number * number


def counting(number):
    note(number)
    i = 0
    while True:
        yield number, i
        i += 1


def begun():
    with _lock:
        return list(_begun)


def left():
    """
    Return how many tasks are to be dropped, and how many are taken: this one.
    """
    import mitogen._tasks
    if mitogen._tasks._tasks is None:
        return 0, 0
    return len(mitogen._tasks._tasks._dropped), len(mitogen._tasks._tasks._taken)
