"""
sudo(): the real one, from root to a throw-away user and, with a password, from that user to root.
"""

import os
import sys

import pytest

import mitogen
import mitogen.core
import mitogen.parent
import mitogen.sudo
from mitogen.core import Secret, StreamError

import accounts
import pythons
import targets
import testlib

account = accounts.account


@pytest.fixture
def sudo(account):
    """
    A sudo that is run by the user.
    """
    path = accounts.need_program('sudo', 'sudo')
    with accounts.sudoers('Defaults:{0} timestamp_timeout=0\n{0} ALL=(root) ALL\n'.format(account.name)):
        yield account.as_user(path)


@pytest.fixture(autouse=True)
def sudo_is_there():
    accounts.need_root()
    accounts.need_program('sudo', 'sudo')


def test_root_becomes_somebody_else(router, account):
    child = router.sudo(username=account.name, python_path=account.python)
    assert child.name == u'sudo.' + account.name
    assert child.call(os.geteuid) == child.call(os.getuid) == account.uid
    assert child.call(targets.identity, b'\0\n\xff' * 9999) == b'\0\n\xff' * 9999


def test_the_environment_is_that_of_a_login(router, account):
    child = router.sudo(username=account.name, python_path=account.python, login=True)
    assert child.call(targets.environ, 'HOME') == account.home
    assert child.call(targets.environ, 'USER') == account.name


def test_the_environment_is_kept_on_request(router, account, monkeypatch):
    monkeypatch.setenv('MITOGEN_TEST_KEPT', 'yes')
    options = {'username': account.name, 'python_path': account.python}
    assert 'MITOGEN_TEST_KEPT' not in router.sudo(**options).call(targets.environ)
    assert router.sudo(sudo_args=['-E'], **options).call(targets.environ, 'MITOGEN_TEST_KEPT') == 'yes'


def test_home_is_set_on_request(router, account):
    child = router.sudo(username=account.name, python_path=account.python, preserve_env=True, set_home=True)
    assert child.call(targets.environ, 'HOME') == account.home


@pytest.mark.parametrize('kind', [str, Secret])
def test_the_password_is_typed(router, account, sudo, kind):
    child = router.sudo(sudo_path=sudo, password=kind(account.password), python_path=sys.executable)
    assert child.name == u'sudo.root'
    assert child.call(os.geteuid) == 0
    child.shutdown(wait=True)


def test_a_host_of_a_tree_has_a_function_asked_for_the_password(account, sudo):
    asked = []
    with mitogen.connect('local:') as host:
        root = host.sudo(password=lambda: asked.append(1) or account.password, sudo_path=sudo,
                         python_path=sys.executable)
        assert (root.call(os.geteuid), asked, root.via) == (0, [1], host)


def test_asterisks_for_what_is_typed(router, account):
    path = account.as_user(accounts.need_program('sudo', 'sudo'))
    with accounts.sudoers('Defaults:{0} timestamp_timeout=0, pwfeedback\n{0} ALL=(root) ALL\n'.format(account.name)):
        child = router.sudo(sudo_path=path, password=account.password)
        assert child.call(os.geteuid) == 0


def test_the_password_is_nowhere_in_the_log(router, account, sudo):
    with testlib.LogCapture('') as logs:
        child = router.sudo(sudo_path=sudo, password=account.password)
        child.call(targets.identity, 1)
        options = {'sudo_path': sudo, 'password': account.password, 'python_path': sys.executable}
        router.sudo(via=router.local(), **options).call(targets.identity, 1)
        logs.wait('typing the password', name='mitogen.parent')
        child.shutdown(wait=True)
    assert len([r for r in logs.records if 'typing the password' in r.getMessage()]) == 2
    assert not logs.find(account.password)


def test_a_wrong_password(router, account, sudo):
    with pytest.raises(mitogen.sudo.PasswordError) as caught:
        router.sudo(sudo_path=sudo, password='wrong')
    assert caught.value.args[0] == mitogen.sudo.password_incorrect_msg


