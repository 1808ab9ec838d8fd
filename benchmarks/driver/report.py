"""
Turns the samples of a run into medians, spreads and ratios, and these into text, JSON and pictures.
"""

import json
import os
import platform
import statistics
import subprocess
import time

from driver import catalogue, environments, svg

BASE = 'upstream'
HEADINGS = {'two': 'On two cores', 'one': 'Pinned to one core'}


def summary_of(values):
    """Median, median absolute deviation and quartiles of a list of numbers."""
    median = statistics.median(values)
    quartiles = statistics.quantiles(values, n=4, method='inclusive') if len(values) > 1 else [median] * 3
    return {
        'median': median,
        'mad': statistics.median([abs(value - median) for value in values]),
        'quartiles': [quartiles[0], quartiles[2]],
        'n': len(values),
    }


def ratios_of(figure, base, other):
    """How many times better `other` is than `base`, a number for each round that has both.

    Only values of the same round are compared: a slow minute of the machine slows both.
    """
    base, other = dict(base), dict(other)
    pairs = [(base[number], other[number]) for number in sorted(base) if number in other]
    if figure.better == catalogue.LOWER:
        pairs = [(there, here) for here, there in pairs]
    # A difference of two figures can come out as zero or less where noise exceeds it: no ratio
    # then.
    return [there / here for here, there in pairs if here > 0 and there > 0]


def summarize(outcome, figures, cores, peers):
    """
    {setting: {figure: {peer: summary}}}; a summary has 'ratio' where upstream was measured too.
    """
    table = {}
    for setting in cores:
        rows = table[setting] = {}
        for key in figures:
            samples = outcome.samples.get((setting, key), {})
            cells = {}
            for peer in peers:
                if peer not in samples:
                    continue
                cells[peer] = summary_of([value for _, value in samples[peer]])
                ratios = ratios_of(catalogue.FIGURES[key], samples.get(BASE, ()), samples[peer])
                if ratios:
                    cells[peer]['ratio'] = summary_of(ratios)
            if cells:
                rows[key] = cells
    return table


def number_text(value):
    """Three significant digits, with thousands set apart."""
    if abs(value) >= 1000:
        digits = len(str(int(abs(value))))
        return '{:,}'.format(int(round(value, 3 - digits)))
    return '%.3g' % value if abs(value) >= 1 else '%.2f' % value


def value_text(cell):
    spread = ' ±%.0f%%' % (100 * cell['mad'] / abs(cell['median'])) if cell['n'] > 1 and cell['median'] else ''
    return number_text(cell['median']) + spread


def ratio_text(cell):
    if 'ratio' not in cell:
        return '–'
    ratio = cell['ratio']
    spread = ' (%.3g–%.3g)' % tuple(ratio['quartiles']) if ratio['n'] > 1 else ''
    return '%.3gx' % ratio['median'] + spread


def rst_table(head, rows):
    """
    A simple table of reStructuredText; an empty first cell is not allowed there, and does not occur
    here.
    """
    widths = [max(len(row[column]) for row in [head] + rows) for column in range(len(head))]
    rule = '  '.join('=' * width for width in widths)

    def line(cells):
        return '  '.join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()

    return '\n'.join([rule, line(head), rule] + [line(row) for row in rows] + [rule]) + '\n'


def tables(setting_rows, peers, cell_text, skip=()):
    head = ['figure'] + [peer for peer in peers if peer not in skip]
    rows = []
    for key, cells in setting_rows.items():
        figure = catalogue.FIGURES[key]
        rows.append(['%s, %s' % (figure.title, figure.unit)] + [
            cell_text(cells[peer]) if peer in cells else '–' for peer in head[1:]
        ])
    return rst_table(head, rows)


def first_line(path, start):
    """
    The text after the first colon of the first line of a file that has such a start; '' if there is
    none.
    """
    try:
        with open(path) as lines:
            for line in lines:
                if line.startswith(start):
                    return line.partition(':')[2].strip()
    except OSError:
        pass
    return ''


def commit_of(checkout):
    """
    Short name of the commit that is checked out, with a + if files differ from it; None outside a
    repository.
    """
    try:
        command = ['git', '-C', checkout, 'describe', '--always', '--dirty=+', '--exclude=*']
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True)
    except OSError:
        return None
    return done.stdout.strip() or None


def load_text():
    return '%.2f %.2f %.2f' % os.getloadavg() if hasattr(os, 'getloadavg') else 'unknown'


def machine(python):
    """Facts about the machine that one needs to judge a figure."""
    command = [python, '-c', 'import platform, sysconfig; '
               'print(platform.python_implementation(), platform.python_version()); '
               'print(platform.python_compiler()); print(sysconfig.get_config_var("CFLAGS") or "")']
    version, compiler, flags = (subprocess.check_output(command, universal_newlines=True) + '\n\n').split('\n')[:3]
    return {
        'date': time.strftime('%Y-%m-%d %H:%M:%S %z'),
        'processor': first_line('/proc/cpuinfo', 'model name') or platform.processor() or platform.machine(),
        'processors': os.cpu_count(),
        'memory': first_line('/proc/meminfo', 'MemTotal'),
        'system': '%s %s %s' % (platform.system(), platform.release(), platform.machine()),
        'python': version,
        'python compiler': compiler,
        'python flags': flags,
        'CFLAGS': os.environ.get('CFLAGS', ''),
        'load before': load_text(),
    }


