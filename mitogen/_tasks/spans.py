# SPDX-License-Identifier: BSD-3-Clause
"""
Spans of OpenTelemetry, on the side that runs tasks. See :mod:`mitogen.otel`.
"""
# !mitogen: minify_safe

import contextlib

from opentelemetry import context, propagate, trace

#: Name of the tracer.
NAME = 'mitogen'


@contextlib.contextmanager
def within(name, headers):
    """
    Be in a span of the trace that headers tell of.
    """
    # If there is no provider that would make a span, that of the caller is the current one. There
    # may be more in the context, such as baggage.
    token = context.attach(propagate.extract(headers))
    try:
        with trace.get_tracer(NAME).start_as_current_span(name, kind=trace.SpanKind.SERVER):
            yield
    finally:
        context.detach(token)
