# SPDX-License-Identifier: BSD-3-Clause
"""
Spans of OpenTelemetry for the tasks of a tree. This process and each host need `opentelemetry-api`.
A host that has none imports it from here.

Each task gets a span of the kind *client* here, as a child of the current one, and one of the kind
*server* on its host, as a child of that. The second one is recorded if the host has a tracer
provider. In any case it is the current one there, so a span that the function begins, and a task
that it gives on, belongs to the same trace.
"""

from __future__ import annotations

import concurrent.futures
from typing import Any, Callable, Optional

import mitogen._tasks.spans
from opentelemetry import propagate, trace


def observe(
    tree: mitogen.Tree, tracer_provider: Optional[trace.TracerProvider] = None, *, hosts: bool = True,
) -> Callable[[], None]:
    """
    Make spans for the tasks of a tree from now on.

    :param tracer_provider: the global one by default.
    :param hosts: carry the context of the trace to the hosts, and what else the global propagator
        takes along: by default the baggage.
    :return: a function that ends this.
    """
    tracer = trace.get_tracer(mitogen._tasks.spans.NAME, tracer_provider=tracer_provider)

    def begin(task: mitogen.ObservedTask) -> Callable[[Optional[BaseException]], None]:
        span = tracer.start_span(task.name, kind=trace.SpanKind.CLIENT, attributes=_attributes(task))
        if hosts:
            propagate.inject(task.headers, context=trace.set_span_in_context(span))

        def end(error: Optional[BaseException]) -> None:
            _finish(span, error)
        return end
    return tree.observe(begin, mitogen._tasks.spans.within if hosts else None)


def _attributes(task: mitogen.ObservedTask) -> dict[str, Any]:
    module, _, function = task.name.rpartition('.')
    return {'code.function.name': task.name, 'rpc.system': mitogen._tasks.spans.NAME, 'rpc.service': module,
            'rpc.method': function, 'server.address': task.host.name or '', 'mitogen.context_id': task.host.context_id,
            'mitogen.kind': task.kind}


def _finish(span: trace.Span, error: Optional[BaseException]) -> None:
    """
    End a span. A task that was cancelled, or a stream that was closed, has not failed.
    """
    if isinstance(error, concurrent.futures.CancelledError) or type(error).__name__ == 'CancelledError':
        span.set_attribute('mitogen.cancelled', True)
    elif isinstance(error, Exception):
        mitogen._tasks.spans.note_error(span, error)
    span.end()
