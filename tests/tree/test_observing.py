"""
Observers of tasks: told here and on the host, and spans and figures that are made of it.
"""

import asyncio
import concurrent.futures
import functools

import pytest

import mitogen
import mitogen.aio
import mitogen.core
import mitogen.otel
import mitogen.prometheus
import observed_targets
import task_targets
import testlib


class Notes(object):
    """
    An observer that keeps what it is told.
    """
    def __init__(self):
        self.begun = []
        self.ended = []

    def begin(self, task):
        self.begun.append((task.host.name, task.name, task.kind))
        task.headers['number'] = str(len(self.begun))
        return self.ended.append

    def end(self, count=1):
        """
        Return what so many tasks have ended with.
        """
        testlib.wait_for(lambda: len(self.ended) >= count)
        return self.ended


@pytest.fixture
def notes(whole):
    notes = Notes()
    stop = whole.observe(notes.begin, observed_targets.around)
    yield notes
    stop()


def around(host):
    return host.default_call_chain.call(observed_targets.taken)


@pytest.mark.parametrize('how', ['call', 'submit', 'options', 'map', 'partial'])
def test_a_task_is_told_of_here_and_there(host, notes, how):
    around(host)
    if how == 'call':
        value = host.call(observed_targets.double, 21)
    elif how == 'submit':
        value = host.submit(observed_targets.double, 21).result()
    elif how == 'options':
        value = host.options(timeout=60).call(observed_targets.double, value=21)
    elif how == 'map':
        value, = host.map(observed_targets.double, [21])
    else:
        value = host.call(functools.partial(observed_targets.double, 21))
    assert value == 42
    assert notes.begun == [('shared', 'observed_targets.double', 'call')]
    assert notes.end() == [None]
    assert around(host) == [['begin', 'observed_targets.double', {'number': '1'}], ['end']]


def test_a_task_may_have_a_name_of_its_own(host, notes):
    tuned = host.options(name='the work')
    assert tuned.call(observed_targets.double, 1) == 2
    with tuned.stream(observed_targets.count, 1) as items:
        assert list(items) == [0]
    assert host.options(name='the work', worker=True).call(observed_targets.double, 2) == 4
    assert asyncio.run(mitogen.aio.Host(host).options(name='the work').call(observed_targets.double_later, 3)) == 6
    assert [name for _, name, _ in notes.begun] == ['the work'] * 4
    assert notes.end(4) == [None] * 4
    assert {note[1] for note in around(host) if note[0] == 'begin'} == {'the work'}


def test_an_error_is_told(host, notes):
    with pytest.raises(mitogen.RemoteError, match='on purpose') as caught:
        host.call(observed_targets.fail)
    error, = notes.end()
    assert error is caught.value
    assert around(host)[1:] == [['failed', 'ValueError']]


def test_a_cancelled_task_is_told(host, notes):
    with mitogen.core.Receiver(host.router) as told:
        host.default_call_chain.call(task_targets.tell, told.to_sender())
        future = host.submit(task_targets.sleep_and_note, 600, 'never')
        told.get(testlib.patience())
        assert future.cancel()
        assert type(notes.end()[0]) is concurrent.futures.CancelledError
        assert told.get(testlib.patience()).unpickle() == 'TaskCancelled'
        host.default_call_chain.call(task_targets.tell)
    assert around(host)[1:] == [['failed', 'TaskCancelled']]


def test_a_stream_is_told_of(host, notes):
    around(host)
    with host.stream(observed_targets.count, 3) as items:
        assert list(items) == [0, 1, 2]
    assert notes.begun == [('shared', 'observed_targets.count', 'stream')]
    assert notes.end() == [None]
    assert around(host) == [['begin', 'observed_targets.count', {'number': '1'}], ['end']]
    with host.stream(observed_targets.count, 1 << 40) as items:
        next(items)
    assert type(notes.end(2)[1]) is GeneratorExit
    testlib.wait_for(lambda: 'failed' in [note[0] for note in around(host)])