def test_no_password(router, sudo):
    with pytest.raises(mitogen.sudo.PasswordError) as caught:
        router.sudo(sudo_path=sudo)
    assert caught.value.args[0] == mitogen.sudo.password_required_msg


def test_a_wrong_password_one_time_only(router, account):
    # sudo ends before it asks again.
    path = account.as_user(accounts.need_program('sudo', 'sudo'))
    rules = 'Defaults:{0} timestamp_timeout=0, passwd_tries=1\n{0} ALL=(root) ALL\n'.format(account.name)
    with accounts.sudoers(rules), pytest.raises(mitogen.sudo.PasswordError) as caught:
        router.sudo(sudo_path=path, password='wrong')
    assert caught.value.args[0] == mitogen.sudo.password_incorrect_msg


def test_somebody_who_does_not_exist(router):
    with pytest.raises(mitogen.parent.EofError) as caught:
        router.sudo(username='mitogen-nobody-of-that-name')
    assert 'mitogen-nobody-of-that-name' in str(caught.value)


def test_a_child_of_another_context(router, account, sudo):
    local = router.local(name='middle')
    child = router.sudo(via=local, sudo_path=sudo, password=account.password, python_path=sys.executable)
    assert child.name == u'middle.sudo.root'
    assert child.call(os.geteuid) == 0
    with pytest.raises(mitogen.sudo.PasswordError) as caught:
        router.sudo(via=local, sudo_path=sudo)
    assert str(caught.value).startswith('error occurred on host ')
    assert caught.value.args[0].endswith('sudo password is required')


def test_there_and_back(router, account, sudo):
    # As a play does that becomes one user to become another.
    user = router.sudo(username=account.name, python_path=account.python)
    path = accounts.need_program('sudo', 'sudo')
    root = router.sudo(via=user, sudo_path=path, password=account.password, python_path=account.python)
    assert root.call(os.geteuid) == 0
    assert user.call(os.geteuid) == account.uid


def test_bad_flags(router):
    with pytest.raises(StreamError) as caught:
        router.sudo(sudo_args=['--derps'])
    assert str(caught.value) == 'sudo: no such option: --derps'


@pytest.mark.parametrize('version', ['python2.7', 'python3.6'])
def test_a_child_of_an_old_python(router, account, sudo, version):
    middle = router.local(python_path=pythons.find_python(version))
    child = router.sudo(via=middle, sudo_path=sudo, password=account.password, python_path=sys.executable)
    assert child.call(os.geteuid) == 0


# ---- settings that one meets

@pytest.mark.parametrize('setting', [
    'use_pty', '!use_pty', 'requiretty', 'requiretty, !use_pty', 'pwfeedback, use_pty', 'lecture=always',
    'passprompt_override', 'log_input, log_output, iolog_dir={folder}', 'visiblepw', 'targetpw',
    'badpass_message="no such luck"'])
@pytest.mark.parametrize('asks', [True, False])
def test_settings_of_sudo(router, account, setting, asks):
    path = account.as_user(accounts.need_program('sudo', 'sudo'))
    if setting == 'targetpw':
        # The target is the same user: the only other one whose password is known.
        rule, options = '{0} ALL=({0}) ALL', {'username': account.name}
    else:
        rule, options = '{0} ALL=(root) ALL', {}
    if not asks:
        rule = rule.replace(') ALL', ') NOPASSWD: ALL')
    rules = ('Defaults:{0} timestamp_timeout=0, ' + setting + '\n' + rule + '\n').format(
        account.name, folder=account.folder)
    with accounts.sudoers(rules):
        child = router.sudo(
            sudo_path=path, password=account.password if asks else None, python_path=account.python, **options)
        data = bytes(bytearray(range(256))) * 3000
        assert child.call(targets.identity, data) == data
        assert child.call(os.geteuid) == (account.uid if setting == 'targetpw' else 0)
        child.shutdown(wait=True)
        # sudo takes its time to say so.
        if asks and ('pwfeedback' in setting or 'message' in setting):
            with pytest.raises(mitogen.sudo.PasswordError) as caught:
                router.sudo(sudo_path=path, password='wrong', python_path=account.python)
            assert caught.value.args[0] == mitogen.sudo.password_incorrect_msg


