#!/usr/bin/env python3
"""
Which current packages of an index can be used in a bare child, that has none of them.

    benchmarks/packages.py [--child-python PYTHON] [--rst] [NAME ...]

The packages of ``package_list.py``, or those that are named, are installed for the master. Each is
used in a fresh child by an interpreter without packages: imported, and asked for its version, or
used by the lines that stand in the list.
"""

import argparse
import json
import os
import subprocess
import sys
import time

from package_list import NATIVE, PURE, USES

MASTER = '''
import json, sys, time
import mitogen.master

def use(code):
    names = {}
    exec(code, names)
    return repr(names.get('x'))[:60]

def main():
    child, items = sys.argv[1], json.load(sys.stdin)
    with mitogen.master.Router() as router:
        for name, code in items:
            before, began = router.get_stats(), time.time()
            try:
                context = router.local(python_path=[child, '-I'], connect_timeout=60)
                context.call(use, 'x = None')
                began, before = time.time(), router.get_stats()
                found = context.call(use, code)
                context.shutdown()
            except Exception as e:
                found = 'FAILS: %s' % str(e).split(chr(10))[0][:300]
            after = router.get_stats()
            count = after['get_module_count'] - before['get_module_count']
            print(json.dumps([name, found, time.time() - began, count]))
            sys.stdout.flush()

if __name__ == '__main__':
    main()
'''

VERSION = 'import importlib.metadata, %s\nx = importlib.metadata.version(%r)'


def items_of(kind):
    if kind == 'pure':
        return [(name, VERSION % (module, name)) for name, module in PURE]
    return [(name, code) for name, code in (NATIVE if kind == 'native' else USES)]


def environment(root, python, checkout, names):
    """Return an interpreter with this checkout and the packages."""
    folder = os.path.join(root, 'packages-env')
    own = os.path.join(folder, 'bin', 'python')
    if not os.path.exists(own):
        subprocess.check_call([python, '-m', 'venv', folder])
        subprocess.check_call([own, '-m', 'pip', 'install', '-q', checkout])
    lacking = [name for name in names if subprocess.call(
        [own, '-c', 'import importlib.metadata, sys; importlib.metadata.version(sys.argv[1])', name],
        stderr=subprocess.DEVNULL)]
    if lacking:
        subprocess.check_call([own, '-m', 'pip', 'install', '-q', '--prefer-binary'] + lacking)
    return own


def bare(root, python):
    """Return an interpreter without any packages."""
    folder = os.path.join(root, 'bare-' + os.path.basename(os.path.realpath(python)))
    if not os.path.exists(folder):
        subprocess.check_call([python, '-m', 'venv', '--without-pip', folder])
    return os.path.join(folder, 'bin', 'python')


def run(own, child, items):
    """Yield (name, what it gave, seconds, requests) for each item."""
    process = subprocess.Popen([own, os.path.join(os.path.dirname(child), 'use_packages.py'), child],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd='/')
    process.stdin.write(json.dumps(items))
    process.stdin.close()
    for line in process.stdout:
        yield json.loads(line)
    process.wait()


def print_table(own, names):
    """Print names and versions as a table of the manual."""
    code = 'import importlib.metadata, sys\nfor name in sys.argv[1:]: print(name, importlib.metadata.version(name))'
    cells = subprocess.check_output([own, '-c', code] + names, text=True).splitlines()
    cells += [''] * (-len(cells) % 3)
    print('.. list-table::\n   :widths: auto\n')
    for start in range(0, len(cells), 3):
        print('\n'.join((lead + cell).rstrip() for lead, cell in zip(
            ('   * - ', '     - ', '     - '), cells[start:start + 3])))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--python', default=sys.executable, help='interpreter of the master')
    parser.add_argument('--own', help='interpreter that has this checkout and the packages already')
    parser.add_argument('--child-python', help='interpreter of the children, if it is another')
    parser.add_argument('--kind', choices=['native', 'pure', 'uses'], action='append')
    parser.add_argument('--rst', action='store_true', help='print tables of what works, for the manual; all else goes to stderr')
    parser.add_argument('names', nargs='*')
    args = parser.parse_args()

    checkout = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    root = os.path.join(checkout, '.bench')
    os.makedirs(root, exist_ok=True)
    child = bare(root, args.child_python or args.python)
    with open(os.path.join(os.path.dirname(child), 'use_packages.py'), 'w') as fp:
        fp.write(MASTER)
    failed, log = 0, sys.stderr if args.rst else sys.stdout
    kinds = dict((kind, [item for item in items_of(kind) if not args.names or item[0] in args.names])
                 for kind in args.kind or ['native', 'pure', 'uses'])
    # All at first: some need a package of another kind, and do not say so.
    own = args.own or environment(root, args.python, checkout, [name for items in kinds.values() for name, _ in items])
    for kind, items in kinds.items():
        count, worked = 0, []
        for name, found, seconds, requests in run(own, child, items):
            good = not found.startswith('FAILS')
            count += good
            failed += not good
            print('%-28s %6.2f s %3d requests  %s' % (name, seconds, requests, found), file=log)
            log.flush()
            if good:
                worked.append(name)
        if args.rst:
            print_table(own, worked)
        print('.. %s: %d of %d (%s)' % (kind, count, len(items), time.strftime('%Y-%m-%d')))
    return failed > 0


if __name__ == '__main__':
    sys.exit(main())
