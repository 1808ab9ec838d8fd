# SPDX-License-Identifier: BSD-3-Clause
"""
Progress: a line at the end of a terminal that says how far copies are.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import Callable, Optional, TextIO

import mitogen.core
from mitogen._cli import display

#: Seconds between two lines: more often nobody can read them.
INTERVAL = 0.1


def size(count: float) -> str:
    """
    Return a number of bytes for people.
    """
    for unit in ('B', 'KiB', 'MiB', 'GiB'):
        if count < 1000:
            return '%.*f %s' % (0 if unit == 'B' else 1, count, unit)
        count /= 1024
    return '%.1f TiB' % (count,)


class Progress:
    """
    The line. Any thread.

    :param out: the terminal; None to show nothing.
    """
    def __init__(self, out: Optional[TextIO]) -> None:
        self._out = out
        #: Guards all below, and the terminal.
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._shown: Optional[float] = None
        self._files = self._bytes = 0

    @classmethod
    def on_terminal(cls) -> Progress:
        """
        Return one that is shown if a person sees it.
        """
        return cls(sys.stderr if sys.stderr.isatty() else None)

    def of(self, host: str) -> Callable[[str, int, int], None]:
        """
        Return the function that is told how far the copies of a host are.
        """
        last: list[tuple[str, int]] = [('', 0)]

        def told(path: str, done: int, total: int) -> None:
            before = last[0]
            last[0] = path, done
            # The same path again, from its beginning, is another file: of the next copy.
            is_new = path != before[0] or done < before[1]
            with self._lock:
                self._files += is_new
                self._bytes += done if is_new else done - before[1]
                self._tell(host, path, done, total)
        return told

    def clear(self) -> None:
        """
        Remove the line: something else is to be written.
        """
        with self._lock:
            if self._shown is not None and self._out is not None:
                self._out.write('\r\x1b[K')
                self._out.flush()
                self._shown = None

    def _tell(self, host: str, path: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._out is None or (self._shown is not None and now < self._shown + INTERVAL):
            return
        self._shown = now
        width = shutil.get_terminal_size().columns - 1
        self._out.write('\r%s\x1b[K' % (self._line(now, host, path, done, total)[:width],))
        self._out.flush()

    def _line(self, now: float, host: str, path: str, done: int, total: int) -> str:
        name = '%s: %s' % (display.label(host), path)
        # A name that is no UTF-8, or would write on the terminal, stays what it is: a name.
        name = mitogen.core._printable(name.encode('utf-8', 'replace'))
        share = ' %d %%' % (100 * done // total,) if 0 < done < total else ''
        rate = self._bytes / max(now - self._began, 0.001)
        return '%d files  %s  %s/s  %s%s' % (self._files, size(self._bytes), size(rate), name, share)
