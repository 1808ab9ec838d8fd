# SPDX-License-Identifier: BSD-3-Clause
"""
SharedBlocks: blocks of files that go to many hosts. Each is read, and compressed, once.
"""

from __future__ import annotations

import collections
import concurrent.futures
import threading
from typing import Any, Callable

from mitogen._files.blocks import Block

#: Bytes of blocks that are held. A host that is further behind the others has them read again.
MOST = 64 << 20


class SharedBlocks:
    """
    The blocks that were read last. Any thread.
    """
    def __init__(self, most: int = MOST) -> None:
        self._most = most
        #: Guards all below.
        self._lock = threading.Lock()
        self._blocks: collections.OrderedDict[Any, concurrent.futures.Future[Any]] = collections.OrderedDict()
        self._size = 0

    def load(self, key: Any, read: Callable[[], bytes]) -> Any:
        """
        Return the block of a key. The first thread that asks reads it; those that ask meanwhile
        wait.
        """
        with self._lock:
            found = self._blocks.get(key)
            if found is None:
                mine = self._blocks[key] = concurrent.futures.Future()
        if found is not None:
            return found.result()
        try:
            block = Block(read())
        except BaseException as e:
            with self._lock:
                del self._blocks[key]
            mine.set_exception(e)
            raise
        mine.set_result(block)
        self._note(len(block.data))
        return block

    def _note(self, size: int) -> None:
        """
        Drop the oldest blocks, if need be, as one more is held.
        """
        with self._lock:
            self._size += size
            while self._size > self._most:
                key = next((key for key, future in self._blocks.items() if future.done()), None)
                if key is None:
                    break
                self._size -= len(self._blocks.pop(key).result().data)
