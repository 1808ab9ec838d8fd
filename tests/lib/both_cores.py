"""
Two cores, one suite: ``pytest --core both`` (the default) runs the whole suite twice, at the same
time and each in processes of its own with ``MITOGEN_CORE`` set, and sums up. Nothing here imports
mitogen before that variable is set.

Most of a test is waiting for something, so more than one file of each core is run at a time
(pytest-xdist; ``-n 0`` runs one after the other).
"""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import pytest

import places
import reading

#: The file that a run of one core leaves its counts in.
REPORT = 'MITOGEN_TEST_REPORT'

#: The cores that tests/ansible is about, as one run of plain Ansible is enough for both.
ANSIBLE_CORES = 'MITOGEN_TEST_ANSIBLE_CORES'

#: Set where tests that say nothing about a core are run by the other core's run.
ONCE_ELSEWHERE = 'MITOGEN_TEST_ONCE_ELSEWHERE'

#: Not "-m pytest": that puts the current directory on the path, where the unbuilt package may lie.
START = 'import sys; sys.path[:] = [p for p in sys.path if p]; import pytest; sys.exit(pytest.main(sys.argv[1:]))'

#: A module of which each test is so.
ALL_ONCE = re.compile(r'^pytestmark = \[?\s*(#.*\s*)?pytest\.mark\.once\b', re.M)

#: Files of a core that are run at a time, where there is more than one processor. With two of each,
#: both processors were idle for a quarter of the time. The pure core's run has more to do, and
#: would end minutes after the other one.
JOBS = {'native': 3, 'pure': 4}


def pytest_addoption(parser):
    parser.addoption(
        '--core', choices=('both', 'native', 'pure', 'any'), default='both',
        help='the core to test; "both" runs the suite once for each, "any" takes what loads',
    )


def pytest_cmdline_main(config):
    option = config.option
    if option.core != 'both' or option.collectonly or option.version or option.help:
        return None
    if getattr(option, 'showfixtures', False) or getattr(option, 'markers', False):
        return None
    return run_both(config)


def without_core(args):
    rest = []
    args = iter(args)
    for arg in args:
        if arg == '--core':
            next(args, None)
        elif not str(arg).startswith('--core='):
            rest.append(str(arg))
    return rest


def run_both(config):
    """
    Run the suite over each core, at the same time where there is more than one processor, and print
    one closing line for both. The output of the second one comes when the first has ended.
    """
    args = without_core(config.invocation_params.args)
    totals = {'passed': 0, 'failed': 0, 'skipped': 0}
    lines = []
    status = 0
    jobs = dict.fromkeys(JOBS, [])
    together = len(os.sched_getaffinity(0)) > 1 if hasattr(os, 'sched_getaffinity') else os.cpu_count() > 1
    if together and config.pluginmanager.hasplugin('xdist') and getattr(config.option, 'numprocesses', None) is None:
        # A file stays together: its tests may share what takes long to start.
        keep_bytecode(args)
        jobs = {core: ['-n', str(count), '--dist', 'loadfile', '--no-loadscope-reorder'] for core, count in JOBS.items()}
    # The native run has Ansible and more starts to look for leaks in; the pure one has what is to
    # be run once.
    native = Run(config, 'native', jobs['native'] + args, {ANSIBLE_CORES: 'native pure', ONCE_ELSEWHERE: '1'})
    pure = Run(config, 'pure', jobs['pure'] + args, {ANSIBLE_CORES: ''}, keep_output=together)
    if together:
        native.start()
        pure.start()
    for run in (native, pure):
        core = run.core
        print('\n======== core: %s ========' % core, flush=True)
        code, counts, last = run.finish()
        note = ''
        if counts is None:
            # A process that died has no say in what passed.
            counts = {'failed': 1}
            note = ' (no report: the run ended with status %s during %s)' % (code, last or 'its start')
        elif code and not counts.get('failed'):
            counts['failed'] = counts.get('failed', 0) + 1
            note = ' (exit status %s)' % (code,)
        if code or counts.get('failed'):
            status = 1
        for key in totals:
            totals[key] += counts.get(key, 0)
        lines.append('core %s: %d passed, %d failed%s' % (
            core, counts.get('passed', 0), counts.get('failed', 0), note))
        if code == pytest.ExitCode.INTERRUPTED and not together:
            break
    print('')
    for line in lines:
        print(line)
    print('%(passed)d passed, %(failed)d failed, %(skipped)d skipped' % totals, flush=True)
    return status


