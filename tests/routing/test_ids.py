"""
Numbers of contexts and of handles: 32 bits, and nothing is cut to that.
"""

import os

import pytest

import mitogen.core
from mitogen.core import Message

BEYOND = [1 << 32, (1 << 32) + 1, 1 << 64, -1]


@pytest.mark.parametrize('beyond', BEYOND)
def test_a_context_is_not_found_by_a_number_beyond_32_bits(router, beyond):
    context = router.local()
    assert router.stream_by_id(context.context_id) is not None
    assert router.stream_by_id(context.context_id + (1 << 32)) is None
    assert router.stream_by_id(beyond) is None


@pytest.mark.parametrize('beyond', BEYOND)
def test_no_route_is_added_to_a_number_beyond_32_bits(router, beyond):
    stream = router.stream_by_id(router.local().context_id)
    with pytest.raises(OverflowError) as caught:
        router.add_route(beyond, stream)
    assert 'from 0 to 4294967295' in str(caught.value)
    assert router.stream_by_id(beyond & 0xffffffff) in (None, stream)
    assert beyond not in router._stream_by_id


def test_the_route_of_a_context_outlives_the_removal_of_a_longer_number(router):
    context = router.local()
    router.del_route(context.context_id + (1 << 32))
    assert context.call(os.getpid)


@pytest.mark.parametrize('beyond', BEYOND)
def test_no_handler_is_added_to_a_handle_beyond_32_bits(router, beyond):
    with pytest.raises(OverflowError):
        router.add_handler(lambda msg: None, handle=beyond)
    with pytest.raises(KeyError):
        router.del_handler(beyond)


@pytest.mark.parametrize('field', ['dst_id', 'src_id', 'auth_id', 'handle', 'reply_to'])
@pytest.mark.parametrize('beyond', BEYOND)
def test_a_message_with_a_number_beyond_32_bits_does_not_leave(shared_child, field, beyond):
    context = shared_child
    msg = Message(handle=mitogen.core.CALL_FUNCTION)
    msg.dst_id = context.context_id
    setattr(msg, field, beyond)
    with pytest.raises(Exception):
        msg.pack()
    assert context.call(os.getpid)
