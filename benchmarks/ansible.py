"""
Playbooks over ssh and locally: Ansible's own plugins, upstream's package with its strategy, and
ours. Seconds of processor time of everything that takes part (controller, ssh, sshd, target), and
of the clock; medians of interleaved rounds. Each has a home of its own that is kept from round to
round, as a user's is. Needs what tests/ansible needs, and a control group that counts: root on
Linux.

    python benchmarks/ansible.py [--rounds N] [--kinds KIND,KIND] [PLAY ...]
    python benchmarks/ansible.py --plot FILE.svg <WHAT-IT-PRINTED

A play is the name of a file in benchmarks/plays, with "-local" after it to have it run without ssh,
or "-far" to have it run over a link of 100 milliseconds there and back. For such a link the times
over it that somebody waited for an answer are counted, and its bytes. With the hosts of the play
"hundred" goes the memory of our daemon, or of upstream's process that has the connections.
MITOGEN_BENCH_ENV may name folders of environments that are there already: "ours=FOLDER
upstream=FOLDER".
"""

import argparse
import collections
import contextlib
import glob
import importlib.util
import os
import queue
import re
import socket
import statistics
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.join(os.path.dirname(HERE), 'tests')
# Not this folder: its own name would be taken for Ansible's package.
sys.path[:] = [os.path.join(TESTS, name) for name in ('', 'lib', 'ansible')] + [
    path for path in sys.path if path and path != HERE]

import ansible_env  # noqa: E402
import playbooks  # noqa: E402

PLAYS = ['loop', 'tasks', 'copy', 'mixed', 'loop-local', 'tasks-local', 'mixed-local', 'cold', 'many',
         'delegated', 'thirty-far', 'cold-far', 'hundred']

#: (name, environment, way)
KINDS = [('plain', 'ours', 'plain'), ('upstream', 'upstream', 'upstream'), ('ours', 'ours', 'path')]

#: Hosts of the groups "many" and "hundred".
MANY, HUNDRED = 20, 100

#: Seconds that a link of a play with "-far" takes in one direction.
DELAY = 0.05

#: Names of the processes that have the connections.
DAEMONS = {'ours': b'mitogen.ansible.daemon', 'upstream': b'ansible-playbook'}


class Group(object):
    """
    A control group that this process, and all that it starts, is in.
    """

    def __init__(self):
        for root, counter in ('/sys/fs/cgroup/cpuacct', 'cpuacct.usage'), ('/sys/fs/cgroup', 'cpu.stat'):
            if os.path.exists(os.path.join(root, 'cgroup.procs')):
                break
        else:
            sys.exit('there is no control group to count with')
        self.folder = os.path.join(root, 'mitogen-bench-%d' % (os.getpid(),))
        self.counter = os.path.join(self.folder, counter)
        os.mkdir(self.folder)
        self.root = root
        self.enter(self.folder)

    def enter(self, folder):
        with open(os.path.join(folder, 'cgroup.procs'), 'w') as fp:
            fp.write(str(os.getpid()))

    def seconds(self):
        with open(self.counter) as fp:
            text = fp.read()
        if text.startswith('usage_usec'):
            return int(text.split()[1]) / 1e6
        return int(text) / 1e9

    def close(self):
        self.enter(self.root)
        for _ in range(100):
            with contextlib.suppress(OSError):
                os.rmdir(self.folder)
                return
            time.sleep(0.1)


