"""Options, clocks and loops of every benchmark program, and the one way to report a figure.

A program runs in the environment of one peer and measures with that peer's interface. It defines
any of with_mitogen(bench), with_execnet(bench) and with_multiprocessing(bench), and ends with
main(globals()). The same with_mitogen() text runs under upstream Mitogen and under this project.

A figure is one JSON object on one line of standard output, written as soon as it is known, so
that what a program measured before it fails or is killed still counts. Needs the standard
library only.
"""

import argparse
import contextlib
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import traceback

clock = time.perf_counter

KIB = 1024
MIB = 1024 * 1024


class Skip(Exception):
    """Raised where a peer has no such feature; the text says what is absent."""


class Bench(object):
    """The options of this run, and the way to report.

    seconds: how long one loop should take, float.
    quick: True where a single pass of a slow measurement must do.
    count: size of a program that works on many contexts, int.
    spin: value of MITOGEN_SPIN for this process and for those it starts; empty: not set.
    """

    def __init__(self, seconds, quick, count, spin):
        self.seconds = seconds
        self.quick = quick
        self.count = count
        self.spin = spin

    def emit(self, figure, value, **details):
        """Report value (a number in the unit of the catalogue) for the named figure."""
        write_line(dict(details, figure=figure, value=value))

    @contextlib.contextmanager
    def figure(self, *names):
        """Guard the measurement of the named figures: a failure costs these and no other."""
        try:
            yield
        except Skip as why:
            for name in names:
                write_line({'figure': name, 'skipped': str(why)})
        except Exception:
            traceback.print_exc()
            error = traceback.format_exc().strip().splitlines()[-1]
            for name in names:
                write_line({'figure': name, 'error': error[:300]})


def write_line(record):
    sys.stdout.write(json.dumps(record) + '\n')
    sys.stdout.flush()


def cpu_seconds():
    """User and system time of this process so far, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def seconds_per_call(func, seconds, at_least=3, warm=True):
    """Time of one func() in a loop of about `seconds`, as (median, mean, number of calls).

    Calls are timed in blocks of some milliseconds, so that reading the clock costs nothing; the
    median is that of the block means. With warm, a fifth of the time is spent before the clock
    counts.
    """
    block = 1
    if warm:
        stop = clock() + seconds / 5
        began, calls = clock(), 0
        while not calls or clock() < stop:
            func()
            calls += 1
        each = (clock() - began) / calls
        block = max(1, min(1000, int(0.004 / each)))

    gc.collect()
    means = []
    repeat = range(block)
    first = last = clock()
    while len(means) < at_least or last - first < seconds:
        began = clock()
        for _ in repeat:
            func()
        last = clock()
        means.append((last - began) / block)
    calls = block * len(means)
    return statistics.median(means), (last - first) / calls, calls


def report_time(bench, figure, func, scale=1e6, **how):
    """Measure func() and report its time, in microseconds unless scale says otherwise."""
    median, mean, calls = seconds_per_call(func, bench.seconds, **how)
    bench.emit(figure, median * scale, mean=mean * scale, calls=calls)
    return median * scale


def report_rate(bench, figure, func, amount, **how):
    """
    Measure func(), which handles `amount` of something, and report the amount handled per second.
    """
    median, mean, calls = seconds_per_call(func, bench.seconds, **how)
    bench.emit(figure, amount / median, mean=amount / mean, calls=calls)


def report_flow(bench, figure, pump, first, most):
    """Measure one-way messages: pump(n) moves n messages and returns the seconds that took.

    The first pass, of `first` messages, warms up and tells how many fit into the wanted time; no
    pass has more than `most`, so that a peer which queues without limit stays within memory.
    """
    rate = first / pump(first)
    count = max(first, min(most, int(rate * bench.seconds / 2)))
    rates = []
    began = clock()
    while len(rates) < 2 or (clock() - began < bench.seconds and len(rates) < 20):
        rates.append(count / pump(count))
    bench.emit(figure, statistics.median(rates), passes=len(rates), messages=count)


def cpu_per_call(call, seconds, cpu_of_others):
    """Time and processor time of call(), both in seconds: (median time, processor time of all
    sides).

    cpu_of_others() returns the processor time that the other processes have used so far.
    """
    seconds_per_call(call, seconds / 4, warm=False)
    before = cpu_seconds() + cpu_of_others()
    median, _, calls = seconds_per_call(call, seconds, warm=False)
    return median, (cpu_seconds() + cpu_of_others() - before) / calls


def bare_interpreter():
    """Run the interpreter that runs us on a program that does nothing, until it has ended."""
    subprocess.check_call([sys.executable, '-c', 'pass'])


@contextlib.contextmanager
def mitogen_router():
    """A fresh master router; its broker is shut down and joined afterwards."""
    import mitogen.master
    router = mitogen.master.Router()
    try:
        yield router
    finally:
        router.broker.shutdown()
        router.broker.join()


def chain_of(router, length):
    """Start `length` local contexts, each below the one before it; returns them, nearest first."""
    contexts = []
    for _ in range(length):
        if contexts:
            contexts.append(router.local(via=contexts[-1]))
        else:
            contexts.append(router.local())
    return contexts


def main(program):
    """
    Run the function of `program` (a dict of globals) that fits the peer named on the command line.
    """
    parser = argparse.ArgumentParser(description=program.get('__doc__'))
    parser.add_argument('--api', required=True, choices=('mitogen', 'execnet', 'multiprocessing'))
    parser.add_argument('--seconds', type=float, default=0.3)
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--count', type=int, default=20)
    parser.add_argument('--spin', default='')
    options = parser.parse_args()
    if options.spin:
        os.environ['MITOGEN_SPIN'] = options.spin
    function = program.get('with_' + options.api)
    if function is None:
        write_line({'figure': '*', 'skipped': 'no equivalent in ' + options.api})
        return
    bench = Bench(options.seconds, options.quick, options.count, options.spin)
    with bench.figure('*'):
        function(bench)
