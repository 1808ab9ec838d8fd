# SPDX-License-Identifier: BSD-3-Clause
"""
Takes the place of the connection plugin `kubernetes.core.kubectl`.
"""

import mitogen.ansible.builtin
import mitogen.ansible.containers
import mitogen.ansible.warm

# Read from this text by ansible-doc, which runs nothing.
DOCUMENTATION = '''
name: kubectl
short_description: a pod of Kubernetes, with one warm interpreter for each user there
description:
  - Works as C(kubernetes.core.kubectl) does, with its options. Modules run in forks of an interpreter that stays.
author: the authors of Mitogen with its core in C
extends_documentation_fragment:
  - mitogen.fast.kubectl
'''

collection = mitogen.ansible.builtin.load_collection('kubernetes.core', 'kubectl')
# Ansible itself reads the options here.
globals().update(DOCUMENTATION=collection.DOCUMENTATION)


class Connection(mitogen.ansible.containers.KubectlMixin, collection.Connection):
    pass


mitogen.ansible.warm.warm()
