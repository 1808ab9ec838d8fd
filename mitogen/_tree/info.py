# SPDX-License-Identifier: BSD-3-Clause
"""
Facts about a host, and about the link to it.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from typing import TYPE_CHECKING, Any

import mitogen._facts
import mitogen.core
from mitogen._tree import errors

if TYPE_CHECKING:
    from mitogen._tree.host import Host

#: Characters of a fact. The facts are a host's word, and it may say anything.
TEXT_MAX = 1000

#: Round trips of which the median is taken. An odd number.
ROUNDS = 5

#: Bytes that are sent to measure the rate: the first number, and eight times as many until they
#: take so many seconds, or the last number is reached.
FIRST_SIZE, LAST_SIZE, LEAST_SECONDS = 65536, 4 * 1048576, 0.05


@dataclasses.dataclass(frozen=True)
class HostLink:
    """
    The way to a host, as it was measured.

    :ivar round_trip: seconds of a call that does nothing.
    :ivar bytes_per_second: how fast a long argument travels, at least.
    """
    round_trip: float
    bytes_per_second: float


@dataclasses.dataclass(frozen=True)
class HostInfo:
    """
    Facts about a host, as it told them.

    :ivar hostname: its own name.
    :ivar user: name of the user that functions run as.
    :ivar pid: its process.
    :ivar python: version of its interpreter, such as ``3.11.2``.
    :ivar executable: path of that.
    :ivar platform: system and machine, as :func:`platform.platform` has it.
    :ivar core: ``native`` or ``pure``.
    """
    hostname: str
    user: str
    pid: int
    python: str
    executable: str
    platform: str
    core: str
    _host: Host = dataclasses.field(repr=False, compare=False)

    @functools.cached_property
    def link(self) -> HostLink:
        """
        The :class:`HostLink`. The first use measures it, which takes a few round trips, and some
        megabytes on a fast link. Any thread but the broker's.

        :raises ConnectionLost: the host went away.
        """
        return _measure(self._host)


def _timed(host: Host, *args: Any) -> float:
    before = time.monotonic()
    host.default_call_chain.call(*args)
    return time.monotonic() - before


def _measure(host: Host) -> HostLink:
    round_trip = sorted(_timed(host, int) for _ in range(ROUNDS))[ROUNDS // 2]
    size = FIRST_SIZE
    while True:
        # Bytes that ssh cannot compress.
        seconds = max(1e-6, _timed(host, len, mitogen.core.Blob(os.urandom(size))) - round_trip)
        if seconds >= LEAST_SECONDS or not size < min(LAST_SIZE, host.router.max_message_size // 16):
            return HostLink(round_trip, size / seconds)
        size *= 8


def ask(host: Host) -> HostInfo:
    """
    Have a host tell about itself. Any thread but the broker's.

    :raises StreamError: it told something else.
    """
    told = host.default_call_chain.call(mitogen._facts.about)
    if isinstance(told, dict):
        facts = {field.name: told.get(field.name) for field in dataclasses.fields(HostInfo)[:-1]}
        pid = facts.pop('pid')
        if type(pid) is int and all(isinstance(it, (str, bytes)) and len(it) <= TEXT_MAX for it in facts.values()):
            texts = {name: mitogen.core.to_text(fact) for name, fact in facts.items()}
            return HostInfo(pid=pid, _host=host, **texts)
    raise errors.wrong_answer(host, 'does not describe the host')
