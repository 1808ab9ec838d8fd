"""
Random tasks: some threads submit, cancel, stream, kill and close at random, and then each task is
accounted for.

    python tests/fuzz/task_fuzz.py --seconds 600 [--seed N]

These things have to be so:

- Each future is done in the end: no task is lost.
- A result is that of its own task. An error has a reason that was given to it: its function fails,
  it was cancelled, it had a deadline, its host was ended.
- No task begins twice. On a host of one thread, tasks begin in the order in which a thread has
  given them. A stream's items are consecutive, and its own.
- At rest a host has no task left, the router has the handles that it had before, and no timer holds
  up the end of the tree.
"""

import argparse
import collections
import concurrent.futures
import os
import random
import signal
import sys
import threading
import time

sys.path[1:1] = [os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), name)
                 for name in ('lib', 'targets')]

import mitogen  # noqa: E402
import mitogen.core  # noqa: E402

import fuzz_targets  # noqa: E402

KINDS = [fuzz_targets.quick] * 4 + [
    fuzz_targets.sleepy, fuzz_targets.spinning, fuzz_targets.failing, fuzz_targets.later]

#: Seconds after which a task that is not done is lost.
PATIENCE = 120


class Given:
    """
    A task that a thread has given to a host, and all that may have ended it.
    """
    def __init__(self, host, number, func, owner, timeout):
        self.host, self.number, self.func, self.owner = host, number, func, owner
        self.has_deadline = timeout is not None
        self.is_cancelled = False
        self.future = None


class World:
    """
    A tree, some hosts in it, and what was done there.
    """
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.threads = self.rng.choice([1, 1, 2, 8])
        self.tree = mitogen.Tree(threads=self.threads)
        self.lock = threading.Lock()
        self.numbers = 0
        self.hosts, self.ended = [], set()
        self.given = []
        self.pids = {}
        self.failures = []
        for _ in range(2):
            self.connect()

    def connect(self):
        host = self.tree.connect('local:')
        self.pids[host] = host.call(os.getpid)
        host.call(fuzz_targets.begun)
        self.hosts.append(host)

    def next_number(self):
        with self.lock:
            self.numbers += 1
            return self.numbers

    def fail(self, text):
        self.failures.append(text)


class Actor(threading.Thread):
    """
    A thread that does random things.
    """
    def __init__(self, world, seed, count):
        super().__init__()
        self.world, self.rng, self.count = world, random.Random(seed), count
        self.mine = []

    def run(self):
        try:
            for _ in range(self.count):
                self.rng.choice([self.submit] * 8 + [self.cancel] * 3 + [self.stream, self.call, self.map, self.wait, self.end])()
        except BaseException as e:
            self.world.fail('%s: %r' % (self.name, e))
            raise

    def pick(self):
        return self.rng.choice(self.world.hosts)

    def submit(self):
        host, func = self.pick(), self.rng.choice(KINDS)
        timeout = self.rng.choice([None, None, None, 0, 0.01, 60])
        given = Given(host, self.world.next_number(), func, self, timeout)
        try:
            given.future = host.options(timeout=timeout).submit(func, given.number)
        except mitogen.ConnectionLost:
            if host not in self.world.ended:
                self.world.fail('%r was not ended' % (host,))
            return
        except mitogen.core.ChannelError:
            return
        self.mine.append(given)
        with self.world.lock:
            self.world.given.append(given)

    def cancel(self):
        if self.mine:
            given = self.rng.choice(self.mine[-20:])
            given.is_cancelled = True
            given.future.cancel()

    def stream(self):
        host, number = self.pick(), self.world.next_number()
        try:
            with host.options(window=self.rng.choice([1, 4, 256])).stream(fuzz_targets.counting, number) as items:
                for i, item in zip(range(self.rng.choice([0, 1, 20, 300])), items):
                    if item != (number, i):
                        self.world.fail('item %d of stream %d is %r' % (i, number, item))
        except mitogen.core.ChannelError:
            if host not in self.world.ended:
                self.world.fail('%r was not ended, but its stream was' % (host,))

    def call(self):
        host, number = self.pick(), self.world.next_number()
        try:
            if host.call(fuzz_targets.quick, number) != number * number:
                self.world.fail('a call has the result of another one')
        except mitogen.core.ChannelError:
            if host not in self.world.ended:
                self.world.fail('%r was not ended, but its call was' % (host,))

    def map(self):
        host = self.pick()
        numbers = [self.world.next_number() for _ in range(5)]
        try:
            if list(host.options(window=2).map(fuzz_targets.quick, numbers)) != [number * number for number in numbers]:
                self.world.fail('a map is not in order')
        except mitogen.core.ChannelError:
            if host not in self.world.ended:
                self.world.fail('%r was not ended, but its map was' % (host,))

    def wait(self):
        time.sleep(self.rng.choice([0, 0.001, 0.02]))

    def end(self):
        if self.rng.random() > 0.1:
            return
        with self.world.lock:
            if len(self.world.ended) >= 3:
                return
            host = self.pick()
            if host in self.world.ended:
                return
            self.world.ended.add(host)
        if self.rng.random() < 0.5:
            os.kill(self.world.pids[host], signal.SIGKILL)
        else:
            host.close()
        self.world.connect()


