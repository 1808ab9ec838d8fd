"""
Profiling a tree of processes.
"""

import os
import pstats
import subprocess
import sys

import pytest

import mitogen

import places

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


OPTION = """
import mitogen.master, os, sys
if __name__ == '__main__':
    with mitogen.master.Router() as router:
        assert router.local(profiling=True).call(os.getpid) > 0
"""

ARGUMENT = """
import mitogen, os, sys
sys.path.insert(0, sys.argv[1])
import service_targets

@mitogen.main(profiling=True)
def main(router):
    assert router.local().call_service(service_targets.Plain, 'pid') > 0
"""


@pytest.mark.parametrize('text, expected', [
    # The caller alone decides about itself.
    (OPTION, ['mitogen.broker', 'mitogen.child_main']),
    (ARGUMENT, ['app.main', 'mitogen.broker', 'mitogen.broker', 'mitogen.child_main', 'mitogen.service.pool',
                'mitogen.service.pool']),
])
def test_programs_turn_it_on(tmp_path, text, expected):
    path = tmp_path / 'program.py'
    path.write_text(text)
    target = tmp_path / 'profiles'
    target.mkdir()
    template = str(target / '%(identity)s-%(pid)s-%(now)s.%(ext)s')
    status, _, err = run(str(path), places.TARGETS, MITOGEN_PROFILE_FMT=template)
    assert status == 0, err
    names = [name for name in os.listdir(str(target)) if name.endswith('.pstats')]
    assert sorted(name.partition('-')[0] for name in names) == expected


def test_what_cannot_be_read_is_left_out(tmp_path, monkeypatch, capsys):
    import mitogen.profiler
    monkeypatch.setattr(mitogen.profiler.time, 'sleep', lambda seconds: slept.append(seconds))
    slept = []
    (tmp_path / 'app.main-1-dump.pstats').write_bytes(b'not yet written')
    mitogen.profiler.merge_all(str(tmp_path), str(tmp_path / 'P'))
    # Once for the kind of thread, and once for all.
    assert slept == [0.2] * 8
    assert capsys.readouterr().err.count('cannot read') == 2
    assert os.listdir(str(tmp_path)) == ['app.main-1-dump.pstats']


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