@pytest.mark.parametrize('first', [b'x', None], ids=['handle', 'item'])
def test_a_stream_of_an_item_that_cannot_be_read_ends_with_that_error(host, notes, first):
    items = host.stream(observed_targets.count, 1 << 40)
    bad = mitogen.core.Message(data=b'x', enc=mitogen.core.Message.ENC_PKL)
    with pytest.raises(mitogen.core.DamagedError) as caught:
        if first is None:
            next(items)
        items._items.get = lambda timeout: bad
        next(items)
    assert notes.end() == [caught.value]
    assert list(items) == []


def test_coroutines_are_told_of(host, notes):
    around(host)
    there = asyncio.run(mitogen.aio.Host(host).call(observed_targets.double_later, 21))
    assert (there, host.call(observed_targets.double_later, 4)) == (42, 8)
    assert notes.end(2) == [None, None]
    assert [note[0] for note in around(host)] == ['begin', 'end'] * 2


def test_executors_and_workers_are_told_of(host, notes):
    with host.executor(1) as executor:
        assert executor.submit(observed_targets.double, 1).result() == 2
    assert host.options(worker=True).call(observed_targets.double, 2) == 4
    assert [begun[1:] for begun in notes.begun] == [('observed_targets.double', 'call')] * 2
    assert notes.end(2) == [None, None]


def test_processes_and_copies_are_told_of(host, notes, tmp_path):
    assert host.run(['true']).returncode == 0
    with pytest.raises(mitogen.CommandError):
        host.run('exit 3', check=True)
    host.write_text(tmp_path / 'here', 'text')
    assert host.read_text(tmp_path / 'here') == 'text'
    host.put(tmp_path / 'here', tmp_path / 'there')
    host.sync(tmp_path / 'here', tmp_path / 'there')
    with pytest.raises(mitogen.FileError):
        host.get(tmp_path / 'nothing', tmp_path)
    assert [begun[1:] for begun in notes.begun] == [
        ('mitogen.Host.run', 'run'), ('mitogen.Host.run', 'run'), ('mitogen.Host.write_bytes', 'copy'),
        ('mitogen.Host.read_bytes', 'copy'), ('mitogen.Host.put', 'copy'), ('mitogen.Host.sync', 'copy'),
        ('mitogen.Host.get', 'copy')]
    assert [type(error) for error in notes.end(7)] == [
        type(None), mitogen.CommandError, type(None), type(None), type(None), type(None), mitogen.FileError]


def test_a_span_of_a_process_is_below_that_of_its_coroutine(whole, host, spans):
    async def main():
        with tracer.start_as_current_span('program') as program:
            await mitogen.aio.Host(host).run(['true'])
        return program

    tracer, finished = spans
    program = asyncio.run(main())
    span = testlib.wait_for(lambda: [one for one in finished() if one.name == 'mitogen.Host.run'])[0]
    assert span.parent.span_id == program.get_span_context().span_id


def test_baggage_goes_to_hosts(host, spans):
    from opentelemetry import baggage, context
    token = context.attach(baggage.set_baggage('tenant', 'blue'))
    try:
        assert host.call(observed_targets.current_baggage) == {'tenant': 'blue'}
    finally:
        context.detach(token)


def test_an_observer_may_use_the_executor_that_it_observes(host, whole):
    def begin(task):
        begun.append(task)
        if len(begun) == 1:
            inner.append(executor.submit(observed_targets.double, 2))
    begun, inner = [], []
    with host.executor(1) as executor:
        stop = whole.observe(begin)
        try:
            assert executor.submit(observed_targets.double, 1).result(testlib.patience()) == 2
            assert inner[0].result(testlib.patience()) == 4
        finally:
            stop()
        with pytest.raises(TypeError, match='lambda'):
            executor.submit(lambda: 1)


def test_what_cannot_be_sent_is_said_in_terms_of_the_function(host, notes):
    with pytest.raises(mitogen.core.CallError, match=r'argument 1 .*observed_targets\.double'):
        host.call(observed_targets.double, notes)
    with pytest.raises(TypeError, match='lambda'):
        host.call(lambda: 1)
    assert notes.begun == []


