# SPDX-License-Identifier: BSD-3-Clause
"""
For configurations that name a strategy of upstream's: Ansible's own strategies, which switch our connection plugins
on.
"""

from __future__ import absolute_import

import sys

from ansible import constants
from ansible.plugins.loader import connection_loader, strategy_loader

import mitogen.ansible


def derive(name):
    """
    Return a class that is the strategy `name` of Ansible's, with our connection plugins.
    """
    base = strategy_loader.get(name, class_only=True)
    if base is None:
        raise ImportError('this Ansible has no strategy %r' % (name,))

    class StrategyModule(base):
        def run(self, *args, **kwargs):
            switch_on()
            return base.run(self, *args, **kwargs)

    return StrategyModule


def switch_on():
    """
    Have the names `ssh` and `local` mean our plugins from now on.
    """
    path = mitogen.ansible.plugin_path()
    if path not in (constants.DEFAULT_CONNECTION_PLUGIN_PATH or ()):
        connection_loader.add_directory(path)
        for name in 'ssh', 'local':
            # Ansible has loaded its own of that name, and would go on with it.
            sys.modules.pop('ansible.plugins.connection.' + name, None)
            connection_loader.get(name, class_only=True)
