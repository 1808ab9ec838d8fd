# SPDX-License-Identifier: BSD-3-Clause
"""
Replies: the answers to the futures of one tree, with the compiled core. They arrive at one receiver
without Python. The broker's thread takes all that have come at a time.
"""

from __future__ import annotations

import threading
from typing import Any, Optional

import mitogen.core
from mitogen._tree.compiled import core as _native

#: Bytes of an answer that the broker's thread reads. A longer one may take its time, and all hosts
#: need that thread: the one that wants the value reads it.
READ_AT_ONCE = 65536

_lock = threading.RLock()


def _replace_lock() -> None:
    global _lock
    _lock = threading.RLock()


mitogen.core._fork_hooks.append(_replace_lock)


def _give(future: Any, msg: Any) -> None:
    future._on_reply(msg)


class Replies:
    """
    The futures of a tree that wait for their answers. Any thread.

    :ivar pending: handle -> future, a :class:`HostFuture`.
    """
    def __init__(self, router: Any) -> None:
        self.pending: dict[int, Any] = {}
        self._receiver = mitogen.core.Receiver(router)
        self._receiver.notify = self._on_message
        _native.tell_once(self._receiver)

    def ask(self, future: Any, msg: Any) -> int:
        """
        Send the message of a call, and return the handle of its answer.
        """
        return _native.ask(self._receiver, future.host, msg, self.pending, future)  # type: ignore[no-any-return]

    def _on_message(self, receiver: Any) -> None:
        _native.settle(receiver, self.pending, _give, '_on_value', READ_AT_ONCE)


def of(router: Any) -> Optional[Replies]:
    """
    Return the replies of a tree, or None with the pure core.
    """
    found: Optional[Replies] = vars(router).get('_replies')
    if found is None and _native is not None:
        with _lock:
            found = vars(router).get('_replies')
            if found is None:
                found = router._replies = Replies(router)
    return found
