"""
Memory that is out: for each allocation of the engine, and of CPython, that fails once, in each
constructor and on the way of a message, there is a result, MemoryError or the end of the stream;
nothing crashes, hangs or leaks, and all goes on afterwards.
"""

import os
import subprocess
import sys

import pytest

import extension_build
import places


NAMES = ('router', 'latch', 'message', 'receiver', 'select', 'handler', 'link', 'call', 'large', 'calls', 'nobody')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp('extension'))
    try:
        extension_build.build(folder)
    except FileNotFoundError as error:
        pytest.skip('cannot build the extension here: %s' % (error,))
    return folder


def run(folder, tmp_path, *args):
    env = dict(os.environ, PYTHONPATH=folder, FAULTS_FOLDER=str(tmp_path))
    proc = subprocess.run([sys.executable, os.path.join(places.LIB, 'native_faults.py')] + list(args), env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=110)
    # The interpreter may complain there that it has no memory for what it ignores.
    assert proc.returncode == 0, proc.stdout + proc.stderr
    return dict(line.split(': ') for line in proc.stdout.splitlines())


def test_each_allocation_of_the_engine_fails_once(folder, tmp_path):
    found = run(folder, tmp_path, 'engine', *NAMES + ('python_handler',))
    assert set(found) == set(NAMES) | {'python_handler'}
    # A message without a stream needs nothing of the engine.
    assert [name for name, text in found.items() if text.startswith('0 failures')] == ['message']


def test_each_allocation_of_the_interpreter_fails_once(folder, tmp_path):
    pytest.importorskip('_testcapi')
    # Only parts in C. In Python, a "with" that has no memory to end keeps its lock, and no library
    # can change that.
    names = 'latch', 'message', 'receiver', 'handler', 'call', 'large', 'calls', 'nobody'
    assert set(run(folder, tmp_path, 'python', *names)) == set(names)
