# SPDX-License-Identifier: BSD-3-Clause
"""
Ansible's strategy `host_pinned`, with Mitogen's connection plugins. For configurations that name
it; others need none.
"""

import mitogen.ansible.strategy

DOCUMENTATION = '''
name: mitogen_host_pinned
short_description: host_pinned, with Mitogen's connection plugins
description:
  - Works as C(ansible.builtin.host_pinned) does, and switches on the connection plugins of Mitogen. A configuration
    that names those itself needs no strategy.
author: the authors of Mitogen with its core in C
'''

StrategyModule = mitogen.ansible.strategy.derive('host_pinned')
