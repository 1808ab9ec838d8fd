"""
Several connection methods one behind another with via=, by the real tools.
"""

import os
import re
import signal

import pytest

import mitogen.core
from mitogen.core import ChannelError, Latch, StreamError

import accounts
import places
import pythons
import sshd
import targets
import testlib

#: Fixtures.
account = accounts.account
running_server, server, ssh = sshd.running_server, sshd.server, sshd.ssh

DATA = bytes(bytearray(range(256))) * 4000

#: As whom su is run where it is to ask. The number needs no entry in the user database.
NOBODY = 65534


@pytest.fixture
def sudo(account):
    """
    Options of a sudo that asks every user for a password.
    """
    accounts.need_root()
    path = accounts.need_program('sudo', 'sudo')
    with accounts.sudoers('Defaults:{0} timestamp_timeout=0\n{0} ALL=(root) ALL\n'.format(account.name)):
        yield {'sudo_path': path, 'password': account.password, 'python_path': account.python}


def check(child, uid, parent=None):
    assert child.call(os.geteuid) == uid
    assert child.call(targets.identity, DATA) == DATA
    if parent is not None:
        assert child.name.startswith(parent.name + '.')
        assert child.via is parent


def test_ssh_sudo_local(router, server, ssh, sudo):
    first = ssh(password=server.account.password)
    second = router.sudo(via=first, **sudo)
    third = router.local(via=second, python_path=server.account.python)
    check(first, server.account.uid)
    check(second, 0, first)
    check(third, 0, second)
    assert second.name == first.name + '.sudo.root'
    # The process of sudo lies between, maybe twice.
    assert third.call(os.getppid) == second.call(os.getpid)
    assert third.call(targets.environ, 'SUDO_USER') == server.account.name


def test_sudo_there_and_back_over_ssh(router, server, ssh, sudo):
    root = router.sudo(via=ssh(), **sudo)
    back = router.sudo(via=root, username=server.account.name, python_path=server.account.python)
    again = router.sudo(via=back, **sudo)
    check(back, server.account.uid, root)
    check(again, 0, back)


def test_ssh_in_ssh(router, server, ssh):
    first = ssh()
    # The key file is not for the user, so the second is by password.
    options = server.options(password=server.account.password, check_host_keys='ignore')
    second = router.ssh(via=first, **options)
    check(second, server.account.uid, first)
    with pytest.raises(StreamError) as caught:
        router.ssh(via=second, **dict(options, password='wrong'))
    assert re.match('error occurred on host [^:]+: SSH password is incorrect$', caught.value.args[0])
    assert 'Context' in str(caught.value) and 'Permission denied' in str(caught.value)
    check(second, server.account.uid, first)


def test_su_by_way_of_sudo(router, server, ssh, sudo):
    root = router.sudo(via=ssh(), **sudo)
    user = router.su(via=root, username=server.account.name, python_path=server.account.python)
    check(user, server.account.uid, root)


def test_su_that_asks_by_way_of_sudo(router, account, sudo):
    # root -> the user -> root -> nobody -> the user, of whom the password is known.
    first = router.sudo(username=account.name, python_path=account.python)
    second = router.sudo(via=first, **sudo)
    su = account.as_user(accounts.need_program('su', 'util-linux'), NOBODY)
    options = {'su_path': su, 'username': account.name, 'python_path': account.python}
    third = router.su(via=second, password=account.password, **options)
    check(third, account.uid, second)
    with pytest.raises(StreamError) as caught:
        router.su(via=second, password='wrong', **options)
    assert caught.value.args[0].endswith(': su password is incorrect')


def test_doas_over_ssh(router, server, ssh):
    accounts.need_program('doas', 'opendoas')
    accounts.change_doas_conf(['permit %s as root' % server.account.name])
    try:
        first = ssh()
        second = router.doas(via=first, password=server.account.password, python_path=server.account.python)
        check(second, 0, first)
        with pytest.raises(StreamError) as caught:
            router.doas(via=first, password='wrong', python_path=server.account.python)
        assert caught.value.args[0].endswith(': doas password is incorrect')
    finally:
        accounts.change_doas_conf([])


