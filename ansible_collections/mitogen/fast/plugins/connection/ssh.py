# SPDX-License-Identifier: BSD-3-Clause
"""
Connection plugin `mitogen.fast.ssh`: Ansible's own `ssh`, at full speed.
"""

import mitogen.ansible.builtin
import mitogen.ansible.connection
import mitogen.ansible.warm

# Read from this text by ansible-doc, which runs nothing.
DOCUMENTATION = '''
name: ssh
short_description: ssh, with one warm interpreter for each user of a host
description:
  - Works as C(ansible.builtin.ssh) does, with its options. Modules run in forks of an interpreter that stays.
author: the authors of Mitogen with its core in C
extends_documentation_fragment:
  - mitogen.fast.ssh
'''

builtin = mitogen.ansible.builtin.load('ssh')
# Ansible itself reads the options here.
globals().update(DOCUMENTATION=builtin.DOCUMENTATION)


class Connection(mitogen.ansible.connection.SSHMixin, builtin.Connection):
    pass


mitogen.ansible.warm.warm()
