#!/usr/bin/env python3
"""
Pushes gigabytes through a context in the middle, by way of a slow reader, and floods in both
directions through one and two routers; checks every byte's place and that nobody grew.

    .venv/bin/python tests/load/flood.py --core native --gib 4
"""

import argparse
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'targets'))

#: Payload of one message.
SIZE = 1 << 20

#: How much a context in the middle may grow.
GROWTH_MIB = 64


def peak_mib(pid):
    with open('/proc/%d/status' % pid) as fp:
        return int([line for line in fp if line.startswith('VmHWM')][0].split()[1]) / 1024


def push(router, gib):
    """
    A grandchild sends to another one, which rests after each message; the context between them is
    the middle.
    """
    import flow_targets
    middle = router.local()
    pid = middle.call(os.getpid)
    source, target = router.local(via=middle), router.local(via=middle)
    sender = target.call(flow_targets.open_inbox)
    before, start = peak_mib(pid), time.time()
    count = int(gib * (1 << 30)) // SIZE
    sent = source.call_async(flow_targets.flood, sender, count, SIZE)
    got = target.call(flow_targets.drain_slowly, count, 0.001)
    sent.get().unpickle()
    assert got == count * SIZE, got
    report('%g GiB through a middle context' % gib, start, peak_mib(pid) - before)


def mutual(router, gib, far):
    """
    Two contexts flood each other, through this process or through three.
    """
    import flow_targets
    one, two = router.local(), router.local()
    watched = {'the master': os.getpid()}
    if far:
        watched.update(left=one.call(os.getpid), right=two.call(os.getpid))
        one, two = router.local(via=one), router.local(via=two)
    to_one, to_two = one.call(flow_targets.open_inbox), two.call(flow_targets.open_inbox)
    before, start = dict((name, peak_mib(pid)) for name, pid in watched.items()), time.time()
    count = int(gib * (1 << 30)) // SIZE // 8
    for _ in range(8):
        sent = [one.call_async(flow_targets.flood, to_two, count, SIZE), two.call_async(flow_targets.flood, to_one, count, SIZE)]
        for each in sent:
            each.get().unpickle()
        assert one.call(flow_targets.drain_inbox, count) == count * SIZE
        assert two.call(flow_targets.drain_inbox, count) == count * SIZE
    growth = max(peak_mib(pid) - before[name] for name, pid in watched.items())
    report('%g GiB each way through %d' % (gib, 3 if far else 1), start, growth)


def report(what, start, growth):
    print('%-40s %6.1f s, the largest growth is %5.1f MiB' % (what, time.time() - start, growth))
    sys.stdout.flush()
    assert growth < GROWTH_MIB, growth


def main():
    parser = argparse.ArgumentParser(description='see the text at the top of this file')
    parser.add_argument('--core', choices=('native', 'pure'), required=True)
    parser.add_argument('--gib', type=float, default=4)
    args = parser.parse_args()
    os.environ['MITOGEN_CORE'] = args.core
    import mitogen.core
    import mitogen.master
    assert mitogen.core.CORE == args.core
    for run in push, lambda router, gib: mutual(router, gib / 8, False), lambda router, gib: mutual(router, gib / 8, True):
        broker = mitogen.master.Broker()
        try:
            run(mitogen.master.Router(broker), args.gib)
        finally:
            broker.shutdown()
            broker.join()


if __name__ == '__main__':
    main()
