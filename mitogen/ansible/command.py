# SPDX-License-Identifier: BSD-3-Clause
"""
The commands of ``mitogen`` that are about Ansible: Ansible's own, with our connection plugins
switched on, and one that tells how to switch them on in a configuration.
"""

from __future__ import absolute_import, print_function

import os
import sys

import mitogen.ansible

#: Those of Ansible's commands that connect to hosts.
COMMANDS = ('ansible-playbook', 'ansible-console', 'ansible-pull', 'ansible-inventory', 'ansible-test')

VARIABLE = 'ANSIBLE_CONNECTION_PLUGINS'


def add_commands(subparsers):
    """
    Add ours to the parser of ``mitogen``.
    """
    parser = subparsers.add_parser(
        'ansible', add_help=False, help='without arguments: print what to write in ansible.cfg; '
                                        'with some: run "ansible" at full speed')
    parser.set_defaults(func=run_or_tell, program='ansible', takes_rest=True)
    for name in COMMANDS:
        parser = subparsers.add_parser(name, add_help=False, help='run "%s" at full speed' % (name,))
        parser.set_defaults(func=run, program=name, takes_rest=True)


def run_or_tell(options, rest):
    if rest:
        return run(options, rest)
    print(mitogen.ansible.plugin_path())
    if sys.stdout.isatty():
        print('\nIn ansible.cfg:\n\n[defaults]\nconnection_plugins = %s' % (mitogen.ansible.plugin_path(),))
    return 0


def environment(environ):
    """
    Return the variables with which Ansible finds our plugins first.
    """
    known = [path for path in environ.get(VARIABLE, '').split(os.pathsep) if path]
    path = mitogen.ansible.plugin_path()
    if path not in known:
        known.insert(0, path)
    return dict(environ, **{VARIABLE: os.pathsep.join(known)})


def run(options, rest):
    """
    Become one of Ansible's commands. That of our own interpreter's environment comes first.
    """
    environ = environment(os.environ)
    beside = os.path.join(os.path.dirname(sys.executable), options.program)
    program = beside if os.access(beside, os.X_OK) else options.program
    try:
        os.execvpe(program, [options.program] + rest, environ)
    except OSError as error:
        print('mitogen: cannot run %s: %s. Ansible is "pip install ansible-core".' % (program, error.strerror), file=sys.stderr)
        return 127
