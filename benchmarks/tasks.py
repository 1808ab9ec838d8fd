"""
Tasks, futures, asyncio, executors, streams and values beside other ways to the same end. A round
measures each pair, one side after the other, in one process. The table has the medians, and the
medians of the ratios within a round.

    python benchmarks/tasks.py [--rounds 7] [--rows call,await]

Needs numpy, uvloop and joblib, as the tests do.
"""

import argparse
import asyncio
import collections
import concurrent.futures
import os
import statistics
import sys
import threading
import time

import mitogen
import mitogen.core

MEBIBYTE = 1 << 20


# ---- what runs over there

def nothing(*args):
    return None


def length(value):
    return len(value)


def numbers(count):
    for _ in range(count):
        yield b'x' * 64


def send_numbers(sender, count):
    for _ in range(count):
        sender.send(b'x' * 64)
    sender.close()


def begin_and(what, path):
    """
    Say that this runs, do something for long, and write down when that has ended.
    """
    begun = path + '.begun'
    try:
        open(begun, 'w').close()
        if what == 'sleep':
            time.sleep(600)
        elif what == 'read':
            os.read(os.pipe()[0], 1)
        elif what == 'block':
            # A lock in C, that no exception ends.
            sorted(range(10), key=lambda _: sum(range(1 << 26)))
        while True:
            sum(range(1000))
    finally:
        with open(path + '.new', 'w') as fp:
            fp.write(repr(time.monotonic()))
        os.rename(path + '.new', path)


# ---- rows: functions that return the two sides, each a function that returns a figure

def per_second(count, func):
    began = time.perf_counter()
    func()
    return count / (time.perf_counter() - began)


def row_call(world):
    """host.call / context.call: calls a second"""
    host = world.host
    chain = host.default_call_chain

    def ours():
        for _ in range(2000):
            host.call(nothing)

    def other():
        for _ in range(2000):
            chain.call(nothing)
    return lambda: per_second(2000, ours), lambda: per_second(2000, other)


ECHO = '''
import sys
read, write, flush = sys.stdin.buffer.readline, sys.stdout.buffer.write, sys.stdout.buffer.flush
for line in iter(read, b''):
    write(line)
    flush()
'''


def awaited(world, new_loop):
    async def ours(host):
        for _ in range(1000):
            await host.call(nothing)

    async def other():
        child = await asyncio.create_subprocess_exec(
            sys.executable, '-c', ECHO, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        child.stdin.write(b'x\n')
        await child.stdout.readline()
        began = time.perf_counter()
        for _ in range(1000):
            child.stdin.write(b'x' * 60 + b'\n')
            await child.stdout.readline()
        rate = 1000 / (time.perf_counter() - began)
        child.stdin.close()
        await child.wait()
        return rate

    def run(coroutine):
        loop = new_loop()
        try:
            return loop.run_until_complete(coroutine)
        finally:
            loop.close()
    return (lambda: per_second(1000, lambda: run(ours(mitogen.aio.Host(world.host)))), lambda: run(other()))


def row_await(world):
    """await host.call / echo over asyncio's streams: round trips a second"""
    return awaited(world, asyncio.new_event_loop)


def row_await_uvloop(world):
    """the same under uvloop"""
    import uvloop
    return awaited(world, uvloop.new_event_loop)


def outstanding(world, new_loop):
    async def ours(host):
        await asyncio.gather(*(host.call(nothing) for _ in range(1000)))

    def run():
        loop = new_loop()
        loop.run_until_complete(ours(mitogen.aio.Host(world.host)))
        loop.close()

    def other():
        for receiver in [world.host.call_async(nothing) for _ in range(1000)]:
            receiver.get().unpickle()
    return lambda: per_second(1000, run), lambda: per_second(1000, other)


def row_outstanding(world):
    """1,000 outstanding, await / call_async: calls a second"""
    return outstanding(world, asyncio.new_event_loop)


def row_outstanding_uvloop(world):
    """the same under uvloop"""
    import uvloop
    return outstanding(world, uvloop.new_event_loop)


def mapped(executor, func, args):
    collections.deque(executor.map(func, args), maxlen=0)


def row_small(world):
    """executor.map of 10,000 small tasks / ProcessPoolExecutor(2): tasks a second"""
    return (lambda: per_second(10000, lambda: mapped(world.two, abs, range(10000))),
            lambda: per_second(10000, lambda: mapped(world.pool, abs, range(10000))))


def row_small_loky(world):
    """the same / loky of joblib"""
    return (lambda: per_second(10000, lambda: mapped(world.two, abs, range(10000))),
            lambda: per_second(10000, lambda: mapped(world.loky, abs, range(10000))))


def large():
    return [os.urandom(MEBIBYTE)] * 200


def row_large(world):
    """executor.map of 200 arguments of 1 MiB / ProcessPoolExecutor(2): MB a second"""
    args = large()
    return (lambda: per_second(209.7, lambda: mapped(world.two, len, args)),
            lambda: per_second(209.7, lambda: mapped(world.pool, len, args)))


def row_large_loky(world):
    """the same / loky of joblib"""
    args = large()
    return (lambda: per_second(209.7, lambda: mapped(world.two, len, args)),
            lambda: per_second(209.7, lambda: mapped(world.loky, len, args)))


def row_stream(world):
    """stream of 64-byte items / Sender.send one way: items a second"""
    def ours():
        with world.host.stream(numbers, 50000) as items:
            collections.deque(items, maxlen=0)

    def other():
        receiver = mitogen.core.Receiver(world.tree)
        call = world.host.call_async(send_numbers, receiver.to_sender(), 50000)
        for msg in receiver:
            msg.unpickle()
        call.get().unpickle()
    return lambda: per_second(50000, ours), lambda: per_second(50000, other)


def row_numpy(world):
    """numpy array of 64 MiB as argument / Blob: MB a second"""
    import numpy
    array = numpy.frombuffer(os.urandom(64 * MEBIBYTE), 'f8')
    blob = mitogen.core.Blob(array.tobytes())
    for value in array, blob:
        world.host.call(length, value)
    return (lambda: per_second(4 * 67.1, lambda: [world.host.call(length, array) for _ in range(4)]),
            lambda: per_second(4 * 67.1, lambda: [world.host.call(length, blob) for _ in range(4)]))


ROWS = [row_call, row_await, row_await_uvloop, row_outstanding, row_outstanding_uvloop, row_small, row_small_loky, row_large,
        row_large_loky, row_stream, row_numpy]


# ---- cancel: milliseconds until it has ended over there

def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.001)


