"""
Functions of observed tasks. Python 3 only.
"""

import contextlib

import mitogen.core

_around = []


@contextlib.contextmanager
def around(name, headers):
    """
    Note what surrounds a task.
    """
    _around.append(['begin', name, dict(headers)])
    try:
        yield
    except BaseException as e:
        _around.append(['failed', type(e).__name__])
        raise
    _around.append(['end'])


def taken():
    """
    Return what was noted, and forget it.
    """
    found = list(_around)
    del _around[:]
    return found


def refuse(name, headers):
    raise ValueError('refused by the observer')


def double(value):
    return 2 * value


def fail():
    raise ValueError('on purpose')


def fail_without_a_letter():
    raise ValueError(u'no letter: \ud800')


def count(stop):
    for i in range(stop):
        yield i


async def double_later(value):
    return 2 * value


def current_trace():
    """
    Return the ids of the trace and of the span that this is in.
    """
    from opentelemetry import trace
    context = trace.get_current_span().get_span_context()
    return '%032x' % context.trace_id, '%016x' % context.span_id


_exporter = None


def record_spans():
    """
    Have this process record spans.
    """
    global _exporter
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    _exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_exporter))
    trace.set_tracer_provider(provider)


def recorded():
    """
    Return (name, trace, parent, kind) of the spans that this process has recorded.
    """
    return [(span.name, '%032x' % span.context.trace_id, '%016x' % span.parent.span_id, span.kind.name)
            for span in _exporter.get_finished_spans()]


def current_baggage():
    from opentelemetry import baggage
    return dict(baggage.get_all())


_below = None


@mitogen.core.takes_econtext
def start_below(econtext):
    """
    Start a child here, for what follows, that records spans.
    """
    global _below
    import mitogen.parent
    mitogen.parent.upgrade_router(econtext)
    _below = econtext.router.local()
    _below.call(record_spans)


def trace_below():
    return _below.call(current_trace)


def fail_below():
    return _below.call(fail)


def send_an_object_below():
    return _below.call(double, Exception('no value'))


def spans_of(trace):
    """
    Return (name, id, id of the parent) of the spans of a trace that this process has recorded.
    """
    return [(span.name, '%016x' % span.context.span_id, '%016x' % span.parent.span_id)
            for span in _exporter.get_finished_spans() if '%032x' % span.context.trace_id == trace]


def spans_below(trace):
    return _below.call(spans_of, trace)
