"""
TimerList and Timer.
"""

import functools
import weakref
from unittest import mock

import mitogen
import mitogen.core
import mitogen.parent
from mitogen.parent import TimerList


def test_the_next_timer_bounds_the_wait():
    timers = TimerList()
    assert timers.get_timeout() is None
    first = timers.schedule(2, mock.Mock())
    second = timers.schedule(3, mock.Mock())
    timers._now = lambda: 1
    assert timers.get_timeout() == 1
    first.cancel()
    first.cancel()
    timers._now = lambda: 0
    assert timers.get_timeout() == 3
    second.cancel()
    assert timers.get_timeout() is None


def test_overdue_timers_do_not_give_a_negative_wait():
    timers = TimerList()
    timers.schedule(1, mock.Mock())
    timers._now = lambda: 99
    assert timers.get_timeout() == 0


def test_due_timers_run_in_order_and_inactive():
    ran = []
    timers = TimerList()
    timers._now = lambda: 29
    late = timers.schedule(30, lambda: ran.append('late'))
    second = timers.schedule(29, lambda: ran.append(('second', second.active)))
    first = timers.schedule(28, lambda: ran.append(('first', first.active)))
    cancelled = timers.schedule(27, lambda: ran.append('cancelled'))
    cancelled.cancel()
    timers.expire()
    assert ran == [('first', False), ('second', False)]
    assert late.active and not first.active
    timers.expire()
    assert len(ran) == 2


def test_a_timer_may_schedule_a_due_one():
    ran = []
    timers = TimerList()
    timers._now = lambda: 10
    timers.schedule(9, lambda: timers.schedule(10, lambda: ran.append(1)))
    timers.expire()
    assert ran == [1]


def test_timers_are_ordered_by_time():
    assert mitogen.parent.Timer(1, None) < mitogen.parent.Timer(2, None)
    assert mitogen.parent.Timer(2, None) >= mitogen.parent.Timer(2, None)


class Held(object):
    def method(self):
        pass


def test_cancelled_timers_are_not_kept_until_they_are_due():
    timers = mitogen.parent.TimerList()
    ran = []
    # The one that is due first hides the others from a look at the earliest only.
    for i in range(50):
        timers.schedule(mitogen.core.now() - 1 + i / 1e6, functools.partial(ran.append, i))
    cancelled = []
    for _ in range(1000):
        held = Held()
        timer = timers.schedule(mitogen.core.now() + 1000, held.method)
        cancelled += [weakref.ref(held), weakref.ref(timer)]
        timer.cancel()
        del held, timer
    assert sum(ref() is not None for ref in cancelled) < 200
    timers.expire()
    assert ran == list(range(50))
