"""
At the master's terminal: Ctrl-C is for the master, and ends no child and no client of ssh.
"""

import os
import pty
import subprocess
import sys

import pytest

import mitogen.parent

import testlib

#: Makes its children, says so, and after Ctrl-C calls them again.
MASTER = '''
import fcntl, os, sys, termios, time
import mitogen.master

# Begins a session, whose terminal this is from now on.
fcntl.ioctl(0, termios.TIOCSCTTY)

def start(router):
    if sys.argv[1] == 'local':
        return router.local()
    if sys.argv[1] == 'fork':
        return router.fork()
    if sys.argv[1] == 'below':
        return router.local(via=router.local())
    return router.ssh(hostname='box', ssh_path=sys.argv[2], python_path=sys.executable)

with mitogen.master.Router() as router:
    child = start(router)
    call = child.call_async(time.sleep, 0.5)
    try:
        print('ready')
        sys.stdout.flush()
        while True:
            # Short, as an interrupt that comes just before a sleep does not end it.
            time.sleep(0.05)
    except KeyboardInterrupt:
        print('interrupted')
    call.get().unpickle()
    print('pids differ: %s' % (child.call(os.getpid) != os.getpid()))
    print('groups differ: %s' % (child.call(os.getpgid, 0) != os.getpgid(0)))
'''


def read_until(fd, word, text=b''):
    while word not in text:
        try:
            more = os.read(fd, 1000)
        except OSError:
            more = b''
        if not more:
            raise AssertionError('%r did not come, but %r' % (word, text))
        text += more
    return text


@pytest.mark.parametrize('method', ['local', 'fork', 'below', 'ssh'])
def test_an_interrupt_at_the_terminal_leaves_children_alone(tmp_path, method):
    ssh = tmp_path / 'ssh'
    ssh.write_text('#!/bin/sh\nwhile [ "$1" != box ]; do shift; done; shift\nsh -c "$*"\n')
    ssh.chmod(0o755)
    program = tmp_path / 'program.py'
    program.write_text(MASTER)
    fd, theirs = pty.openpty()
    proc = subprocess.Popen([sys.executable, str(program), method, str(ssh)], stdin=theirs, stdout=theirs,
                            stderr=theirs, start_new_session=True)
    os.close(theirs)
    try:
        text = read_until(fd, b'ready')
        os.write(fd, b'\x03')
        text = read_until(fd, b'groups differ: ', text)
        text = read_until(fd, b'\n', text[text.index(b'groups differ: '):])
        assert text.startswith(b'groups differ: True')
    finally:
        os.close(fd)
        proc.wait(testlib.patience())


def test_a_child_has_a_session_of_its_own_and_its_hook_runs_in_it():
    read, write = os.pipe()
    proc = mitogen.parent.create_child(
        [sys.executable, '-c', ''], preexec_fn=lambda: os.write(write, b'%d' % os.getsid(0)))
    assert os.read(read, 100) == b'%d' % proc.pid
    for fd in read, write:
        os.close(fd)
    proc.stdin.close()
    testlib.wait_for(lambda: proc.poll() is not None)
