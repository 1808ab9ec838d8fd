"""
Message: the frame's fields, dead messages, encodings, replies.
"""

import copy
import gc
import itertools
import os
import pickle
import struct
import weakref
from unittest import mock

import pytest

import mitogen.core
from mitogen.core import Blob, CallError, ChannelError, Message, Secret, StreamError

import testlib


def test_header_is_26_bytes_with_these_fields():
    assert Message.HEADER_LEN == 26
    assert Message.HEADER_FMT == '>hLLLLLL'
    assert struct.calcsize(Message.HEADER_FMT) == Message.HEADER_LEN
    assert Message.HEADER_MAGIC == 0x4d49


def test_encodings_are_exactly_these_three():
    assert (Message.ENC_MGC, Message.ENC_PKL, Message.ENC_BIN) == (0x4d49, 0x4d4a, 0x4d4b)
    assert Message.ENCS == frozenset([0x4d49, 0x4d4a, 0x4d4b])
    assert isinstance(Message.ENCS, frozenset)


def test_packing_a_message_with_no_data_gives_the_header_alone():
    data = Message(dst_id=123, handle=123).pack()
    assert len(data) == 26
    assert data[:2] == b'MI'
    assert data[18:22] == b'\0\0\0\0', 'reply_to'
    assert data[22:26] == b'\0\0\0\0', 'length'


def test_pack_lays_every_field_out_as_the_table_says():
    msg = Message(dst_id=0x01020304, src_id=0x11121314, auth_id=0x21222324, handle=0x31323334,
                  reply_to=0x41424344, data=b'payload', enc=Message.ENC_BIN)
    assert msg.pack() == testlib.frame(
        0x01020304, 0x11121314, 0x21222324, 0x31323334, 0x41424344, b'payload', magic=0x4d4b)


def test_a_frame_has_the_length_of_its_payload_though_another_thread_changes_that():
    class Changing(Message):
        sizes = itertools.count(1)
        data = property(lambda self: b'x' * next(self.sizes), lambda *_: None)

    frame = Changing(dst_id=1, handle=2).pack()
    assert struct.unpack('>L', frame[22:26])[0] == len(frame) - 26


@pytest.mark.parametrize('value', [0, 1, 2 ** 31, 2 ** 32 - 1])
def test_header_fields_take_the_whole_unsigned_range(value):
    msg = Message(dst_id=value, src_id=value, auth_id=value, handle=value, reply_to=value)
    assert msg.pack() == testlib.frame(value, value, value, value, value)


@pytest.mark.parametrize('field', ['dst_id', 'handle'])
def test_pack_needs_a_destination_and_a_handle(field):
    fields = {'dst_id': 1, 'handle': 1}
    fields[field] = None
    with pytest.raises(Exception):
        Message(**fields).pack()


def test_a_new_message_has_these_defaults():
    msg = Message()
    assert msg.dst_id is None
    assert msg.handle is None
    assert msg.reply_to is None
    assert msg.data == b''
    assert msg.enc == Message.ENC_MGC
    assert msg.router is None
    assert msg.receiver is None
    assert msg.src_id == mitogen.context_id
    assert msg.auth_id == mitogen.context_id


def test_source_and_authority_are_read_when_a_message_is_made(monkeypatch):
    monkeypatch.setattr(mitogen, 'context_id', 5432)
    msg = Message()
    assert (msg.src_id, msg.auth_id) == (5432, 5432)


def test_any_field_may_be_given():
    msg = Message(dst_id=1, src_id=2, auth_id=3, handle=4, reply_to=5, data=b'x', enc=Message.ENC_PKL)
    assert (msg.dst_id, msg.src_id, msg.auth_id, msg.handle, msg.reply_to) == (1, 2, 3, 4, 5)
    assert (msg.data, msg.enc) == (b'x', Message.ENC_PKL)


def test_other_attributes_can_be_set():
    msg = Message()
    msg.note = 'here'
    assert msg.note == 'here'


def test_data_must_be_bytes():
    with pytest.raises(AssertionError):
        Message(data=u'text')


def test_enc_must_be_a_known_one():
    with pytest.raises(ValueError):
        Message(enc=0x4d4c)


# ---- dead messages

def test_a_message_is_dead_when_its_reply_to_says_so():
    assert not Message().is_dead
    assert not Message(reply_to=1000).is_dead
    assert Message(reply_to=999).is_dead


def test_dead_carries_its_reason_as_utf8():
    msg = Message.dead(u'gr\xfcnde')
    assert msg.is_dead
    assert msg.reply_to == mitogen.core.IS_DEAD
    assert msg.data == u'gr\xfcnde'.encode('utf-8')
    assert msg.enc == Message.ENC_MGC


def test_dead_without_a_reason_has_no_data():
    msg = Message.dead()
    assert msg.is_dead
    assert msg.data == b''


def test_dead_takes_fields():
    msg = Message.dead('x', dst_id=5, handle=7)
    assert (msg.dst_id, msg.handle) == (5, 7)


