# SPDX-License-Identifier: BSD-3-Clause
"""
Options of calls. They stand apart, as the keywords of a call belong to the function.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Optional

#: Bytes that :meth:`Host.read_bytes` takes, unless the caller says more: as many as a message may
#: have.
MOST_READ = 128 << 20


@dataclasses.dataclass(frozen=True)
class CallOptions:
    """
    :ivar timeout: seconds until the work is stopped; None for no limit.
    :ivar worker: run it in a process of its own, which is ended with it.
    :ivar window: items of a stream, or calls of a map, that may be on their way.
    :ivar window_bytes: bytes of a stream that may be on their way.
    """
    timeout: Optional[float] = None
    worker: bool = False
    window: int = 256
    window_bytes: int = 4 * 1048576

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.timeout == self.timeout:
            raise ValueError('timeout must be a number of seconds, or None')
        for name in ('window', 'window_bytes'):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError('%s must be a whole number of at least 1, and not %r' % (name, value))

    def changed(self, changes: dict[str, Any]) -> CallOptions:
        """
        Return these with some changed.

        :raises TypeError: there is no such option.
        """
        return dataclasses.replace(self, **changes)


DEFAULT = CallOptions()
