# SPDX-License-Identifier: BSD-3-Clause
"""
``mitogen ping`` and ``mitogen info``: how quickly hosts answer, and facts
about them.
"""

from __future__ import annotations

import time
from typing import Any

from mitogen import _cli
from mitogen._cli import connecting, display, values

#: Round trips of which the median is told. An odd number.
ROUNDS = 5

#: The facts that are told of a host.
FACTS = 'hostname', 'user', 'pid', 'python', 'executable', 'platform', 'core', 'time'


def add_commands(subparsers: Any) -> None:
    """
    Add ours to the parser of ``mitogen``.
    """
    for name, func in (('ping', ping), ('info', info)):
        parser = _cli.add_parser(subparsers, name, description=_cli.COMMANDS[name][1])
        connecting.add_options(parser)
        parser.set_defaults(func=func, parser=parser)


def _look_at(options: Any, ask: Any, show: Any) -> int:
    """
    Ask each host for facts and measure round trips. Return the exit status.

    :param ask: returns the facts of a host.
    """
    work = connecting.Work(options)
    shown = work.display()

    def job(host: Any, outcome: display.Outcome) -> None:
        connected = time.monotonic() - outcome.started
        facts = dict(ask(host), round_trip=_round_trip(host), connected=round(connected, 4))
        outcome.status, outcome.value = 0, facts if options.json else show(facts)
    return connecting.status(work.run(job, shown))


def _about(host: Any) -> dict[str, Any]:
    import mitogen._facts
    return values.facts_of(host.call(mitogen._facts.about), FACTS)


def _python(host: Any) -> dict[str, Any]:
    import mitogen._facts
    return {'python': values.fact(host.call(mitogen._facts.python))}


def _round_trip(host: Any) -> float:
    seconds = []
    for _ in range(ROUNDS):
        before = time.monotonic()
        host.call(int)
        seconds.append(time.monotonic() - before)
    return round(sorted(seconds)[ROUNDS // 2], 6)


def ping(options: Any, rest: list[str]) -> int:
    """
    Tell in a line for each host how quickly it answers.
    """
    return _look_at(options, _about if options.json else _python, lambda facts: (
        'ready in %.2f s, round trip %.2f ms, Python %s' % (
            facts['connected'], 1000 * facts['round_trip'], facts['python'])))


def info(options: Any, rest: list[str]) -> int:
    """
    Show the facts of each host.
    """
    return _look_at(options, _about, lambda facts: '\n'.join('%s: %s' % (
        name, facts[name]) for name in FACTS[:-1]))
