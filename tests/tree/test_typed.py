"""
Functions of a main program that has no file travel as their source, with what they use.
"""

import os
import subprocess
import sys

import pytest

import mitogen._tree.typed

PROGRAM = '''
import asyncio, os.path as path, mitogen
from functools import partial
LIMIT = 3
def decorate(func):
    return func
def helper(x):
    return [path.basename('/a/b')] * x
@decorate
def work(x, y=3):
    return helper(x) + [y, LIMIT]
def generate(n):
    for i in range(n):
        yield helper(i)
async def later(x):
    return x + LIMIT
def fail():
    return 1 / 0
def outer():
    def inner(): pass
    return inner

async def main(host):
    print(await mitogen.aio.Host(host).call(work, 1))

with mitogen.connect() as host:
    print(host.call(work, 2), host.call(work, 1, y=9), host.submit(work, 1).result())
    print(list(host.stream(generate, 2)), host.call(later, 1), host.call(partial(work, 1)), list(host.map(work, [1])))
    LIMIT = 4
    print(host.options(worker=True).call(work, 0))
    with host.executor(2) as pool:
        print(list(pool.map(work, [1])))
    asyncio.run(main(host))
    try:
        host.call(fail)
    except mitogen.RemoteError as e:
        print(e.type, 'return 1 / 0' in e.traceback)
    for func in lambda: 1, outer():
        try:
            host.call(func)
        except TypeError as e:
            print(str(e).partition(' cannot')[0])
'''

SAID = '''\
['b', 'b', 3, 3] ['b', 9, 3] ['b', 3, 3]
[[], ['b']] 4 ['b', 3, 3] [['b', 3, 3]]
[3, 4]
[['b', 3, 4]]
['b', 3, 4]
builtins.ZeroDivisionError True
A lambda
inner
'''


@pytest.mark.skipif(not hasattr(sys, 'orig_argv'), reason='Python 3.9 does not tell what was given by -c')
def test_functions_of_a_command_are_called():
    proc = subprocess.run([sys.executable, '-c', PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          cwd=os.path.dirname(__file__))
    assert proc.stdout == SAID


def test_a_program_on_standard_input_has_no_source():
    proc = subprocess.run(
        [sys.executable, '-'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        input='import mitogen\ndef f(): pass\nwith mitogen.connect() as host: host.call(f)\n')
    assert proc.returncode and 'there is no source that the context could be sent' in proc.stdout


def test_others_travel_by_their_names(host):
    for fn in os.getpid, print, mitogen._tree.typed.travelling, test_others_travel_by_their_names, str:
        assert mitogen._tree.typed.travelling(host, fn, (1,), {'a': 2}) == (fn, (1,), {'a': 2})
