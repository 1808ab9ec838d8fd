"""
The executor of a host passes the standard library's own tests of executors;
tests/lib/stdlib_executor.py says which do not apply. Some Pythons are installed without them: then
another one of this machine runs them, over the pure core.
"""

import os
import re
import subprocess
import sys

import pytest

import mitogen
import places
import pythons

try:
    from stdlib_executor import TestProcesses, TestThreads, setUpModule, tearDownModule  # noqa: F401
    IS_OWN = True
except ImportError:
    IS_OWN = False

#: Pythons that a tree runs in, newest first.
NAMES = [name for name in reversed(pythons.NAMES) if name.startswith('python3.') and int(name[8:]) >= 9]


def find_tested():
    """
    Return the path of a Python that has its tests of executors.
    """
    for name in NAMES:
        if pythons.is_here(name):
            path = pythons.find_python(name)
            if not subprocess.call([path, '-c', 'import test.test_concurrent_futures'], stderr=subprocess.DEVNULL):
                return path
    pytest.skip('no Python of this machine was installed with test.test_concurrent_futures')


@pytest.mark.once
@pytest.mark.skipif(IS_OWN, reason='the Python that runs the suite has test.test_concurrent_futures')
def test_another_python_passes_its_tests_of_executors(tmp_path):
    path = find_tested()
    # It must not find what was installed for this one.
    os.symlink(os.path.dirname(mitogen.__file__), str(tmp_path / 'mitogen'))
    env = dict(os.environ, MITOGEN_CORE='pure', PYTHONPATH=os.pathsep.join([str(tmp_path), places.LIB]))
    pythons.keep_bytecode(env, path)
    env['PYTHONPYCACHEPREFIX'] = str(tmp_path / 'bytecode')
    proc = subprocess.run([path, '-m', 'unittest', 'stdlib_executor'], env=env, stderr=subprocess.PIPE, text=True)
    assert proc.returncode == 0, proc.stderr
    assert int(re.search(r'Ran (\d+) tests', proc.stderr).group(1)) > 30, proc.stderr
