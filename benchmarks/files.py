#!/usr/bin/env python3
"""Measure how files go to a host of ssh: ours by put and by sync, scp and rsync, in turn, medians
of all rounds.

A tree of many small files, and one large file; the first copy, and the second one, of which 1 %
has changed. Seconds of the clock, with the connection, and of the processors of this machine,
which is both ends if the host is this one.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('host', help='a name that ssh knows and that lets us in without a question')
    parser.add_argument('folder', help='a folder of the host; all that this makes in it is removed again')
    parser.add_argument('-F', dest='config', default='/dev/null', help='configuration of ssh')
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
    Return name -> the command that copies the content of a folder, given the name of the target.
    """
    ssh = ['ssh', '-F', options.config]
    target = os.path.join(options.folder, os.path.basename(source) + '-')
    place = '%s:%s' % (options.host, target)
    ours = [sys.executable, os.path.abspath(__file__), options.config, options.host, source + '/']
    return {
        'put': ours + [target + 'put'],
        'sync': ours + [target + 'sync', 'sync'],
        'scp': ['scp', '-q', '-p', '-r', '-F', options.config, source + '/.', place + 'scp'],
        'rsync': ['rsync', '-a', '-e', ' '.join(ssh), source + '/', place + 'rsync'],
    }


def copy(config, host, source, target, way='put'):
    """Ours, in a process of its own, as the others are."""
    import mitogen
    with mitogen.Tree() as tree:
        there = tree.ssh(hostname=host, ssh_args=['-F', config], check_host_keys='ignore', compression=False)
        getattr(there, way)(source, target)


def timed(command):
    before, started = sum(os.times()[:4]), time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - started, sum(os.times()[:4]) - before


def on_host(options, *words):
    subprocess.run(['ssh', '-F', options.config, options.host] + list(words), check=True)


def main():
    options = parse()
    top = tempfile.mkdtemp(prefix='mitogen-files-')
    found = {}
    try:
        for source in make(top, options):
            for _ in range(options.rounds):
                made = commands(options, source)
                for name in made:
                    on_host(options, 'mkdir', '-p', os.path.join(
                        options.folder, '%s-%s' % (os.path.basename(source), name)))
                for which in 'first', 'second':
                    for name, command in made.items():
                        found.setdefault((os.path.basename(source), which, name), []).append(timed(command))
                    change(source)
                on_host(options, 'rm', '-r', *(os.path.join(
                    options.folder, '%s-%s' % (os.path.basename(source), name)) for name in made))
    finally:
        shutil.rmtree(top)
    for key, times in found.items():
        print('%-6s %-7s %-6s %6.2f s  %6.2f s of processors here' % (
            key + tuple(statistics.median(column) for column in zip(*times))))


if __name__ == '__main__':
    if len(sys.argv) in (5, 6) and sys.argv[3].endswith('/'):
        copy(*sys.argv[1:])
    else:
        main()
