# SPDX-License-Identifier: BSD-3-Clause
"""
Spans of OpenTelemetry for tasks, for masters of Python 3.9 and newer.
"""

from mitogen._tree.tracing import observe

__all__ = ['observe']
