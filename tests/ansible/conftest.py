import contextlib

import pytest

import accounts
import ansible_env
import playbooks


@pytest.fixture(scope='session')
def site():
    """
    An ssh server with two users, and an environment with Ansible.
    """
    accounts.need_root()
    try:
        env = ansible_env.Environment('ours').make()
    except ansible_env.EnvironmentError_ as error:
        pytest.fail('no environment with Ansible can be made: %s' % (error,), pytrace=False)
    with contextlib.ExitStack() as stack:
        yield playbooks.Site(env, stack)
