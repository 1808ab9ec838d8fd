"""
Streams: the items that a generator yields on a host, no further ahead than its reader allows.
"""

import time

import pytest

import mitogen
import mitogen._tasks
import mitogen.core

import task_targets
import targets
import testlib


@pytest.fixture(autouse=True)
def nothing_seen(host):
    host.call(task_targets.forget)


@pytest.fixture(scope='module')
def wide():
    with mitogen.Tree(threads=2) as tree:
        host = tree.connect()
        host.submit(int).result()
        yield host


def test_items_come_in_order_to_the_last(host):
    with host.stream(task_targets.count, 1000) as stream:
        assert list(stream) == list(range(1000))
        assert list(stream) == []
    assert host.call(task_targets.highest) == 'closed'


def test_whatever_can_be_iterated_will_do(host):
    assert list(host.stream(task_targets.whole_list)) == [1, 2, 3]


def test_what_a_generator_raises_is_raised_once_after_its_items(host):
    found = []
    with host.stream(task_targets.count, 5, fail_at=3) as stream:
        with pytest.raises(mitogen.RemoteError, match='at 3'):
            for item in stream:
                found.append(item)
        assert list(stream) == []
    assert found == [0, 1, 2]
    assert host.call(targets.add, 1, 2) == 3


def test_an_item_that_cannot_travel_is_an_error_after_those_before_it(host):
    stream = host.stream(task_targets.yields_what_cannot_travel)
    assert next(stream) == 1
    with pytest.raises(mitogen.core.StreamError):
        next(stream)
    assert list(stream) == []


def test_a_function_that_returns_no_iterable(host):
    with pytest.raises(mitogen.RemoteError, match='TypeError'):
        next(host.stream(targets.add, 1, 2))


def test_a_generator_ends_with_the_block(host):
    with host.stream(task_targets.count, 10 ** 9) as stream:
        assert next(stream) == 0
    # This call is served when the stream has left the main thread.
    assert host.call(task_targets.highest) == 'closed'
    assert list(stream) == []


def test_a_generator_that_sleeps_ends_with_the_block(host):
    with host.stream(task_targets.sleepy_count) as stream:
        assert next(stream) == 0
    assert host.call(task_targets.highest) == 'closed'


def test_a_generator_in_a_thread_ends_with_the_block(wide):
    with wide.stream(task_targets.count, 10 ** 9) as stream:
        assert next(stream) == 0
    assert testlib.wait_for(lambda: wide.call(task_targets.highest) == 'closed')


def test_a_stream_that_is_forgotten_ends(host):
    stream = host.stream(task_targets.count, 10 ** 9)
    next(stream)
    del stream
    assert host.call(task_targets.highest) == 'closed'


def test_a_generator_is_ahead_by_a_window_of_items(wide):
    with wide.options(window=10).stream(task_targets.count, 10 ** 9) as stream:
        for taken in range(1, 40):
            next(stream)
        assert testlib.wait_for(lambda: wide.call(task_targets.highest) >= 40)
        time.sleep(0.1)
        # The generator has yielded one item more than may be on their way.
        assert wide.call(task_targets.highest) <= 39 + 10
    testlib.wait_for(lambda: wide.call(task_targets.highest) == 'closed')


def test_a_generator_is_ahead_by_a_window_of_bytes(wide):
    wide.call(task_targets.forget)
    with wide.options(window_bytes=100000).stream(task_targets.blobs, 1000, 20000) as stream:
        for taken in range(20):
            assert len(next(stream)) == 20000
        time.sleep(0.1)
        assert wide.call(task_targets.highest) <= 20 + 6
        assert sum(1 for _ in stream) == 980


def test_an_item_may_be_larger_than_the_window(host):
    sizes = [len(item) for item in host.options(window_bytes=1000).stream(task_targets.blobs, 5, 50000)]
    assert sizes == [50000] * 5


def test_a_stream_has_a_deadline(host):
    with host.options(timeout=0.3).stream(task_targets.sleepy_count) as stream:
        assert next(stream) == 0
        with pytest.raises(mitogen.DeadlineExceeded):
            next(stream)
        assert list(stream) == []
    assert host.call(task_targets.highest) == 'closed'


def test_a_host_that_is_lost_ends_its_streams_with_the_reason(tree):
    child = tree.connect()
    stream = child.stream(task_targets.sleepy_count)
    assert next(stream) == 0
    child.close()
    with pytest.raises(mitogen.ConnectionLost):
        next(stream)


def test_what_was_not_sent_is_not_taken():
    class Said:
        def get(self):
            return mitogen.core.Message.pickled(5)

    window = mitogen._tasks._Window(Said(), 1, 1000)
    window.wait(10)
    with pytest.raises(mitogen.core.StreamError):
        window.wait(10)


def test_a_host_that_sends_more_than_it_may_costs_no_memory():
    with mitogen.Tree(threads=2, max_message_size=200000) as tree:
        host = tree.connect()
        with host.options(window=1, window_bytes=1000).stream(task_targets.sleepy_count) as stream:
            assert next(stream) == 0
            host.call(flood, stream._items.to_sender())
            assert stream._items.size() < 250
            with pytest.raises(mitogen.ConnectionLost, match='full'):
                list(stream)


def test_a_function_that_is_not_there_ends_the_stream(host):
    with pytest.raises(mitogen.RemoteError):
        list(host.stream(task_targets.meet, 'of which there is none'))


def flood(sender):
    for _ in range(1000):
        sender.send(b'x' * 1000)
