# SPDX-License-Identifier: BSD-3-Clause
"""
A collector for prometheus_client: the counters of a router, as :func:`mitogen.debug.router_stats`
tells them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Optional

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

#: Figures that also fall, and their meaning.
GAUGES = {
    'streams': 'Connections of the router.',
    'routes': 'Contexts that it knows a way to.',
    'handlers': 'Handles that messages can be sent to.',
    'queued_bytes': 'Bytes that wait to be written, on all streams.',
    'queued_work': 'Functions and events that wait for the broker.',
    'blocked_senders': 'Threads that wait for a stream to take more.',
}

#: Figures that only grow, and their meaning.
COUNTERS = {
    'messages_in': 'Messages received.',
    'bytes_in': 'Bytes received, with headers.',
    'messages_out': 'Messages sent.',
    'bytes_out': 'Bytes sent, with headers.',
    'forwarded': 'Messages passed on to another connection.',
    'refused': 'Messages that were not delivered.',
    'pushed_modules': 'Modules sent that nobody had asked for.',
    'unused_modules': 'Modules of these that were not used.',
    'wakeups': 'How often a thread was woken.',
}


class Collector:
    """
    Tells prometheus_client of one router::

        prometheus_client.REGISTRY.register(mitogen.prometheus.Collector(tree))

    A process with several routers gives each of them labels of its own. Once the broker has ended
    there are no figures.

    :param router: a :class:`mitogen.Tree` or another router of a master.
    :param labels: names and values, all text, that each figure gets.
    """
    def __init__(self, router: Any, labels: Optional[Mapping[str, str]] = None) -> None:
        self._router = router
        self._labels = dict(labels or {})

    def describe(self) -> list[Metric]:
        """
        Return nothing: a registry would otherwise collect at once.
        """
        return []

    def collect(self) -> Iterator[Metric]:
        """
        Yield the figures of now. Any thread but the broker's.
        """
        if not self._router.broker._alive:
            return
        stats = self._router.stats()
        names, values = list(self._labels), list(self._labels.values())
        for name, text in GAUGES.items():
            gauge = GaugeMetricFamily('mitogen_' + name, text, labels=names)
            gauge.add_metric(values, stats[name])
            yield gauge
        for name, text in COUNTERS.items():
            counter = CounterMetricFamily('mitogen_' + name, text, labels=names)
            counter.add_metric(values, stats[name])
            yield counter
        refusals = CounterMetricFamily(
            'mitogen_limit_refusals', 'How often a limit has refused something.', labels=names + ['limit'])
        for limit, count in sorted(stats['refusals'].items()):
            refusals.add_metric(values + [limit], count)
        yield refusals