def test_an_observer_that_fails_does_not_stop_the_task(host, whole):
    def end(error):
        raise ValueError('at the end')

    def begin(task):
        begun.append(task)
        if len(begun) == 2:
            raise ValueError('at the begin')
        task.headers['number'] = len(begun)
        return end
    begun = []
    stop = whole.observe(begin, observed_targets.around)
    try:
        with testlib.LogCapture('mitogen.tree') as logs:
            assert host.call(observed_targets.double, 1) == 2
            logs.wait('at the start of observed_targets.double')
            logs.wait('at the end of observed_targets.double')
            assert host.call(observed_targets.double, 1) == 2
        assert len(begun) == 2
        assert [type(record.exc_info[1]) for record in logs.find('at the start')] == [TypeError, ValueError]
    finally:
        stop()
    assert host.call(observed_targets.double, 1) == 2
    assert len(begun) == 2


def test_one_that_fails_over_there_fails_the_task(host, whole):
    stop = whole.observe(lambda task: None, observed_targets.refuse)
    with pytest.raises(mitogen.RemoteError, match='refused by the observer'):
        host.call(observed_targets.double, 1)
    stop()
    with pytest.raises(TypeError, match='to be a function of a module'):
        whole.observe(lambda task: None, lambda name, headers: None)


def test_a_task_that_cannot_be_sent_any_more_has_an_end(whole, notes):
    child = whole.connect('local:')
    child.close()
    with pytest.raises(mitogen.ConnectionLost):
        child.call(observed_targets.double, 1)
    assert [type(error) for error in notes.end()] == [mitogen.ConnectionLost]


# ---- OpenTelemetry

@pytest.fixture
def spans(whole):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stop = mitogen.otel.observe(whole, provider)
    yield provider.get_tracer('test'), exporter.get_finished_spans
    stop()


def ids(span):
    return '%032x' % span.context.trace_id, '%016x' % span.context.span_id


def test_a_span_of_a_task_is_carried_to_child_and_grandchild(tree, spans):
    tracer, finished = spans
    child = tree.connect('local:', name='child')
    grandchild = child.connect('local:', name='grandchild')
    # One records spans, and the other one has nothing but the context of the trace.
    child.call(observed_targets.record_spans)
    with tracer.start_as_current_span('program') as program:
        child.call(observed_targets.double, 1)
        trace, span = grandchild.call(observed_targets.current_trace)
    of_child, of_grandchild = [
        testlib.wait_for(lambda: [one for one in finished() if one.name == name])[-1]
        for name in ('observed_targets.double', 'observed_targets.current_trace')]
    assert of_child.parent.span_id == of_grandchild.parent.span_id == program.get_span_context().span_id
    assert (trace, span) == ids(of_grandchild)
    assert trace == ids(program)[0]
    assert of_grandchild.kind.name == 'CLIENT' and of_grandchild.attributes['server.address'] == grandchild.name
    assert ('observed_targets.double',) + ids(of_child) + ('SERVER',) in child.call(observed_targets.recorded)


def test_a_call_within_a_task_is_in_the_trace_on_the_grandchild_too(tree, spans):
    tracer, finished = spans
    child = tree.connect('local:', name='child')
    child.call(observed_targets.record_spans)
    child.default_call_chain.call(observed_targets.start_below)
    with tracer.start_as_current_span('program') as program:
        trace, span = child.call(observed_targets.trace_below)
        with pytest.raises(mitogen.RemoteError, match='on purpose'):
            child.call(observed_targets.fail_below)
        # An argument that may not be sent is told of as ever.
        with pytest.raises(mitogen.RemoteError, match='argument 1 of observed_targets.double is'):
            child.call(observed_targets.send_an_object_below)
    assert trace == ids(program)[0]
    (task, _), (call, of_call) = [
        [(id_, parent) for name, id_, parent in child.default_call_chain.call(observed_targets.spans_of, trace)
         if name == wanted][0] for wanted in ('observed_targets.trace_below', 'observed_targets.current_trace')]
    told = child.default_call_chain.call(observed_targets.spans_below, trace)
    assert ('observed_targets.current_trace', span, call) in told
    assert of_call == task
    assert [name for name, _, _ in told] == ['observed_targets.current_trace', 'observed_targets.fail']
    # The older interface has no task, and so no span.
    assert child.default_call_chain.call(observed_targets.trace_below)[0] == '0' * 32


