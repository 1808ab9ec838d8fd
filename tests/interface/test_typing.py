"""
The stubs: what they say is true of the package, and what a typed program says of them holds.
"""

import os
import re
import subprocess
import sys

import pytest

import mitogen

import places

PACKAGE = os.path.dirname(mitogen.__file__)
STUBS = sorted(name[:-4] for name in os.listdir(PACKAGE) if name.endswith('.pyi'))

pytest.importorskip('mypy')


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    """
    A cache of mypy's, for all tests of this file.
    """
    return str(tmp_path_factory.mktemp('mypy'))


def run(args, cwd):
    env = dict((key, value) for key, value in os.environ.items() if not key.startswith('MYPY') and key != 'PYTHONPATH')
    proc = subprocess.run([sys.executable, '-m'] + args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          cwd=str(cwd), env=env, timeout=110)
    return proc.returncode, proc.stdout


def test_the_package_says_that_it_is_typed():
    assert os.path.exists(os.path.join(PACKAGE, 'py.typed'))
    assert {'__init__', 'core', 'parent', 'master', 'select', 'service', 'utils', 'unix', 'fork'} <= set(STUBS)


@pytest.mark.once
def test_a_typed_program_passes_the_strict_checks(cache, tmp_path):
    status, out = run(['mypy', '--strict', '--warn-unused-ignores', '--cache-dir', cache,
                       os.path.join(places.TESTS, 'interface', 'typing_usage.py')], tmp_path)
    assert status == 0, out


@pytest.mark.once
@pytest.mark.skipif(not os.path.isdir(os.path.join(places.ROOT, 'examples')), reason='needs the source tree')
def test_the_examples_use_the_interface_as_the_stubs_have_it(cache):
    # They are not annotated, as they run on Python 2.7 too; what they do is checked all the same.
    folder = os.path.join(places.ROOT, 'examples')
    names = sorted(name for name in os.listdir(folder) if name.endswith('.py'))
    assert len(names) > 3
    status, out = run([
        'mypy', '--strict', '--check-untyped-defs', '--allow-untyped-defs', '--allow-incomplete-defs',
        '--allow-untyped-calls', '--disable-error-code', 'var-annotated', '--cache-dir', cache,
    ] + names, folder)
    # Errors that a version of mypy finds in the standard library's stub of logging.Handler.lock are not about us.
    errors = [line for line in out.splitlines()
              if ': error:' in line and not re.search(r'"(RLock \| None|Optional\[(RLock|LockType)\])"', line)]
    assert errors == [], out
    assert status in (0, 1), out


def test_the_stubs_agree_with_the_package(tmp_path):
    # Of the running core: what it replaces must look like its twin. Modules one by one, as some have no stub.
    modules = ['mitogen.' + name for name in STUBS if name != '__init__']
    status, out = run(['mypy.stubtest', '--concise', '--ignore-missing-stub', '--ignore-disjoint-bases',
                       '--ignore-unused-allowlist', '--allowlist',
                       os.path.join(places.DATA, 'stubtest_allowlist.txt')] + modules, tmp_path)
    assert status == 0, out
