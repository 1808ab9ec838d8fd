"""
The harness of the suite.

Two cores, one suite: ``pytest --core both`` (the default) runs the whole suite
twice, at the same time and each in processes of its own with ``MITOGEN_CORE`` set, and sums up.
Nothing here imports mitogen before that variable is set. Most of a test is waiting for something, so
more than one file of each core is run at a time (pytest-xdist; ``-n 0`` runs one after the other).

Every test is checked for what it leaves behind: threads, descriptors, child
processes, and processes that descend from it however far away they are.
"""

import faulthandler
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, 'data')

#: Seconds one test may take, set-up and tear-down included, before every thread's
#: stack is printed and the process ends.
TEST_SECONDS = float(os.environ.get('MITOGEN_TEST_SECONDS', '120'))

#: Seconds that what a test started may take to end by itself.
GRACE_SECONDS = 10.0

#: Every process that descends from a test carries this variable.
MARK = 'MITOGEN_TEST_MARK'

REPORT = 'MITOGEN_TEST_REPORT'

#: The cores that tests/ansible is about, as one run of plain Ansible is enough for both.
ANSIBLE_CORES = 'MITOGEN_TEST_ANSIBLE_CORES'

#: Files of one core that are run at a time, where there is more than one processor.
JOBS = 2

#: What takes longest comes first, so that nothing is waited for at the end.
LONG_FILES = ('test_ansible.py', 'test_leaks.py', 'test_no_orphans.py', 'test_native_faults.py', 'test_packaging.py')

WATCHER_NAME = 'mitogen.master.join_thread_async'

# Modules below tests/data are for children to ask for. Children do not have them on their own path.
sys.path.insert(0, DATA)


# ---- both cores