def cancel_running(host, what, path, **options):
    future = host.options(**options).submit(begin_and, what, path)
    wait_for(path + '.begun')
    time.sleep(0.05)
    began = time.monotonic()
    future.cancel()
    if what == 'block':
        # It is killed, and cannot say so.
        while any(thread.name == 'mitogen.worker' for thread in threading.enumerate()):
            time.sleep(0.001)
        ended = time.monotonic()
    else:
        wait_for(path)
        ended = float(open(path).read())
    os.unlink(path + '.begun')
    if os.path.exists(path):
        os.unlink(path)
    return 1000 * (ended - began)


def cancel_queued(host, path):
    first = host.submit(begin_and, 'sleep', path)
    wait_for(path + '.begun')
    second = host.submit(nothing)
    told = threading.Event()
    began = time.monotonic()
    host._tasks.cancel(second._handle, 0, lambda begun: told.set())
    told.wait()
    ended = time.monotonic()
    first.cancel()
    wait_for(path)
    os.unlink(path + '.begun')
    os.unlink(path)
    return 1000 * (ended - began)


def cancels(world, folder):
    path = os.path.join(folder, 'ended')
    yield 'queued', cancel_queued(world.host, path)
    yield 'running Python', cancel_running(world.host, 'spin', path)
    yield 'asleep, main thread', cancel_running(world.host, 'sleep', path)
    yield 'in a system call, main thread', cancel_running(world.host, 'read', path)
    yield 'running Python, in a pool', cancel_running(world.wide, 'spin', path)
    yield 'in C, worker=True', cancel_running(world.host, 'block', path, worker=True)


class World:
    """
    The hosts and the executors of others.
    """
    def __init__(self, stack):
        import joblib.externals.loky
        self.tree = stack.enter_context(mitogen.Tree())
        self.host = self.tree.connect('local:')
        self.wide = stack.enter_context(mitogen.Tree(threads=4)).connect('local:')
        self.two = stack.enter_context(self.host.executor(2, processes=True))
        self.pool = stack.enter_context(concurrent.futures.ProcessPoolExecutor(2))
        self.loky = joblib.externals.loky.get_reusable_executor(2)
        stack.callback(self.loky.shutdown)
        for executor in self.two, self.pool, self.loky:
            mapped(executor, abs, range(100))


def main():
    import contextlib
    import tempfile
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--rows', default='', help='names, as in the functions of this file; the start of one will do')
    options = parser.parse_args()
    wanted = tuple('row_' + name for name in options.rows.split(',') if name) or ('row_', 'cancel')
    results, ended = collections.defaultdict(list), collections.defaultdict(list)
    with contextlib.ExitStack() as stack:
        world = World(stack)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        rows = [(row, row(world)) for row in ROWS if row.__name__.startswith(wanted)]
        for number in range(options.rounds):
            for row, sides in rows:
                # Each is first in every other round.
                order = (0, 1) if number % 2 else (1, 0)
                found = {side: sides[side]() for side in order}
                results[row].append((found[0], found[1]))
            if 'cancel' in wanted or options.rows == 'cancel':
                for name, value in cancels(world, folder):
                    ended[name].append(value)
            print('round %d, load %.1f' % (number + 1, os.getloadavg()[0]), file=sys.stderr)
    for row, pairs in results.items():
        ours, other = (statistics.median(side) for side in zip(*pairs))
        ratios = sorted(a / b for a, b in pairs)
        print('%-75s %10.0f %10.0f  %5.2f  (%.2f to %.2f)' % (
            row.__doc__, ours, other, statistics.median(ratios), ratios[0], ratios[-1]))
    for name, values in ended.items():
        print('cancel, %-67s %10.1f ms, at most %.1f' % (name, statistics.median(values), max(values)))


if __name__ == '__main__':
    main()
