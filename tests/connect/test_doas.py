"""
doas(): the real one, from root to a throw-away user and, with a password, from that user to root.
"""

import os
import sys

import pytest

import mitogen.core
import mitogen.doas
import mitogen.parent
from mitogen.core import Secret, StreamError

import accounts
import pythons
import targets
import testlib

account = accounts.account


@pytest.fixture(scope='module')
def rules(account):
    accounts.need_program('doas', 'opendoas')
    accounts.change_doas_conf(['permit nopass root as ' + account.name, 'permit %s as root' % account.name])
    yield
    accounts.change_doas_conf([])


@pytest.fixture
def doas(account, rules):
    """
    A doas that is run by the user.
    """
    return account.as_user(accounts.need_program('doas', 'opendoas'))


def test_root_becomes_somebody_else(router, account, rules):
    child = router.doas(username=account.name, python_path=account.python)
    assert child.name == u'doas.' + account.name
    assert child.call(os.geteuid) == child.call(os.getuid) == account.uid
    assert child.call(targets.identity, b'\0\n\xff' * 9999) == b'\0\n\xff' * 9999


@pytest.mark.parametrize('kind', [str, Secret])
def test_the_password_is_typed(router, account, doas, kind):
    child = router.doas(doas_path=doas, password=kind(account.password), python_path=sys.executable)
    assert child.name == u'doas.root'
    assert child.call(os.geteuid) == 0
    child.shutdown(wait=True)


def test_the_password_is_nowhere_in_the_log(router, account, doas):
    with testlib.LogCapture('') as logs:
        router.doas(doas_path=doas, password=account.password).call(targets.identity, 1)
    assert len(logs.records) > 5
    assert not logs.find(account.password)


def test_a_wrong_password(router, doas):
    with pytest.raises(mitogen.doas.PasswordError) as caught:
        router.doas(doas_path=doas, password='wrong')
    assert caught.value.args[0] == 'doas password is incorrect'


def test_no_password(router, doas):
    with pytest.raises(mitogen.doas.PasswordError) as caught:
        router.doas(doas_path=doas)
    assert caught.value.args[0] == 'doas password is required'


def test_somebody_who_may_not(router, account, doas):
    with pytest.raises(mitogen.parent.EofError) as caught:
        router.doas(doas_path=doas, username='nobody', password=account.password)
    assert 'doas: ' in str(caught.value)


def test_a_child_of_another_context(router, account, doas):
    local = router.local(name='middle')
    child = router.doas(via=local, doas_path=doas, password=account.password, python_path=sys.executable)
    assert child.name == u'middle.doas.root'
    assert child.call(os.geteuid) == 0
    with pytest.raises(StreamError) as caught:
        router.doas(via=local, doas_path=doas)
    assert caught.value.args[0].endswith('doas password is required')


@pytest.mark.parametrize('version', ['python2.7', 'python3.6'])
def test_a_child_of_an_old_python(router, account, doas, version):
    middle = router.local(python_path=pythons.find_python(version))
    child = router.doas(via=middle, doas_path=doas, password=account.password, python_path=sys.executable)
    assert child.call(os.geteuid) == 0
