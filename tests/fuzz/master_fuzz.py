"""
Lies to a whole master, at random, and looks whether anybody else notices.

    python tests/fuzz/master_fuzz.py --seconds 60

A row starts a master with services, files and a UNIX socket, a child and a grandchild that call and
are called all the time, and two peers that speak raw frames: a child, of the master or of another
child, and a client of the socket. In each batch both say what master_grammar.py makes up.
Afterwards everything must hold that master_world.py checks: routes and names of others are what
they were, each answer came from who was asked, no call waited without end, nobody obeyed, no line
of the log is forged, and the master has not grown. The cores take turns.

A rule that does not hold is printed with the steps of the batch, and the exit status is 1. ``--core
native --seed N`` runs one row again; how threads meet is another time another way.
"""

import argparse
import faulthandler
import json
import os
import random
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), name) for name in ('lib', 'targets')]

#: Seconds that one row may take, on a machine that has much else to do.
ROW_SECONDS = 900


def run_row(seed, batches):
    """
    Run a row in this process. Return whether all held.
    """
    import master_world
    faulthandler.dump_traceback_later(ROW_SECONDS, exit=True)
    world = master_world.World(random.Random(seed))
    try:
        for i in range(batches):
            world.run_batch()
        world.check_growth()
    except master_world.Finding as e:
        print('seed %d, core %s, batch %d: %s' % (seed, os.environ['MITOGEN_CORE'], i, e))
        print(json.dumps(world.steps)[:8000])
        sys.stdout.flush()
        # The fault that was found may keep the process from ending.
        os._exit(1)
    world.close()
    print(json.dumps(dict(world.medians(world.measured[-5:]), batches=batches, slowest=round(world.slowest, 2),
                          lines=world.log.lines, liars=sum(peer.count for peer in world.peers))))


def start_row(core, seed, batches):
    """
    Run a row in a process of its own. Return its exit status and what it printed.
    """
    proc = subprocess.run(
        [sys.executable, os.path.abspath(__file__), '--work', '--core', core, '--seed', str(seed), '--batches',
         str(batches)], env=dict(os.environ, MITOGEN_CORE=core), stdout=subprocess.PIPE, universal_newlines=True)
    return proc.returncode, proc.stdout


def main():
    parser = argparse.ArgumentParser(description='Lie to a whole master.')
    parser.add_argument('--seconds', type=float, default=60)
    parser.add_argument('--core', choices=('native', 'pure'))
    parser.add_argument('--seed', type=int)
    parser.add_argument('--batches', type=int, default=30)
    parser.add_argument('--verbose', action='store_true', help='print the figures of each row')
    parser.add_argument('--work', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return run_row(args.seed, args.batches)
    cores = [args.core] if args.core else ['native', 'pure']
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(2 ** 32)
    end = time.time() + args.seconds
    rows = 0
    while True:
        for core in cores:
            status, output = start_row(core, seed, args.batches)
            if status:
                print('%s\nseed %d, core %s: exit status %d' % (output, seed, core, status))
                return 1
            if args.verbose:
                print(seed, core, output, end='', flush=True)
            rows += 1
        seed += 1
        if args.seed is not None or time.time() > end:
            break
    print('%d batches in %d rows, all held' % (rows * args.batches, rows))


if __name__ == '__main__':
    sys.exit(main())
