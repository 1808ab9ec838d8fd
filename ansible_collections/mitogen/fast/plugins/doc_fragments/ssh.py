# SPDX-License-Identifier: BSD-3-Clause
"""
The options of Ansible's connection plugin `ssh`, for the documentation of ours.
"""

import mitogen.ansible.builtin


class ModuleDocFragment(object):
    DOCUMENTATION = mitogen.ansible.builtin.options('ssh')
