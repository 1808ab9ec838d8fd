# SPDX-License-Identifier: BSD-3-Clause
"""
The commands of the program ``mitogen`` that work with hosts. ``mitogen --help`` is to be quick, so
the list of them stands here, and a module is imported when one of its commands is used.
"""

#: Command -> (the module below this one that adds it, its line of help).
COMMANDS = {
    'run': ('run', 'run a command, a script or a function on hosts'),
    'cp': ('cp', 'copy files and folders to hosts, or from them'),
    'shell': ('shell', 'a prompt of Python on a host'),
    'ping': ('ping', 'tell whether hosts answer, and how quickly'),
    'info': ('ping', 'tell what hosts are'),
    'doctor': ('doctor', 'tell what each stage of connecting a host does, and what to do about one that fails'),
    'top': ('top', 'show the processes of hosts that use most, live'),
    'tree': ('tree', 'show who is connected to whom: of hosts, or of a program that runs'),
    'completion': ('completion', 'print what a shell needs to complete commands, options and hosts'),
}


def add_parser(subparsers, name, **options):
    """
    Add the parser of a command, and return it.
    """
    return subparsers.add_parser(name, help=COMMANDS[name][1], **options)
