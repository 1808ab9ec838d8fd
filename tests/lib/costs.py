"""
The cost of each test, in seconds of a processor: of its own process, and of all that it started and
waited for.

    MITOGEN_TEST_COSTS=/tmp/costs make test
    python tests/lib/costs.py /tmp/costs

has each process of the suite write a file into the folder, and sums them up for each file of tests.
"""

import collections
import os
import sys
import time

import pytest

#: A folder.
COSTS = 'MITOGEN_TEST_COSTS'


def spent():
    return sum(os.times()[:4])


def note(name, cpu, wall):
    folder = os.environ.get(COSTS)
    if folder:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, '%s-%d' % (os.environ.get('MITOGEN_CORE', 'any'), os.getpid())), 'a') as fp:
            fp.write('%.2f %.2f %s\n' % (cpu, wall, name))


def pytest_collection_finish(session):
    if session.items:
        note('collection', spent(), 0)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    cpu, wall = spent(), time.monotonic()
    yield
    note(item.nodeid, spent() - cpu, time.monotonic() - wall)


def read(folder):
    """
    Yield (core, name of a test, seconds of a processor, seconds).
    """
    for name in os.listdir(folder):
        with open(os.path.join(folder, name)) as fp:
            for line in fp:
                cpu, wall, test = line.rstrip('\n').split(' ', 2)
                yield name.partition('-')[0], test, float(cpu), float(wall)


def main(folder):
    sums = collections.defaultdict(lambda: [0, 0, 0])
    for core, test, cpu, wall in read(folder):
        row = sums[core, test.partition('::')[0]]
        for column, value in enumerate((1, cpu, wall)):
            row[column] += value
    print('%-8s%-50s%8s%10s%10s' % ('core', 'file', 'tests', 'CPU s', 's'))
    for (core, name), row in sorted(sums.items(), key=lambda pair: -pair[1][1]):
        print('%-8s%-50s%8d%10.1f%10.1f' % ((core, name) + tuple(row)))
    print('%.0f seconds of a processor' % sum(row[1] for row in sums.values()))


if __name__ == '__main__':
    main(sys.argv[1])
