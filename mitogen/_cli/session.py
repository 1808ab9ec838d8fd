# SPDX-License-Identifier: BSD-3-Clause
"""
A console on a host, as ``mitogen shell`` uses it.
"""

from __future__ import annotations

import codecs
import concurrent.futures
import sys
from typing import Any, BinaryIO

import mitogen.core
from mitogen._cli import display, values

#: Seconds that a completion may take, names that it may propose, and characters of each.
NAMES_TIMEOUT, NAMES_MAX, NAME_MAX = 10, 500, 1000

#: How often Ctrl-C is pressed without effect before the shell gives up, and seconds until it says
#: that there is no effect.
PATIENCE, SOON = 3, 1

#: How text came out.
MORE, EXIT = 'more', 'exit'

class Output:
    """
    Shows what a host writes, without its control characters.
    """
    def __init__(self, out: BinaryIO, raw: bool) -> None:
        self._out = out
        self._raw = raw
        self._decoder = codecs.getincrementaldecoder('utf-8')('replace')

    def write(self, data: bytes) -> None:
        """
        Show some bytes.
        """
        if not self._raw:
            lines = self._decoder.decode(data).replace('\r\n', '\n').split('\n')
            data = '\n'.join(map(mitogen.core._printable, lines)).encode('utf-8', 'replace')
        self._out.write(data)
        self._out.flush()


class Session:
    """
    A console on a host. One thread, which gets Ctrl-C.

    :ivar banner: a line about its Python.
    """
    def __init__(self, host: Any, outputs: list[Output]) -> None:
        from mitogen._tree import errors, tasks
        self._host = host
        self._outputs = {number: output.write for number, output in zip((display.STDOUT, display.STDERR), outputs)}
        told = self._begin()
        if not (isinstance(told, tuple) and len(told) == 2 and isinstance(told[1], str)):
            raise errors.wrong_answer(host, 'does not start a console')
        (self._handle,) = tasks.numbers(host, told[:1], 1)
        self.banner = values.text(told[1], 200)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, 'mitogen.shell')

    def _begin(self) -> Any:
        import mitogen._console
        return self._host.call(mitogen._console.begin)

    def run(self, text: str) -> tuple[Any, int]:
        """
        Run some text over there, show what it writes, and return how it came out, and the number
        that the host adds.
        """
        from mitogen._tree import errors, running
        started = running.start_function(self._host, ('mitogen._console', None, 'run'), (text,))
        # Another thread waits: an exception in the midst of it could lose a part of what comes.
        future = self._thread.submit(started.follow, self._outputs)
        pressed = told_of = 0
        while not future.done():
            try:
                # Not for ever: no wait ends for a signal that came just before it.
                concurrent.futures.wait([future], SOON)
                if pressed > told_of and not future.done():
                    told_of = pressed
                    print('mitogen: it does not react yet; the shell ends at the third Ctrl-C', file=sys.stderr)
            except KeyboardInterrupt:
                pressed += 1
                if pressed >= PATIENCE:
                    raise
                self._host.send(mitogen.core.Message.pickled(None, handle=self._handle))
        told = future.result()
        if isinstance(told, tuple) and len(told) == 2 and (told[1] is None or type(told[1]) is int):
            return told[0], told[1] or 0
        raise errors.wrong_answer(self._host, 'is not that of a console')

    def names(self, text: str) -> list[str]:
        """
        Return the names over there that may continue a text; none where that takes too long, or
        fails.
        """
        import mitogen._console
        try:
            told = self._host.options(timeout=NAMES_TIMEOUT).call(mitogen._console.names, text)
        except mitogen.core.Error:
            return []
        # They get into the line that is typed.
        return [name for name in told[:NAMES_MAX] if isinstance(name, str) and len(name) <= NAME_MAX
                and name.startswith(text) and name.isprintable()] if isinstance(told, list) else []

    def close(self) -> None:
        """
        End our thread.
        """
        self._thread.shutdown(wait=False)
