"""
Whichever process of a tree ends, and however suddenly: within seconds everything below it has ended
too, and the rest of the tree goes on.
"""

import functools
import json
import os
import signal
import subprocess
import sys

import pytest

import accounts
import error_targets
import places
import pythons
import testlib


#: Within this, what is below a process that was killed has ended. The promise is five seconds; the
#: rest is for a machine that has much else to do.
SECONDS = testlib.patience()

#: In this order each has below it, when its turn comes, as many levels as if it were the first: see
#: tree_master.py.
VICTIMS = 'c', 'b', 'a', 'master'

#: Seconds after which a process is taken away whose children are starting.
MOMENTS = [0, 0.02, 0.06, 0.15]

account = accounts.account


class Tree(object):
    """
    A master in a process of its own, three levels below it, more than once: so one tree serves for
    taking away a process of each level, one after the other.
    """
    def __init__(self, kind, how='idle', python=sys.executable, user='root'):
        self.proc = subprocess.Popen(
            [sys.executable, os.path.join(places.LIB, 'tree_master.py'), kind, how, python, user],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True)
        try:
            self.pids = self.ask('pids')
            self.parents = self.ask('parents')
            self.lost = set()
        except BaseException:
            self.close()
            raise

    def below(self, name):
        """
        Return the names of those contexts of this tree that live, and end with one of them.
        """
        found = [child for child, parent in self.parents.items() if parent == name and child not in self.lost]
        return found + [below for child in found for below in self.below(child)]

    def ask(self, *words):
        self.proc.stdin.write(' '.join(words) + '\n')
        self.proc.stdin.flush()
        return json.loads(self.proc.stdout.readline())

    def all_below(self, top=None):
        """
        Return the ids of all processes below one, or the master, as /proc tells, whether contexts
        or tools between them.
        """
        children = {}
        for name in os.listdir('/proc'):
            if name.isdigit():
                try:
                    with open('/proc/%s/stat' % name) as fp:
                        fields = fp.read().rpartition(')')[2].split()
                except IOError:
                    continue
                if fields[0] not in 'ZX':
                    children.setdefault(int(fields[1]), []).append(int(name))
        found, todo = [], [top or self.pids['master']]
        while todo:
            pid = todo.pop()
            todo += children.get(pid, [])
            found += children.get(pid, [])
        return found

    def close(self):
        self.proc.kill()
        self.proc.wait()
        self.proc.stdin.close()
        self.proc.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def terminate(pid):
    os.kill(pid, signal.SIGTERM)


def stop_then_kill(pid):
    testlib.stop_process(pid)
    os.kill(pid, signal.SIGKILL)


def all_gone(pids):
    testlib.wait_for(lambda: not [pid for pid in pids if testlib.is_running(pid)], SECONDS,
                     'the end of %r' % (pids,))


def strike(tree, victim, take):
    """
    Take one process away; check that what is below it ends, and that the rest goes on.
    """
    # Tools between the contexts, too, and children that are starting.
    before = tree.all_below(tree.pids[victim])
    lost = [victim] + tree.below(victim)
    take(tree.pids[victim])
    all_gone([tree.pids[name] for name in lost] + before)
    tree.lost.update(lost)
    if victim != 'master':
        for name in tree.below('master'):
            assert testlib.is_running(tree.pids[name]), name


def answers(tree):
    for name in tree.parents:
        assert tree.ask('call', name) == (None if name in tree.lost else tree.pids[name])


def strike_each(tree, take, idle=False):
    for victim in VICTIMS:
        strike(tree, victim, take)
        if idle and victim != 'master':
            answers(tree)


WAYS = [kill, terminate, stop_then_kill]


@pytest.mark.parametrize('take', WAYS)
@pytest.mark.parametrize('kind', ['local', 'fork'])
def test_an_idle_tree(kind, take):
    with Tree(kind) as tree:
        strike_each(tree, take, idle=True)


# "deaf": SIGTERM is ignored, by which a child ends itself.
@pytest.mark.parametrize('kind, how', [('local', how) for how in ('sleep', 'spin', 'threads', 'deaf', 'service')] + [
    ('fork', how) for how in ('sleep', 'deaf')])
def test_a_busy_tree(kind, how):
    with Tree(kind, how) as tree:
        strike_each(tree, kill)


