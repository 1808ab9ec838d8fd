"""
Lies of a child that are about more than one message: frames without content, orders for a child
that is busy, records for another context, and a process that outlives the one that was started.
"""

import logging
import threading

import pytest

import mitogen.core
import mitogen.master

import targets
import testlib
from hostile_tree import family, tree
from liar import CALL_FUNCTION, DETACHING, FORWARD_LOG, GET_MODULE, Liar

__all__ = ['family', 'tree']

MEBIBYTE = 1 << 20
#: CALL_AT_ONCE is the last one of ours.
HANDLES = [handle for handle in range(131) if handle != DETACHING]


@pytest.mark.parametrize('data', ['', '\0', 'N.'], ids=['empty', 'zero', 'none'])
@pytest.mark.parametrize('magic', [0x4d49, 0x4d4a, 0x4d4b])
def test_frames_of_next_to_nothing_harm_nobody(tree, data, magic):
    """
    To each handle of the parent and of a sibling, with an answer and without one.
    """
    tree.liar.tell(*[dict(dst=dst, handle=handle, reply_to=reply_to, data=data, magic=magic)
                     for dst in (tree.parent_id, tree.sibling.context_id) for handle in HANDLES for reply_to in (0, 5)])
    tree.check()


def test_orders_of_a_sibling_do_not_wait_for_a_child_that_is_busy(tree):
    before = tree.sibling.call(targets.resident)
    busy = tree.sibling.call_async(targets.sleep, 1)
    frame = dict(dst=tree.sibling.context_id, handle=CALL_FUNCTION, data='x' * 65536, magic=0x4d4a)
    assert tree.liar.flood(frame=frame, count=1000)
    assert tree.liar.sync()['alive']
    assert busy.get(timeout=testlib.patience()).unpickle() == 1
    assert tree.sibling.call(targets.resident) - before < 24 * MEBIBYTE


def test_a_record_for_a_sibling_is_nobodys(tree):
    frames = tree.liar.tell(dict(dst=tree.sibling.context_id, handle=FORWARD_LOG, data='forged\0%d\0forged' % (logging.ERROR,)))
    tree.check()
    assert not tree.logs.find('forged')
    assert not [frame for frame in frames if 'forged' in frame[7]]


@pytest.mark.parametrize('name', ['\0', 'a\0b', 'mitogen\0', 'x' * MEBIBYTE, 'x.' * 200000, '\0' * 9999], ids=len)
def test_a_module_with_an_odd_name_is_not_looked_for(tree, name):
    tree.liar.tell(dict(dst=tree.parent_id, handle=GET_MODULE, data=name))
    tree.check()
    assert not tree.logs.find('crashed')


def test_a_process_that_keeps_the_pipe_of_one_that_ended_keeps_nobody(tmp_path):
    """
    The process that was started has ended, and its copy goes on: it is what its parent talks to,
    and ends with it.
    """
    router = mitogen.master.Router(mitogen.master.Broker())
    router.broker.shutdown_timeout = 1
    liar, sibling = Liar(router, tmp_path), router.local()
    assert liar.leave_copy()
    assert liar.sync()['alive']
    with pytest.raises(mitogen.core.TimeoutError):
        liar.context.call_async(targets.identity, 1).get(timeout=0.2)
    assert sibling.call(targets.identity, 1) == 1
    router.broker.shutdown()
    thread = threading.Thread(target=router.broker.join, daemon=True)
    thread.start()
    thread.join(testlib.patience())
    assert not thread.is_alive()
    assert liar.ended()
    liar.close()
