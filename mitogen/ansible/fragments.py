# SPDX-License-Identifier: BSD-3-Clause
"""
The fragments of shell that Ansible runs around a module: it has a folder made, permissions changed,
a folder removed and a tilde expanded. Here each is noted as a shell plugin makes its text, and done
without a shell.
"""

from __future__ import absolute_import

import os
import re
import shutil
import stat

#: A folder that Ansible made for a task.
TEMPORARY = re.compile(r'/ansible-tmp-[\w.-]+/?$')

#: Characters that a shell would take for more than letters of a path.
SPECIAL = re.compile(r'''[^\w@%+=:,./~-]''')

#: Variables as folders have them: with a letter after the dollar sign.
VARIABLE = re.compile(r'\$[A-Za-z_]\w*')


class Notes(object):
    """
    Remembers what the texts mean that a shell plugin makes.

    :param shell: a shell plugin. Its methods are wrapped.
    """

    def __init__(self, shell):
        self.meanings = {}
        for name, meaning in MEANINGS.items():
            for variant in name, '_%s2' % (name,):
                if hasattr(shell, variant):
                    self.wrap(shell, variant, meaning)

    def wrap(self, shell, name, meaning):
        method = getattr(shell, name)

        def wrapped(*args, **kwargs):
            made = method(*args, **kwargs)
            operation = meaning(*args, **kwargs)
            if operation and getattr(made, 'input_data', None) is None:
                self.meanings[str(getattr(made, 'command', made))] = operation
            return made

        setattr(shell, name, wrapped)


def mean_mkdtemp(basefile=None, system=False, mode=0o700, tmpdir=None):
    if not basefile or system or not tmpdir or SPECIAL.search(VARIABLE.sub('', tmpdir + basefile)) or not mode:
        return None
    return 'mkdtemp', str(tmpdir), str(basefile), int(mode)


def mean_chmod(paths, mode):
    if mode != 'u+rwx':
        return None
    return ('chmod',) + tuple(map(str, paths))


def mean_remove(path, recurse=False):
    if not recurse or not TEMPORARY.search(str(path)):
        return None
    return 'remove', str(path)


def mean_expand_user(user_home_path, username=''):
    if username or SPECIAL.search(user_home_path) or not user_home_path.startswith('~'):
        return None
    return 'expand_user', str(user_home_path)


MEANINGS = {
    'mkdtemp': mean_mkdtemp, 'chmod': mean_chmod, 'remove': mean_remove, 'expand_user': mean_expand_user,
}


def perform(operation):
    """
    Do what a fragment means.

    :returns: (status, output) as the shell's would be, or None to leave it to
        the shell: it then fails in words of its own.
    """
    try:
        return PERFORM[operation[0]](*operation[1:])
    except (OSError, ValueError):
        return None


def mkdtemp(base, name, mode):
    base = os.path.expandvars(os.path.expanduser(base))
    if base.startswith('~') or '$' in base:
        return None
    before = os.umask(0o777 & ~mode)
    try:
        if not os.path.isdir(base):
            os.makedirs(base)
        path = os.path.join(base, name)
        os.mkdir(path)
    finally:
        os.umask(before)
    return 0, '%s=%s\n' % (name, path)


def chmod(*paths):
    found = [(path, os.stat(path).st_mode) for path in paths]
    for path, mode in found:
        os.chmod(path, stat.S_IMODE(mode) | 0o700)
    return 0, ''


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
    return 0, ''


def expand_user(path):
    found = os.path.expanduser(path)
    if found == path:
        return None
    return 0, found + '\n'


PERFORM = {'mkdtemp': mkdtemp, 'chmod': chmod, 'remove': remove, 'expand_user': expand_user}
