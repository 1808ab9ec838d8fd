"""
Process and Reaper: the end of a child.
"""

import errno
import logging
import os
import signal
from unittest import mock

import pytest

import mitogen
import mitogen.core
import mitogen.parent
from mitogen.parent import Reaper, TimerList

import testlib
from shells import finish, run_shell


def test_a_process_describes_itself():
    proc = mitogen.parent.Process(12, None, None)
    assert repr(proc) == 'Process None pid 12'
    proc.name = u'local.12'
    assert repr(proc) == 'Process local.12 pid 12'
    with pytest.raises(NotImplementedError):
        proc.poll()


def test_a_process_takes_signals():
    for method, code in (('terminate', -15), ('kill', -9)):
        proc = run_shell(mitogen.parent.create_child, 'exec sleep 60')
        assert proc.poll() is None
        getattr(proc, method)()
        assert finish(proc) == code


class FakeBroker(object):
    _alive = True
    _exitted = False

    def __init__(self):
        self.timers = TimerList()


def make_reaper(poll=None, kill=True, wait_on_shutdown=True):
    proc = mock.Mock()
    proc.poll.return_value = poll
    broker = FakeBroker()
    return Reaper(broker, proc, kill, wait_on_shutdown), broker, proc


def test_the_reapers_delays_grow():
    reaper, _, _ = make_reaper()
    assert [int(1000 * reaper._calc_delay(n)) for n in range(7)] == [50, 86, 147, 254, 437, 752, 1294]


def test_a_lingering_process_is_asked_and_then_killed():
    reaper, _, proc = make_reaper()
    seen = []
    for _ in range(8):
        reaper.reap()
        seen.append([args[0][0] for args in proc.send_signal.call_args_list])
    term, kill = signal.SIGTERM, signal.SIGKILL
    assert seen == [[], [term], [term], [term], [term], [term, kill], [term, kill], [term, kill]]


def test_a_process_that_may_live_gets_no_signal():
    reaper, _, proc = make_reaper(kill=False)
    for _ in range(8):
        reaper.reap()
    assert not proc.send_signal.called


def test_a_process_of_another_user_is_left_alone():
    reaper, _, proc = make_reaper()
    proc.send_signal.side_effect = OSError(errno.EPERM, 'no')
    reaper.reap()
    reaper.reap()
    proc.send_signal.side_effect = OSError(errno.EINVAL, 'bad')
    for _ in range(3):
        reaper.reap()
    with pytest.raises(OSError):
        reaper.reap()


def test_a_process_that_is_gone_already_takes_no_signal():
    reaper, _, proc = make_reaper()
    proc.send_signal.side_effect = OSError(errno.ESRCH, 'gone')
    reaper.reap()
    reaper.reap()
    assert proc.send_signal.called


def test_the_reaper_gives_up_in_the_end():
    reaper, broker, proc = make_reaper(kill=False)
    with testlib.LogCapture('mitogen.parent') as log:
        for _ in range(21):
            reaper.reap()
    assert len([r for r in log.records if r.levelno == logging.WARNING]) == 1


def test_a_gone_process_fires_exit_and_leaves_no_listener():
    reaper, broker, proc = make_reaper(wait_on_shutdown=False)
    fired = []
    mitogen.core.listen(proc, 'exit', lambda: fired.append(1))
    reaper.reap()
    assert broker.timers.get_timeout() is not None
    assert broker.__dict__['_signals']['shutdown']
    proc.poll.return_value = -15
    reaper.reap()
    assert fired == [1]
    assert broker.timers.get_timeout() is None
    assert not broker.__dict__['_signals'].get('shutdown')


def test_a_child_that_was_stopped_ends_with_its_master(make_router):
    router = make_router()
    router.broker.shutdown_timeout = 0.5
    child = router.local()
    pid = child.call(os.getpid)
    testlib.stop_process(pid)
    with testlib.LogCapture('mitogen') as log:
        router.broker.shutdown()
        router.broker.join()
    assert log.find('work is left over')
    testlib.wait_for_end(pid)


def test_a_process_that_ends_soon_is_noticed_soon():
    reaper, broker, proc = make_reaper()
    fired = []
    mitogen.core.listen(proc, 'exit', lambda: fired.append(1))
    reaper.reap()
    broker.timers._now = lambda: mitogen.core.now() + 0.01
    broker.timers.expire()
    assert fired == [] and not proc.send_signal.called
    proc.poll.return_value = 0
    broker.timers._now = lambda: mitogen.core.now() + 0.045
    broker.timers.expire()
    assert fired == [1]
    assert broker.timers.get_timeout() is None


def test_peeks_end_before_the_second_look():
    assert sum(Reaper.peeks) < 0.05
    reaper, broker, proc = make_reaper()
    reaper.reap()
    start = mitogen.core.now()
    for ms in range(40):
        broker.timers._now = lambda: start + ms / 1000.0
        broker.timers.expire()
    assert proc.poll.call_count <= 1 + len(Reaper.peeks)
    assert not proc.send_signal.called


@pytest.mark.parametrize('wait', [True, False])
def test_only_a_reaper_that_should_delays_shutdown(wait):
    reaper, broker, _ = make_reaper(wait_on_shutdown=wait)
    reaper.reap()
    mitogen.core.fire(broker, 'shutdown')
    assert (broker.timers.get_timeout() is not None) is wait
