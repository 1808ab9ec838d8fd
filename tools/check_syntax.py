#!/usr/bin/env python3
"""
Checks what the compilers at hand do not: the package keeps to the syntax that CPython 2.7 and 3.6
share, and no source names a folder of the machine it was written on.
"""

import ast
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

TOO_NEW = (
    ast.JoinedStr, ast.AnnAssign, ast.AsyncFunctionDef, ast.Await, ast.YieldFrom, ast.Nonlocal, ast.NamedExpr,
    ast.MatMult,
)

MACHINE = re.compile(r'/(?:root|work|home/\w+)/')


def sources(*folders):
    for folder in folders:
        for base, names, files in os.walk(os.path.join(ROOT, folder)):
            names[:] = [name for name in names if name not in ('__pycache__', 'build', 'corpus', 'data')]
            for name in sorted(files):
                if name.endswith(('.py', '.c', '.h', '.rst')) or name in ('Makefile', 'setup', 'run'):
                    yield os.path.join(base, name)


def too_new(path):
    with open(path, encoding='utf-8') as fp:
        tree = ast.parse(fp.read(), path)
    for node in ast.walk(tree):
        if isinstance(node, TOO_NEW):
            yield node.lineno, type(node).__name__
        if isinstance(node, (ast.List, ast.Tuple)) and any(isinstance(item, ast.Starred) for item in node.elts):
            yield node.lineno, 'starred item'
        if isinstance(node, ast.arguments) and (node.kwonlyargs or node.posonlyargs):
            yield node.defaults[0].lineno if node.defaults else 0, 'keyword-only or positional-only argument'
        if isinstance(node, ast.arg) and node.annotation:
            yield node.lineno, 'annotation'
        if isinstance(node, ast.Raise) and node.cause:
            yield node.lineno, 'raise from'
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'super' and not node.args:
            yield node.lineno, 'super() without arguments'


def main():
    bad = []
    # Of those that only a master has, the Python that runs this is the judge.
    newer = re.compile(r'\b(_tree|_cli|observed_coroutine)\b')
    package = [path for path in sources('mitogen') if path.endswith('.py') and not newer.search(path)]
    for path in package:
        bad += ['%s:%d: %s is not in Python 2.7' % (os.path.relpath(path, ROOT), line, what) for line, what in too_new(path)]
    for path in sources('mitogen', '_mitogen_core', 'tests', 'tools', 'examples', 'benchmarks', '.ci'):
        if os.path.abspath(path) == os.path.abspath(__file__):
            continue
        with open(path, encoding='utf-8', errors='replace') as fp:
            for number, line in enumerate(fp, 1):
                if MACHINE.search(line):
                    bad.append('%s:%d: names a folder of one machine' % (os.path.relpath(path, ROOT), number))
    python2 = shutil.which('python2.7')
    if python2 and not subprocess.call([python2, '-c', ''], stderr=subprocess.DEVNULL):
        program = 'import sys\nfor p in sys.argv[1:]: compile(open(p).read(), p, "exec")'
        if subprocess.call([python2, '-c', program] + package):
            bad.append('python2.7 does not compile the package')
    print('\n'.join(bad) or '%d files of the package, %s' % (len(package), 'all well'))
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
