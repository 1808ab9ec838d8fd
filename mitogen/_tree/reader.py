# SPDX-License-Identifier: BSD-3-Clause
"""
Reader: a thread that reads the long answers of one host.
"""

from __future__ import annotations

import collections
import threading
from typing import Callable


class Reader:
    """
    A thread that lives while there is something to read. An answer may take long, so the thread is
    for one host: others do not wait for it. It is no reason for the interpreter to go on.
    """
    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: Both guarded by the lock.
        self._waiting: collections.deque[Callable[[], object]] = collections.deque()
        self._runs = False

    def read(self, func: Callable[[], object]) -> None:
        """
        Have a function called that reads an answer, and raises nothing. Any thread; does not wait
        for it, if a thread can be had.
        """
        with self._lock:
            self._waiting.append(func)
            if self._runs:
                return
            self._runs = True
        try:
            threading.Thread(target=self._serve, name='mitogen.reader', daemon=True).start()
        except RuntimeError:
            # The system gives no thread, and somebody waits for the answer.
            self._serve()

    def _serve(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._runs = False
                    return
                func = self._waiting.popleft()
            func()