class Report(object):
    """One run, ready to be written.

    settings: dict of what was asked for. peers: {name: version}; missing: {name: why it was not
    measured}.
    """

    def __init__(self, outcome, figures, cores, peers, missing, about, settings):
        self.outcome = outcome
        self.figures = figures
        self.cores = cores
        self.peers = peers
        self.missing = missing
        self.about = about
        self.settings = settings
        self.table = summarize(outcome, figures, cores, list(peers))
        loops = summary_of([seconds * 1e3 for seconds in outcome.steadiness] or [0.0])
        self.steadiness = '%.2f ms (quartiles %.2f–%.2f)' % ((loops['median'],) + tuple(loops['quartiles']))

    def ratio_tables(self):
        """The tables of ratios as text; of medians where upstream is not among the peers."""
        parts = []
        for setting in self.cores:
            rows = self.table[setting]
            if rows and BASE in self.peers and len(self.peers) > 1:
                parts.append('%s: times better than upstream, median (quartiles)\n' % HEADINGS[setting])
                parts.append(tables(rows, self.peers, ratio_text, skip=(BASE,)))
        return '\n'.join(parts)

    def value_tables(self):
        parts = []
        for setting in self.cores:
            if self.table[setting]:
                parts.append('%s: median ± median absolute deviation\n' % HEADINGS[setting])
                parts.append(tables(self.table[setting], self.peers, value_text))
        return '\n'.join(parts)

    def problem_lines(self):
        """
        One line for each thing that was not measured, with the settings it holds for put together.
        """
        lines = ['%s: %s' % item for item in self.missing.items()]
        grouped = {}
        for (setting, key, peer), why in self.outcome.problems.items():
            if key in self.figures:
                grouped.setdefault((peer, why), []).append(key)
        for (peer, why), keys in sorted(grouped.items()):
            lines.append('%s, %s: %s' % (peer, ', '.join(key for key in self.figures if key in keys), why))
        return lines + sorted(self.outcome.notes)

    def as_rst(self):
        title = 'Benchmark results'
        parts = [title, '=' * len(title), '']
        parts += ['%s.' % self.settings['kind'], '']
        parts += [':%s: %s' % (name, value) for name, value in self.about.items() if value]
        parts += [':steadiness: a fixed loop of Python took %s' % self.steadiness, '']
        parts += ['Peers:', '']
        parts += ['- %s: %s, version %s' % (name, environments.PEERS[name].title, version)
                  for name, version in self.peers.items()]
        parts += ['']
        for setting in self.cores:
            rows = self.table[setting]
            if not rows:
                continue
            parts += [HEADINGS[setting], '-' * len(HEADINGS[setting]), '']
            if BASE in self.peers and len(self.peers) > 1:
                parts += ['Times better than upstream, median over the rounds (quartiles):', '']
                parts += [tables(rows, self.peers, ratio_text, skip=(BASE,))]
                parts += ['.. image:: %s' % self.picture_name(setting), '']
            parts += ['Median over the rounds ± median absolute deviation:', '']
            parts += [tables(rows, self.peers, value_text)]
        problems = self.problem_lines()
        if problems:
            parts += ['Not measured', '------------', ''] + ['- ' + line for line in problems] + ['']
        return '\n'.join(parts)

    def as_json(self):
        samples = {}
        for (setting, key), by_peer in self.outcome.samples.items():
            samples.setdefault(setting, {})[key] = {
                peer: [dict(detail, round=number, value=value) for (number, value), detail
                       in zip(values, self.outcome.details[setting, key][peer])]
                for peer, values in by_peer.items()
            }
        return json.dumps({
            'machine': self.about, 'settings': self.settings, 'peers': self.peers, 'missing': self.missing,
            'units': {key: [catalogue.FIGURES[key].unit, catalogue.FIGURES[key].better] for key in self.figures},
            'problems': self.problem_lines(), 'steadiness': self.outcome.steadiness,
            'summary': self.table, 'samples': samples,
        }, indent=1, sort_keys=True)

    @staticmethod
    def picture_name(setting):
        return 'ratios-%s.svg' % {'two': 'two-cores', 'one': 'one-core'}[setting]

    def picture(self, setting):
        """The plot of ratios of one setting as SVG text, or None where there is nothing to plot."""
        rows = []
        for key, cells in self.table[setting].items():
            bars = [(peer, cells[peer]['ratio']['median'], cells[peer]['ratio']['quartiles'])
                    for peer in self.peers if peer != BASE and 'ratio' in cells.get(peer, ())]
            if bars:
                rows.append((catalogue.FIGURES[key].title, bars))
        if not rows:
            return None
        title = '%s: times better than upstream Mitogen %s' % (HEADINGS[setting], self.peers[BASE])
        return svg.bars(title, rows, [peer for peer in self.peers if peer != BASE])

    def write(self, folder):
        """Write results.rst, results.json and the plots; returns the paths."""
        os.makedirs(folder, exist_ok=True)
        texts = {'results.rst': self.as_rst(), 'results.json': self.as_json()}
        for setting in self.cores:
            picture = self.picture(setting)
            if picture:
                texts[self.picture_name(setting)] = picture
        paths = []
        for name, text in texts.items():
            paths.append(os.path.join(folder, name))
            with open(paths[-1], 'w', encoding='utf-8') as written:
                written.write(text)
        return paths