def test_spans_of_what_fails_and_of_what_is_cancelled(host, spans):
    tracer, finished = spans
    with pytest.raises(mitogen.RemoteError):
        host.call(observed_targets.fail)
    span, = testlib.wait_for(finished)
    assert not span.status.is_ok and 'on purpose' in span.status.description
    assert span.events[0].name == 'exception'
    future = host.submit(task_targets.sleep_and_note, 600, 'never')
    future.cancel()
    span = testlib.wait_for(lambda: finished()[1:])[0]
    assert span.attributes['mitogen.cancelled'] is True and span.status.is_unset


def test_what_a_host_says_can_be_encoded_by_any_exporter(host, spans):
    tracer, finished = spans
    with pytest.raises(mitogen.RemoteError):
        host.call(observed_targets.fail_without_a_letter)
    span, = testlib.wait_for(finished)
    texts = [span.status.description] + list(span.events[0].attributes.values())
    assert len(texts) >= 3 and any(u'no letter: ?' in text for text in texts)
    for text in texts:
        text.encode('utf-8')


def test_a_registry_holds_no_words_of_a_host(tree):
    import prometheus_client
    child = tree.connect('local:', name=u'x"} 1\nforged_metric{a="\ud800')
    assert child.call(observed_targets.double, 1) == 2
    registry = prometheus_client.CollectorRegistry()
    registry.register(mitogen.prometheus.Collector(tree))
    assert b'forged' not in prometheus_client.generate_latest(registry)


def test_a_worker_and_a_group_are_in_the_span_of_their_caller(whole, spans):
    tracer, finished = spans
    with tracer.start_as_current_span('program') as program:
        group = whole.connect_all(['local:', 'local:'])
        assert [result.value for result in group.options(concurrency=1).map(observed_targets.double, 1)] == [2, 2]
        assert group.alive[0].options(worker=True).call(observed_targets.double, 1) == 2
    testlib.wait_for(lambda: len(finished()) == 4)
    assert {one.parent.span_id for one in finished() if one.name != 'program'} == {program.get_span_context().span_id}
    for child in group.alive:
        child.close()


# ---- prometheus

def test_a_registry_has_the_figures_of_a_tree(host, whole):
    from prometheus_client import CollectorRegistry, generate_latest
    registry = CollectorRegistry()
    registry.register(mitogen.prometheus.Collector(whole, {'tree': 'one'}))
    before = registry.get_sample_value('mitogen_messages_out_total', {'tree': 'one'})
    host.call(int)
    assert registry.get_sample_value('mitogen_messages_out_total', {'tree': 'one'}) > before
    assert registry.get_sample_value('mitogen_streams', {'tree': 'one'}) >= 1
    whole._refusals = {'log_bytes_per_second': 3}
    try:
        text = generate_latest(registry).decode()
    finally:
        del whole._refusals
    assert 'mitogen_limit_refusals_total{limit="log_bytes_per_second",tree="one"} 3.0' in text


def test_each_figure_of_a_router_has_a_meaning(whole):
    figures = set(mitogen.prometheus.GAUGES) | set(mitogen.prometheus.COUNTERS) | {'refusals'}
    assert figures == set(whole.stats())


def test_a_tree_that_has_ended_has_no_figures():
    with mitogen.Tree() as tree:
        collector = mitogen.prometheus.Collector(tree)
        assert list(collector.collect())
    assert list(collector.collect()) == []
