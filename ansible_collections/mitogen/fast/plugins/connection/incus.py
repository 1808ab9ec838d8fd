# SPDX-License-Identifier: BSD-3-Clause
"""
Connection plugin `mitogen.fast.incus`: `community.general.incus`, at full speed.
"""

import mitogen.ansible.builtin
import mitogen.ansible.containers
import mitogen.ansible.warm

# Read from this text by ansible-doc, which runs nothing.
DOCUMENTATION = '''
name: incus
short_description: an instance of Incus, with one warm interpreter for each user there
description:
  - Works as C(community.general.incus) does, with its options. Modules run in forks of an interpreter that stays.
author: the authors of Mitogen with its core in C
extends_documentation_fragment:
  - mitogen.fast.incus
'''

collection = mitogen.ansible.builtin.load_collection('community.general', 'incus')
# Ansible itself reads the options here.
globals().update(DOCUMENTATION=collection.DOCUMENTATION)


class Connection(mitogen.ansible.containers.InstanceMixin, collection.Connection):
    pass


mitogen.ansible.warm.warm()
