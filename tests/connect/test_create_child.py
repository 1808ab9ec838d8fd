"""
Processes started over sockets, pipes and terminals.
"""

import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
from unittest import mock

import pytest

import mitogen
import mitogen.core
import mitogen.parent

from shells import finish, read_all, run_shell


STAT = r'''
import fcntl, os, stat, sys, termios
def kind(fd):
    mode = os.fstat(fd).st_mode
    for name in 'SOCK', 'FIFO', 'CHR':
        if getattr(stat, 'S_IS' + name)(mode):
            return name
acc = {os.O_RDONLY: 'r', os.O_WRONLY: 'w', os.O_RDWR: 'rw'}
facts = ['%s:%s' % (kind(fd), acc[fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE]) for fd in (0, 1, 2)]
facts.append(','.join(sorted(os.listdir('/proc/self/fd'))) if os.path.isdir('/proc/self/fd') else '?')
os.write(1, ' '.join(facts).encode() + b'\n')
'''


def stat_child(create, **kwargs):
    proc = create(args=[sys.executable, '-c', STAT], **kwargs)
    out = read_all(proc.stdout).decode().split()
    return proc, out


def test_a_child_talks_over_a_socket():
    proc, facts = stat_child(mitogen.parent.create_child)
    assert facts[:2] == ['SOCK:rw', 'SOCK:rw']
    assert proc.stdin is proc.stdout
    assert proc.stderr is None
    assert proc.pid == proc.proc.pid
    assert finish(proc) == 0


def test_a_child_inherits_nothing_else():
    rfd, wfd = os.pipe()
    try:
        os.set_inheritable(rfd, True)
        proc, facts = stat_child(mitogen.parent.create_child)
        # The fourth is the folder that is being listed.
        assert facts[3] in ('?', '0,1,2,3')
        assert finish(proc) == 0
    finally:
        os.close(rfd)
        os.close(wfd)


def test_merged_stdio_is_one_socket():
    proc, facts = stat_child(mitogen.parent.create_child, merge_stdio=True, stderr_pipe=True)
    assert facts[:3] == ['SOCK:rw'] * 3
    assert proc.stderr is None
    assert finish(proc) == 0


def test_stderr_may_be_a_pipe():
    proc, facts = stat_child(mitogen.parent.create_child, stderr_pipe=True)
    assert facts[:3] == ['SOCK:rw', 'SOCK:rw', 'FIFO:w']
    fd = proc.stderr.fileno()
    assert stat.S_ISFIFO(os.fstat(fd).st_mode)
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert finish(proc) == 0


def test_pipes_stand_in_where_sockets_are_taken_away(monkeypatch):
    monkeypatch.setattr(mitogen.parent, 'SELINUX_ENABLED', True)
    proc, facts = stat_child(mitogen.parent.create_child, escalates_privilege=True)
    assert facts[:2] == ['FIFO:r', 'FIFO:w']
    assert proc.stdin is not proc.stdout
    assert finish(proc) == 0


@pytest.mark.parametrize('create', ['create_child', 'tty_create_child', 'hybrid_tty_create_child'])
def test_a_program_that_cannot_run_leaves_nothing_open(create):
    with pytest.raises(OSError) as caught:
        getattr(mitogen.parent, create)(args=['/nonexistent/program'])
    assert caught.value.errno == errno.ENOENT


def test_the_hook_runs_before_the_function_of_the_caller(monkeypatch):
    def write(text):
        return lambda: os.write(1, text)

    monkeypatch.setattr(mitogen.parent, '_preexec_hook', write(b'hook '))
    proc = run_shell(mitogen.parent.create_child, 'echo child', preexec_fn=write(b'function '))
    assert read_all(proc.stdout) == b'hook function child\n'
    assert finish(proc) == 0


def test_nothing_runs_before_exec_unless_asked_for():
    with mock.patch('subprocess.Popen') as popen:
        mitogen.parent.popen(args=['true'])
    assert popen.call_args[1]['preexec_fn'] is None


