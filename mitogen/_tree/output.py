# SPDX-License-Identifier: BSD-3-Clause
"""
Output: the lines that functions print on hosts are shown here.
"""

from __future__ import annotations

import enum
import logging
import queue
import sys
import threading
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

import mitogen.core

if TYPE_CHECKING:
    from mitogen._tree.host import Host

LOG = logging.getLogger('mitogen.tree')

#: Called with a host and a line that was printed there.
Hook = Callable[['Host', str], object]


class Standard(enum.Enum):
    """
    Stands for our own stdout and stderr, whichever it was over there.
    """
    STANDARD = 'standard'


STANDARD = Standard.STANDARD

#: Lines that wait for a hook, and their length in all. A line that comes when there are so many is
#: dropped, and counted.
WAITING_MAX, WAITING_LENGTH = 10000, 16 << 20


def shown(host: Any, line: str) -> str:
    """
    Return a line with the name of its host before it.
    """
    name = str(host.name) if host.name else 'context %d' % (host.context_id,)
    return '[%s] %s' % (mitogen.core._printable(name), line)


class Output:
    """
    Hands lines to a hook, on a thread of its own: a hook may block, and the broker's must not. It
    is started for the first line and ends with the broker. If the system gives no thread, lines
    wait for one, or for the end of the tree.
    """
    def __init__(self, broker: Any, hook: Union[Hook, Standard]) -> None:
        self._broker = broker
        self._hook = hook
        self._queue: queue.Queue[Optional[tuple[Any, str, str]]] = queue.Queue()
        self._thread: Optional[threading.Thread] = None
        #: Guards the numbers below, which the broker's thread and ours change.
        self._lock = threading.Lock()
        self._length = self._dropped = 0

    def put(self, host: Any, name: str, text: str) -> None:
        """
        Take what was printed: a line, mostly. Broker thread.

        :param name: ``stdout`` or ``stderr``.
        """
        if self._thread is None:
            self._start()
        with self._lock:
            is_full = self._queue.qsize() >= WAITING_MAX or self._length >= WAITING_LENGTH
            self._dropped += is_full
            self._length += 0 if is_full else len(text)
        if not is_full:
            self._queue.put((host, name, text))

    def _start(self) -> None:
        thread = threading.Thread(target=self._serve, name='mitogen.output')
        try:
            thread.start()
        except RuntimeError as e:
            if not self._queue.qsize():
                LOG.error('lines of output wait: %s', e)
            return
        self._thread = thread
        mitogen.core.listen(self._broker, 'exit', lambda: self._queue.put(None))

    def _serve(self) -> None:
        for host, name, text in iter(self._queue.get, None):
            for line in text.split('\n'):
                try:
                    self._show(host, name, mitogen.core._printable(line))
                except BaseException:
                    # Also sys.exit(): the thread would end, and all further lines be dropped.
                    LOG.exception('a line of output cannot be shown')
            with self._lock:
                dropped, self._dropped = self._dropped, 0
                self._length -= len(text)
            if dropped:
                LOG.error('%d lines of output were dropped: too many were waiting to be shown', dropped)

    def _show(self, host: Any, name: str, line: str) -> None:
        if not isinstance(self._hook, Standard):
            self._hook(host, line)
            return
        out = sys.stderr if name == 'stderr' else sys.stdout
        if out is not None:
            out.write(shown(host, line) + '\n')
            out.flush()

    def join(self) -> None:
        """
        Wait until everything was shown, which ends after the broker.
        """
        thread = self._thread
        if thread is None:
            # Lines that still wait for one.
            self._queue.put(None)
            self._serve()
        elif thread is not threading.current_thread():
            thread.join()