def test_containers_behind_ssh_and_sudo(router, server, ssh, sudo):
    root = router.sudo(via=ssh(), **sudo)
    for tool, method, options in [
        ('docker', 'docker', {'container': 'box', 'username': 'ann'}),
        ('podman', 'podman', {'container': 'box'}),
        ('buildah', 'buildah', {'container': 'box'}),
        ('kubectl', 'kubectl', {'pod': 'box'}),
        ('lxc-attach', 'lxc', {'container': 'box'}),
        ('lxc', 'lxd', {'container': 'box'}),
        ('incus', 'incus', {'container': 'box'}),
        ('jexec', 'jail', {'container': 'box'}),
    ]:
        keyword = {'lxc-attach': 'lxc_attach_path'}.get(tool, tool + '_path')
        options = dict(options, python_path=server.account.python, **{keyword: os.path.join(places.STUBS, tool)})
        child = getattr(router, method)(via=root, **options)
        assert child.call(targets.environ, 'STUB_TOOL') == tool
        check(child, 0, root)
        # A further hop from there.
        inner = router.local(via=child, python_path=server.account.python)
        check(inner, 0, child)


def test_setns_behind_ssh_and_sudo(router, server, ssh, sudo, tmp_path):
    # The namespaces are those of our own process: only the way there is tested.
    root = router.sudo(via=ssh(), **sudo)
    tool = server.account.script('inspect', 'echo %d\n' % os.getpid())
    child = router.setns(via=root, container='box', kind='docker', docker_path=tool, username=server.account.name,
                         python_path=server.account.python)
    check(child, server.account.uid, root)


@pytest.mark.parametrize('version', ['python2.7', 'python3.6'])
def test_a_chain_of_several_pythons(router, server, ssh, sudo, version):
    first = router.local(python_path=pythons.find_python(version))
    second = router.ssh(via=first, **server.options(password=server.account.password))
    third = router.sudo(via=second, **sudo)
    fourth = router.local(via=third, python_path=pythons.find_python(version))
    check(third, 0, second)
    check(fourth, 0, third)
    number = fourth.call(targets.sys_attribute, 'hexversion') >> 16
    assert 'python%d.%d' % (number >> 8, number & 255) == version


@pytest.mark.parametrize('password, expected', [
    ('wrong', 'sudo password is incorrect'), (None, 'sudo password is required')])
def test_a_password_that_is_wrong_far_away(router, server, ssh, sudo, password, expected):
    first = ssh()
    with testlib.LogCapture('') as logs, pytest.raises(StreamError) as caught:
        router.sudo(via=first, **dict(sudo, password=password))
    assert re.match('error occurred on host [^:]+: %s$' % expected, caught.value.args[0])
    text = str(caught.value)
    for word in '(sudo.root): ', 'Times: ', 'Hint: ', 'Command was: ' + sudo['sudo_path']:
        assert word in text
    if password:
        assert password not in text.replace('the password is not right', '')
        assert not [r for r in logs.records if "'wrong'" in r.getMessage()]
    check(router.sudo(via=first, **sudo), 0, first)


def test_each_context_of_a_chain_is_lost_with_its_way(router, server, ssh, sudo):
    first = ssh()
    second = router.sudo(via=first, **sudo)
    third = router.local(via=second, python_path=server.account.python)
    gone = [Latch() for _ in range(3)]
    for context, latch in zip((first, second, third), gone):
        mitogen.core.listen(context, 'disconnect', latch.put)
    receiver = third.call_async(targets.sleep, 600)
    testlib.wait_for(lambda: sshd.children_of(server.proc.pid))
    pids = [context.call(os.getpid) for context in (first, second)]
    server.cut()
    with pytest.raises(ChannelError):
        receiver.get(timeout=60)
    for latch in gone:
        latch.get(timeout=60)
    for pid in pids:
        testlib.wait_for(lambda: not testlib.is_running(pid), what='a context without parent ends')
    check(ssh(), server.account.uid)


def test_a_chain_is_shut_down_from_its_end(router, server, ssh, sudo):
    first = ssh()
    second = router.sudo(via=first, **sudo)
    third = router.local(via=second, python_path=server.account.python)
    pids = [context.call(os.getpid) for context in (third, second, first)]
    for context, pid in zip((third, second, first), pids):
        context.shutdown(wait=True)
        testlib.wait_for(lambda: not testlib.is_running(pid))


def test_a_target_that_dies_in_the_middle_of_a_chain(router, server, ssh, sudo):
    first = ssh()
    second = router.sudo(via=first, **sudo)
    pid = second.call(os.getpid)
    receiver = second.call_async(targets.sleep, 600)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ChannelError):
        receiver.get(timeout=60)
    check(router.sudo(via=first, **sudo), 0, first)
