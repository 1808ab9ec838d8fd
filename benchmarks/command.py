#!/usr/bin/env python3
"""Measure the command: `mitogen run` of `hostname` on many hosts of ssh, beside fabric, pyinfra and
xargs with bare ssh; and how its start compares with that of the interpreter.

All in turn, medians of all rounds, and in brackets how many times those of the first line: seconds
of the clock, and of the processors. The hosts are one server on this machine, so the clock counts
both ends. With --kex all use the same key exchange. Else ssh takes one that resists quantum
computers, which fabric and pyinfra do not know, and which costs more than all else. Fabric and
pyinfra are installed from PyPI into environments of their own.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'programs'))

import loopback  # noqa: E402

#: Hosts at a time.
AT_ONCE = 32

FABRIC = '''
import sys
from fabric import Config, ThreadingGroup
from paramiko import SSHConfig
with open(sys.argv[1]) as fp:
    config = Config(ssh_config=SSHConfig.from_text(fp.read()))
hosts = sys.argv[2:]
for result in ThreadingGroup(*hosts, config=config).run('hostname', hide=True).values():
    print(result.stdout, end='')
'''

INVENTORY = 'all = [(name, {"ssh_config_file": %r, "ssh_known_hosts_file": %r}) for name in %r]\n'


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--hosts', type=int, default=50)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--starts', type=int, default=15, help='rounds of --help and ping')
    parser.add_argument('--kex', help='the only key exchange of the server, as curve25519-sha256')
    parser.add_argument('--envs', default='.bench', help='folder for the environments of the others')
    return parser.parse_args()


def environment(options, package):
    """Return the folder of programs of an environment that has a package."""
    folder = os.path.abspath(os.path.join(options.envs, package))
    if not os.path.exists(os.path.join(folder, 'made')):
        subprocess.check_call([sys.executable, '-m', 'venv', folder])
        subprocess.check_call([os.path.join(folder, 'bin', 'pip'), 'install', '-q', package])
        open(os.path.join(folder, 'made'), 'w').close()
    return os.path.join(folder, 'bin')


def commands(options, folder):
    """Return name -> the command that prints the name of each host."""
    names = ['h%d' % number for number in range(1, options.hosts + 1)]
    with open(os.path.join(folder, 'inventory.py'), 'w') as fp:
        fp.write(INVENTORY % (os.path.join(folder, 'config'), os.path.join(folder, 'known_hosts'), names))
    with open(os.path.join(folder, 'names'), 'w') as fp:
        fp.write('\n'.join(names) + '\n')
    return {
        'xargs and ssh': ['xargs', '-a', os.path.join(folder, 'names'), '-P', str(AT_ONCE), '-I{}', 'ssh', '{}', 'hostname'],
        # The least that any program takes which starts a Python on the host.
        'xargs, python': ['xargs', '-a', os.path.join(folder, 'names'), '-P', str(AT_ONCE), '-I{}', 'ssh', '{}',
                          'python3 -c pass'],
        'mitogen': [sys.executable, '-m', 'mitogen.command', 'run', '-j', str(AT_ONCE)] + names + ['--', 'hostname'],
        'fabric': [os.path.join(environment(options, 'fabric'), 'python'), '-c', FABRIC, os.path.join(folder, 'config')] + names,
        'pyinfra': [os.path.join(environment(options, 'pyinfra'), 'pyinfra'), '-y', '--parallel', str(AT_ONCE),
                    os.path.join(folder, 'inventory.py'), 'exec', '--', 'hostname'],
    }


def starts():
    bare = [sys.executable, '-c', 'pass']
    ours = [sys.executable, '-m', 'mitogen.command']
    return {'python -c pass': bare, '--help': ours + ['--help'], 'ping local:': ours + ['ping', 'local:']}


def timed(command, env, folder, server):
    """Return the seconds of a command, those of the processors for its processes, and those for the
    processes of the server."""
    before, started = (children(), loopback.spent(server)), time.monotonic()
    done = subprocess.run(command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seconds = time.monotonic() - started
    if done.returncode:
        raise SystemExit('%s failed: %s' % (command[:3], done.stdout.decode(errors='replace')[-2000:]))
    return seconds, children() - before[0], loopback.spent(server) - before[1]


def children():
    return sum(os.times()[2:4])


def show(found, first, kinds):
    """Print medians, and the medians of the ratios within each round."""
    for name, times in found.items():
        cells = []
        for i, kind in enumerate(kinds):
            ratio = statistics.median(one[i] / max(other[i], 1e-3) for one, other in zip(times, found[first]))
            cells.append('%s %7.3f s (%5.2f)' % (kind, statistics.median(one[i] for one in times), ratio))
        print('%-15s %s' % (name, '   '.join(cells)))


def main():
    options = parse()
    found = {}
    for _ in range(options.starts):
        for name, command in starts().items():
            before, started = children(), time.monotonic()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True, cwd='/')
            found.setdefault(name, []).append((time.monotonic() - started, children() - before))
    if found:
        show(found, 'python -c pass', ['clock', 'processors'])
    found = {}
    if options.rounds:
        with loopback.hosts(options.hosts, options.kex) as (folder, server):
            env = dict(os.environ, PATH=os.path.join(folder, 'bin') + ':' + os.environ['PATH'])
            made = commands(options, folder)
            for _ in range(options.rounds):
                for name, command in made.items():
                    found.setdefault(name, []).append(timed(command, env, folder, server))
        print('%d hosts, %d at a time' % (options.hosts, AT_ONCE))
        show(found, 'xargs and ssh', ['clock', 'processors here', 'processors of the hosts'])


if __name__ == '__main__':
    main()
