# SPDX-License-Identifier: BSD-3-Clause
"""
A collector for prometheus_client, for masters of Python 3.9 and newer.
"""

from mitogen._tree.figures import Collector, COUNTERS, GAUGES

__all__ = ['Collector', 'COUNTERS', 'GAUGES']
