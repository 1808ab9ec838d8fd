#!/usr/bin/env python3
"""
Puts the figures of docs/benchmarks/results.rst into README.rst, between the two comments that say
so.

    tools/readme_table.py            write
    tools/readme_table.py --check    say whether README.rst has them already; exit status 1 if not
"""

import os
import re
import sys
import textwrap

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
README = os.path.join(ROOT, 'README.rst')
RESULTS = os.path.join(ROOT, 'docs', 'benchmarks', 'results.rst')

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


def main():
    text = read(README)
    head, rest = text.split(BEGIN, 1)
    _, tail = rest.split(END, 1)
    new = '%s%s\n\n%s\n%s%s' % (head, BEGIN, table(read(RESULTS)), END, tail)
    if '--check' in sys.argv[1:]:
        if new != text:
            print('README.rst has other figures than docs/benchmarks/results.rst: run tools/readme_table.py')
            return 1
        return 0
    with open(README, 'w', encoding='utf-8') as fp:
        fp.write(new)
    return 0


if __name__ == '__main__':
    sys.exit(main())
