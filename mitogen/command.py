# SPDX-License-Identifier: BSD-3-Clause
"""
The program ``mitogen``: commands, each of which some module adds.
"""

from __future__ import absolute_import

import argparse
import sys

import mitogen.__main__
import mitogen.ansible.command


def add_commands(subparsers):
    """
    Add those that belong to no other module.
    """
    parser = subparsers.add_parser('about', help='tell which core this interpreter uses, and why')
    parser.set_defaults(func=about)


def about(options, rest):
    mitogen.__main__.main()
    return 0


#: Each is called with the object that `add_parser` belongs to. A command sets the default `func`, which is called
#: with (options, the words that the parser does not know) and returns the exit status. With `takes_rest` there may be
#: some of these.
SOURCES = [add_commands, mitogen.ansible.command.add_commands]


def make_parser():
    parser = argparse.ArgumentParser(prog='mitogen')
    subparsers = parser.add_subparsers(metavar='COMMAND', dest='command')
    for add in SOURCES:
        add(subparsers)
    return parser


def main(args=None):
    """
    :returns: exit status.
    """
    args = sys.argv[1:] if args is None else args
    parser = make_parser()
    # Options of a command that is another program's are not ours to understand.
    options, rest = parser.parse_known_args(args[:1])
    if not options.command:
        parser.print_help()
        return 2
    if getattr(options, 'takes_rest', False):
        rest = args[1:]
    else:
        options, rest = parser.parse_args(args), []
    return options.func(options, rest)


if __name__ == '__main__':
    sys.exit(main())
