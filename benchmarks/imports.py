#!/usr/bin/env python3
"""
How long an import takes in a bare child, near and far, beside upstream and beside the import from a
disk.

    benchmarks/imports.py [--other-python PYTHON] [--rounds N] [--delay SECONDS] [MODULE ...]

The master has the packages and the child has none. Far means that a relay passes on each byte some
time later. Each row is the median over the rounds, in which the peers take turns; a ratio is
upstream's time divided by ours. A floor is the import by the child's interpreter from a disk: with
bytecode for a child of the master's version, else without.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

from driver import environments

PACKAGES = ['requests', 'django', 'boto3', 'rich']
#: The last one is made here: a package of 500 modules.
LARGE = 'five_hundred'
MODULES = ['requests', 'django.db.models', 'boto3', 'rich.console', LARGE]

#: How many children import at once for the last row, and which module.
CROWD, CROWD_MODULE = 50, 'django.db.models'

RELAY = '''
import collections, os, subprocess, sys, threading, time
delay = float(sys.argv[1])
child = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

def take(fd, queue, changed):
    data = True
    while data:
        try:
            data = os.read(fd, 131072)
        except OSError:
            data = b''
        with changed:
            queue.append((time.time() + delay, data))
            changed.notify()

def pass_on(source, target):
    queue, changed = collections.deque(), threading.Condition()
    threading.Thread(target=take, args=(source, queue, changed), daemon=True).start()
    while True:
        with changed:
            while not queue:
                changed.wait()
            due, data = queue.popleft()
        time.sleep(max(0, due - time.time()))
        if not data:
            return os.close(target)
        while data:
            data = data[os.write(target, data):]

threading.Thread(target=pass_on, args=(0, child.stdin.fileno()), daemon=True).start()
up = threading.Thread(target=pass_on, args=(child.stdout.fileno(), 1), daemon=True)
up.start()
child.wait()
up.join(2)
os._exit(0)
'''

MASTER = '''
import json, os, sys, time
import mitogen.master
child, module, delay, relay = sys.argv[1:]
path = [child]
if float(delay):
    path = [sys.executable, '-c', relay, delay] + path
broker = mitogen.master.Broker()
router = mitogen.master.Router(broker)
found = []
try:
    for _ in range(2):
        context = router.local(python_path=path)
        context.call(os.getpid)
        before, cpu, began = router.get_stats(), time.process_time(), time.time()
        context.call(eval, '__import__(%r) and None' % module)
        wall = time.time() - began
        after = router.get_stats()
        found.append({'wall': wall, 'cpu': time.process_time() - cpu,
                      'requests': after['get_module_count'] - before['get_module_count'],
                      'bytes': after['good_load_module_size'] - before['good_load_module_size']})
finally:
    broker.shutdown()
    broker.join()
print(json.dumps(found))
'''

CROWD_MASTER = '''
import os, sys, time
import mitogen.master
child, module, count = sys.argv[1:]
with mitogen.master.Router() as router:
    contexts = [router.local(python_path=child) for _ in range(int(count))]
    for context in contexts:
        context.call(os.getpid)
    cpu = time.process_time()
    for receiver in [context.call_async(eval, '__import__(%r) and None' % module) for context in contexts]:
        receiver.get().unpickle()
    print(time.process_time() - cpu)
'''

FLOOR = 'import sys, time; t = time.time(); __import__(sys.argv[1]); print(time.time() - t)'


def bare(root, python):
    """Return an interpreter without any packages."""
    folder = os.path.join(root, 'bare-' + os.path.basename(os.path.realpath(python)))
    if not os.path.exists(folder):
        subprocess.check_call([python, '-m', 'venv', '--without-pip', folder])
    return os.path.join(folder, 'bin', 'python')


def make_large(folder):
    """Make the package of 500 modules."""
    os.makedirs(os.path.join(folder, LARGE), exist_ok=True)
    for number in range(500):
        with open(os.path.join(folder, LARGE, 'm%d.py' % number), 'w') as fp:
            fp.write('import os\n\n\n' + '\n\n'.join(
                'def f%d(a, b=%d):\n    """Return one of them."""\n    return [a, b][a > b]\n' % (i, i) for i in range(20)))
    with open(os.path.join(folder, LARGE, '__init__.py'), 'w') as fp:
        fp.write(''.join('from %s import m%d\n' % (LARGE, number) for number in range(500)))


def measure_crowd(environment, child, count):
    """Return the processor time of a master while some children import a module at once."""
    return float(subprocess.check_output(
        [environment.python, '-c', CROWD_MASTER, child, CROWD_MODULE, str(count)],
        env=environment.variables, cwd=os.path.dirname(child)))


def measure(environment, child, module, delay):
    """Return what MASTER says of two children of one master, the first and the second."""
    out = subprocess.check_output(
        [environment.python, '-c', MASTER, child, module, str(delay), RELAY],
        env=environment.variables, cwd=os.path.dirname(child))
    return json.loads(out)


def floor(child, packages, module, with_bytecode):
    variables = dict(environments.variables_without_python(), PYTHONPATH=packages)
    if not with_bytecode:
        # Of another version, there is none of the packages.
        variables['PYTHONDONTWRITEBYTECODE'] = '1'
    return float(subprocess.check_output([child, '-c', FLOOR, module], env=variables))


def middle(rows, key, child=0):
    return statistics.median(row[child][key] for row in rows)


def report(module, kind, delay, rows, floors, out=print):
    ours, theirs, least = middle(rows['ours'], 'wall'), middle(rows['upstream'], 'wall'), statistics.median(floors)
    out('%-18s %-6s %4d ms  ours %6.3f s  second %6.3f s  upstream %6.3f s  ratio %5.2f  floor %6.3f s  of it %5.2f  '
        'requests %d / %d  KiB %d / %d' % (
            module, kind, delay * 2000, ours, middle(rows['ours'], 'wall', 1), theirs, theirs / ours, least, ours / least,
            middle(rows['ours'], 'requests'), middle(rows['upstream'], 'requests'),
            middle(rows['ours'], 'bytes') / 1024, middle(rows['upstream'], 'bytes') / 1024))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--python', default=sys.executable)
    parser.add_argument('--other-python', help='interpreter of another version, for children')
    parser.add_argument('--python-path-for-ours', metavar='DIR')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--delay', type=float, default=0.05, help='seconds each way')
    parser.add_argument('modules', nargs='*', default=MODULES)
    args = parser.parse_args()

    checkout = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    root = os.path.join(checkout, '.bench')
    builder = environments.Builder(root, args.python, checkout, args.python_path_for_ours)
    peers = dict((peer.name, builder.build(peer)) for peer in environments.PEERS.values()
                 if peer.name in ('ours', 'upstream'))
    packages = os.path.join(root, 'packages')
    if not os.path.exists(packages):
        subprocess.check_call([peers['upstream'].python, '-m', 'pip', 'install', '-q', '-t', packages] + PACKAGES)
    if not os.path.exists(os.path.join(packages, LARGE)):
        make_large(packages)
        subprocess.check_call([peers['upstream'].python, '-m', 'compileall', '-q', packages])
    for peer in peers.values():
        # Not by the environment, which children inherit.
        site = subprocess.check_output(
            [peer.python, '-c', 'import sysconfig; print(sysconfig.get_paths()["purelib"])'], text=True).strip()
        with open(os.path.join(site, 'benchmark-packages.pth'), 'w') as fp:
            fp.write(packages + '\n')

    kinds = [('same', bare(root, args.python))]
    if args.other_python:
        kinds.append(('other', bare(root, args.other_python)))
    for module in args.modules:
        for kind, child in kinds:
            for delay in (0, args.delay):
                rows, floors = {'ours': [], 'upstream': []}, []
                for _ in range(args.rounds):
                    for name in rows:
                        rows[name].append(measure(peers[name], child, module, delay))
                    floors.append(floor(child, packages, module, kind == 'same'))
                report(module, kind, delay, rows, floors)
                sys.stdout.flush()
    if CROWD_MODULE in args.modules:
        one, many = [statistics.median(measure_crowd(peers['ours'], kinds[0][1], count) for _ in range(args.rounds))
                     for count in (1, CROWD)]
        print('%d children import %s: processor time of the master %.3f s, of one child %.3f s, ratio %.2f' % (
            CROWD, CROWD_MODULE, many, one, many / one))


if __name__ == '__main__':
    main()
