"""
Waiting for several sources at once.
"""

import os
import threading
import time

import pytest
import testlib

import mitogen.core
import mitogen.select
from mitogen.core import Latch, Receiver
from mitogen.select import Error, Event, Select


def message_to(recv, value):
    """
    Have a receiver get a message, as the broker thread would.
    """
    recv._on_receive(mitogen.core.Message.pickled(value))


@pytest.fixture
def recv(router):
    recv = Receiver(router)
    yield recv
    recv.close()


@pytest.fixture
def recv2(router):
    recv = Receiver(router)
    yield recv
    recv.close()


# ---- types

def test_its_errors_are_errors_of_mitogen():
    assert issubclass(Error, mitogen.core.Error)
    assert (Event.source, Event.data) == (None, None)


def test_truth_tells_whether_there_are_members():
    select = Select()
    assert not select
    latch = Latch()
    select.add(latch)
    assert select
    latch.put(1)
    assert select.get() == 1
    assert not select


def test_notify_is_unset_until_it_is_a_member():
    inner, outer = Select(), Select()
    assert inner.notify is None
    outer.add(inner)
    assert inner.notify is not None
    outer.remove(inner)
    assert inner.notify is None


# ---- membership

def test_a_member_cannot_be_added_twice(recv):
    with Select() as select:
        select.add(recv)
        with pytest.raises(Error) as e:
            select.add(recv)
        assert str(e.value) == Select.owned_msg
        assert select._receivers == [recv]


@pytest.mark.parametrize('make', [Latch, Select])
def test_a_member_of_another_select_cannot_be_added(make):
    member, first, second = make(), Select(), Select()
    first.add(member)
    with pytest.raises(Error) as e:
        second.add(member)
    assert str(e.value) == Select.owned_msg
    assert not second
    second.close()
    first.remove(member)
    third = Select([member])
    assert third


def test_members_are_notified_by_the_bound_put_of_the_latch(recv):
    with Select([recv]) as select:
        assert recv.notify == select._put
        assert select._put.__self__ is select._latch
        assert select._put.__name__ == 'put'


def test_a_select_cannot_contain_itself():
    s0, s1, s2 = Select(), Select(), Select()
    for inner, outer in ((s0, s0),):
        with pytest.raises(Error) as e:
            outer.add(inner)
        assert str(e.value) == Select.loop_msg
    s0.add(s1)
    s1.add(s2)
    for inner in (s0, s1):
        with pytest.raises(Error) as e:
            s2.add(inner)
        assert str(e.value) == Select.loop_msg
    assert not s2


def test_what_was_buffered_before_is_delivered(recv):
    for value in range(3):
        message_to(recv, value)
    with Select([recv], oneshot=False) as select:
        assert [select.get(block=False).unpickle() for _ in range(3)] == [0, 1, 2]
        with pytest.raises(mitogen.core.TimeoutError):
            select.get(block=False)


def test_removal(recv):
    select = Select([recv])
    select.remove(recv)
    assert recv.notify is None
    assert not select
    message_to(recv, 1)
    assert select._latch.empty()
    with pytest.raises(Error) as e:
        select.remove(recv)
    assert str(e.value) == Select.not_present_msg


def test_what_a_removed_member_holds_stays_there():
    latch, other = Latch(), Latch()
    select = Select([latch, other])
    latch.put(1)
    select.remove(latch)
    other.put(2)
    assert select.get() == 2
    assert latch.get(block=False) == 1


def test_close_removes_all_members(recv):
    latch, inner = Latch(), Select([Latch()])
    with Select([recv, latch, inner]) as select:
        pass
    assert not select
    assert recv.notify is None and latch.notify is None and inner.notify is None
    assert inner
    select.close()
    with pytest.raises(Error) as e:
        select.get()
    assert str(e.value) == Select.empty_msg
    with pytest.raises(mitogen.core.LatchError):
        select.add(Latch())


def test_close_wakes_threads_that_wait():
    select = Select([Latch()])
    about_to_wait = threading.Barrier(3)

    def wait():
        about_to_wait.wait()
        select.get()

    def close():
        about_to_wait.wait()
        select.close()

    got = testlib.in_threads([wait, wait, close])
    # A thread that was late finds the select without members.
    assert all(isinstance(error, (mitogen.core.LatchError, Error)) for error in got[:2]), got


def test_size():
    latch, inner_latch = Latch(), Latch()
    inner = Select([inner_latch])
    select = Select([latch, inner])
    assert select.size() == 0
    assert select.empty()
    latch.put(1)
    inner_latch.put(1)
    inner_latch.put(1)
    assert select.size() == 3
    assert inner.size() == 2
    assert not select.empty()


# ---- retrieval

def test_an_empty_select_cannot_be_waited_for():
    with pytest.raises(Error) as e:
        Select().get()
    assert str(e.value) == Select.empty_msg


