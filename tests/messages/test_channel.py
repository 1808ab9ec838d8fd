"""
Channel: a receiver and a sender in one.
"""

from unittest import mock

import pytest

import mitogen.core
from mitogen.core import Channel, ChannelError, Message, Receiver, Sender


def test_a_channel_is_both_halves(router):
    channel = Channel(router, router.myself(), 123)
    assert isinstance(channel, Receiver)
    assert isinstance(channel, Sender)
    assert channel.router is router
    assert channel.context.context_id == mitogen.context_id
    assert channel.dst_handle == 123
    assert channel.handle >= 1000
    channel.close()


def test_a_channel_may_have_a_fixed_handle(router):
    channel = Channel(router, router.myself(), 123, handle=4321)
    assert channel.handle == 4321
    channel.close()


def test_two_channels_talk(router):
    here = Channel(router, router.myself(), None)
    there = Channel(router, router.myself(), here.handle)
    here.dst_handle = there.handle
    here.send(u'question')
    assert there.get(timeout=60).unpickle() == u'question'
    there.send(u'answer')
    assert here.get(timeout=60).unpickle() == u'answer'
    here.close()
    there.close()


def test_closing_one_half_tells_the_other(router):
    here = Channel(router, router.myself(), None)
    there = Channel(router, router.myself(), here.handle)
    here.dst_handle = there.handle
    there.close()
    with pytest.raises(ChannelError) as caught:
        here.get(timeout=60)
    assert caught.value.args[0] == Sender.explicit_close_msg
    here.close()


def test_close_closes_the_receiving_half_first(router):
    context = mock.Mock()
    channel = Channel(router, context, 123)
    seen = []
    context.send.side_effect = lambda msg: seen.append((channel.handle, msg.is_dead, msg.handle))
    channel.close()
    assert seen == [(None, True, 123)]


def test_a_channel_sends_either_encoding(router):
    context = mock.Mock()
    channel = Channel(router, context, 123)
    channel.send(b'raw', enc=Message.ENC_BIN)
    (msg,), _ = context.send.call_args
    assert (msg.handle, msg.enc, msg.data) == (123, Message.ENC_BIN, b'raw')
    channel.close()


def test_leaving_a_with_block_closes(router):
    with Channel(router, mock.Mock(), 123) as channel:
        assert channel.handle is not None
    assert channel.handle is None
