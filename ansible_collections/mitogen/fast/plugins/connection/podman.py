# SPDX-License-Identifier: BSD-3-Clause
"""
Connection plugin `mitogen.fast.podman`: `containers.podman.podman`, at full speed.
"""

import mitogen.ansible.builtin
import mitogen.ansible.containers
import mitogen.ansible.warm

# Read from this text by ansible-doc, which runs nothing.
DOCUMENTATION = '''
name: podman
short_description: a container of Podman, with one warm interpreter for each user there
description:
  - Works as C(containers.podman.podman) does, with its options. Modules run in forks of an interpreter that stays.
author: the authors of Mitogen with its core in C
extends_documentation_fragment:
  - mitogen.fast.podman
'''

collection = mitogen.ansible.builtin.load_collection('containers.podman', 'podman')
# Ansible itself reads the options here.
globals().update(DOCUMENTATION=collection.DOCUMENTATION)


class Connection(mitogen.ansible.containers.PodmanMixin, collection.Connection):
    pass


mitogen.ansible.warm.warm()