@pytest.mark.parametrize('take', [terminate, stop_then_kill])
def test_a_busy_tree_in_other_ways(take):
    with Tree('local', 'sleep') as tree:
        strike_each(tree, take)


@pytest.mark.parametrize('kind', ['sudo', 'sudo_below', 'root'])
def test_a_tree_with_sudo(account, kind):
    accounts.need_program('sudo', 'sudo')
    with Tree(kind, 'sleep', account.python, account.name) as tree:
        strike_each(tree, kill)


@pytest.mark.parametrize('kind', ['sudo', 'sudo_below'])
def test_a_tree_whose_sudo_is_killed(account, kind):
    # Not the context: the tool in front of it.
    accounts.need_program('sudo', 'sudo')
    with Tree(kind, 'idle', account.python, account.name) as tree:
        victim = 'a' if kind == 'sudo' else 'c'
        tools = [pid for pid in tree.all_below() if command(pid).startswith('sudo ') or '/sudo ' in command(pid)]
        tools = [pid for pid in tools if tree.pids[victim] in tree.all_below(pid)]
        assert tools
        for pid in tools:
            kill(pid)
        lost = [victim] + tree.below(victim)
        all_gone(tools + [tree.pids[name] for name in lost])
        tree.lost.update(lost)
        answers(tree)


def command(pid):
    try:
        with open('/proc/%d/cmdline' % pid) as fp:
            return fp.read().replace('\0', ' ')
    except IOError:
        return ''


def strike_while_children_start(after):
    # A pair for each victim, as the pair is gone with it.
    with Tree('pairs') as tree:
        for victim, pair in ('f', 'ef'), ('a', 'ab'), ('master', 'yz'):
            tree.ask('start', str(after), *pair)
            strike(tree, victim, kill)
            assert victim == 'master' or tree.ask('pids')


def test_a_tree_whose_children_are_starting():
    # A tree for each moment, all of them at the same time.
    for error in testlib.in_threads(
            [functools.partial(strike_while_children_start, after) for after in MOMENTS], seconds=100):
        if error is not None:
            raise error


@pytest.mark.parametrize('stage', ['silent', 'sent'])
@pytest.mark.parametrize('victim', ['master', 'a'])
def test_children_that_hang_in_their_start(victim, stage, tmp_path):
    # Real interpreters, stopped from the outside while their parent waits for them.
    with Tree('pair') as tree:
        known = set(tree.all_below())
        tree.ask('start', '0', 'a', 'b')
        new = testlib.wait_for(lambda: set(tree.all_below()) - known, SECONDS)
        stopped = []
        for pid in new:
            try:
                testlib.stop_process(pid)
                stopped.append(pid)
            except OSError:
                pass
        if stage == 'sent':
            testlib.wait_for(lambda: len(set(tree.all_below()) - known) >= 1, SECONDS)
        kill(tree.pids[victim])
        for pid in stopped:
            testlib.send_signal(pid, signal.SIGCONT)
        if victim == 'master':
            all_gone(list(new) + list(known))
        else:
            all_gone([tree.pids[name] for name in 'ab'])


KEEPS_THE_GIL = '''
import sys
sys.path.insert(0, %r)
import fork_targets
import mitogen.core, mitogen.master
router = mitogen.master.Router()
receiver = mitogen.core.Receiver(router)
router.local().call_async(fork_targets.never_let_go, receiver.to_sender())
print(receiver.get().unpickle(), flush=True)
sys.stdin.read()
'''


@pytest.mark.native
@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='the thread that ends it needs epoll')
def test_a_child_that_never_lets_go_of_the_interpreter(tmp_path):
    """
    None of its Python threads can run: a thread of the engine's ends it.
    """
    script = tmp_path / 'master.py'
    script.write_text(KEEPS_THE_GIL % (places.TARGETS,))
    master = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    pid = int(master.stdout.readline())
    master.kill()
    master.wait()
    master.stdin.close()
    master.stdout.close()
    testlib.wait_for(lambda: not testlib.is_running(pid), 60)


def test_a_broker_of_python_2_shows_an_error_while_another_thread_imports(router):
    child = router.local(python_path=pythons.find_python('python2.7'))
    assert b'return 1 // 0' in child.call(error_targets.show_error_on_broker_thread)