def test_timeouts(recv):
    with Select([recv]) as select:
        start = time.time()
        with pytest.raises(mitogen.core.TimeoutError):
            select.get(timeout=0.1)
        assert time.time() - start >= 0.09
        for kwargs in ({'timeout': 0}, {'timeout': 0.0}, {'block': False}):
            with pytest.raises(mitogen.core.TimeoutError):
                select.get_event(**kwargs)
        assert select._receivers == [recv]


def test_wake_ups_without_an_item_do_not_extend_the_timeout():
    latch = Latch()
    select = Select([latch])
    for _ in range(500):
        latch.put(1)
        assert latch.get() == 1
    start = time.time()
    with pytest.raises(mitogen.core.TimeoutError):
        select.get(timeout=0.1)
    # Each of them alone would extend it by a tenth of a second.
    assert 0.09 <= time.time() - start < 500 * 0.1
    latch.put(2)
    assert select.get() == 2


def test_events_tell_where_from(recv, recv2):
    latch = Latch()
    with Select([recv, recv2, latch], oneshot=False) as select:
        message_to(recv2, 'two')
        event = select.get_event()
        assert event.source is recv2
        assert event.data.receiver is recv2
        assert event.data.unpickle() == 'two'
        latch.put('three')
        event = select.get_event()
        assert (event.source, event.data) == (latch, 'three')
        message_to(recv, 'one')
        msg = select.get()
        assert (msg.receiver, msg.unpickle()) == (recv, 'one')


def test_iteration_ends_when_each_member_has_delivered():
    latches = [Latch() for _ in range(3)]
    for number in (2, 0, 1):
        latches[number].put(number)
    select = Select(latches)
    assert list(select) == [0, 1, 2]
    assert list(select) == []
    for latch in latches:
        assert latch.notify is None


def test_iteration_is_in_order_of_arrival():
    latches = [Latch() for _ in range(3)]
    select = Select(latches)
    for number in (2, 0, 1):
        latches[number].put(number)
    assert [event.source for event in select.iter_events()] == [latches[2], latches[0], latches[1]]


def test_two_items_on_one_oneshot_member():
    latch, other = Latch(), Latch()
    select = Select([latch, other])
    latch.put(1)
    latch.put(2)
    assert select.get() == 1
    assert not select.empty()
    with pytest.raises(mitogen.core.TimeoutError):
        select.get(block=False)
    other.put(3)
    assert select.get() == 3
    assert latch.get(block=False) == 2


def test_without_oneshot_members_stay(recv):
    with Select([recv], oneshot=False) as select:
        for value in range(3):
            message_to(recv, value)
            assert select.get().unpickle() == value
        assert select


def test_a_dead_message_leaves_the_member(recv):
    with Select([recv]) as select:
        recv._on_receive(mitogen.core.Message.dead('gone'))
        with pytest.raises(mitogen.core.ChannelError) as e:
            select.get()
        assert str(e.value) == 'gone'
        assert select._receivers == [recv]
        message_to(recv, 'back')
        assert select.get().unpickle() == 'back'
        assert not select


def test_several_threads_get_each_item_once():
    latches = [Latch() for _ in range(4)]
    select = Select(latches, oneshot=False)
    count = 200

    def take():
        taken = []
        for value in select:
            if value is None:
                return taken
            taken.append(value)

    def fill():
        for number in range(count):
            latches[number % 4].put(number)
        for latch in latches[:3]:
            latch.put(None)

    results = testlib.in_threads([take, take, take, fill])
    assert sorted(results[0] + results[1] + results[2]) == list(range(count))


def test_all(recv, recv2):
    with Select([recv, recv2]):
        pass
    message_to(recv2, 'b')
    message_to(recv, 'a')
    assert Select.all([recv, recv2]) == ['a', 'b']
    assert recv.notify is None


def test_all_raises_what_was_received(recv, recv2):
    message_to(recv, mitogen.core.CallError(u'no'))
    with pytest.raises(mitogen.core.CallError):
        Select.all([recv, recv2])
    assert recv2.notify is None


# ---- selects in selects

def test_a_select_of_selects():
    l1, l2, l3 = Latch(), Latch(), Latch()
    inner = Select([l2, l3])
    select = Select([l1, inner])
    events = []
    for number, latch in enumerate((l2, l1, l3)):
        latch.put(number)
        events.append(select.get_event())
    assert [(event.source, event.data) for event in events] == [(l2, 0), (l1, 1), (l3, 2)]
    assert not inner and not select


def test_a_select_of_selects_that_is_full_from_the_start():
    latches = [Latch() for _ in range(3)]
    for number, latch in enumerate(latches):
        latch.put(number)
    select = Select([latches[0], Select(latches[1:])])
    assert list(select) == [0, 1, 2]
    assert not select


