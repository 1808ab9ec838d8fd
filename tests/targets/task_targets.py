"""
Functions that run as tasks. Python 3 only.
"""

import asyncio
import errno
import os
import threading
import time

import mitogen._running
import mitogen._tasks
import mitogen.core

_seen = []


def seen():
    return list(_seen)


def forget():
    del _seen[:]


_listeners = []


def tell(*senders):
    """
    Have these senders told of what is noted.
    """
    _listeners[:] = senders


def note(value):
    _seen.append(value)
    for sender in _listeners:
        sender.send(value)
    return value


def sleep_and_note(seconds, value):
    """
    Sleep, and note whether that was ended.
    """
    try:
        note('begun')
        time.sleep(seconds)
    except BaseException as e:
        note(type(e).__name__)
        raise
    return note(value)


def spin(seconds):
    """
    Run Python all the time.
    """
    note('begun')
    end = time.time() + seconds
    while time.time() < end:
        pass


def read_a_pipe():
    """
    Wait in a system call for what never comes.
    """
    r, w = os.pipe()
    try:
        note('begun')
        os.read(r, 1)
    finally:
        os.close(r)
        os.close(w)


_released = threading.Event()


def wait_for_release(value):
    """
    Return a value once `release()` was called over there.
    """
    note('begun')
    _released.wait(60)
    return note(value)


def release():
    _released.set()


def hold():
    """
    Have `wait_for_release` wait again.
    """
    _released.clear()


def ignore_the_first_cancel(seconds):
    try:
        note('begun')
        time.sleep(seconds)
    except mitogen._tasks.TaskCancelled:
        note('ignored')
    time.sleep(seconds)


async def double_later(value, seconds=0):
    note('begun')
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note('cancelled')
        raise
    return 2 * value


def thread_name():
    return threading.current_thread().name


_barrier = threading.Barrier(4)


def meet():
    """
    Return when four threads are here at once.
    """
    _barrier.wait(60)
    return thread_name()


def count(stop, fail_at=None):
    try:
        for i in range(stop):
            if i == fail_at:
                raise ValueError('at %d' % i)
            _seen.append(i)
            yield i
    finally:
        note('closed')


def sleepy_count():
    try:
        yield 0
        time.sleep(600)
    finally:
        note('closed')


def blobs(count, size):
    for i in range(count):
        _seen.append(i)
        yield b'x' * size


def highest():
    return _seen[-1]


def whole_list():
    return [1, 2, 3]


def unpicklable():
    return object()


def not_even_pickled():
    return lambda: None


def yields_what_cannot_travel():
    yield 1
    yield object()


def prints(word):
    print(word)
    return word.upper()


@mitogen.core.takes_econtext
def take_long_to_end(econtext):
    """
    Have this process end what it runs, and then be there for a while.
    """
    import mitogen._running

    def linger():
        mitogen._running._end_all()
        time.sleep(0.3)
    mitogen.core.listen(econtext.broker, 'shutdown', linger)


def lose_proc():
    import mitogen._running
    mitogen._running._DESCRIPTORS = '/missing'


@mitogen.core.takes_router
def handles(router):
    """
    Return how many handles this process has.
    """
    return len(router._handle_map)


@mitogen.core.takes_econtext
def start_pool_without_threads(econtext):
    """
    Start threads for tasks where the system gives one only.
    """
    start, left = threading.Thread.start, [1]

    def start_some(thread):
        if not left:
            raise RuntimeError("can't start new thread")
        left.pop()
        start(thread)
    threading.Thread.start = start_some
    try:
        mitogen._tasks.start_pool(3, econtext=econtext)
    finally:
        threading.Thread.start = start


def capture_without_descriptors(allowed):
    """
    Have the output captured where the system gives some pipes only. Return whether the output is
    where it was, and the descriptors are those that there were.
    """
    pipe, left = os.pipe, [None] * allowed

    def pipe_some():
        if not left:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        left.pop()
        return pipe()

    def state():
        return [os.fstat(fd)[:3] for fd in (1, 2)], sorted(os.listdir('/proc/self/fd'))
    before = state()
    os.pipe = pipe_some
    try:
        mitogen._running._Capture(None)
    except OSError:
        return state() == before
    finally:
        os.pipe = pipe
    return False
