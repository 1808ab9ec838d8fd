"""
The examples that need no other host do what they say.
"""

import os
import re
import subprocess
import sys

import pytest

import places

EXAMPLES = os.path.join(places.ROOT, 'examples')

pytestmark = pytest.mark.skipif(not os.path.exists(EXAMPLES), reason='needs the source tree')


def run(name):
    env = dict((key, value) for key, value in os.environ.items() if key != 'MITOGEN_LOG_LEVEL')
    proc = subprocess.run([sys.executable, os.path.join(EXAMPLES, name)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, timeout=60, env=env)
    assert proc.returncode == 0, proc.stdout
    assert 'Traceback' not in proc.stdout, proc.stdout
    assert not re.search(r'^\S+ [EC] ', proc.stdout, re.M), proc.stdout
    return proc.stdout


def test_ping_pong():
    text = run('ping_pong.py')
    hits = re.findall(r'ping_pong\.\[(ping|pong)\]: (\d+)$', text, re.M)
    assert [int(number) for _, number in hits] == list(range(31)), text
    assert [name for name, _ in hits] == ['ping', 'pong'] * 15 + ['ping']
    assert sorted(re.findall(r'hit (\d+) balls', text)) == ['15', '16']


def test_select_loop():
    text = run('select_loop.py')
    for number in range(5):
        assert re.findall(r'host-%d: update: step (\d)' % number, text) == ['0', '1', '2', '3', '4']
        assert len(re.findall(r'host-%d: completed: result of job %d$' % (number, number), text, re.M)) == 1
    assert text.splitlines()[-1].endswith('all done: 25 updates, 5 completions')


def test_the_basics():
    text = run('the_basics.py')
    for name in 'child', 'child.grandchild':
        assert '---- %s\n' % name in text
        assert '%s: success' % name in text
        assert 'hello from %s' % name in text
    for kind in 'small', 'large':
        rounds = re.findall(r'%s file: (\d+) bytes there, (\d+) bytes back' % kind, text)
        assert len(rounds) == 2
        assert all(there == back and int(there) > 0 for there, back in rounds)
    assert text.count('as expected') == 2


def test_service_self_contained():
    text = run('service_self_contained.py')
    for name in 'first', 'second':
        assert '%s has app.conf, motd' % name in text
    assert 'asked for a file 6 times' in text


def test_nested():
    text = run('nested.py')
    rows = re.findall(r'^( *)(\d+) is (\S+)$', text, re.M)
    assert [len(indent) for indent, _, _ in rows] == list(range(2, 22, 2))
    assert [name for _, _, name in rows] == ['.'.join(map(str, range(1, n))) for n in range(2, 12)]
    assert len(set(pid for _, pid, _ in rows)) == 10
    assert '1000 calls into the last one took' in text
