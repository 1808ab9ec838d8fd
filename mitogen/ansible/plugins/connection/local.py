# SPDX-License-Identifier: BSD-3-Clause
"""
Takes the place of Ansible's connection plugin `local`.
"""

import mitogen.ansible.builtin
import mitogen.ansible.connection
import mitogen.ansible.warm

# Read from this text by ansible-doc, which runs nothing.
DOCUMENTATION = '''
name: local
short_description: the controller itself, with one warm interpreter for each user
description:
  - Works as C(ansible.builtin.local) does, with its options. Modules run in forks of an interpreter that stays.
author: the authors of Mitogen with its core in C
extends_documentation_fragment:
  - mitogen.fast.local
'''

builtin = mitogen.ansible.builtin.load('local')
# Ansible itself reads the options here.
globals().update(DOCUMENTATION=builtin.DOCUMENTATION)


class Connection(mitogen.ansible.connection.LocalMixin, builtin.Connection):
    pass


mitogen.ansible.warm.warm()
