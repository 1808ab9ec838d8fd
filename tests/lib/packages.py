"""
Helpers of the tests of packaging: the tool that builds, clean environments, and a program that
tells what is in one.
"""

import importlib.util
import json
import os
import subprocess
import sys

import places


#: Runs on Python 2.7 too. Tells what is installed, and that it works: a child, and a child of the
#: child.
PROGRAM = '''
import json, os, sys
import mitogen, mitogen.core, mitogen.master

def describe():
    return os.getppid(), mitogen.core.CORE

if __name__ == '__main__':
    router = mitogen.master.Router()
    try:
        first = router.local(python_path=sys.executable)
        second = router.local(python_path=sys.executable, via=first)
        found = {
            'version': '.'.join(map(str, mitogen.__version__)),
            'core': mitogen.core.CORE,
            'file': mitogen.__file__,
            'child': first.call(describe)[0] == os.getpid(),
            'grandchild': second.call(describe)[0] == first.call(os.getpid),
            'child_core': first.call(describe)[1],
            'typed': os.path.exists(os.path.join(os.path.dirname(mitogen.__file__), 'py.typed')),
            'libev': [line.split()[-1] for line in open('/proc/self/maps') if 'libev' in line][:1],
        }
    finally:
        router.broker.shutdown()
        router.broker.join()
    print(json.dumps(found))
'''


def tool():
    """
    Return tools/wheels.py as a module.
    """
    spec = importlib.util.spec_from_file_location('wheels_tool', os.path.join(places.ROOT, 'tools', 'wheels.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(args, cwd, **env):
    """
    Run a command outside the checkout, and return what it prints; AssertionError if it fails.
    """
    environ = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK='1', **env)
    for name in ('PYTHONPATH', 'MITOGEN_CORE', 'MITOGEN_PURE', 'MITOGEN_REQUIRE_NATIVE', 'MITOGEN_WERROR'):
        if name not in env:
            environ.pop(name, None)
    proc = subprocess.run(args, cwd=str(cwd), env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert proc.returncode == 0, '%s\nended with status %d:\n%s' % (' '.join(args), proc.returncode, proc.stdout)
    return proc.stdout


class Environment(object):
    """
    A clean virtual environment, without even pip; that of the tests installs into it. Only one of
    another Python has its own, as a new pip may not know an old Python any more.
    """

    def __init__(self, folder, python=sys.executable):
        self.folder = str(folder)
        self.cwd = os.path.dirname(self.folder)
        self.python = os.path.join(self.folder, 'bin', 'python')
        own_pip = python != sys.executable
        run([python, '-m', 'venv', self.folder] + ([] if own_pip else ['--without-pip']), self.cwd)
        self.pip = [self.python, '-m', 'pip'] if own_pip else [sys.executable, '-m', 'pip', '--python', self.python]

    def install(self, *args, **env):
        return run(self.pip + ['install', '-q'] + list(args), self.cwd, **env)

    def describe(self, **env):
        """
        Run PROGRAM there and return what it tells.
        """
        path = os.path.join(self.cwd, 'describe.py')
        with open(path, 'w') as fp:
            fp.write(PROGRAM)
        return json.loads(run([self.python, path], self.cwd, **env).splitlines()[-1])

    def report(self):
        return run([self.python, '-m', 'mitogen'], self.cwd)
