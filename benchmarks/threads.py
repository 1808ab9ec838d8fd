"""
How many calls a second a program makes from 1, 2, 4 and 8 threads to as many children. Run it by an
interpreter without a GIL: it runs itself with the GIL and without, in turn, and prints the medians
as a table.

    python benchmarks/threads.py [--seconds 2] [--rounds 5]
"""

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time

THREADS = 1, 2, 4, 8


def call_until(child, stop, counts):
    """
    Calls with some values to write and to read, which is what takes the GIL.
    """
    numbers, count = list(range(100, 0, -1)), 0
    while not stop.is_set():
        child.call(sorted, numbers)
        count += 1
    counts.append(count)


def measure(n_threads, seconds):
    import mitogen.master
    with mitogen.master.Router() as router:
        children = [router.local() for _ in range(n_threads)]
        for child in children:
            child.call(sorted, [])
        stop, counts = threading.Event(), []
        threads = [threading.Thread(target=call_until, args=(child, stop, counts)) for child in children]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        stop.set()
        for thread in threads:
            thread.join()
        return sum(counts) / (time.perf_counter() - began)


def run_once(gil, n_threads, seconds):
    command = [sys.executable, __file__, '--one', str(n_threads), '--seconds', str(seconds)]
    return float(subprocess.check_output(command, env=dict(os.environ, PYTHON_GIL=gil), text=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=2)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--one', type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(measure(options.one, options.seconds))
        return
    rates = {}
    for _ in range(options.rounds):
        for n_threads in THREADS:
            for gil in '1', '0':
                rates.setdefault((gil, n_threads), []).append(run_once(gil, n_threads, options.seconds))
    print('threads  with the GIL  without')
    for n_threads in THREADS:
        print('%7d  %12.0f  %7.0f' % ((n_threads,) + tuple(statistics.median(rates[gil, n_threads]) for gil in '10')))


if __name__ == '__main__':
    main()
