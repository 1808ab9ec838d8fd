# SPDX-License-Identifier: BSD-3-Clause
"""
Ansible at full speed: connection plugins that work with one warm interpreter
for each user of a host. See docs/ansible.rst.
"""

from __future__ import absolute_import

import os


def plugin_path():
    """
    Return the folder to give to Ansible as ``connection_plugins``.
    """
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), 'plugins', 'connection')
