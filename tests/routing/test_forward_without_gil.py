"""
Forwarding never enters Python: a middle context whose main thread keeps the GIL forwards all the
same.
"""

import pytest

import mitogen.core
from mitogen.core import Receiver

import gil_targets
import targets

NATIVE = mitogen.core.CORE == 'native'

#: Had a forward needed the GIL, the compiled core would wait for longer than a test may take. The
#: twin's broker is Python: it has to wait, and then goes on.
HELD = 3600.0 if NATIVE else 1.0


class Flag(object):
    """
    A file whose first byte says whether the GIL is to be kept.
    """
    def __init__(self, path):
        path.write_bytes(gil_targets.KEEP)
        self.path = str(path)

    def change(self):
        with open(self.path, 'r+b') as fp:
            fp.write(b'1')


@pytest.fixture
def flag(tmp_path):
    flag = Flag(tmp_path / 'flag')
    yield flag
    # Also where the test has failed: the child ends, then.
    flag.change()


@pytest.fixture
def child(router, flag):
    child = router.local()
    child.call(gil_targets.nothing)
    return child


def released(receiver, flag):
    """
    End the keeping of the GIL; fail if it has ended before.
    """
    if NATIVE:
        assert receiver.empty()
    flag.change()
    assert receiver.get(timeout=60).unpickle() > 0


def test_a_middle_context_forwards_while_its_main_thread_keeps_the_gil(router, child, flag):
    grandchild = router.local(via=child)
    grandchild.call(targets.identity, 0)
    with Receiver(router) as started:
        receiver = child.call_async(gil_targets.hold_the_interpreter, started.to_sender(), HELD, flag.path)
        started.get(timeout=60)
        for i in range(100):
            assert grandchild.call(targets.identity, i) == i
        released(receiver, flag)


def test_large_messages_pass_too(router, child, flag):
    grandchild = router.local(via=child)
    data = b'x' * (1 << 20)
    assert grandchild.call(targets.identity, data) == data
    with Receiver(router) as started:
        receiver = child.call_async(gil_targets.hold_the_interpreter, started.to_sender(), HELD, flag.path)
        started.get(timeout=60)
        assert grandchild.call(targets.identity, data) == data
        released(receiver, flag)


def test_what_was_sent_in_a_row_is_on_its_way_when_the_gil_is_kept(router, child, flag):
    with Receiver(router) as numbers:
        receiver = child.call_async(
            gil_targets.send_and_hold_the_interpreter, numbers.to_sender(), 1000, HELD, flag.path)
        assert [numbers.get(timeout=60).unpickle() for _ in range(1000)] == list(range(1000))
        released(receiver, flag)
