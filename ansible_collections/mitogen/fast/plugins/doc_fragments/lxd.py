# SPDX-License-Identifier: BSD-3-Clause
"""
The options of the connection plugin `community.general.lxd`, for the documentation of ours.
"""

import mitogen.ansible.builtin


class ModuleDocFragment(object):
    DOCUMENTATION = mitogen.ansible.builtin.options('lxd', 'community.general')
