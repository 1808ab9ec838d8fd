"""
Profiling a tree of processes.
"""

import os
import pstats
import subprocess
import sys

import pytest

import mitogen

ROOT = os.path.dirname(os.path.dirname(mitogen.__file__))

PROGRAM = '''
import mitogen, os, sys

@mitogen.main()
def main(router):
    context = router.local()
    assert context.call(os.getpid) > 0
    sys.exit(3)
'''


@pytest.fixture
def program(tmp_path):
    path = tmp_path / 'program.py'
    path.write_text(PROGRAM)
    return str(path)


def run(*args, **env):
    env = dict(os.environ, PYTHONPATH=ROOT, **env)
    proc = subprocess.Popen([sys.executable] + list(args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
                            universal_newlines=True)
    out, err = proc.communicate(timeout=100)
    return proc.returncode, out, err


def profiler(*args):
    return run('-m', 'mitogen.profiler', *args)


def test_the_environment_turns_it_on(program, tmp_path):
    target = tmp_path / 'profiles'
    target.mkdir()
    template = str(target / '%(identity)s-%(pid)s-%(now)s.%(ext)s')
    status, _, err = run(program, MITOGEN_PROFILING='1', MITOGEN_PROFILE_FMT=template)
    assert status == 3, err
    names = sorted(os.listdir(str(target)))
    kinds = {'pstats': [], 'log': []}
    for name in names:
        kinds[name.rpartition('.')[2]].append(name.partition('-')[0])
        path = target / name
        if name.endswith('.pstats'):
            assert pstats.Stats(str(path)).total_calls > 0
        else:
            assert 'ncalls' in path.read_text()
    assert sorted(kinds['pstats']) == sorted(kinds['log']) == [
        'app.main', 'mitogen.broker', 'mitogen.broker', 'mitogen.child_main']


def test_record_and_report(program, tmp_path):
    dest = str(tmp_path / 'P')
    status, _, err = profiler('record', dest, sys.executable, program)
    assert status == 3, err
    for identity in ('all', 'app.main', 'mitogen.broker', 'mitogen.child_main'):
        assert os.path.exists('%s-%s.pstat' % (dest, identity))
    for sort in ([], ['calls']):
        status, out, err = profiler('report', dest + '-all.pstat', *sort)
        assert status == 0, err
        assert 'ncalls' in out


def test_stat(program):
    status, out, err = profiler('stat', 'cumulative', sys.executable, program)
    assert status == 3, err
    for identity in ('all', 'app.main', 'mitogen.broker', 'mitogen.child_main'):
        assert '== %s ==' % identity in out
    assert 'ncalls' in out


def test_stat_with_an_unknown_sort_key(program):
    status, out, err = profiler('stat', 'nonsense', sys.executable, program)
    assert (status, out) == (1, '')
    assert 'cumulative' in err


@pytest.mark.parametrize('args', [[], ['nonsense'], ['record'], ['record', 'P'], ['report'], ['stat', 'calls']])
def test_usage(args):
    status, out, err = profiler(*args)
    assert (status, out) == (1, '')
    assert 'python -m mitogen.profiler record' in err