def test_unpickling_a_dead_message_raises_its_reason():
    with pytest.raises(ChannelError) as caught:
        Message.dead('the reason').unpickle()
    assert caught.value.args[0] == 'the reason'


def test_unpickling_a_dead_message_without_reason_from_here_raises_the_local_text():
    with pytest.raises(ChannelError) as caught:
        Message.dead().unpickle()
    assert caught.value.args[0] == ChannelError.local_msg


def test_unpickling_a_dead_message_without_reason_from_elsewhere_raises_the_remote_text():
    with pytest.raises(ChannelError) as caught:
        Message.dead(src_id=mitogen.context_id + 123).unpickle()
    assert caught.value.args[0] == ChannelError.remote_msg


def test_a_reason_that_is_not_utf8_is_still_raised():
    with pytest.raises(ChannelError):
        Message(reply_to=mitogen.core.IS_DEAD, data=b'\xff\xfe').unpickle()


def test_a_dead_pickle_raises_unless_told_otherwise():
    msg = Message.pickled('x', reply_to=mitogen.core.IS_DEAD)
    with pytest.raises(ChannelError):
        msg.unpickle()
    assert msg.unpickle(throw_dead=False) == 'x'


def test_unpickle_iter_of_a_dead_message_raises_unless_told_otherwise():
    msg = Message.pickled('x', 'y', reply_to=mitogen.core.IS_DEAD)
    with pytest.raises(ChannelError):
        list(msg.unpickle_iter())
    assert list(msg.unpickle_iter(throw_dead=False)) == ['x', 'y']


# ---- encodings

def test_pickled_has_its_own_encoding():
    assert Message.pickled(1).enc == Message.ENC_PKL
    assert Message.pickled(1, dst_id=3).dst_id == 3


def test_pickled_takes_several_objects():
    assert list(Message.pickled(1, u'two', b'three').unpickle_iter()) == [1, u'two', b'three']


def test_unpickle_gives_the_first_object():
    assert Message.pickled(1, 2).unpickle() == 1


@pytest.mark.parametrize('enc', [Message.ENC_MGC, Message.ENC_PKL])
def test_a_pickle_may_be_in_a_message_of_either_encoding(enc):
    msg = Message(data=Message.pickled({u'a': 1}).data, enc=enc)
    assert msg.unpickle() == {u'a': 1}
    assert list(msg.unpickle_iter()) == [{u'a': 1}]


def test_binary_data_is_not_unpickled():
    msg = Message(data=Message.pickled(1).data, enc=Message.ENC_BIN)
    with pytest.raises(ValueError):
        list(msg.unpickle_iter())


def test_encoded_pickles():
    msg = Message.encoded({u'a': 1}, Message.ENC_PKL, dst_id=4)
    assert msg.enc == Message.ENC_PKL
    assert msg.dst_id == 4
    assert msg.decode() == {u'a': 1}


def test_encoded_binary_is_the_bytes_themselves():
    msg = Message.encoded(b'\0\xff', Message.ENC_BIN)
    assert msg.enc == Message.ENC_BIN
    assert msg.data == b'\0\xff'
    assert msg.decode() == b'\0\xff'


@pytest.mark.parametrize('obj', [u'abc', 42])
def test_encoded_binary_must_be_bytes(obj):
    with pytest.raises(Exception):
        Message.encoded(obj, Message.ENC_BIN)


@pytest.mark.parametrize('obj', [u'abc', 42, b'abc', None])
def test_encoded_refuses_the_legacy_encoding(obj):
    with pytest.raises(ValueError):
        Message.encoded(obj, Message.ENC_MGC)


def test_decode_refuses_the_legacy_encoding():
    with pytest.raises(ValueError):
        Message(data=b'x').decode()


def test_decode_of_binary_does_not_look_whether_it_is_dead():
    assert Message(data=b'x', enc=Message.ENC_BIN, reply_to=mitogen.core.IS_DEAD).decode() == b'x'


def test_decode_raises_a_call_error():
    with pytest.raises(CallError):
        Message.pickled(CallError('no')).decode()
    assert isinstance(Message.pickled(CallError('no')).decode(throw=False), CallError)


def test_unpickle_raises_a_call_error_unless_told_otherwise():
    msg = Message.pickled(CallError('no'))
    with pytest.raises(CallError) as caught:
        msg.unpickle()
    assert caught.value.args[0] == 'no'
    error = msg.unpickle(throw=False)
    assert type(error) is CallError
    assert error.args[0] == 'no'


@pytest.mark.parametrize('find_class', [None, mitogen.core.find_deny])
def test_an_empty_payload_has_no_first_object(find_class):
    with pytest.raises(StreamError) as caught:
        Message().unpickle(find_class=find_class)
    assert caught.value.args[0].startswith('invalid message')
    assert list(Message().unpickle_iter(find_class=find_class or mitogen.core.find_deny)) == []


def test_unpickle_can_be_repeated():
    msg = Message.pickled([1, 2])
    assert msg.unpickle() == [1, 2]
    assert msg.unpickle() == [1, 2]


