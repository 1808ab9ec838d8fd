# SPDX-License-Identifier: BSD-3-Clause
"""
Ansible's strategy `linear`, with Mitogen's connection plugins. For configurations that name it;
others need none.
"""

import mitogen.ansible.strategy

DOCUMENTATION = '''
name: mitogen
short_description: linear, with Mitogen's connection plugins
description:
  - Works as C(ansible.builtin.linear) does, and switches on the connection plugins of Mitogen. A configuration that
    names those itself needs no strategy.
author: the authors of Mitogen with its core in C
'''

StrategyModule = mitogen.ansible.strategy.derive('linear')