def test_three_levels():
    latch, other = Latch(), Latch()
    outer = Select([Select([Select([latch]), other])])
    results = testlib.in_threads([lambda: list(outer), lambda: (latch.put(1), other.put(2))])
    assert sorted(results[0]) == [1, 2]


def test_an_inner_select_that_waits_itself_gets_its_item():
    latch = Latch()
    inner = Select([latch], oneshot=False)
    outer = Select([inner], oneshot=False)
    started = threading.Event()

    def wait():
        started.set()
        return inner.get(timeout=60)

    def put():
        started.wait()
        latch.put(1)

    assert testlib.in_threads([wait, put])[0] == 1
    with pytest.raises(mitogen.core.TimeoutError):
        outer.get(block=False)
    latch.put(2)
    assert outer.get(timeout=60) == 2


def test_an_inner_select_without_oneshot_stays_a_member():
    latch = Latch()
    outer = Select([Select([latch], oneshot=False)])
    for value in range(3):
        latch.put(value)
    assert [outer.get() for _ in range(3)] == [0, 1, 2]
    assert outer


def test_a_nested_message_carries_the_inner_receiver(recv):
    with Select([Select([recv])]) as select:
        message_to(recv, 1)
        event = select.get_event()
        assert event.source is recv
        assert event.data.receiver is recv
        assert not select


# ---- over real streams

def test_calls_of_two_children(router):
    import os
    contexts = [router.local(), router.local()]
    pids = dict((c.context_id, c.call(os.getpid)) for c in contexts)
    with Select([c.call_async(os.getpid) for c in contexts]) as select:
        assert dict((msg.src_id, msg.unpickle()) for msg in select) == pids
    assert sorted(Select.all([c.call_async(os.getpid) for c in contexts])) == sorted(pids.values())


# ---- members that end

def closing_later(member, get):
    """
    Return what a thread that waits gets when a member is closed.
    """
    waits = threading.Event()

    def wait():
        waits.set()
        with pytest.raises((mitogen.core.ChannelError, mitogen.core.LatchError)) as e:
            get()
        return e.value

    def close():
        waits.wait()
        member.close()

    return testlib.in_threads([wait, close])[0]


def test_a_receiver_that_is_closed_wakes_a_thread_and_is_named(recv):
    other = Latch()
    select = Select([recv, other])
    error = closing_later(recv, select.get)
    assert type(error) is mitogen.core.ChannelError and error.args == (recv.closed_msg,)
    assert error.source is recv
    assert select._receivers == [other] and recv.notify is None


def test_a_latch_that_is_closed_wakes_a_thread_and_is_named(recv):
    latch = Latch()
    select = Select([latch, recv], oneshot=False)
    error = closing_later(latch, select.get)
    assert type(error) is mitogen.core.LatchError and error.source is latch
    assert select._receivers == [recv]


def test_a_receiver_of_an_inner_select_that_is_closed_is_named(recv):
    select = Select([Select([recv])])
    assert closing_later(recv, select.get).source is recv
    assert not select


def test_threads_that_wait_end_when_another_one_takes_the_last_item():
    latches = [Latch() for _ in range(3)]
    select = Select(latches)
    about_to_wait = threading.Barrier(5)

    def wait():
        about_to_wait.wait()
        return list(select)

    def put():
        about_to_wait.wait()
        for latch in latches:
            latch.put(1)

    got = testlib.in_threads([wait] * 4 + [put])
    assert sum(map(len, got[:4])) == 3


def test_a_thread_that_waits_is_told_when_the_last_member_is_removed(recv):
    select = Select([recv])
    waits = threading.Event()

    def wait():
        waits.set()
        with pytest.raises(Error) as e:
            select.get()
        return str(e.value)

    def remove():
        waits.wait()
        select.remove(recv)

    assert testlib.in_threads([wait, remove])[0] == Select.empty_msg
    assert select.empty()


def test_an_inner_select_that_loses_its_members_or_is_closed_ends_the_outer_one(recv):
    for end in (lambda inner: inner.remove(recv), Select.close):
        inner = Select([recv])
        select = Select([inner])
        waits = threading.Event()

        def wait():
            waits.set()
            return list(select)

        def empty():
            waits.wait()
            end(inner)

        assert testlib.in_threads([wait, empty])[0] in ([], Error)
        assert not select


def test_a_child_that_dies_is_named_and_is_no_member_any_more(router):
    dying, living = router.local(), router.local()
    first, second = dying.call_async(time.sleep, 60), living.call_async(os.getpid)
    select = Select([first, second])
    assert select.get_event().source is second
    dying.send(mitogen.core.Message(handle=mitogen.core.SHUTDOWN))
    with pytest.raises(mitogen.core.ChannelError) as e:
        select.get()
    assert e.value.source is first
    assert not select and list(select) == []
