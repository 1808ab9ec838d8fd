"""
Masters and children of different Pythons. tests/data/matrix has the program, which does all that a
master does with a child, and with a child of that of yet another version, and tells what it found.

By default each version is a child of the running Python, and each other version is a master of
three children: of the oldest, the newest and its own version. MITOGEN_TEST_MATRIX=full has each
with each. A grandchild is of the oldest or the newest that is here, whichever its parent is not.
Pythons that are not installed here are named in the summary.
"""

import json
import os
import subprocess
import sys

import pytest

import mitogen
import mitogen.core
import places
import pythons

PROGRAM = os.path.join(places.DATA, 'matrix', 'matrix_main.py')

#: Children, oldest first. PyPy is one too, where it is installed.
CHILDREN = pythons.NAMES + ['pypy3']
MASTERS = pythons.NAMES
OWN = pythons.OWN
FULL = os.environ.get('MITOGEN_TEST_MATRIX') == 'full'

#: Children of each master, if not all are.
OLDEST = 'python2.7'
NEWEST = next((name for name in reversed(pythons.NAMES) if pythons.is_here(name)), OWN)


def pairs():
    """
    Yield (master, child) of all that is run.
    """
    for child in CHILDREN:
        yield OWN, child
    for master in MASTERS:
        if master != OWN:
            for child in CHILDREN if FULL else sorted({OLDEST, NEWEST, master}):
                yield master, child


@pytest.fixture(scope='module')
def package(tmp_path_factory):
    """
    A folder with our package and nothing else: other Pythons must not find what was installed for
    this one.
    """
    folder = tmp_path_factory.mktemp('package')
    os.symlink(os.path.dirname(mitogen.__file__), str(folder / 'mitogen'))
    return str(folder)


def version(name):
    return name[len('python'):] if name.startswith('python') else None


def check(found, name, master):
    facts = found['facts']
    if name == 'pypy3':
        assert facts['implementation'] == 'pypy'
    else:
        assert facts['version'] == version(name)
    assert facts['file'].startswith('master:'), 'the module is to come from the master'
    assert (facts['core'], facts['master']) == ('pure', False)
    assert found['values'] and found['types'] and found['large']
    assert found['kinds'] == ['bytes', 'bytes', 'text', 'text', 'other']
    assert found['keywords'] == ['one', 'two']
    assert found['error'] is True
    # A master of Python 2 knows no packages without a file.
    folder = 'refused' if master == 'python2.7' else 'imported'
    assert found['imports'] == ['leaf', 'replaced', 'replaced', folder]
    has_resources = name == 'pypy3' or tuple(map(int, version(name).split('.'))) >= (3, 7)
    assert found['resource'] == ('a resource\n' if has_resources else None)
    assert found['main'] == ['__main__', True]
    assert found['stream'] and found['pid']
    assert found['service_up'] and found['service_down']
    assert found['file_up'] and found['file_down']


def chosen(config):
    # Other masters run the pure core in any case, so the half of the suite for that has them.
    return [pair for pair in sorted(set(pairs())) if pair[0] == OWN or config.option.core != 'native']


def pytest_generate_tests(metafunc):
    metafunc.parametrize('master,child', chosen(metafunc.config), ids=lambda name: name.replace('python', ''))


def grandchild_of(child):
    here = [name for name in pythons.NAMES if pythons.is_here(name)]
    return here[-1] if child == here[0] else here[0]


def run_master(master, children, package):
    """
    Run the program on one interpreter for some children; return (what it found of each in turn, its
    errors).
    """
    env = dict(os.environ)
    for name in ('PYTHONPATH', 'MITOGEN_CORE', 'MITOGEN_LOG_LEVEL'):
        env.pop(name, None)
    if master == OWN:
        env['MITOGEN_CORE'] = mitogen.core.CORE
        env['PYTHONPATH'] = os.path.dirname(os.path.dirname(mitogen.__file__))
    else:
        env['PYTHONPATH'] = package
    python = sys.executable if master == OWN else pythons.find_python(master)
    pythons.keep_bytecode(env, python)
    paths = [pythons.find_python(name) for child in children for name in (child, grandchild_of(child))]
    proc = subprocess.run([python, '-W', 'error', PROGRAM] + paths, env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=280)
    found = [json.loads(line) for line in proc.stdout.splitlines() if line.startswith('{')]
    # The master ends with the first child that fails.
    return dict(zip(children, found)), proc.stderr


@pytest.fixture(scope='module')
def outcome(request, package):
    """
    A function that returns a master's findings about a child, and the master's errors. One process
    of each master tries all children that are here, the first time that one of them is asked for.
    """
    outcomes = {}

    def of(master, child):
        if master not in outcomes:
            children = [name for other, name in chosen(request.config) if other == master and pythons.is_here(name)]
            outcomes[master] = run_master(master, children, package)
        found, errors = outcomes[master]
        assert child in found, errors
        return found[child], errors

    return of


@pytest.mark.seconds(300)
def test_a_master_a_child_and_a_grandchild(outcome, master, child):
    for name in (master, child):
        pythons.find_python(name)
    found, errors = outcome(master, child)
    assert found['master'] == version(master)
    assert found['core'] == (mitogen.core.CORE if master == OWN else 'pure')
    check(found['child'], child, master)
    check(found['grandchild'], grandchild_of(child), master)
    assert found['logs'] and found['gone']
    assert found['complaints'] == []
    assert errors == ''
