# SPDX-License-Identifier: BSD-3-Clause
"""
Spans of OpenTelemetry, on the side that runs tasks. See :mod:`mitogen.otel`.
"""
# !mitogen: minify_safe

import contextlib
import contextvars
import sys

import mitogen._tasks.observed
import mitogen.core
from opentelemetry import context, propagate, trace

#: Name of the tracer.
NAME = 'mitogen'

#: Whether a task runs here that came with the context of a trace: then calls to others carry it on.
_carries = contextvars.ContextVar('carries', default=False)


@contextlib.contextmanager
def within(name, headers):
    """
    Be in a span of the trace that headers tell of.
    """
    # If there is no provider that would make a span, that of the caller is the current one. There
    # may be more in the context, such as baggage.
    token = context.attach(propagate.extract(headers))
    mark = _carries.set(True)
    try:
        with trace.get_tracer(NAME).start_as_current_span(name, kind=trace.SpanKind.SERVER):
            yield
    finally:
        _carries.reset(mark)
        context.detach(token)


def is_carrying():
    """
    Tell whether this runs within a task that came with the context of a trace.
    """
    return _carries.get()


def call(chain, fn, args, kwargs):
    """
    Call a function as a chain of calls does, in a span, which is carried there.
    """
    fn, args, kwargs = sys.modules['mitogen.parent']._take_apart(fn, args, kwargs)
    names = chain._find(fn)
    if names[0].partition('.')[0] == 'mitogen' or hasattr(fn, '_call_handle'):
        return chain._call(fn, args, kwargs)
    name = '.'.join([part for part in names if part])
    attributes = {
        'code.function.name': name, 'rpc.system': NAME, 'rpc.service': name.rpartition('.')[0], 'rpc.method': names[2],
        'server.address': chain.context.name or '', 'mitogen.context_id': chain.context.context_id,
        'mitogen.kind': 'call'}
    with trace.get_tracer(NAME).start_as_current_span(
            name, kind=trace.SpanKind.CLIENT, attributes=attributes, record_exception=False,
            set_status_on_exception=False) as span:
        headers = {}
        propagate.inject(headers)
        try:
            msg = chain.make_msg(
                mitogen._tasks.observed.run_carried, name, headers, names, args, mitogen.core.Kwargs(kwargs))
        except Exception:
            # If an argument cannot be sent, the error of this names that argument of the function.
            chain.make_msg(fn, *args, **kwargs)
            raise
        try:
            return chain._send_special(msg, fn, args, kwargs).get().unpickle()
        except Exception as e:
            note_error(span, e)
            raise


def note_error(span, error):
    """
    Note in a span what its task has raised.
    """
    import traceback
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    span.record_exception(error, attributes={
        'exception.message': as_text(error), 'exception.stacktrace': as_text(''.join(lines))})
    span.set_status(trace.Status(trace.StatusCode.ERROR, as_text(error.args[0] if error.args else '')))


def as_text(value):
    """
    Return a text that any exporter can encode. Most of the text is from the other side, and an
    error of the exporter would lose the spans of others in the same batch.
    """
    return str(value).encode('utf-8', 'replace').decode()
