"""
What is only forwarded never enters Python: a middle context whose main thread keeps the GIL forwards all the same.
"""

import time

import mitogen.core
from mitogen.core import Receiver

import gil_targets
import targets

HELD = 3.0


def calls_until(grandchild, receiver):
    """
    Call `grandchild` until `receiver` has its answer, and return how many calls were answered.
    """
    count = 0
    while receiver.empty():
        assert grandchild.call(targets.identity, count) == count
        count += 1
    return count


def test_a_middle_context_forwards_while_its_main_thread_keeps_the_gil(router):
    child = router.local()
    child.call(gil_targets.nothing)
    grandchild = router.local(via=child)
    grandchild.call(targets.identity, 0)

    begin = time.time()
    for i in range(200):
        grandchild.call(targets.identity, i)
    at_rest = 200 / (time.time() - begin)

    with Receiver(router) as started:
        receiver = child.call_async(gil_targets.hold_the_interpreter, started.to_sender(), HELD)
        started.get(timeout=30)
        count = calls_until(grandchild, receiver)
        assert receiver.get(timeout=30).unpickle() > 0
    print('%d calls/s at rest, %d while the GIL was held' % (at_rest, count / HELD))
    if mitogen.core.CORE == 'native':
        # Calls are made one after another: had a forward needed the GIL, the first would have taken all the time.
        assert count > 2
    else:
        # The twin's broker is Python: it has to wait, and then goes on.
        assert count >= 1


def test_large_messages_pass_too(router):
    child = router.local()
    child.call(gil_targets.nothing)
    grandchild = router.local(via=child)
    data = b'x' * (1 << 20)
    assert grandchild.call(targets.identity, data) == data
    with Receiver(router) as started:
        receiver = child.call_async(gil_targets.hold_the_interpreter, started.to_sender(), HELD)
        started.get(timeout=30)
        assert grandchild.call(targets.identity, data) == data
        if mitogen.core.CORE == 'native':
            assert receiver.empty()
        assert receiver.get(timeout=30).unpickle() > 0


def test_what_was_sent_in_a_row_is_on_its_way_when_the_gil_is_kept(router):
    child = router.local()
    child.call(gil_targets.nothing)
    with Receiver(router) as numbers:
        receiver = child.call_async(gil_targets.send_and_hold_the_interpreter, numbers.to_sender(), 1000, HELD)
        assert [numbers.get(timeout=30).unpickle() for _ in range(1000)] == list(range(1000))
        if mitogen.core.CORE == 'native':
            assert receiver.empty()
        assert receiver.get(timeout=30).unpickle() > 0
