"""
Runs the programs in turn: round after round, each program under each peer, a fresh process every
time.
"""

import collections
import ctypes
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

from driver import catalogue

PROGRAM_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'programs')

# A process that has measured is given so long to end before that is noted and it is killed.
END_GRACE = 5.0


class Outcome(object):
    """Everything a run has found out.

    samples[cores, figure][peer]: list of (round, value). details[cores, figure][peer]: further
    words of the programs. problems[cores, figure, peer]: why there is no value. notes: set of
    texts. steadiness: seconds that one fixed loop of Python took, each time a program was about
    to start.
    """

    def __init__(self):
        self.samples = collections.defaultdict(lambda: collections.defaultdict(list))
        self.details = collections.defaultdict(lambda: collections.defaultdict(list))
        self.problems = {}
        self.notes = set()
        self.steadiness = []
        self.rounds = 0


def cpu_sets(wanted):
    """
    {'two': processors, 'one': processors} for the wanted settings; empty where affinity is unknown.
    """
    if not hasattr(os, 'sched_setaffinity'):
        return {'two': None} if 'two' in wanted else {}
    allowed = sorted(os.sched_getaffinity(0))
    sets = {'two': set(allowed[:2]), 'one': set(allowed[-1:])}
    if len(allowed) < 2:
        del sets['two']
    return collections.OrderedDict((name, sets[name]) for name in ('two', 'one') if name in wanted and name in sets)


def fixed_loop():
    began = time.perf_counter()
    for _ in range(100000):
        pass
    return time.perf_counter() - began


def adopt_orphans():
    """
    Ask Linux to hand us what our children leave behind, so that nothing waits for a slow init to be
    reaped.
    """
    set_child_subreaper = 36
    try:
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)
    except (OSError, AttributeError):
        pass


def reap(group):
    """Reap the ended children of ours that belong to the process group."""
    try:
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def group_ends(group, seconds):
    """
    Wait until no process of the process group is left; False if there still is one after so long.
    """
    stop = time.monotonic() + seconds
    while True:
        reap(group)
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return True
        if time.monotonic() >= stop:
            return False
        time.sleep(0.01)


def kill_group(group):
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


class Runner(object):
    """Runs rounds.

    environments: {name: Environment}; figures: keys wanted; cores: {setting: processors}; quick,
    seconds: passed to the programs; stop_at: time.monotonic() after which no further program is
    started; say(text): shows progress.
    """

    def __init__(self, environments, figures, cores, quick, seconds, stop_at, say):
        self.environments = environments
        self.figures = set(figures)
        self.cores = cores
        self.quick = quick
        self.seconds = seconds
        self.stop_at = stop_at
        self.say = say
        self.outcome = Outcome()
        self.failures = collections.Counter()

    def run(self, rounds):
        """Run up to so many rounds; returns the Outcome."""
        self.folder = tempfile.mkdtemp(prefix='bench.')
        # A copy, so that compiled files stay out of the checkout and an edit does not change a
        # running series. The processes start in an empty folder, where nothing can be found that
        # they are to be sent.
        self.programs = os.path.join(self.folder, 'programs')
        self.empty = os.path.join(self.folder, 'empty')
        shutil.copytree(PROGRAM_FOLDER, self.programs, ignore=shutil.ignore_patterns('__pycache__'))
        os.mkdir(self.empty)
        adopt_orphans()
        ours = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else None
        self.began = time.monotonic()
        try:
            self._run_rounds(rounds)
        finally:
            if ours is not None:
                os.sched_setaffinity(0, ours)
            shutil.rmtree(self.folder, ignore_errors=True)
        return self.outcome

    def _run_rounds(self, rounds):
        for number in range(rounds):
            for cores, program in self._plan(number):
                if time.monotonic() > self.stop_at:
                    self.outcome.notes.add('The time was up in round %d of %d.' % (number + 1, rounds))
                    return
                self._run_program(number, rounds, cores, program)
            self.outcome.rounds = number + 1

    def _plan(self, number):
        """The (cores, program) pairs of one round; a quick run leaves some out."""
        for program in catalogue.PROGRAMS:
            if not self.figures.intersection(program.figures) or number >= program.most_rounds:
                continue
            for cores in self.cores:
                if not self.quick or cores in program.quick or list(self.cores) == ['one'] and program.quick:
                    yield cores, program

    def _run_program(self, number, rounds, cores, program):
        names = list(self.environments)
        turn = number % len(names)
        if self.cores[cores]:
            os.sched_setaffinity(0, self.cores[cores])  # inherited by what is started
        shown = []
        for name in names[turn:] + names[:turn]:
            if self.failures[cores, program, name] < 2:
                began = time.monotonic()
                self._run_cell(number, cores, program, name)
                shown.append('%s %.1fs' % (name, time.monotonic() - began))
        self.say('%4.0fs  round %d/%d  %s  %-19s %s' % (
            time.monotonic() - self.began, number + 1, rounds, {'two': '2 cores', 'one': '1 core '}[cores],
            ' '.join((program.file[:-3],) + program.args[1:]), ', '.join(shown),
        ))

    def _run_cell(self, number, cores, program, name):
        """Run one program under one peer and take in its lines."""
        self.outcome.steadiness.append(fixed_loop())
        environment = self.environments[name]
        command = [environment.python, os.path.join(self.programs, program.file), '--api', environment.peer.api]
        command += ['--seconds', str(self.seconds)] + list(program.args) + (['--quick'] if self.quick else [])
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            # Files and not pipes: a process left behind would hold a pipe open.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env=environment.variables, cwd=self.empty, start_new_session=True,
            )
            failure = self._wait(process, program)
            out.seek(0)
            lines = out.read().decode('utf-8', 'replace').splitlines()
            err.seek(0)
            complaint = err.read().decode('utf-8', 'replace').strip().splitlines()
        told = self._take_in(lines, number, cores, program, name)
        untold = [key for key in program.figures if key not in told]
        if failure and not untold:
            self.outcome.notes.add('%s, %s: measured, then %s.' % (name, program.file, failure))
        elif untold:
            self.failures[cores, program, name] += 1
            why = failure or 'said nothing'
            for key in untold:
                self.outcome.problems[cores, key, name] = ': '.join([why] + complaint[-1:])

    def _wait(self, process, program):
        """Wait for the end of a process and of all it started; returns None or what went wrong."""
        failure = None
        try:
            if process.wait(timeout=program.timeout):
                failure = 'exit status %d' % process.returncode
        except subprocess.TimeoutExpired:
            failure = 'no end after %d s' % program.timeout
        except BaseException:
            kill_group(process.pid)
            process.wait()
            raise
        if failure and process.returncode is None:
            kill_group(process.pid)
            process.wait()
        if not group_ends(process.pid, END_GRACE):
            failure = failure or 'left processes behind'
            kill_group(process.pid)
            group_ends(process.pid, END_GRACE)
        return failure

    def _take_in(self, lines, number, cores, program, name):
        """Keep what the lines say; returns the figures they speak of."""
        told = set()
        for line in lines:
            if not line.startswith('{'):
                continue
            try:
                record = json.loads(line)
            except ValueError:
                continue
            key = record.pop('figure', None)
            # A star speaks of every figure that has not been spoken of.
            for each in [key] if key != '*' else [each for each in program.figures if each not in told]:
                told.add(each)
                if 'value' in record:
                    self.outcome.samples[cores, each][name].append((number, record['value']))
                    self.outcome.details[cores, each][name].append(record)
                    self.outcome.problems.pop((cores, each, name), None)
                else:
                    self.outcome.problems[cores, each, name] = record.get('skipped') or record.get('error')
        return told
