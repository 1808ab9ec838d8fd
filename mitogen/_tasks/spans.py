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
    parent = propagate.extract(headers)
    tracer = trace.get_tracer(NAME)
    with tracer.start_as_current_span(name, context=parent, kind=trace.SpanKind.SERVER):
        if trace.get_current_span().get_span_context().is_valid:
            yield
            return
        # There is no provider that would make one: the span of the caller stays the current one.
        token = context.attach(parent)
        try:
            yield
        finally:
            context.detach(token)
