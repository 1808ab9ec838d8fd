# SPDX-License-Identifier: BSD-3-Clause
"""
The folder in which we keep, from run to run, what takes long to find out: ``mitogen`` in Ansible's
home.
"""

from __future__ import absolute_import

import contextlib
import os


def home():
    """
    Return its path. Any process of Ansible's.
    """
    from ansible import constants
    from mitogen.ansible.values import plain
    return os.path.join(plain(str(constants.config.get_config_value('ANSIBLE_HOME'))), 'mitogen')


def write(path, data):
    """
    Write a file at once: a reader sees all of it, or what was there before.

    :raises OSError: it cannot be written.
    """
    with contextlib.suppress(FileExistsError):
        os.makedirs(os.path.dirname(path), 0o700)
    temporary = '%s.%d' % (path, os.getpid())
    with contextlib.suppress(FileNotFoundError):
        # A process of that number was killed.
        os.unlink(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, 'wb') as fp:
        fp.write(data)
    os.rename(temporary, path)
