"""
Programs that use much of the interface at once, as people have written them for Mitogen 0.3.x. Each
prints what it sees. Its output with upstream's release is kept beside it (``programs/*.txt``), and
its output with ours has to be the same.

With ``MITOGEN_UPSTREAM`` set to the path of an interpreter that has upstream's release, the
programs run there, too, and what is kept is checked.
"""

import glob
import os
import subprocess
import sys

import pytest

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'programs')

PROGRAMS = sorted(os.path.basename(path)[:-3] for path in glob.glob(os.path.join(FOLDER, '*.py')))


def run(python, name, tmp_path):
    env = dict(os.environ)
    env.pop('PYTHONPATH', None)
    # Children must not find the program in their current directory, as upstream's would.
    return subprocess.run(
        [python, os.path.join(FOLDER, name + '.py')], cwd=str(tmp_path), env=env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)


def check(proc, name):
    with open(os.path.join(FOLDER, name + '.txt')) as fp:
        assert proc.stdout.splitlines() == fp.read().splitlines(), proc.stderr
    assert proc.returncode == 0, proc.stderr


@pytest.mark.parametrize('name', PROGRAMS)
def test_a_program_for_upstream_prints_the_same(name, tmp_path):
    check(run(sys.executable, name, tmp_path), name)


if os.environ.get('MITOGEN_UPSTREAM'):
    @pytest.mark.parametrize('name', PROGRAMS)
    def test_upstream_prints_what_is_kept(name, tmp_path):
        check(run(os.environ['MITOGEN_UPSTREAM'], name, tmp_path), name)