def test_blob_and_secret_show_little_of_themselves_after_a_round_trip():
    assert repr(Message.pickled(Blob(b'x' * 128)).unpickle()) == '[blob: 128 bytes]'
    assert repr(Message.pickled(Secret(u'p')).unpickle()) == '[secret]'


# ---- replies

def make_request(**kwargs):
    fields = {'src_id': 1234, 'reply_to': 1000}
    fields.update(kwargs)
    return Message(**fields)


def test_reply_pickles_what_is_no_message():
    router = mock.Mock()
    make_request().reply(u'answer', router=router)
    (sent,), _ = router.route.call_args
    assert router.route.call_count == 1
    assert (sent.dst_id, sent.handle) == (1234, 1000)
    assert sent.unpickle() == u'answer'


def test_reply_sends_a_message_as_it_is():
    router = mock.Mock()
    answer = Message(data=b'raw', enc=Message.ENC_BIN)
    make_request().reply(answer, router=router)
    (sent,), _ = router.route.call_args
    assert sent is answer
    assert (sent.dst_id, sent.handle, sent.enc, sent.data) == (1234, 1000, Message.ENC_BIN, b'raw')


def test_reply_uses_the_messages_own_router():
    own = mock.Mock()
    other = mock.Mock()
    make_request(router=own).reply(1, router=other)
    assert own.route.call_count == 1
    assert other.route.call_count == 0


def test_reply_takes_fields():
    router = mock.Mock()
    make_request().reply(1, router=router, auth_id=77)
    (sent,), _ = router.route.call_args
    assert sent.auth_id == 77


@pytest.mark.parametrize('reply_to', [None, 0])
def test_reply_to_one_who_wants_none_is_dropped(reply_to):
    router = mock.Mock()
    with testlib.LogCapture('mitogen') as logs:
        make_request(reply_to=reply_to).reply(1, router=router)
    assert router.route.call_count == 0
    assert logs.records


# ---- repr

def test_repr_names_both_ends_and_the_size():
    msg = Message(src_id=1, dst_id=2, auth_id=3, handle=4, reply_to=5, data=b'x' * 77)
    text = repr(msg)
    assert text.startswith('Message(')
    assert '1:5' in text
    assert '2:4' in text
    assert 'auth_id=3' in text
    assert '77 bytes' in text


@pytest.mark.parametrize('size', [1, 8, 60, 61, 5000])
def test_repr_shows_nothing_of_the_payload(size):
    data = (b'pAsSwOrD' * 1000)[:size]
    assert repr(Message(data=data)) == repr(Message(data=b'z' * size))


def test_a_message_can_be_copied(router):
    msg = Message(dst_id=1, handle=2, reply_to=3, data=b'x', enc=Message.ENC_BIN, router=router)
    msg.something = 4
    other = copy.copy(msg)
    assert type(other) is Message
    for name in ('dst_id', 'src_id', 'auth_id', 'handle', 'reply_to', 'data', 'enc', 'router', 'receiver', 'something'):
        assert getattr(other, name) == getattr(msg, name), name
    other.handle = 5
    assert msg.handle == 2
    other = pickle.loads(pickle.dumps(Message(handle=7, data=b'y')))
    assert (other.handle, other.data) == (7, b'y')


def test_a_subclass_is_constructed_by_its_own_constructor():
    class Stamped(Message):
        def __init__(self, **kwargs):
            self.stamp = sorted(kwargs)
            super(Stamped, self).__init__(**kwargs)

    msg = Stamped.pickled([1], 2, dst_id=3)
    assert (type(msg), msg.stamp, msg.dst_id) == (Stamped, ['data', 'dst_id', 'enc'], 3)
    assert list(msg.unpickle_iter()) == [[1], 2]
    assert Stamped.dead('why').stamp
    assert Stamped.encoded(b'x', Message.ENC_BIN).stamp


# ---- what refers to itself

class Bytes(bytes):
    pass


@pytest.mark.parametrize('field', ['dst_id', 'src_id', 'auth_id', 'handle', 'reply_to', 'enc', 'router', 'receiver'])
def test_a_message_that_refers_to_itself_is_collected(field):
    msg = Message()
    setattr(msg, field, [msg])
    gone = weakref.ref(msg)
    del msg
    gc.collect()
    assert gone() is None


def test_a_message_whose_data_refers_to_it_is_collected():
    msg = Message(data=Bytes(b'x'))
    msg.data.message = msg
    gone = weakref.ref(msg)
    del msg
    gc.collect()
    assert gone() is None


# ---- encodings that there are not

@pytest.mark.parametrize('enc', [0, 5, -3, 1 << 20, None, 'x'])
def test_an_unknown_encoding_is_refused_where_the_message_is_sent_and_the_connection_lives(router, enc):
    context = router.local()
    msg = Message.pickled('x', handle=mitogen.core.CALL_FUNCTION)
    msg.enc = enc
    with pytest.raises(ValueError):
        context.send(msg)
    assert context.call(os.getpid)