def check(world):
    """
    Account for each task.
    """
    done, lost = concurrent.futures.wait([given.future for given in world.given], PATIENCE)
    for given in world.given:
        if given.future in lost:
            world.fail('task %d (%s) is lost' % (given.number, given.func.__name__))
    for given in world.given:
        if given.future in done:
            check_outcome(world, given)
    for host in world.hosts:
        if host not in world.ended:
            check_host(world, host)


def check_outcome(world, given):
    try:
        value = given.future.result(0)
    except concurrent.futures.CancelledError:
        is_right = given.is_cancelled
        value = 'cancelled'
    except mitogen.DeadlineExceeded as e:
        is_right, value = given.has_deadline, e
    except mitogen.RemoteError as e:
        is_right, value = given.func is fuzz_targets.failing and e.message == 'number %d' % given.number, e
    except mitogen.core.ChannelError as e:
        is_right, value = given.host in world.ended, e
    else:
        is_right = given.func is not fuzz_targets.failing and value == given.number * given.number
    if not is_right:
        world.fail('task %d (%s) has ended with %r' % (given.number, given.func.__name__, value))


def check_host(world, host):
    # Its queue may have something left that was cancelled. It is served in order.
    until = time.monotonic() + PATIENCE
    while True:
        left = host.default_call_chain.call(fuzz_targets.left)
        if left in ((0, 1), (0, 0)) or time.monotonic() > until:
            break
        time.sleep(0.01)
    if left not in ((0, 1), (0, 0)):
        world.fail('%r has tasks left: %r' % (host, left))
    begun = host.default_call_chain.call(fuzz_targets.begun)
    twice = [number for number, count in collections.Counter(begun).items() if count > 1]
    if twice:
        world.fail('tasks %r began twice' % (twice,))
    places = {number: place for place, number in enumerate(begun)}
    for given in world.given:
        if given.host is host and given.future.done() and not given.future.cancelled() and not given.future.exception():
            if given.number not in places:
                world.fail('task %d has a result and never began' % (given.number,))
    if world.threads == 1:
        for owner in {given.owner for given in world.given}:
            order = [places[given.number] for given in world.given
                     if given.owner is owner and given.host is host and given.number in places]
            if order != sorted(order):
                world.fail('tasks of one thread began out of order')


def episode(seed, count=120):
    """
    Return the number of tasks, and what was wrong.
    """
    world = World(seed)
    with world.tree:
        before = world.tree.stats()['handlers']
        actors = [Actor(world, '%s %d' % (seed, number), count) for number in range(3)]
        for actor in actors:
            actor.start()
        for actor in actors:
            actor.join()
        check(world)
        until = time.monotonic() + PATIENCE
        while world.tree.stats()['handlers'] > before + 20 and time.monotonic() < until:
            time.sleep(0.05)
        if world.tree.stats()['handlers'] > before + 20:
            world.fail('%d handles were not given back' % (world.tree.stats()['handlers'] - before,))
        for given in world.given:
            timer = given.future._timer
            if timer is not None and timer.active:
                world.fail('the deadline of task %d is left' % (given.number,))
    return len(world.given), world.failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=60)
    parser.add_argument('--seed', type=int, help='one episode of it')
    options = parser.parse_args()
    if options.seed is not None:
        count, failures = episode(options.seed)
        sys.exit('\n'.join(failures) or None)
    first = random.SystemRandom().randrange(1 << 30)
    print('core %s, first seed %d' % (mitogen.core.CORE, first), flush=True)
    until, seed, tasks = time.monotonic() + options.seconds, first, 0
    while time.monotonic() < until:
        count, failures = episode(seed)
        tasks += count
        if failures:
            sys.exit('seed %d: %s' % (seed, '\n'.join(failures)))
        seed += 1
    print('%d episodes, %d tasks, all well' % (seed - first, tasks))


if __name__ == '__main__':
    main()
