#!/usr/bin/env python3
"""
Puts the figures of docs/benchmarks/results.rst into README.rst, between the two comments that say
so, and draws three of them for the front page of the manual.

    tools/readme_table.py            write
    tools/readme_table.py --check    say whether both have them already; exit status 1 if not
"""

import os
import re
import sys
import textwrap

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
README = os.path.join(ROOT, 'README.rst')
RESULTS = os.path.join(ROOT, 'docs', 'benchmarks', 'results.rst')
PLOT = os.path.join(ROOT, 'docs', '_static', 'three-figures.svg')

BEGIN = '.. figures: begin; made by tools/readme_table.py'
END = '.. figures: end'

SECTION = 'On two cores'
RATIOS = 'Times better than upstream, median over the rounds (quartiles):'
VALUES = 'Median over the rounds ± median absolute deviation:'

#: The rows of the README, as the results name them. A row without a measurement is left out.
FIGURES = [
    'call round trip, µs',
    'call round trip, three hops, µs',
    'CPU per call, both sides, µs',
    'pipelined calls, 200 outstanding, calls/s',
    'connect and first call, ms',
    '1 MiB as argument, MB/s',
    '1 MiB as result, MB/s',
    'one-way 64 B, child to parent, msg/s',
    'fan-out over 20, all at once, calls/s',
    '100 contexts started together, ms',
    'service call round trip, µs',
    'private memory of an idle child, MB',
]

#: The rows of the plot, and what it calls them.
PLOTTED = {
    'connect and first call, ms': 'start, and a first call',
    'call round trip, µs': 'a call and its answer',
    '1 MiB as argument, MB/s': 'an argument of 1 MiB',
}

PEERS = ['upstream', 'execnet', 'multiprocessing', 'ours-pure', 'ours']


def read(path):
    with open(path, encoding='utf-8') as fp:
        return fp.read()


def table_after(text, heading):
    """
    Return {first column: {heading: cell}} of the simple table that follows a line.
    """
    lines = text[text.index(heading) + len(heading):].lstrip('\n').split('\n')
    ruler = lines[0]
    spans = [match.span() for match in re.finditer('=+', ruler)]

    def cells(line):
        return [line[a:b].strip() for a, b in spans[:-1]] + [line[spans[-1][0]:].strip()]

    names = cells(lines[1])
    found = {}
    for line in lines[3:]:
        if line == ruler:
            break
        row = cells(line)
        found[row[0]] = dict(zip(names[1:], row[1:]))
    return found


def table(results):
    start = results.index('\n%s\n-' % SECTION)
    section = results[start:]
    values, ratios = table_after(section, VALUES), table_after(section, RATIOS)
    rows = [['figure'] + PEERS + ['ours is']]
    for name in FIGURES:
        if name in values:
            row = values[name]
            ratio = ratios.get(name, {}).get('ours', '').split(' ')[0]
            rows.append([name] + [row.get(peer, '–').split(' ')[0] for peer in PEERS] + [ratio or '–'])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    ruler = '  '.join('=' * width for width in widths)
    lines = [ruler] + ['  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows] + [ruler]
    lines.insert(2, ruler)

    about = dict(re.findall(r'^:([\w ]+): (.*)$', results, re.M))
    versions = dict(re.findall(r'^- ([\w-]+): .*, version (\S+)$', results, re.M))
    note = 'Medians on a machine with %s processors (%s), %s; upstream %s, execnet %s. ' % (
        about['processors'], about['processor'], about['python'], versions['upstream'], versions.get('execnet', '–'))
    note += '*ours is* says how many times better than upstream.'
    return '\n'.join(lines) + '\n\n' + textwrap.fill(note, 100) + '\n'


def plot(results):
    """
    Return the SVG text of the plot.
    """
    sys.path.insert(0, os.path.join(ROOT, 'benchmarks'))
    from driver import svg
    ratios = table_after(results[results.index('\n%s\n-' % SECTION):], RATIOS)
    rows = []
    for name, label in PLOTTED.items():
        found = [(peer, re.match(r'([\d.]+)x \(([\d.]+)–([\d.]+)\)', ratios[name].get(peer, ''))) for peer in PEERS]
        rows.append((label, [(peer, float(match[1]), (float(match[2]), float(match[3])))
                             for peer, match in found if match]))
    return svg.bars('Times better than upstream Mitogen', rows, [peer for peer, _, _ in rows[0][1]],
                    labels=150, plot=340)


def main():
    results = read(RESULTS)
    head, rest = read(README).split(BEGIN, 1)
    _, tail = rest.split(END, 1)
    files = {README: '%s%s\n\n%s\n%s%s' % (head, BEGIN, table(results), END, tail), PLOT: plot(results)}
    if '--check' in sys.argv[1:]:
        old = [os.path.relpath(path, ROOT) for path, text in files.items()
               if not os.path.exists(path) or read(path) != text]
        if old:
            print('%s: not the figures of docs/benchmarks/results.rst; run tools/readme_table.py' % (', '.join(old),))
        return 1 if old else 0
    for path, text in files.items():
        with open(path, 'w', encoding='utf-8') as fp:
            fp.write(text)
    return 0


if __name__ == '__main__':
    sys.exit(main())
