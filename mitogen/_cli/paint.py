# SPDX-License-Identifier: BSD-3-Clause
"""
Paint: colours for a terminal, by the package rich where it is installed. Elsewhere text stays as it
is.
"""

from __future__ import annotations

import os
from typing import Any

#: Styles of the names of hosts. A host keeps the one that it got first.
HOSTS = 'cyan', 'green', 'magenta', 'yellow', 'blue', 'bright_cyan', 'bright_green', 'bright_magenta'

FAILED, GOOD, HINT, QUIET, TITLE = 'bold red', 'green', 'yellow', 'dim', 'bold'


def console(out: Any) -> Any:
    """
    Return rich's console for a text file, or None: it is no terminal of a person, or colours are
    not wanted (NO_COLOR is set, whatever it says, or TERM is "dumb"), or rich is not installed.
    """
    if not getattr(out, 'isatty', lambda: False)() or os.environ.get('NO_COLOR') or os.environ.get('TERM') == 'dumb':
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=out, markup=False, highlight=False, emoji=False)


class Paint:
    """
    Gives text a style. Any thread. Only text without control characters may be given.

    :param out: the text file that a person may look at.
    """
    def __init__(self, out: Any = None) -> None:
        self._console = console(out)
        self._hosts: dict[str, str] = {}

    def __call__(self, text: str, style: str) -> str:
        if self._console is None or not text:
            return text
        from rich.text import Text
        # The buffer of the capture belongs to this thread.
        with self._console.capture() as captured:
            self._console.print(Text(text, style), end='', soft_wrap=True)
        return str(captured.get())

    def host(self, name: str, text: str) -> str:
        """
        Return text in the style of a host.
        """
        style = self._hosts.setdefault(name, HOSTS[len(self._hosts) % len(HOSTS)])
        return self(text, style)