def keep_bytecode(args):
    """
    In a fresh checkout, have one process import the test modules. Otherwise each of four would
    rewrite all of them, at the same time.
    """
    if not glob.glob(os.path.join(places.TESTS, '*', '__pycache__')):
        subprocess.call([sys.executable, '-c', START] + args + ['--core=any', '--collect-only', '-q'],
                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Run(object):
    """
    The suite over one core, in a process of its own.

    :param dict env: variables for it: :data:`ANSIBLE_CORES`, :data:`ONCE_ELSEWHERE`.
    :param bool keep_output: show what it prints when it has ended.
    """

    def __init__(self, config, core, args, env, keep_output=False):
        self.config = config
        self.core = core
        self.args = args
        self.env = env
        self.keep_output = keep_output
        self.proc = None

    def start(self):
        self.folder = tempfile.mkdtemp()
        self.report = os.path.join(self.folder, 'report')
        env = dict(os.environ, MITOGEN_CORE=self.core, **self.env)
        env[REPORT] = self.report
        self.output = None
        if self.keep_output:
            self.output = open(os.path.join(self.folder, 'output'), 'w+', errors='replace')
        self.proc = subprocess.Popen(
            [sys.executable, '-c', START] + self.args + ['--core=' + self.core],
            env=env, cwd=str(self.config.invocation_params.dir), stdout=self.output, stderr=self.output,
        )

    def finish(self):
        """
        Return (exit status, counts or None, name of the test that ran last).
        """
        if self.proc is None:
            self.start()
        try:
            while True:
                try:
                    code = self.proc.wait()
                    break
                except KeyboardInterrupt:
                    # The terminal has sent it to the other process too, which ends by itself.
                    continue
            if self.output:
                self.output.seek(0)
                shutil.copyfileobj(self.output, sys.stdout)
                self.output.close()
            return code, read_json(self.report), reading.text(self.report + '.running')
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


def read_json(path):
    text = reading.text(path)
    return json.loads(text) if text else None


def pytest_terminal_summary(terminalreporter):
    path = os.environ.get(REPORT)
    if path and not hasattr(terminalreporter.config, 'workerinput'):
        stats = terminalreporter.stats
        counts = {
            'passed': len(stats.get('passed', ())),
            'failed': len(stats.get('failed', ())) + len(stats.get('error', ())),
            'skipped': len(stats.get('skipped', ())),
        }
        with open(path, 'w') as fp:
            json.dump(counts, fp)


def pytest_configure(config):
    core = config.option.core
    if core in ('native', 'pure'):
        os.environ['MITOGEN_CORE'] = core


def pytest_sessionstart(session):
    core = session.config.option.core
    if core in ('native', 'pure'):
        import mitogen.core
        if mitogen.core.CORE != core:
            pytest.exit('asked for the %s core, but %s runs' % (core, mitogen.core.CORE), returncode=3)


def pytest_report_header(config):
    if config.option.core != 'both':
        import mitogen.core
        return 'mitogen: %s core, from %s' % (
            getattr(mitogen.core, 'CORE', 'unknown'), os.path.dirname(mitogen.core.__file__))


@pytest.hookimpl(hookwrapper=True)
def pytest_collection(session):
    """
    Keep the bytecode of test modules, even where programs are told to keep none: to rewrite their
    assertions is most of what collecting costs, and each process of each core's run collects.
    """
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    yield
    sys.dont_write_bytecode = before


def pytest_ignore_collect(collection_path, config):
    if os.environ.get(ONCE_ELSEWHERE) and collection_path.suffix == '.py':
        if ALL_ONCE.search(collection_path.read_text(encoding='utf-8', errors='replace')):
            return True
    # A file named for one core is about that core alone, and may choose it when it is imported.
    for core, other in (('native', 'pure'), ('pure', 'native')):
        if '_%s_' % core in collection_path.name and config.option.core == other:
            return True


def pytest_collection_modifyitems(config, items):
    if os.environ.get(ONCE_ELSEWHERE):
        items[:] = [item for item in items if not item.get_closest_marker('once')]
    for item in items:
        for core in ('native', 'pure'):
            if item.get_closest_marker(core) and config.option.core != core:
                item.add_marker(pytest.mark.skip(reason='about the %s core' % (core,)))
