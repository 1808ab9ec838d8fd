"""
The packages of a notebook, from PyPI: ipykernel, and IPython, which it needs.
"""

import fcntl
import os
import subprocess
import sys

import pytest

import places


@pytest.fixture(scope='session')
def jupyter():
    """
    A folder of packages that has ipykernel and nothing of ours. It is kept, as it takes a while to
    install.
    """
    folder = os.path.join(places.ROOT, '.venv-jupyter', 'py%d.%d' % sys.version_info[:2])
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, 'lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(os.path.join(folder, 'made')):
            done = subprocess.run(
                [sys.executable, '-m', 'pip', 'install', '-q', '--disable-pip-version-check', '--upgrade', '-t',
                 os.path.join(folder, 'packages'), 'ipykernel'],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode and not os.environ.get('CI'):
                pytest.skip('ipykernel cannot be had from PyPI: ' + done.stdout[-500:])
            assert done.returncode == 0, done.stdout
            open(os.path.join(folder, 'made'), 'w').close()
    return os.path.join(folder, 'packages')
