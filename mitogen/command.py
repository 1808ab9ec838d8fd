# SPDX-License-Identifier: BSD-3-Clause
"""
The program ``mitogen``: its commands, which several modules add.
"""

from __future__ import absolute_import

import argparse
import gc
import os
import sys


def add_commands(subparsers):
    """
    Add the commands that belong to no other module.
    """
    parser = subparsers.add_parser('about', help='tell which core this interpreter uses, and why')
    parser.set_defaults(func=about)


def about(options, rest):
    import mitogen.__main__
    mitogen.__main__.main()
    return 0


#: Modules with a function `add_commands`, called with the object that `add_parser` belongs to. A
#: command sets the default `func`, which is called with (options, the words after "--") and returns
#: the exit status. With `takes_rest` the words are all that follow the command: they are another
#: program's to understand.
SOURCES = ['mitogen.command', 'mitogen.ansible.command']


def _add_newer(subparsers, used):
    """
    Add the commands that need a current Python: whole if they are used, and otherwise just their
    names.

    :param used: names of commands, or None for all.
    """
    from mitogen import _cli
    modules = [module for module, _ in _cli.COMMANDS.values()]
    if used is not None:
        modules = [_cli.COMMANDS[name][0] for name in used if name in _cli.COMMANDS]
    for name, (module, _) in _cli.COMMANDS.items():
        if module not in modules:
            _cli.add_parser(subparsers, name)
        elif name not in subparsers.choices:
            __import__('mitogen._cli.' + module)
            sys.modules['mitogen._cli.' + module].add_commands(subparsers)


def make_parser(used=None):
    """
    Return the parser, and name -> parser of the commands.

    :param used: names of the commands that matter; None for all.
    """
    parser = argparse.ArgumentParser(
        prog='mitogen',
        description='Run Python on machines that have nothing installed. "mitogen COMMAND --help" tells more.')
    parser.set_defaults(make_parser=make_parser)
    subparsers = parser.add_subparsers(metavar='COMMAND', dest='command', prog='mitogen')
    if sys.version_info >= (3, 9):
        _add_newer(subparsers, used)
    for name in SOURCES:
        __import__(name)
        sys.modules[name].add_commands(subparsers)
    return parser, subparsers.choices


def main(args=None):
    """
    :returns: exit status.
    """
    if args is not None:
        return _run(list(args))
    # A command that takes a moment would look for garbage, time and again, in modules alone.
    gc.set_threshold(100000)
    try:
        _open_standard_files()
        return _run(sys.argv[1:])
    except KeyboardInterrupt:
        # Also while modules are imported.
        return 130
    finally:
        if hasattr(gc, 'freeze'):
            gc.freeze()


def _open_standard_files():
    """
    Have stdin, stdout and stderr: the caller may have closed some. Their numbers must not be those
    of connections.
    """
    for name, mode in ('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w'):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))


def _run(args):
    parser, commands = make_parser(args[:1])
    if not args:
        parser.print_help()
        return 2
    known = commands.get(args[0])
    if known is not None and known.get_default('takes_rest'):
        return known.get_default('func')(argparse.Namespace(**known._defaults), args[1:])
    end = args.index('--') if '--' in args else len(args)
    options = parser.parse_args(args[:end])
    if not options.command:
        parser.error('there is no command in it')
    return _call(parser, options, args[end + 1:])


def _call(parser, options, rest):
    """
    Call the function of a command. An error that the user can correct is told in a line.
    """
    try:
        return options.func(options, rest)
    except ValueError as error:
        parser.exit(2, 'mitogen: %s\n' % (error,))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Nobody reads any more, as with "| head".
        sys.stderr.close()
        return 141
    except EnvironmentError as error:
        # Such as a disk that is full, or a folder that may not be made.
        where = '%s: ' % (error.filename,) if error.filename else ''
        sys.stderr.write('mitogen: %s%s\n' % (where, error.strerror or error))
        return 1
    finally:
        _flush()


def _flush():
    """
    Have our output written, or else forgotten: the interpreter would report at its end what was
    reported already.
    """
    try:
        sys.stdout.flush()
    except (EnvironmentError, ValueError):
        sys.stdout = open(os.devnull, 'w')


if __name__ == '__main__':
    sys.exit(main())
