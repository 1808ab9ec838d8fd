# SPDX-License-Identifier: BSD-3-Clause
"""
``mitogen completion``: the text with which a shell completes our commands, options and hosts. The
package shtab writes it.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from mitogen import _cli

#: The shells that shtab knows, as of its versions since 1.8.
SHELLS = 'bash', 'fish', 'tcsh', 'zsh'

#: The command that says which hosts there are.
_HOSTS = 'mitogen completion hosts 2>/dev/null'

EPILOG = '''
  bash   eval "$(mitogen completion bash)"                   in ~/.bashrc
  zsh    mitogen completion zsh >FOLDER/_mitogen             a folder that is in $fpath
  fish   mitogen completion fish >~/.config/fish/completions/mitogen.fish
  tcsh   mitogen completion tcsh >~/.mitogen.tcsh            and "source ~/.mitogen.tcsh" in ~/.tcshrc
  hosts  prints the names after "Host" in ~/.ssh/config; it is what the others ask

exit status: 0; 1 if the package shtab is not installed here, or does not know the shell.
'''


def add_commands(subparsers: Any) -> None:
    """
    Add ours to the parser of ``mitogen``.
    """
    parser = _cli.add_parser(
        subparsers, 'completion', epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('shell', choices=SHELLS + ('hosts',))
    parser.set_defaults(func=run)


def run(options: Any, rest: list[str]) -> int:
    """
    Print what is asked for, and return the exit status.
    """
    if options.shell == 'hosts':
        from mitogen._cli import hosts
        for name in hosts.configured():
            print(name)
        return 0
    try:
        import shtab
    except ImportError:
        print('mitogen: this needs the package shtab: python3 -m pip install "mitogen[cli]", or shtab alone',
              file=sys.stderr)
        return 1
    if options.shell not in shtab.SUPPORTED_SHELLS:
        print('mitogen: the version of shtab that is installed does not know %s' % (options.shell,), file=sys.stderr)
        return 1
    whole, commands = options.make_parser()
    _mark(commands, shtab.FILE)
    print(shtab.complete(whole, options.shell, preamble=_PREAMBLES.get(options.shell, '')))
    return 0


#: Shell -> the command of it that completes hosts.
_WAYS = {
    'bash': '_mitogen_hosts', 'zsh': '($(%s))' % (_HOSTS,), 'tcsh': '`%s`' % (_HOSTS,), 'fish': '(%s)' % (_HOSTS,),
}

_PREAMBLES = {'bash': '_mitogen_hosts() { compgen -W "$(%s)" -- "$1"; }\n' % (_HOSTS,)}


def _mark(commands: dict[str, argparse.ArgumentParser], files: Any) -> None:
    """
    Tell shtab which words are hosts, and which are files.
    """
    for parser in commands.values():
        for action in parser._actions:
            if action.metavar == 'HOST':
                action.complete = _WAYS  # type: ignore[attr-defined]
            elif action.metavar == 'PATH':
                action.complete = files  # type: ignore[attr-defined]
