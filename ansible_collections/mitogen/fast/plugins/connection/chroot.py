# SPDX-License-Identifier: BSD-3-Clause
"""
Connection plugin `mitogen.fast.chroot`: `community.general.chroot`, at full speed.
"""

import mitogen.ansible.builtin
import mitogen.ansible.containers
import mitogen.ansible.warm

# Read from this text by ansible-doc, which runs nothing.
DOCUMENTATION = '''
name: chroot
short_description: a folder with a system of its own, with one warm interpreter for each user there
description:
  - Works as C(community.general.chroot) does, with its options. Modules run in forks of an interpreter that stays.
author: the authors of Mitogen with its core in C
extends_documentation_fragment:
  - mitogen.fast.chroot
'''

collection = mitogen.ansible.builtin.load_collection('community.general', 'chroot')
# Ansible itself reads the options here.
globals().update(DOCUMENTATION=collection.DOCUMENTATION)


class Connection(mitogen.ansible.containers.ChrootMixin, collection.Connection):
    pass


mitogen.ansible.warm.warm()
