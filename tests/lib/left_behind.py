"""
Every test is checked for what it leaves behind: threads, descriptors, child processes, and
processes that descend from it however far away they are.
"""

import itertools
import os
import resource
import signal
import sys
import threading
import time

import pytest

import reading

#: Seconds that what a test started may take to end by itself.
GRACE_SECONDS = 30.0

#: Every process that descends from a test carries this variable.
MARK = 'MITOGEN_TEST_MARK'

WATCHER_NAME = 'mitogen.master.join_thread_async'


class Belongings(object):
    """
    The threads, descriptors and children of this process at one moment, by /proc.
    """

    def __init__(self, mark=None):
        self.descriptors = set(open_descriptors())
        self.threads = set(thread_ids())
        self.children = child_pids()
        self.ended = ended_children()
        self.mark = mark
        # None of them can descend from what comes now, and to read the environment of each takes
        # milliseconds.
        self.others = set(process_ids())

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
            name = names.get(tid) or reading.text('/proc/self/task/%d/comm' % tid)
            if name:
                found.append('thread %r' % (name.strip(),))
        for fd, target in sorted(open_descriptors()):
            if (fd, target) not in self.descriptors and not is_loaded_library(target):
                found.append('descriptor %d: %s' % (fd, target))
        children = child_pids()
        for pid in sorted(children - self.children):
            found.append('child process %d%s: %s' % (pid, ' (zombie)' if is_zombie(pid) else '', command_line(pid)))
        if not found and self.had_children(children):
            for pid in self.descendants():
                found.append('descendant process %d: %s' % (pid, command_line(pid)))
        return found

    def descendants(self):
        """
        Return the pids of the processes that have our mark, however far from this one they are.
        """
        return [pid for pid in process_ids() if pid not in self.others and is_marked(pid, self.mark)]

    def had_children(self, children):
        """
        Return whether any process can descend from the test. Half of the tests start none, and
        looking through all processes of the machine takes longer than such a test.
        """
        return (children != self.children or ended_children() != self.ended
                or signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN)


def thread_ids():
    """
    Return the kernel's numbers of all threads of this process, sorted.

    When one ends while the kernel lists them, those behind it may be left out. The thread that
    watches over the time of the test before may be ending just now. So look until nothing changes.
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


def is_loaded_library(path):
    """
    Return whether a file is a library of this process, which may keep its own file open: libffi
    does so from the first import of ctypes on, on systems newer than Debian 12.
    """
    return '.so' in path and any(
        line.endswith(' ' + path) and ' r-xp ' in line for line in reading.text('/proc/self/maps').splitlines())


def child_pids():
    """
    Return the pids of the children of this process, zombies too.

    The kernel may leave out one child while it lists them and another ends. So look until nothing
    changes.
    """
    if not os.path.exists('/proc/self/task/%d/children' % os.getpid()):
        return child_pids_by_stat()
    pids, before = None, ()
    while pids != before:
        lists = [reading.text('/proc/self/task/%d/children' % tid) for tid in thread_ids()]
        pids, before = set(int(pid) for text in lists if text for pid in text.split()), pids
    return pids


def child_pids_by_stat():
    """
    Find the children of a process where the kernel keeps no lists of them: look at each process of
    the machine.
    """
    me = str(os.getpid())
    stats = [(name, reading.text('/proc/%s/stat' % name)) for name in os.listdir('/proc') if name.isdigit()]
    return set(int(name) for name, stat in stats if stat and stat[stat.rindex(')') + 2:].split()[1] == me)


def ended_children():
    """
    Return a number that grows with each child that has been waited for: no process runs without
    page faults.
    """
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt


def is_zombie(pid):
    stat = reading.text('/proc/%d/stat' % pid)
    return bool(stat) and stat[stat.rindex(')') + 2] == 'Z'


def process_ids():
    return [int(name) for name in os.listdir('/proc') if name.isdigit()]


def is_marked(pid, mark):
    """
    Return whether a process has the mark in its environment, wherever in the tree of processes it
    went.
    """
    if mark is None or pid == os.getpid():
        return False
    try:
        with open('/proc/%d/environ' % pid, 'rb') as fp:
            return ('%s=%s' % (MARK, mark)).encode() in fp.read().split(b'\0')
    except (IOError, OSError):
        return False


def command_line(pid):
    text = reading.text('/proc/%d/cmdline' % pid)
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
    for pid in child_pids().union(before.descendants()):
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
    Fail a test that leaves threads, descriptors or processes behind. Threads and processes that end
    in an orderly way are given time for it.
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
