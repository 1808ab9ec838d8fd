"""
setns(): into namespaces that the tests make with unshare, found by programs that stand for the
containers' tools.
"""

import grp
import os
import pwd
import signal
import subprocess
import sys

import pytest

import mitogen.core
import mitogen.setns
from mitogen.core import StreamError

import accounts
import pythons
import targets
import testlib

account = accounts.account


class Container(object):
    """
    A process in namespaces of its own, with a file that is to be seen only from there.
    """

    def __init__(self, folder, *flags):
        unshare = accounts.need_namespaces()
        self.folder = folder
        script = 'read go; mount -t tmpfs none "$0"; touch "$0/inside"; echo ready; exec sleep 600'
        self.proc = subprocess.Popen(
            [unshare, '--mount', '--uts', '--fork'] + list(flags) + ['/bin/sh', '-c', script, folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = testlib.wait_for(self.find_leader)
        if '--user' in flags:
            for name in 'uid_map', 'gid_map':
                with open('/proc/%d/%s' % (self.pid, name), 'w') as fp:
                    fp.write('0 0 65536\n')
        self.proc.stdin.write(b'go\n')
        self.proc.stdin.close()
        assert self.proc.stdout.readline() == b'ready\n'

    def find_leader(self):
        with open('/proc/%d/task/%d/children' % (self.proc.pid, self.proc.pid)) as fp:
            pids = fp.read().split()
        return int(pids[0]) if pids else None

    def namespace(self, kind):
        return os.readlink('/proc/%d/ns/%s' % (self.pid, kind))

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        self.proc.wait()
        self.proc.stdout.close()


@pytest.fixture(scope='module')
def container(tmp_path_factory):
    accounts.need_root()
    container = Container(str(tmp_path_factory.mktemp('container')), '--ipc', '--net', '--pid', '--mount-proc')
    yield container
    container.close()


@pytest.fixture
def make_tool(tmp_path):
    """
    A function that makes a program which prints something, and writes its arguments to a file
    beside it.
    """
    def make(text):
        path = tmp_path / 'tool'
        path.write_text('#!/bin/sh\necho "$*" >%s/arguments\nprintf %%s "%s"\n' % (tmp_path, text))
        path.chmod(0o755)
        return str(path)
    return make


def test_a_child_in_a_container(router, container, make_tool):
    tool = make_tool('%d\n' % container.pid)
    child = router.setns(container='box', kind='docker', docker_path=tool, python_path=sys.executable)
    assert child.name == u'setns.box'
    for kind in 'ipc', 'uts', 'net', 'pid', 'mnt':
        assert child.call(os.readlink, '/proc/self/ns/' + kind) == container.namespace(kind)
    assert child.call(os.listdir, container.folder) == ['inside']
    assert os.listdir(container.folder) == []
    environ = child.call(targets.environ)
    assert (environ['USER'], environ['LOGNAME'], environ['HOME']) == ('root', 'root', pwd.getpwuid(0).pw_dir)
    child.shutdown(wait=True)


def test_another_user(router, container, account, make_tool):
    tool = make_tool(str(container.pid))
    child = router.setns(
        container='box', kind='docker', docker_path=tool, username=account.name, python_path=account.python)
    assert child.call(os.getresuid) == (account.uid,) * 3
    assert child.call(os.getresgid) == (account.gid,) * 3
    assert child.call(os.getgroups) == [grp.getgrnam('games').gr_gid]
    assert child.call(os.getcwd) == account.home
    environ = child.call(targets.environ)
    assert [environ[name] for name in ('USER', 'LOGNAME', 'HOME', 'SHELL')] == [
        account.name, account.name, account.home, '/bin/sh']


@pytest.mark.parametrize('kind, option, output, arguments', [
    ('docker', 'docker_path', '%d\n', 'inspect --format={{.State.Pid}} box'),
    ('lxc', 'lxc_info_path', 'Name: box\nState: RUNNING\nPID:  %d\n', '-n box'),
    ('lxd', 'lxc_path', 'Name: box\nPid: %d\nProcesses: 3\n', 'info box'),
    ('machinectl', 'machinectl_path', 'box(1)\n  Leader: %d (systemd)\n', 'status box'),
])
def test_each_kind_of_container(router, container, make_tool, tmp_path, kind, option, output, arguments):
    options = {option: make_tool(output % container.pid)}
    child = router.setns(container='box', kind=kind, python_path=sys.executable, **options)
    assert child.call(os.listdir, container.folder) == ['inside']
    assert (tmp_path / 'arguments').read_text() == arguments + '\n'


def test_a_container_with_users_of_its_own(router, make_tool, tmp_path):
    accounts.need_root()
    folder = tmp_path / 'folder'
    folder.mkdir()
    container = Container(str(folder), '--user')
    tool = make_tool(str(container.pid))
    try:
        child = router.setns(container='box', kind='docker', docker_path=tool, python_path=sys.executable)
        assert child.call(os.readlink, '/proc/self/ns/user') == container.namespace('user')
        assert child.call(os.listdir, container.folder) == ['inside']
        assert child.call(os.geteuid) == 0
        child.shutdown(wait=True)
    finally:
        container.close()


def test_beyond_another_context(router, container, make_tool):
    options = {'kind': 'docker', 'docker_path': make_tool(str(container.pid)), 'python_path': sys.executable}
    middle = router.local(name='middle')
    child = router.setns(via=middle, container='box', **options)
    assert child.name == u'middle.setns.box'
    assert child.call(os.listdir, container.folder) == ['inside']


@pytest.mark.parametrize('version', ['python2.7', 'python3.6'])
def test_beyond_an_old_python(router, container, make_tool, version):
    options = {'kind': 'docker', 'docker_path': make_tool(str(container.pid)), 'python_path': sys.executable}
    middle = router.local(python_path=pythons.find_python(version))
    assert router.setns(via=middle, container='box', **options).call(os.listdir, container.folder) == ['inside']
    with pytest.raises(StreamError) as caught:
        router.setns(via=middle, container='box', username=u'nob\xf6dy', **options)
    assert u'no user nob\xf6dy' in str(caught.value)


def test_a_network_that_has_a_name(router, make_tool):
    accounts.need_root()
    ip = accounts.need_program('ip', 'iproute2')
    accounts.need_namespaces()
    name = '%s%d' % (accounts.PREFIX, os.getpid())
    for line in subprocess.check_output([ip, 'netns', 'list']).decode().splitlines():
        if accounts.is_stale(line.split()[0]):
            accounts.run(ip, 'netns', 'del', line.split()[0])
    accounts.run(ip, 'netns', 'add', name)
    try:
        accounts.run(ip, '-n', name, 'address', 'add', '192.0.2.1/32', 'dev', 'lo')
        leader = subprocess.Popen([ip, 'netns', 'exec', name, 'sh', '-c', 'echo ready; exec sleep 600'],
                                  stdout=subprocess.PIPE)
        try:
            assert leader.stdout.readline() == b'ready\n'
            tool = make_tool(str(leader.pid))
            child = router.setns(container='box', kind='docker', docker_path=tool, python_path=sys.executable)
            shown = child.call(targets.call, 'subprocess', 'check_output', [ip, 'address'])
            assert b'192.0.2.1' in shown
            assert b'192.0.2.1' not in subprocess.check_output([ip, 'address'])
            assert child.call(os.readlink, '/proc/self/ns/net') == os.readlink('/proc/%d/ns/net' % leader.pid)
            assert child.call(os.readlink, '/proc/self/ns/pid') == os.readlink('/proc/self/ns/pid')
            child.shutdown(wait=True)
        finally:
            leader.kill()
            leader.wait()
            leader.stdout.close()
    finally:
        accounts.run(ip, 'netns', 'del', name)


# ---- failures

def test_an_unknown_kind(router):
    with pytest.raises(mitogen.setns.Error) as caught:
        router.setns(container='box', kind='zzz')
    assert 'zzz' in str(caught.value)


def test_a_tool_that_fails(router):
    with pytest.raises(mitogen.setns.Error) as caught:
        router.setns(container='box', kind='docker', docker_path='false')
    assert 'exited with return code 1' in str(caught.value)
    assert 'false inspect' in str(caught.value)


def test_a_tool_that_is_not_there(router):
    with pytest.raises(mitogen.setns.Error) as caught:
        router.setns(container='box', kind='docker', docker_path='/nothing/here')
    assert 'No such file or directory' in str(caught.value)


def test_a_tool_that_says_something_else(router):
    with pytest.raises(mitogen.setns.Error) as caught:
        router.setns(container='box', kind='docker', docker_path='echo')
    assert 'pid' in str(caught.value)
    assert 'inspect --format={{.State.Pid}} box' in str(caught.value)


def test_a_container_that_is_gone(router, make_tool):
    with pytest.raises(mitogen.setns.Error) as caught:
        # No process has a number that high.
        router.setns(container='box', kind='docker', docker_path=make_tool('2000000000'), python_path=sys.executable)
    assert isinstance(caught.value, subprocess.SubprocessError)
    assert 'No such file or directory' in str(caught.value)


def test_a_user_who_does_not_exist(router, container, make_tool):
    tool = make_tool(str(container.pid))
    with pytest.raises(mitogen.setns.Error) as caught:
        router.setns(container='box', kind='docker', docker_path=tool, username='nobody-of-that-name')
    assert isinstance(caught.value, subprocess.SubprocessError)
    assert 'no user nobody-of-that-name' in str(caught.value)


def test_no_python_there(router, container, make_tool):
    tool = make_tool(str(container.pid))
    with pytest.raises(mitogen.parent.EofError):
        router.setns(container='box', kind='docker', docker_path=tool, python_path='/nothing/here')
