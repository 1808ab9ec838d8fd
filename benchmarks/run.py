#!/usr/bin/env python3
"""Measure this project beside upstream Mitogen, execnet and multiprocessing, in turn, in one run.

See README.rst beside this file for what each figure means.
"""

import argparse
import os
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from driver import catalogue, environments, report, rounds  # noqa: E402

# Seconds a loop takes, most rounds, and seconds from the start after which no further program is
# started.
QUICK = {'seconds': 0.08, 'rounds': 3, 'budget': 100}
FULL = {'seconds': 0.4, 'rounds': 7, 'budget': 840}


def words(text):
    return [word for word in text.split(',') if word]


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--quick', action='store_true', help='within two minutes: short loops, fewer programs on one core')
    parser.add_argument('--peers', type=words, default=list(environments.PEERS), metavar='A,B',
                        help='of %s' % ', '.join(environments.PEERS))
    parser.add_argument('--figures', type=words, metavar='A,B', help='names or starts of names; --list shows them')
    parser.add_argument('--rounds', type=int, help='most rounds (quick %d, full %d)' % (QUICK['rounds'], FULL['rounds']))
    parser.add_argument('--cores', choices=('two', 'one', 'both'), default='both')
    parser.add_argument('--seconds', type=float, help='time of one loop')
    parser.add_argument('--budget', type=float, help='seconds from the start after which no program is started')
    parser.add_argument('--out', metavar='DIR', help='folder for the results, otherwise .bench/results in the checkout')
    parser.add_argument('--python-path-for-ours', metavar='DIR',
                        help='import this project from DIR instead of installing the checkout')
    parser.add_argument('--python', help='interpreter the environments are made from')
    parser.add_argument('--refresh', action='store_true', help='ask pip again for what is installed already')
    parser.add_argument('--list', action='store_true', help='list the figures and end')
    options = parser.parse_args()
    for peer in options.peers:
        if peer not in environments.PEERS:
            parser.error('no such peer: %s' % (peer,))
    try:
        options.figures = catalogue.choose(options.figures) if options.figures else list(catalogue.FIGURES)
    except ValueError as error:
        parser.error(str(error))
    return options


def say(text):
    print(text, file=sys.stderr, flush=True)


def list_figures():
    for program in catalogue.PROGRAMS:
        for key in program.figures:
            figure = catalogue.FIGURES[key]
            print('%-22s %-18s %s, %s; the %s the better' % (
                key, program.file, figure.title, figure.unit, figure.better))


def work_folder(checkout):
    """The folder for environments and results; it hides itself from git."""
    folder = os.path.join(checkout, '.bench')
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, '.gitignore'), 'w') as ignore:
        ignore.write('*\n')
    return folder


def main():
    began = time.monotonic()
    options = parse()
    if options.list:
        return list_figures()
    plan = dict(QUICK if options.quick else FULL)
    for name in plan:
        if getattr(options, name) is not None:
            plan[name] = getattr(options, name)

    checkout = os.path.dirname(HERE)
    folder = work_folder(checkout)
    python = options.python or environments.default_python()
    builder = environments.Builder(folder, python, checkout, options.python_path_for_ours, options.refresh)
    ready, missing = environments.build_all(options.peers, builder, say)
    if not ready:
        sys.exit('benchmarks: no peer can be measured')

    wanted = ('two', 'one') if options.cores == 'both' else (options.cores,)
    cores = rounds.cpu_sets(wanted)
    for setting in wanted:
        if setting not in cores:
            say('%s: this machine cannot be set so' % (report.HEADINGS[setting],))
    if not cores:
        sys.exit('benchmarks: nothing left to measure')

    about = report.machine(python)
    about['commit'] = report.commit_of(checkout)
    runner = rounds.Runner(
        ready, options.figures, cores, options.quick, plan['seconds'], began + plan['budget'], say,
    )
    outcome = runner.run(plan['rounds'])
    about['load after'] = report.load_text()
    settings = dict(plan, kind='%s run, %d full rounds in %d s' % (
        'Quick' if options.quick else 'Full', outcome.rounds, time.monotonic() - began))

    peers = {name: environment.version for name, environment in ready.items()}
    result = report.Report(outcome, options.figures, cores, peers, missing, about, settings)
    print(result.value_tables())
    print(result.ratio_tables())
    for line in result.problem_lines():
        print('note: ' + line)
    print('\n%s; a fixed loop of Python took %s' % (settings['kind'], result.steadiness))
    for path in result.write(options.out or os.path.join(folder, 'results')):
        print('written: ' + os.path.relpath(path))


if __name__ == '__main__':
    main()
