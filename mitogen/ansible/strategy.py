# SPDX-License-Identifier: BSD-3-Clause
"""
For configurations that name a strategy of upstream's: Ansible's own strategies, which switch our
connection plugins on.
"""

from __future__ import absolute_import

import sys

from ansible import constants
from ansible.plugins.loader import connection_loader, strategy_loader
from ansible.utils.display import Display

import mitogen.ansible

#: Variables of upstream's strategies, and how their users get the same here. The others need no
#: substitute.
INSTEAD = {
    'mitogen_via': 'give ansible_ssh_common_args a ProxyJump, and use become and delegate_to',
    'mitogen_kind': 'use the connection plugin of that kind of container',
    'mitogen_ssh_compression': 'add "-o Compression=yes" to ansible_ssh_common_args',
    'mitogen_ssh_keepalive_interval': 'add "-o ServerAliveInterval=..." to ansible_ssh_common_args',
    'mitogen_ssh_keepalive_count': 'add "-o ServerAliveCountMax=..." to ansible_ssh_common_args',
    'mitogen_ssh_debug_level': 'use ansible_ssh_verbosity',
    'mitogen_task_isolation': 'each task has a process of its own',
}

DISPLAY = Display()

_answered = set()


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
            answer_variables(self, *args)
            return base.run(self, *args, **kwargs)

    return StrategyModule


def answer_variables(strategy, iterator, *args):
    """
    Warn, once for each name, of variables that only upstream's strategies obey.
    """
    try:
        names = variables(strategy._inventory, strategy._variable_manager, iterator._play)
    except Exception as error:
        # This Ansible has other names for these parts of it.
        return DISPLAY.vvv('mitogen: no look at variables: %s' % (error,))
    for name in sorted(name for name in names if name.startswith('mitogen_')):
        if name not in _answered:
            _answered.add(name)
            DISPLAY.warning('mitogen: the variable %s has no effect; %s' % (name, INSTEAD.get(name, 'it is not needed')))


def variables(inventory, manager, play):
    """
    Return the names of the variables that the hosts of a play have. Hosts with the same groups are
    taken to have the same ones, besides those of the inventory.
    """
    found, seen = set(), set()
    for host in inventory.get_hosts(play.hosts):
        found.update(host.vars)
        groups = frozenset(group.name for group in host.get_groups())
        if groups not in seen:
            seen.add(groups)
            found.update(manager.get_vars(play=play, host=host, include_hostvars=False))
    return found


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
