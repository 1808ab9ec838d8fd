# SPDX-License-Identifier: BSD-3-Clause
"""
Ansible's own connection plugins, and those of collections. A plugin that is found by path under the
name of one of them takes its place even in `sys.modules`, so they are loaded by their files, under
other names.
"""

from __future__ import absolute_import

import importlib.util
import os
import sys

import ansible.plugins.connection
from ansible.errors import AnsibleError

from mitogen.ansible.values import plain


def load(name):
    """
    Return Ansible's module of a connection plugin.
    """
    full = 'mitogen.ansible._builtin_' + name
    if full not in sys.modules:
        path = os.path.join(os.path.dirname(ansible.plugins.connection.__file__), name + '.py')
        spec = importlib.util.spec_from_file_location(full, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[full] = module
    return sys.modules[full]


def load_collection(collection, name):
    """
    Return the module of a connection plugin of a collection.
    """
    try:
        return importlib.import_module('ansible_collections.%s.plugins.connection.%s' % (collection, name))
    except ImportError as error:
        raise AnsibleError("the connection plugin %r is that of the collection %s, which cannot be imported: %s" % (
            name, collection, error))


def options(name, collection=None):
    """
    Return the documentation of a plugin's options alone, as YAML.
    """
    import yaml
    from ansible.plugins.loader import fragment_loader
    from ansible.utils.plugin_docs import add_fragments
    module = load_collection(collection, name) if collection else load(name)
    documentation = yaml.safe_load(module.DOCUMENTATION)
    add_fragments(documentation, module.__file__, fragment_loader=fragment_loader)
    return yaml.safe_dump({'options': plain(documentation['options'])})