def test_a_password_is_typed_once(router, account, sudo, tmp_path):
    # A terminal in between shows all that the real tool gets to read.
    log = tmp_path / 'typed'
    path = account.script('watched-sudo', 'exec {python} {folder}/watch.py {log} {sudo} "$@"\n'.format(
        python=sys.executable, folder=account.folder, log=log, sudo=sudo))
    with open(os.path.join(account.folder, 'watch.py'), 'w') as fp:
        fp.write(WATCH)
    with pytest.raises(mitogen.sudo.PasswordError):
        router.sudo(sudo_path=path, password='wrong')
    assert log.read_bytes() == b'wrong\n'


#: Runs a program on a terminal of its own, and writes what is typed on ours to a file.
WATCH = '''
import os, pty, select, sys, termios, tty
pid, master = pty.fork()
if not pid:
    os.execv(sys.argv[2], sys.argv[2:])
tty.setraw(2)
with open(sys.argv[1], 'wb', 0) as log:
    while True:
        ready = select.select([2, master], [], [])[0]
        for fd in ready:
            try:
                data = os.read(fd, 4096)
            except OSError:
                data = b''
            if not data:
                sys.exit()
            if fd == 2:
                log.write(data)
                os.write(master, data)
            else:
                os.write(2, data)
'''


def test_one_user_becomes_another_by_the_rules(router, account):
    # Not root at either end.
    path = account.as_user(accounts.need_program('sudo', 'sudo'))
    with accounts.sudoers('Defaults:{0} timestamp_timeout=0\n{0} ALL=(games) ALL\n'.format(account.name)):
        child = router.sudo(sudo_path=path, username='games', password=account.password, python_path=account.python)
        assert child.name == u'sudo.games'
        assert child.call(targets.environ, 'SUDO_USER') == account.name
        with pytest.raises(mitogen.parent.EofError) as caught:
            router.sudo(sudo_path=path, password=account.password, python_path=account.python)
    assert 'is not allowed to execute' in str(caught.value)
    assert 'Hint: the configuration of the tool does not let this user' in str(caught.value)


def test_somebody_who_may_nothing(router, account):
    path = account.as_user(accounts.need_program('sudo', 'sudo'))
    with pytest.raises(mitogen.parent.EofError) as caught:
        router.sudo(sudo_path=path, password=account.password, python_path=account.python)
    assert 'not in the sudoers file' in str(caught.value)


def test_variables_are_kept_by_the_rules(router, account, monkeypatch):
    monkeypatch.setenv('MITOGEN_TEST_ONE', '1')
    monkeypatch.setenv('MITOGEN_TEST_TWO', '2')
    rules = 'Defaults:{0} timestamp_timeout=0, env_keep+=MITOGEN_TEST_ONE\n{0} ALL=(root) {1}ALL\n'
    path = account.as_user(accounts.need_program('sudo', 'sudo'))
    options = {'sudo_path': path, 'password': account.password, 'python_path': account.python}
    with accounts.sudoers(rules.format(account.name, '')):
        seen = router.sudo(**options).call(targets.environ)
        assert ('MITOGEN_TEST_ONE' in seen, 'MITOGEN_TEST_TWO' in seen) == (True, False)
    with accounts.sudoers(rules.format(account.name, 'SETENV: ')):
        seen = router.sudo(preserve_env=True, **options).call(targets.environ)
        assert ('MITOGEN_TEST_ONE' in seen, 'MITOGEN_TEST_TWO' in seen) == (True, True)


def test_a_child_is_shut_down_while_sudo_waits(router, account, sudo):
    child = router.sudo(sudo_path=sudo, password=account.password, python_path=account.python)
    proc = router.stream_by_id(child.context_id).conn.proc
    gone = mitogen.core.Latch()
    mitogen.core.listen(proc, 'exit', gone.put)
    receiver = child.call_async(targets.sleep, 600)
    child.shutdown(wait=True)
    with pytest.raises(mitogen.core.ChannelError):
        receiver.get(timeout=60)
    gone.get(timeout=60)
