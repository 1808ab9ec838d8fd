# SPDX-License-Identifier: BSD-3-Clause
"""
The command that finds a Python where nobody has said which one to run.
"""

from __future__ import annotations

#: Names of interpreters, as a shell's patterns, the best one first.
NAMES = ['python3', 'python3.*[0-9]', 'platform-python', 'python', 'python2', 'python2.*[0-9]', 'pypy3']

#: Folders that are searched when none in PATH has one: those of Red Hat, of the BSDs and of macOS.
PLACES = ['/usr/libexec', '/usr/local/bin', '/usr/pkg/bin', '/opt/homebrew/bin']

#: Turns into the first one that there is. A shell divides at IFS only what it has replaced.
_SEARCH = (
    'IFS=:;for w in "$PATH" {places};do for n in {patterns};do for d in $w;do for p in $d/$n;do '
    '[ -f "$p" ]&&[ -x "$p" ]&&exec "$p" "$@";done;done;done;done;'
    'echo "no Python found: there is no {names} in $PATH:{places}">&2;exit 127')


def search() -> list[str]:
    """
    Return the beginning of a command line that runs the first Python of the host: a shell turns
    into it, so nobody has to ask first and to wait for the answer.
    """
    script = _SEARCH.format(
        places=':'.join(PLACES), patterns=' '.join(name.replace('*', '\\*') for name in NAMES),
        names=', '.join(name.replace('*[0-9]', 'N') for name in NAMES))
    return ['/bin/sh', '-c', script, 'sh']
