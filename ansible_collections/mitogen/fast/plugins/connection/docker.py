# SPDX-License-Identifier: BSD-3-Clause
"""
Connection plugin `mitogen.fast.docker`: `community.docker.docker`, at full speed.
"""

import mitogen.ansible.builtin
import mitogen.ansible.containers
import mitogen.ansible.warm

# Read from this text by ansible-doc, which runs nothing.
DOCUMENTATION = '''
name: docker
short_description: a container of Docker, with one warm interpreter for each user there
description:
  - Works as C(community.docker.docker) does, with its options. Modules run in forks of an interpreter that stays.
author: the authors of Mitogen with its core in C
extends_documentation_fragment:
  - mitogen.fast.docker
'''

collection = mitogen.ansible.builtin.load_collection('community.docker', 'docker')
# Ansible itself reads the options here.
globals().update(DOCUMENTATION=collection.DOCUMENTATION)


class Connection(mitogen.ansible.containers.DockerMixin, collection.Connection):
    pass


mitogen.ansible.warm.warm()
