"""
Beside other loops in one process: gevent and eventlet, whose threads share one of the system, trio
and asyncio.
"""

import os
import subprocess
import sys

import pytest

import mitogen.core

# Each is a program of its own with a large library.
pytestmark = pytest.mark.slow

PATCHES = {
    'gevent': 'from gevent import monkey; monkey.patch_all()',
    'eventlet': 'import eventlet; eventlet.monkey_patch()',
}

PROGRAM = '''
import faulthandler
import warnings
warnings.simplefilter('ignore')  # of eventlet, that it is old
%s
import os, threading, time
%s

if __name__ == '__main__':
    faulthandler.dump_traceback_later(100, exit=True)
    main()
'''

USE = '''
import mitogen.core, mitogen.master, mitogen.select

done = []

def tick():
    while not done:
        ticks.append(1)
        time.sleep(0.01)

ticks = []

def main():
    threading.Thread(target=tick).start()
    with mitogen.master.Router() as router:
        child = router.local()
        pid = child.call(os.getpid)
        before = len(ticks)
        child.call(time.sleep, 0.5)
        others_ran = len(ticks) > before
        latch = mitogen.core.Latch()
        threading.Timer(0.1, latch.put, (5,)).start()
        got = latch.get()
        try:
            latch.get(timeout=0.1)
        except mitogen.core.TimeoutError:
            got += 1
        two = mitogen.select.Select.all([child.call_async(os.getpid), child.call_async(os.getpid)])
        grandchild = router.local(via=child)
        print(mitogen.core.CORE, pid != os.getpid(), others_ran, got, two == [pid, pid],
              grandchild.call(os.getppid) == pid)
    done.append(1)
'''

LATE = '''
import mitogen.core, mitogen.master

def main():
    %s
    try:
        mitogen.master.Router()
    except mitogen.core.Error as e:
        print(e)
'''

ASYNC = '''
import mitogen.master
%s

async def side(child, in_thread, sleep):
    ticks = []

    async def tick():
        while len(ticks) < 5:
            ticks.append(await in_thread(child.call, os.getpid))
            await sleep(0.01)

    pid = await in_thread(child.call, os.getpid)
    await tick()
    print(pid != os.getpid(), ticks == [pid] * 5)

def main():
    with mitogen.master.Router() as router:
        child = router.local()
        %s
'''


@pytest.fixture
def run(tmp_path):
    def run(before, text, core=None):
        path = tmp_path / 'program.py'
        path.write_text(PROGRAM % (before, text))
        env = dict(os.environ)
        env.pop('MITOGEN_CORE')
        if core:
            env['MITOGEN_CORE'] = core
        done = subprocess.run([sys.executable, str(path)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return done.stdout.decode().strip(), done.stderr.decode()
    return run


@pytest.mark.parametrize('name', sorted(PATCHES))
def test_everything_works_and_lets_others_run_where_threads_are_patched(run, name):
    core = 'pure' if mitogen.core.CORE == 'pure' else None
    assert run(PATCHES[name], USE, core) == ('pure True True 6 True True', '')


@pytest.mark.once
@pytest.mark.parametrize('name', sorted(PATCHES))
def test_the_compiled_core_is_refused_where_threads_are_patched(run, name):
    out, err = run(PATCHES[name], USE, 'native')
    assert out == ''
    assert err.splitlines()[-1] == (
        'ImportError: MITOGEN_CORE is "native", but threads are patched (by gevent or eventlet), and only the pure '
        'core can wait in such threads')


@pytest.mark.parametrize('name', sorted(PATCHES))
def test_a_patch_that_comes_too_late_is_named(run, name):
    out, _ = run('', LATE % PATCHES[name], mitogen.core.CORE)
    assert out == ('threads were patched (by gevent or eventlet) after mitogen was imported: patch them before that')


@pytest.mark.parametrize('imports, start', [
    ('import trio', 'trio.run(side, child, trio.to_thread.run_sync, trio.sleep)'),
    ('import asyncio', 'asyncio.run(side(child, asyncio.to_thread, asyncio.sleep))'),
], ids=['trio', 'asyncio'])
def test_calls_work_in_threads_of_a_loop_of_coroutines(run, imports, start):
    assert run('', ASYNC % (imports, start), mitogen.core.CORE) == ('True True', '')
