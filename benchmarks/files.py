#!/usr/bin/env python3
"""Measure how files go to hosts of ssh, in turn, medians: `mitogen cp` (put), `mitogen cp --sync`,
scp and rsync.

A tree of many small files, and one large file; the first copy, and the second one, of which 1 %
has changed. Seconds of the clock, with the connection, and of the processors of this machine,
which is both ends if the host is this one.

With --loopback N the hosts are N names of a server that this program starts. To several hosts scp
and rsync are as many processes at the same time, and ours is one.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'programs'))

import loopback  # noqa: E402

MIB = 1 << 20


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('host', nargs='?', help='a name that ssh knows and that lets us in without a question')
    parser.add_argument('folder', nargs='?', help='a folder of the host; all that this makes in it is removed again')
    parser.add_argument('--loopback', type=int, default=0, metavar='N')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--files', type=int, default=5000)
    parser.add_argument('--mib', type=int, default=256, help='of the large file')
    return parser.parse_args()


def make(top, options):
    """
    Make a tree of files of 1 KiB on average, and a folder with one large file, and return their
    paths.
    """
    small, large = os.path.join(top, 'small'), os.path.join(top, 'large')
    for number in range(options.files):
        folder = os.path.join(small, 'folder-%d' % (number % 50))
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, 'file-%d' % number), 'wb') as fp:
            fp.write(os.urandom(number % 2048))
    os.mkdir(large)
    with open(os.path.join(large, 'file'), 'wb') as fp:
        for _ in range(options.mib):
            fp.write(os.urandom(MIB))
    return small, large


def change(top):
    """Change 1 % of the files, or of the bytes of the only one."""
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(top) for name in names]
    if len(paths) == 1:
        with open(paths[0], 'r+b') as fp:
            fp.write(os.urandom(os.path.getsize(paths[0]) // 100))
    for path in paths[::100] if len(paths) > 1 else ():
        with open(path, 'wb') as fp:
            fp.write(os.urandom(1024))


def commands(options, source):
    """
    Return name -> the commands that copy the content of a folder, all at the same time.
    """
    target = os.path.join(options.folder, os.path.basename(source) + '-')
    ours = [os.path.join(os.path.dirname(sys.executable), 'mitogen'), 'cp', '-q']

    def places(way):
        return [source + '/'] + ['%s:%s%s' % (host, target_of(target, host), way) for host in options.hosts]
    found = {
        'put': [ours + places('put')],
        'sync': [ours + ['--sync'] + places('sync')],
        'scp': [['scp', '-q', '-p', '-r'] + options.scp + [source + '/.', '%s:%sscp' % (host, target_of(target, host))]
                for host in options.hosts],
        'rsync': [['rsync', '-a', source + '/', '%s:%srsync' % (host, target_of(target, host))]
                  for host in options.hosts],
    }
    if len(options.hosts) > 1:
        # To many, `put` is as many copies of their own.
        del found['put']
    return found


def target_of(target, host):
    """Return the path for one host: all may be one machine."""
    folder, name = os.path.split(target)
    return os.path.join(folder, host, name)


def timed(options, several):
    before, there, started = sum(os.times()[:4]), spent(options), time.monotonic()
    procs = [subprocess.Popen(command) for command in several]
    if [proc.wait() for proc in procs] != [0] * len(procs):
        raise SystemExit('%s failed' % (several[0],))
    return time.monotonic() - started, sum(os.times()[:4]) - before, spent(options) - there


def spent(options):
    """Return the seconds of processors of the hosts, as far as that is known."""
    return loopback.spent(options.server) if options.server else 0


def on_hosts(options, program, path):
    for host in options.hosts:
        subprocess.run(['ssh', host] + program + [target_of(path, host)], check=True)


def main():
    options = parse()
    if not options.loopback:
        if not options.folder:
            raise SystemExit('name a host and a folder, or --loopback')
        options.hosts, options.server, options.scp = [options.host], None, []
        measure(options)
        return
    with loopback.hosts(options.loopback) as (folder, options.server):
        options.hosts = ['h%d' % number for number in range(1, options.loopback + 1)]
        # It does not look for ssh in PATH.
        options.scp, options.folder = ['-F', os.path.join(folder, 'config')], os.path.join(folder, 'targets')
        os.environ['PATH'] = '%s:%s' % (os.path.join(folder, 'bin'), os.environ['PATH'])
        measure(options)


def measure(options):
    top = tempfile.mkdtemp(prefix='mitogen-files-')
    found = {}
    try:
        for source in make(top, options):
            for _ in range(options.rounds):
                made = commands(options, source)
                for name in made:
                    on_hosts(options, ['mkdir', '-p'], os.path.join(
                        options.folder, '%s-%s' % (os.path.basename(source), name)))
                for which in 'first', 'second':
                    for name, command in made.items():
                        found.setdefault((os.path.basename(source), which, name), []).append(timed(options, command))
                    change(source)
                for name in made:
                    on_hosts(options, ['rm', '-r'], os.path.join(
                        options.folder, '%s-%s' % (os.path.basename(source), name)))
    finally:
        shutil.rmtree(top)
    for key, times in found.items():
        print('%-6s %-7s %-6s %6.2f s  %6.2f s of processors here  %6.2f s of those of the hosts' % (
            key + tuple(statistics.median(column) for column in zip(*times))))


if __name__ == '__main__':
    main()