def pytest_addoption(parser):
    parser.addoption(
        '--core', choices=('both', 'native', 'pure', 'any'), default='both',
        help='the core to test; "both" runs the suite once for each, "any" takes what loads',
    )
    parser.addoption(
        '--ansible', action='store_true', default=bool(os.environ.get('CI')),
        help='run tests/ansible, too, which fetches Ansible from PyPI and takes minutes; on where CI is set',
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
    Run the suite over each core, at the same time where there is more than one processor, and print one closing line
    for both. What the second one prints comes when the first has ended.
    """
    args = without_core(config.invocation_params.args)
    totals = {'passed': 0, 'failed': 0, 'skipped': 0}
    lines = []
    status = 0
    together = len(os.sched_getaffinity(0)) > 1 if hasattr(os, 'sched_getaffinity') else os.cpu_count() > 1
    if together and config.pluginmanager.hasplugin('xdist') and getattr(config.option, 'numprocesses', None) is None:
        # A file stays together: its tests may share what takes long to start.
        args = ['-n', str(JOBS), '--dist', 'loadfile', '--no-loadscope-reorder'] + args
    native = Run(config, 'native', args, ansible_cores='native pure')
    pure = Run(config, 'pure', args, ansible_cores='', keep_output=together)
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


class Run(object):
    """
    The suite over one core, in a process of its own.

    :param str ansible_cores: see :data:`ANSIBLE_CORES`.
    :param bool keep_output: show what it prints when it has ended.
    """

    def __init__(self, config, core, args, ansible_cores, keep_output=False):
        self.config = config
        self.core = core
        self.args = args
        self.ansible_cores = ansible_cores
        self.keep_output = keep_output
        self.proc = None

    def start(self):
        self.folder = tempfile.mkdtemp()
        self.report = os.path.join(self.folder, 'report')
        env = dict(os.environ, MITOGEN_CORE=self.core)
        env[REPORT] = self.report
        env[ANSIBLE_CORES] = self.ansible_cores
        self.output = None
        if self.keep_output:
            self.output = open(os.path.join(self.folder, 'output'), 'w+', errors='replace')
        # Not "-m pytest": that puts the current directory on the path, where the unbuilt package may lie.
        start = 'import sys; sys.path[:] = [p for p in sys.path if p]; import pytest; sys.exit(pytest.main(sys.argv[1:]))'
        self.proc = subprocess.Popen(
            [sys.executable, '-c', start] + self.args + ['--core=' + self.core],
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
            return code, read_json(self.report), read_text(self.report + '.running')
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


def read_json(path):
    text = read_text(path)
    return json.loads(text) if text else None


def read_text(path):
    try:
        with open(path) as fp:
            return fp.read()
    except IOError:
        return None


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
    config.stash[STDERR] = os.fdopen(os.dup(2), 'w')
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # A shell starts what it runs in the background like that, and the tests send interrupts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
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


def pytest_ignore_collect(collection_path, config):
    if collection_path == pathlib.Path(HERE, 'ansible') and os.environ.get(ANSIBLE_CORES) == '':
        return True
    if collection_path == pathlib.Path(HERE, 'ansible') and not config.option.ansible:
        # Named on the command line, it is asked for.
        if not any('ansible' in arg for arg in config.args):
            return True
    # A file named for one core is about that core alone, and may choose it when it is imported.
    for core, other in (('native', 'pure'), ('pure', 'native')):
        if '_%s_' % core in collection_path.name and config.option.core == other:
            return True


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: item.path.name not in LONG_FILES)
    for item in items:
        for core in ('native', 'pure'):
            if item.get_closest_marker(core) and config.option.core != core:
                item.add_marker(pytest.mark.skip(reason='about the %s core' % (core,)))


# ---- a test that hangs

STDERR = pytest.StashKey()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    path = os.environ.get(REPORT)
    if path:
        with open(path + '.running', 'w') as fp:
            fp.write(item.nodeid)
    marker = item.get_closest_marker('seconds')
    seconds = TEST_SECONDS if marker is None else max(TEST_SECONDS, marker.args[0])
    faulthandler.dump_traceback_later(seconds, exit=True, file=item.config.stash[STDERR])
    yield
    faulthandler.cancel_dump_traceback_later()


# ---- what a test leaves behind

class Belongings(object):
    """
    What this process has at one moment, as /proc tells it.
    """

    def __init__(self, mark=None):
        self.descriptors = set(open_descriptors())
        self.threads = set(thread_ids())
        self.children = set(pid for pid, _ in child_processes())
        self.mark = mark

    def extras(self):
        """
        Return a list of sentences, one for each thing that is there now and was
        not when this object was made.
        """
        found = []
        names = dict((t.native_id, t.name) for t in threading.enumerate())
        watchers = [tid for tid, name in names.items() if name == WATCHER_NAME]
        for tid in thread_ids():
            if tid in self.threads or tid in watchers[:1]:
                continue
            name = names.get(tid) or read_text('/proc/self/task/%d/comm' % tid)
            if name:
                found.append('thread %r' % (name.strip(),))
        for fd, target in sorted(open_descriptors()):
            if (fd, target) not in self.descriptors:
                found.append('descriptor %d: %s' % (fd, target))
        for pid, state in child_processes():
            if pid not in self.children:
                found.append('child process %d%s: %s' % (pid, ' (zombie)' if state == 'Z' else '', command_line(pid)))
        for pid in marked_processes(self.mark):
            if pid not in self.children:
                found.append('descendant process %d: %s' % (pid, command_line(pid)))
        return found


def thread_ids():
    """
    Return the kernel's numbers of all threads of this process, sorted.

    When one ends while the kernel lists them, those behind it may be left out. The thread that watches over the time of
    the test before may be ending just now. So look until nothing changes.
    """
    ids, before = None, ()
    while ids != before:
        ids, before = sorted(int(name) for name in os.listdir('/proc/self/task')), ids
    return ids


def open_descriptors():
    for name in os.listdir('/proc/self/fd'):
        try:
            yield int(name), os.readlink('/proc/self/fd/' + name)
        except OSError:
            pass


def child_processes():
    """
    Yield (pid, state letter) of each child of this process, zombies too.
    """
    me = str(os.getpid())
    for name in os.listdir('/proc'):
        if name.isdigit():
            stat = read_text('/proc/%s/stat' % name)
            if stat:
                fields = stat[stat.rindex(')') + 2:].split()
                if fields[1] == me:
                    yield int(name), fields[0]


def marked_processes(mark):
    """
    Yield the pid of each process that has the mark in its environment, wherever
    in the tree of processes it went.
    """
    if mark is None:
        return
    wanted = ('%s=%s' % (MARK, mark)).encode()
    me = os.getpid()
    for name in os.listdir('/proc'):
        if name.isdigit() and int(name) != me:
            try:
                with open('/proc/%s/environ' % name, 'rb') as fp:
                    if wanted in fp.read().split(b'\0'):
                        yield int(name)
            except (IOError, OSError):
                pass


def command_line(pid):
    text = read_text('/proc/%d/cmdline' % pid)
    return (text or '').replace('\0', ' ').strip()[:200] or '(gone)'


def close_idle_latches():
    """
    Close the descriptors that sleepers keep for the next sleep.
    """
    core = sys.modules.get('mitogen.core')
    if core is not None:
        core.Latch._on_fork()


def end_leftovers(before):
    """
    End what a failed test left running, so that the next one starts clean.
    """
    for pid in set(itertools.chain(marked_processes(before.mark), (p for p, _ in child_processes()))):
        if pid not in before.children:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
            try:
                os.waitpid(pid, 0)
            except OSError:
                pass


_marks = itertools.count(1)


@pytest.fixture(autouse=True)
def nothing_left_behind(request):
    """
    Fail a test that leaves threads, descriptors or processes behind. What ends
    in an orderly way is given time for it.
    """
    if not os.path.isdir('/proc/self/task'):
        yield
        return
    mark = os.environ[MARK] = '%d.%d' % (os.getpid(), next(_marks))
    core = request.config.option.core
    if core in ('native', 'pure') and os.environ.get('MITOGEN_CORE') != core:
        pytest.exit('an earlier test, or the import of a test, has changed MITOGEN_CORE', returncode=3)
    close_idle_latches()
    before = Belongings(mark)
    yield
    close_idle_latches()
    deadline = time.time() + GRACE_SECONDS
    extras = before.extras()
    while extras and time.time() < deadline:
        time.sleep(0.01)
        extras = before.extras()
    if extras:
        end_leftovers(before)
        pytest.fail('left behind:\n  ' + '\n  '.join(extras), pytrace=False)


# ---- fixtures

@pytest.fixture
def broker():
    """
    A master's broker, ended after the test.
    """
    import mitogen.master
    broker = mitogen.master.Broker()
    yield broker
    broker.shutdown()
    broker.join()


@pytest.fixture
def router(broker):
    """
    A master's router on the fixture ``broker``.
    """
    import mitogen.master
    return mitogen.master.Router(broker)


@pytest.fixture
def importer_data(monkeypatch):
    """
    The packages in tests/data/importer can be imported; afterwards none of them stays loaded.
    """
    import testlib
    monkeypatch.syspath_prepend(testlib.IMPORTER_DATA)
    ours = {os.path.splitext(name)[0] for name in os.listdir(testlib.IMPORTER_DATA)}
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition('.')[0] in ours:
            del sys.modules[name]


@pytest.fixture
def make_router():
    """
    A function that makes a master's router, each on a broker of its own; they are ended after the test.
    Keyword arguments go to the router.
    """
    import mitogen.master
    brokers = []

    def make(**kwargs):
        broker = mitogen.master.Broker()
        brokers.append(broker)
        return mitogen.master.Router(broker, **kwargs)

    yield make
    for broker in brokers:
        broker.shutdown()
    for broker in brokers:
        broker.join()
