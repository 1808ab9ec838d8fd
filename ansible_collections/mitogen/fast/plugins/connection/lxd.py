# SPDX-License-Identifier: BSD-3-Clause
"""
Connection plugin `mitogen.fast.lxd`: `community.general.lxd`, at full speed.
"""

import mitogen.ansible.builtin
import mitogen.ansible.containers
import mitogen.ansible.warm

# Read from this text by ansible-doc, which runs nothing.
DOCUMENTATION = '''
name: lxd
short_description: an instance of LXD, with one warm interpreter for each user there
description:
  - Works as C(community.general.lxd) does, with its options. Modules run in forks of an interpreter that stays.
author: the authors of Mitogen with its core in C
extends_documentation_fragment:
  - mitogen.fast.lxd
'''

collection = mitogen.ansible.builtin.load_collection('community.general', 'lxd')
# Ansible itself reads the options here.
globals().update(DOCUMENTATION=collection.DOCUMENTATION)


class Connection(mitogen.ansible.containers.InstanceMixin, collection.Connection):
    pass


mitogen.ansible.warm.warm()
