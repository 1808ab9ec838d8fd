# SPDX-License-Identifier: BSD-3-Clause
"""
The names of connection plugins that come from collections, and ours in their places.

They are not in the folder of `ssh` and `local`: Ansible loads all plugins of that folder as it
starts, and each of these would load one of a collection.
"""

from __future__ import absolute_import

import contextlib
import functools
import os
import re

import ansible
from ansible import constants
from ansible.errors import AnsibleError
from ansible.plugins.loader import connection_loader
from ansible.utils.display import Display

import mitogen.ansible
import mitogen.ansible.builtin
from mitogen.ansible.values import plain

DISPLAY = Display()

#: Name of ours in the collection `mitogen.fast` -> the collection in whose place it stands.
COLLECTIONS = {
    'docker': 'community.docker', 'podman': 'containers.podman', 'kubectl': 'kubernetes.core',
    'lxd': 'community.general', 'incus': 'community.general', 'chroot': 'community.general',
}

#: The newest ansible-core that the tests have run with.
NEWEST = 2, 22

#: Found in the place of Ansible's by their path.
OURS = ('ssh', 'local')


def ours():
    """
    Return {name of a connection: name of ours}: the short and the long name of each.
    """
    found = {}
    for name, collection in COLLECTIONS.items():
        found[name] = found['%s.%s' % (collection, name)] = 'mitogen.fast.' + name
    return found


def say_once(name, text):
    """
    Say something with ``-v``, once in a run. A file in the folder that the processes of the run
    share is the note of it.

    :param name: of the note.
    """
    if DISPLAY.verbosity:
        path = os.path.join(plain(constants.DEFAULT_LOCAL_TMP), 'mitogen-' + re.sub(r'[^\w.]', '', plain(name)))
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            DISPLAY.v('mitogen: ' + text)


def say_not_ours(name):
    """
    Say, once in a run, that a plugin is none of ours.
    """
    if not name.startswith(('mitogen.fast.', 'ansible.legacy.')):
        say_once(name, "the connection plugin %s is not one that is fast: Ansible's own way is used" % (plain(name),))


def say_unknown():
    """
    Say, once in a run, if this Ansible is newer than all that we know.
    """
    found = re.match(r'(\d+)\.(\d+)', ansible.__version__)
    if found and tuple(map(int, found.groups())) > NEWEST:
        say_once('unknown', "ansible-core %s is newer than this package, which knows %d.%d: Ansible's own way is used "
                            "for all that has changed" % ((ansible.__version__,) + NEWEST))


def install(loader=connection_loader):
    """
    Have Ansible take ours for these names, if it takes ours for `ssh`.

    :raises AttributeError: it has other parts than we know.
    """
    get = loader.get_with_context
    if hasattr(get, 'is_mitogen') or mitogen.ansible.plugin_path() not in loader._get_paths(subdirs=False):
        return
    names = ours()
    for name in OURS:
        # The long names of Ansible's own go on to mean these.
        module = mitogen.ansible.builtin.load(name)
        loader._module_cache.setdefault(module.__file__, module)

    @functools.wraps(get)
    def get_with_context(name, *args, **kwargs):
        if name in names:
            try:
                found = get(names[name], *args, **kwargs)
                if found.object is not None:
                    return found
            except AnsibleError:
                # The collection is not there, or says why it cannot work.
                pass
        if name not in OURS:
            say_not_ours(name)
        return get(name, *args, **kwargs)

    get_with_context.is_mitogen = True
    loader.get_with_context = get_with_context