def test_a_function_that_raises_before_exec_is_reported():
    def fail():
        raise ValueError('no')
    with pytest.raises(subprocess.SubprocessError):
        mitogen.parent.create_child(args=['/bin/true'], preexec_fn=fail)


def test_a_socketpair_has_the_size_and_mode_asked_for():
    for kwargs, blocking in (({}, True), ({'blocking': False}, False), ({'blocking': True}, True)):
        ends = mitogen.parent.create_socketpair(size=8192, **kwargs)
        for end in ends:
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) in (8192, 16384)
            assert mitogen.core.get_blocking(end.fileno()) is blocking
            end.close()


def test_one_socketpair_is_the_best_pipe():
    parent_r, child_w, child_r, parent_w = mitogen.parent.create_best_pipe()
    assert parent_r is parent_w and child_r is child_w
    parent_r.close()
    child_r.close()


def test_a_tty_child_has_a_raw_controlling_terminal():
    proc = run_shell(mitogen.parent.tty_create_child, 'read x; echo "$x"; echo hi > /dev/tty; test -t 0 -a -t 1 -a -t 2')
    assert proc.stdin is proc.stdout
    assert proc.stderr is None
    assert os.isatty(proc.stdin.fileno())
    os.write(proc.stdin.fileno(), b'typed\n')
    # Neither echoed, nor with a carriage return.
    assert read_all(proc.stdout) == b'typed\nhi\n'
    assert finish(proc) == 0


def test_a_hybrid_child_has_a_terminal_as_stderr_alone():
    proc, facts = stat_child(mitogen.parent.hybrid_tty_create_child)
    assert facts[:3] == ['SOCK:rw', 'SOCK:rw', 'CHR:rw']
    assert finish(proc) == 0
    proc = run_shell(mitogen.parent.hybrid_tty_create_child, 'echo hi > /dev/tty; echo out')
    assert read_all(proc.stderr) == b'hi\n'
    assert read_all(proc.stdout) == b'out\n'
    assert finish(proc) == 0


@pytest.mark.parametrize('create', ['tty_create_child', 'hybrid_tty_create_child'])
def test_a_child_ends_with_its_terminal_even_under_nohup(create):
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        proc = getattr(mitogen.parent, create)(args=['sleep', '600'])
    finally:
        signal.signal(signal.SIGHUP, old)
    for fp in set([proc.stdin, proc.stdout, proc.stderr]) - set([None]):
        fp.close()
    try:
        assert proc.proc.wait(timeout=60) == -signal.SIGHUP
    finally:
        proc.proc.kill()
        proc.proc.wait()


def test_raw_mode_does_not_echo():
    master, slave = mitogen.parent.openpty()
    try:
        os.write(master.fileno(), b'in\n')
        assert os.read(slave.fileno(), 10) == b'in\n'
        os.write(slave.fileno(), b'out\n')
        assert os.read(master.fileno(), 10) == b'out\n'
        assert mitogen.core.get_blocking(slave.fileno())
    finally:
        master.close()
        slave.close()


def test_the_lack_of_a_pty_is_explained():
    error = OSError(errno.ENXIO, 'none left')
    with mock.patch('os.openpty', side_effect=error):
        with pytest.raises(mitogen.core.StreamError) as caught:
            mitogen.parent.openpty()
    assert caught.value.args[0] == mitogen.parent.OPENPTY_MSG % (error,)
    assert 'kern.tty.ptmx_max' in caught.value.args[0] and 'kernel.pty.max' in caught.value.args[0]


@pytest.mark.skipif(not mitogen.parent.IS_LINUX, reason='about Linux')
def test_a_wrongly_mounted_devpts_is_worked_around():
    with mock.patch('os.openpty', side_effect=OSError(errno.EPERM, 'no')):
        master, slave = mitogen.parent.openpty()
    try:
        assert os.major(os.fstat(master.fileno()).st_rdev) == 5
        assert os.major(os.fstat(slave.fileno()).st_rdev) == 136
        os.write(master.fileno(), b'in\n')
        assert os.read(slave.fileno(), 10) == b'in\n'
    finally:
        master.close()
        slave.close()
