"""
The programs that people see first do what they say.
"""

import os
import pty
import re
import subprocess
import sys

import pytest

import mitogen.core

import places

DEMO = os.path.join(places.ROOT, 'examples', 'demo.py')

#: Of the standard library, enough for each context to have some.
FILES = 400
COMMAND = [sys.executable, DEMO, '--limit', str(FILES)]

pytestmark = pytest.mark.skipif(not os.path.exists(DEMO), reason='needs the source tree')


def check_demo(text):
    rows = re.findall(r'^ *((?:ash|elm)[.0-9]*) +(\d+) +(native|pure) +([0-9.]+) +(\d+) +(\d+)', text, re.M)
    assert len(rows) >= 8
    assert set(row[2] for row in rows) == set([mitogen.core.CORE])
    assert all(float(row[3]) > 0 for row in rows)
    done, total = re.search(r'(\d+) of (\d+) are indexed', text).groups()
    assert done == total
    assert int(total) == FILES
    assert sum(int(row[4]) for row in rows) == int(total)
    assert re.search(r'50 of 50 digests checked here are right', text)
    assert 'OrderedDict is defined in collections/__init__.py:' in text
    assert re.search(r'ChannelError: "%s: ' % re.escape(mitogen.core.Router.respondent_disconnect_msg), text)
    assert len(re.findall(r'demo_pkg\.index\.\[[a-z0-9.]+\]: process \d+ is ready, with code from master:', text)) == len(rows)
    assert 'Traceback' not in text


def test_the_demonstration_on_a_pipe():
    proc = subprocess.run(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=110)
    assert proc.returncode == 0, proc.stdout
    check_demo(proc.stdout)
    assert '\r' not in proc.stdout
    assert re.search(r'^100% ', proc.stdout, re.M)


@pytest.mark.once
def test_the_demonstration_on_a_terminal():
    master, slave = pty.openpty()
    proc = subprocess.Popen(COMMAND, stdout=slave, stderr=slave, stdin=slave)
    os.close(slave)
    output = b''
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:
            break
        if not data:
            break
        output += data
    os.close(master)
    text = output.decode().replace('\r\n', '\n')
    assert proc.wait(timeout=60) == 0, text
    assert re.search(r'\r\x1b\[K\[[#.]+\] \d+ of \d+ files', text)
    check_demo(re.sub(r'\r\x1b\[K', '\n', text))
