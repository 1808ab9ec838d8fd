"""
su(): the real one, from root to a throw-away user and, with a password, from nobody to that user.
"""

import os

import pytest

import mitogen.core
import mitogen.su
from mitogen.core import Secret, StreamError

import accounts
import pythons
import targets
import testlib

account = accounts.account

#: As whom su is run where it is to ask. The number needs no entry in the user database.
NOBODY = 65534


@pytest.fixture
def su(account):
    """
    Options for a su that asks.
    """
    path = account.as_user(accounts.need_program('su', 'util-linux'), NOBODY)
    return {'su_path': path, 'username': account.name, 'python_path': account.python}


def test_root_becomes_somebody_else(router, account):
    child = router.su(username=account.name, python_path=account.python)
    assert child.name == u'su.' + account.name
    assert child.call(os.geteuid) == child.call(os.getuid) == account.uid


@pytest.mark.parametrize('kind', [str, Secret])
def test_the_password_is_typed(router, account, su, kind):
    child = router.su(password=kind(account.password), **su)
    assert child.call(os.geteuid) == account.uid
    child.shutdown(wait=True)


def test_all_bytes_pass_the_terminal(router, account, su):
    child = router.su(password=account.password, **su)
    data = bytes(bytearray(range(256))) * 2000
    assert child.call(targets.identity, data) == data


def test_the_password_is_nowhere_in_the_log(router, account, su):
    with testlib.LogCapture('') as logs:
        router.su(password=account.password, **su).call(targets.identity, 1)
    assert len(logs.records) > 5
    assert not logs.find(account.password)


def test_a_wrong_password(router, su):
    with pytest.raises(mitogen.su.PasswordError) as caught:
        router.su(password='wrong', **su)
    assert caught.value.args[0] == 'su password is incorrect'


def test_no_password(router, su):
    with pytest.raises(mitogen.su.PasswordError) as caught:
        router.su(**su)
    assert caught.value.args[0] == 'su password is required'


def test_a_child_of_another_context(router, account, su):
    local = router.local(name='middle')
    child = router.su(via=local, password=account.password, **su)
    assert child.name == u'middle.su.' + account.name
    assert child.call(os.geteuid) == account.uid
    with pytest.raises(StreamError) as caught:
        router.su(via=local, **su)
    assert caught.value.args[0].endswith('su password is required')


def test_a_refusal_in_two_pieces(router, tmp_path):
    path = tmp_path / 'su'
    path.write_text('#!/bin/sh\nprintf "su: "\nsleep 0.3\necho "incorrect password"\nexec sleep 60\n')
    path.chmod(0o755)
    with pytest.raises(mitogen.su.PasswordError):
        router.su(su_path=str(path), password='p')


def test_a_prompt_that_comes_letter_by_letter(router, tmp_path):
    path = tmp_path / 'su'
    path.write_text(
        '#!/bin/sh\nfor c in P a s s w o r d : " "; do printf "%s" "$c"; sleep 0.01; done\n'
        'read answer\nprintf "\\r\\n"\n[ "$answer" = right ] || { echo "su: Sorry"; exit 1; }\n'
        'shift 2\nexec sh -c "$1"\n')
    path.chmod(0o755)
    assert router.su(su_path=str(path), password='right').call(targets.identity, 1) == 1


@pytest.mark.parametrize('version', ['python2.7', 'python3.6'])
def test_a_child_of_an_old_python(router, account, su, version):
    middle = router.local(python_path=pythons.find_python(version))
    child = router.su(via=middle, password=account.password, **su)
    assert child.call(os.geteuid) == account.uid