class Link(object):
    """
    A way to a port of this machine that takes its time.

    :ivar waits: how often data went to the server after some had come from it.
    :ivar size: bytes in both directions.
    """

    def __init__(self, port):
        self.target = port
        self.waits, self.size, self.last = 0, 0, None
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        self.start(self.accept)

    def start(self, func, *args):
        threading.Thread(target=func, args=args, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(('127.0.0.1', self.target))
                for source, target, word in (near, far, 'to'), (far, near, 'from'):
                    data = queue.SimpleQueue()
                    self.start(self.take, source, data, word)
                    self.start(self.give, target, data, word)

    def take(self, source, data, word):
        chunk = b'x'
        while chunk:
            try:
                chunk = source.recv(1 << 16)
            except OSError:
                chunk = b''
            self.size += len(chunk)
            if chunk and word == 'to':
                self.waits += self.last == 'from'
                self.last = word
            data.put((time.monotonic() + DELAY, chunk))

    def give(self, target, data, word):
        with contextlib.suppress(OSError):
            while True:
                due, chunk = data.get()
                time.sleep(max(0, due - time.monotonic()))
                if not chunk:
                    return target.close()
                if word == 'from':
                    self.last = word
                target.sendall(chunk)

    def close(self):
        self.listener.close()


class Site(playbooks.Site):
    #: Of a play with "-far".
    link = None

    def inventory(self):
        hosts = super().inventory()
        one = hosts['all']['hosts']['one']
        hosts['all']['children'] = dict((group, {'hosts': dict(
            # One ssh connection each: all of them are this machine.
            ('%s%d' % (group, number), dict(one, ansible_ssh_common_args='-o ControlPath=%s/%s%d-%%p' % (
                self.folder, group[0], number)))
            for number in range(count))}) for group, count in (('many', MANY), ('hundred', HUNDRED)))
        if self.link is not None:
            one.update(ansible_port=self.link.port,
                       ansible_ssh_common_args='-o HostKeyAlias=[127.0.0.1]:%d' % (self.server.port,))
        return hosts


class Memory(threading.Thread):
    """
    Looks for the process that has the connections, and at its memory.

    :ivar least: kilobytes when it had no connection yet, or few.
    :ivar most: kilobytes.
    """

    def __init__(self, name, folder):
        super().__init__(daemon=True)
        self.word, self.folder = DAEMONS.get(name), folder.encode()
        self.least = self.most = 0
        self.ended = threading.Event()
        if self.word:
            self.start()

    def run(self):
        while not self.ended.wait(0.3):
            sizes = [size(pid) for pid in os.listdir('/proc') if pid.isdigit() and self.is_meant(pid)]
            if sizes:
                self.most = max(self.most, max(sizes))
                self.least = self.least or max(sizes)

    def is_meant(self, pid):
        with contextlib.suppress(OSError), open('/proc/%s/cmdline' % (pid,), 'rb') as fp:
            words = fp.read()
            return self.word in words and self.folder in words
        return False


def size(pid):
    """
    Return the kilobytes that a process has alone.
    """
    with contextlib.suppress(OSError), open('/proc/%s/smaps_rollup' % (pid,)) as fp:
        return sum(map(int, re.findall(r'Private_\w+: +(\d+)', fp.read())))
    return 0


class Made(ansible_env.Environment):
    """
    One that somebody else has made.
    """

    def __init__(self, kind, folder):
        super().__init__(kind)
        self.folder = folder
        self.python, self.playbook = self.path('bin', 'python'), self.path('bin', 'ansible-playbook')
        self.site, = glob.glob(self.path('lib', 'python*', 'site-packages'))

    packages = property(lambda self: self.site)
    upstream = property(lambda self: self.site)


def environments():
    made = dict(word.split('=') for word in os.environ.get('MITOGEN_BENCH_ENV', '').split())
    return dict((kind, Made(kind, made[kind]) if kind in made else ansible_env.Environment(kind).make())
                for kind in ('ours', 'upstream'))


#: The cost of one run: seconds of processors and of the clock, and what else there is to tell.
Cost = collections.namedtuple('Cost', 'cpu clock waits size memory')


def run_once(site, group, envs, kind, play, number):
    name, env, way = kind
    site.env = envs[env]
    base, _, where = play.partition('-')
    link = site.link = Link(site.server.port) if where == 'far' else None
    run = playbooks.Run(site, '%s-%s-%d' % (name, play, number), way, ANSIBLE_FORKS='50' if base == 'hundred' else '20',
                        ANSIBLE_HOME=os.path.join(site.folder, 'home-' + name))
    memory = Memory(name if base == 'hundred' else None, run.folder)
    start, used = time.time(), group.seconds()
    run.start(os.path.join(HERE, 'plays', base + '.yml'), where='localhost' if where == 'local' else 'one',
              **extra(where == 'local'))
    status = run.wait()
    clock = time.time() - start
    memory.ended.set()
    if status:
        sys.exit(run.printed())
    # Processes that the run leaves end by themselves, and count.
    time.sleep(1.5)
    if link is not None:
        link.close()
    return Cost(group.seconds() - used, clock, link and link.waits, link and link.size, memory.most - memory.least)


#: Plays of the plot, and their names there.
PLOTTED = [
    ('loop', 'a loop of 50 commands'), ('tasks', '50 tasks'), ('copy', 'a loop of 20 files'),
    ('mixed', 'facts, files, sudo, async and more'), ('cold', 'one ping'),
    ('delegated', 'tasks of 20 hosts, delegated to one'),
]

#: The columns of a play: name, seconds of processors and of the clock.
COLUMN = re.compile(r'([\d.]+) s cpu +([\d.]+) s')


def plot(lines):
    """
    Return SVG text with the processor time of plain Ansible as multiples of that of the others.

    :param lines: that this program has printed. A later line about a play counts.
    """
    spec = importlib.util.spec_from_file_location('svg', os.path.join(HERE, 'driver', 'svg.py'))
    svg = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(svg)
    names = [name for name, _, _ in KINDS]
    found = {}
    for line in lines:
        columns = [float(column[0]) for column in COLUMN.findall(line)]
        if len(columns) == len(names):
            found[line.split()[0]] = dict(zip(names, columns))
    svg.COLOURS['upstream'] = '#e08e45'
    rows = []
    for play, label in PLOTTED:
        if play in found:
            ratios = [(name, found[play]['plain'] / found[play][name]) for name in ('ours', 'upstream')]
            rows.append((label, [(name, ratio, (ratio, ratio)) for name, ratio in ratios]))
    return svg.bars("Ansible over ssh: plain Ansible's processor time, as multiples", rows, ['ours', 'upstream'])


def extra(local):
    return {'ansible_become': False} if local and os.geteuid() == 0 else {}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--kinds', default=','.join(kind[0] for kind in KINDS))
    parser.add_argument('--plot', metavar='FILE', help='only draw the figures that come from standard input')
    parser.add_argument('plays', nargs='*', default=PLAYS)
    options = parser.parse_args()
    if options.plot:
        with open(options.plot, 'w') as fp:
            fp.write(plot(sys.stdin))
        return
    kinds = [kind for kind in KINDS if kind[0] in options.kinds.split(',')]
    envs = environments()
    group = Group()
    try:
        with contextlib.ExitStack() as stack:
            site = Site(envs['ours'], stack)
            print('%-14s' % 'play' + ''.join('%27s' % name for name, _, _ in kinds) + '   plain/ours  upstream/ours')
            for play in options.plays:
                found = dict((name, []) for name, _, _ in kinds)
                for number in range(options.rounds):
                    for kind in kinds:
                        found[kind[0]].append(run_once(site, group, envs, kind, play, number))
                show(play, found)
    finally:
        group.close()


def show(play, found):
    median = dict((name, Cost(*[statistics.median(values) if None not in values else None for values in zip(*costs)]))
                  for name, costs in found.items())
    line = '%-14s' % play + ''.join('%11.2f s cpu %8.2f s' % cost[:2] for cost in median.values())
    for other in 'plain', 'upstream':
        if other in median and 'ours' in median:
            line += '   %9.2fx' % (median[other].cpu / median['ours'].cpu,)
    print(line, flush=True)
    for name, cost in median.items():
        if cost.size:
            print('%14s: %d waits, %d kB over the link' % (name, cost.waits, cost.size // 1000), flush=True)
        if cost.memory:
            print('%14s: %.2f MB of memory a host' % (name, cost.memory / 1024 / HUNDRED), flush=True)


if __name__ == '__main__':
    main()
