"""
Playbooks over ssh and locally: Ansible's own plugins, upstream's package with its strategy, and
ours. Seconds of processor time of everything that takes part (controller, ssh, sshd, target), and
of the clock; medians of interleaved rounds. Each has a home of its own that is kept from round to
round, as a user's is. Needs what tests/ansible needs, and a control group that counts: root on
Linux.

    python benchmarks/ansible.py [--rounds N] [PLAY ...]

A play is the name of a file in benchmarks/plays, with "-local" after it to have it run without ssh.
MITOGEN_BENCH_ENV may name folders of environments that are there already: "ours=FOLDER
upstream=FOLDER".
"""

import argparse
import contextlib
import glob
import os
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.join(os.path.dirname(HERE), 'tests')
# Not this folder: its own name would be taken for Ansible's package.
sys.path[:] = [os.path.join(TESTS, name) for name in ('', 'lib', 'ansible')] + [
    path for path in sys.path if path and path != HERE]

import ansible_env  # noqa: E402
import playbooks  # noqa: E402

PLAYS = ['loop', 'tasks', 'copy', 'mixed', 'loop-local', 'tasks-local', 'mixed-local', 'cold', 'many', 'delegated']

#: (name, environment, way)
KINDS = [('plain', 'ours', 'plain'), ('upstream', 'upstream', 'upstream'), ('ours', 'ours', 'path')]

#: Hosts of the group "many".
MANY = 20


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


class Site(playbooks.Site):
    def inventory(self):
        hosts = super().inventory()
        many = dict(('many%d' % number, dict(hosts['all']['hosts']['one'])) for number in range(MANY))
        for number, variables in enumerate(many.values()):
            # One ssh connection each: all of them are this machine.
            variables['ansible_ssh_common_args'] = '-o ControlPath=%s/m%d-%%p' % (self.folder, number)
        hosts['all']['children'] = {'many': {'hosts': many}}
        return hosts


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


def run_once(site, group, envs, kind, play, number):
    name, env, way = kind
    site.env = envs[env]
    run = playbooks.Run(site, '%s-%s-%d' % (name, play, number), way, ANSIBLE_FORKS='20',
                        ANSIBLE_HOME=os.path.join(site.folder, 'home-' + name))
    base, _, local = play.partition('-')
    start, used = time.time(), group.seconds()
    run.start(os.path.join(HERE, 'plays', base + '.yml'), where='localhost' if local else 'one', **extra(site, local))
    status = run.wait()
    clock = time.time() - start
    if status:
        sys.exit(run.printed())
    # Processes that the run leaves end by themselves, and count.
    time.sleep(1.5)
    return group.seconds() - used, clock


def extra(site, local):
    return {'ansible_become': False} if local and os.geteuid() == 0 else {}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('plays', nargs='*', default=PLAYS)
    options = parser.parse_args()
    envs = environments()
    group = Group()
    try:
        with contextlib.ExitStack() as stack:
            site = Site(envs['ours'], stack)
            print('%-14s' % 'play' + ''.join('%27s' % name for name, _, _ in KINDS) + '   plain/ours  upstream/ours')
            for play in options.plays:
                found = dict((name, []) for name, _, _ in KINDS)
                for number in range(options.rounds):
                    for kind in KINDS:
                        found[kind[0]].append(run_once(site, group, envs, kind, play, number))
                show(play, found)
    finally:
        group.close()


def show(play, found):
    cpu = dict((name, statistics.median(values[0] for values in rounds)) for name, rounds in found.items())
    clock = dict((name, statistics.median(values[1] for values in rounds)) for name, rounds in found.items())
    print('%-14s' % play + ''.join('%11.2f s cpu %8.2f s' % (cpu[name], clock[name]) for name in cpu) +
          '   %9.1fx  %12.2fx' % (cpu['plain'] / cpu['ours'], cpu['upstream'] / cpu['ours']), flush=True)


if __name__ == '__main__':
    main()
