"""
Values that cross in a message: the closed set of types, strings of both Pythons, refusals.

The codec alone, on random data, is tested in test_codec.py.
"""

import collections
import io
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc

import pytest

import mitogen.core
import mitogen.parent
from mitogen.core import Blob, CallError, Context, Kwargs, Message, Secret, Sender, StreamError

import targets
import testlib


def round_trip(obj, router=None):
    sent = Message.pickled(obj)
    return Message(data=sent.data, enc=sent.enc, router=router).unpickle()


VALUES = [
    None, True, False, 0, 1, -1, 255, 256, 65535, 65536, 2 ** 31 - 1, 2 ** 31, -2 ** 31, 2 ** 63, -2 ** 63, 10 ** 100,
    -10 ** 100, 0.0, -0.0, 1.5, 1e308, float('inf'), float('-inf'),
    u'', u'a', u'\xe9', u'\u20ac', u'\U0001f600', u'\0', u'x' * 70000,
    b'', b'a', b'\0\xff', bytes(bytearray(range(256))), b'x' * 70000,
    [], [1], [[], [[]]], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((),), {}, {u'a': 1}, {1: {2: {3: []}}},
    {b'k': (1, [u'x', {u'y': None}])}, list(range(3000)), dict((i, str(i)) for i in range(3000)),
]


@pytest.mark.parametrize('value', VALUES, ids=lambda v: repr(v)[:30])
def test_plain_values_come_back_equal_and_of_the_same_type(value):
    back = round_trip(value)
    assert back == value
    assert type(back) is type(value)


def test_nan_comes_back():
    back = round_trip(float('nan'))
    assert back != back


def test_a_value_used_twice_is_one_object_on_the_other_side():
    shared = [1]
    back = round_trip([shared, shared])
    assert back[0] is back[1]


def test_a_list_that_holds_itself_comes_back():
    loop = []
    loop.append(loop)
    back = round_trip(loop)
    assert back[0] is back


def test_a_dict_that_holds_itself_comes_back():
    loop = {}
    loop[u'me'] = loop
    back = round_trip(loop)
    assert back[u'me'] is back


@pytest.mark.parametrize('value', [Blob(b'x' * 128), Blob(b''), Secret(u'p'), Secret(u'')], ids=repr)
def test_blob_and_secret_come_back_as_the_same_type(value):
    back = round_trip([value])[0]
    assert type(back) is type(value)
    assert back == value


def test_blob_gives_plain_bytes():
    plain = bytes(Blob(b'abc'))
    assert plain == b'abc'
    assert type(plain) is bytes


def test_secret_gives_plain_text():
    text = mitogen.core.UnicodeType(Secret(u'abc'))
    assert text == u'abc'
    assert type(text) is mitogen.core.UnicodeType


def test_kwargs_turns_byte_keys_into_text():
    kwargs = Kwargs({b'key': 1})
    assert kwargs == {'key': 1}
    assert type(list(kwargs)[0]) is str
    assert repr(kwargs) == "Kwargs({'key': 1})"


def test_kwargs_reduces_to_a_plain_dict():
    function, args = Kwargs({u'key': 1}).__reduce__()[:2]
    assert function is Kwargs
    assert args == ({u'key': 1},)
    assert type(args[0]) is dict


def test_kwargs_come_back_as_kwargs():
    back = round_trip(Kwargs({u'key': b'value'}))
    assert type(back) is Kwargs
    assert back == {'key': b'value'}


def test_call_error_comes_back_with_its_text():
    msg = Message.pickled(CallError('text %d', 3))
    back = msg.unpickle(throw=False)
    assert type(back) is CallError
    assert back.args == ('text 3',)


# ---- exact bytes

def test_top_level_bytes_have_these_bytes():
    assert Message.pickled(b'abc').data == b'\x80\x02T\x03\x00\x00\x00abc.'


def test_the_pickler_uses_no_globals_for_top_level_bytes():
    out = io.BytesIO()
    mitogen.core.Pickler(out, 2).dump(b'abc')
    assert out.getvalue() == b'\x80\x02T\x03\x00\x00\x00abc.'


def test_pickles_of_text_and_of_top_level_bytes_use_no_globals():
    msg = Message.pickled((u'pkg', u'resource'), b'content')
    for word in (b'_codecs', b'encode', b'latin1'):
        assert word not in msg.data
    assert list(msg.unpickle_iter()) == [(u'pkg', u'resource'), b'content']


def test_one_memo_spans_all_pickles_of_a_message():
    shared = [u'shared']
    first, second = Message.pickled(shared, [shared]).unpickle_iter()
    assert second[0] is first


@pytest.mark.parametrize('value', [v for v in VALUES if not (isinstance(v, float) and v != v)],
                         ids=lambda v: repr(v)[:30])
def test_the_standard_library_reads_what_is_written(value):
    assert pickle.loads(Message.pickled(value).data, encoding='bytes') == value


def test_pickles_are_of_protocol_2():
    assert Message.pickled([1]).data[:2] == b'\x80\x02'
    assert Message.pickled({u'a': b'b'}).data[:2] == b'\x80\x02'


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('value', [None, 1, u'text', [1, u'two'], {u'a': (1, 2)}, 1.5, 2 ** 70], ids=repr)
def test_pickles_of_any_protocol_are_read(value, protocol):
    assert Message(data=pickle.dumps(value, protocol)).unpickle() == value


# Pickles as other Pythons write them, put down by hand.
FOREIGN = [
    (b"U\x03abcq\x00.", b'abc'),
    (b"S'abc'\np0\n.", b'abc'),
    (b'T\x03\x00\x00\x00abc.', b'abc'),
    (b'\x80\x02U\x00.', b''),
    (b'\x80\x02X\x03\x00\x00\x00abcq\x00.', u'abc'),
    (b'\x80\x02X\x02\x00\x00\x00\xc3\xa9q\x00.', u'\xe9'),
    (b'Vabc\np0\n.', u'abc'),
    (b'\x80\x02K\x7b.', 123),
    (b'\x80\x02M\xff\xff.', 65535),
    (b'\x80\x02J\xff\xff\xff\xff.', -1),
    (b'\x80\x02\x8a\x05\x00\x00\x00\x00\x01.', 2 ** 32),
    (b'\x80\x02\x8a\x00.', 0),
    (b'L5L\n.', 5),
    (b'I01\n.', True),
    (b'I00\n.', False),
    (b'I7\n.', 7),
    (b'\x80\x02\x88.', True),
    (b'\x80\x02\x89.', False),
    (b'\x80\x02N.', None),
    (b'\x80\x02G?\xf8\x00\x00\x00\x00\x00\x00.', 1.5),
    (b'\x80\x02]q\x00(K\x01U\x01aq\x01e.', [1, b'a']),
    (b'\x80\x02}q\x00U\x01aq\x01K\x01s.', {b'a': 1}),
    (b'\x80\x02U\x01aX\x01\x00\x00\x00b\x86q\x00.', (b'a', u'b')),
    (b'(lp0\nI1\na.', [1]),
    (b'(dp0\nI1\nI2\ns.', {1: 2}),
    (b'\x80\x02c_codecs\nencode\nq\x00X\x04\x00\x00\x00a\xc3\xbfbq\x01X\x06\x00\x00\x00latin1q\x02\x86q\x03Rq\x04.',
     b'a\xffb'),
    (b'\x80\x02c__builtin__\nbytes\nq\x00)Rq\x01.', b''),
    (b'\x80\x02cmitogen.core\nBlob\nq\x00U\x03abcq\x01\x85q\x02Rq\x03.', Blob(b'abc')),
    (b'\x80\x02cmitogen.core\nSecret\nq\x00X\x03\x00\x00\x00abcq\x01\x85q\x02Rq\x03.', Secret(u'abc')),
    (b'\x80\x02cmitogen.core\nKwargs\nq\x00}q\x01U\x01kq\x02K\x01s\x85q\x03Rq\x04.', Kwargs({u'k': 1})),
]


@pytest.mark.parametrize('data,value', FOREIGN, ids=lambda v: repr(v)[:40])
def test_pickles_written_by_other_pythons_are_read(data, value):
    back = Message(data=data).unpickle()
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize('name', [b'_unpickle_call_error', b'CallError'])
def test_a_call_error_of_another_python_is_read(name):
    data = b'\x80\x02cmitogen.core\n' + name + b'\nq\x00X\x02\x00\x00\x00noq\x01\x85q\x02Rq\x03.'
    back = Message(data=data).unpickle(throw=False)
    assert type(back) is CallError
    assert back.args == (u'no',)


def test_a_context_of_another_python_is_read():
    back = Message(data=b'\x80\x02cmitogen.core\n_unpickle_context\nq\x00K\x05X\x01\x00\x00\x00nq\x01\x86q\x02Rq\x03.').unpickle()
    assert isinstance(back, Context)
    assert (back.context_id, back.name, back.router) == (5, u'n', None)


def test_a_sender_of_another_python_is_read(router):
    data = b'\x80\x02cmitogen.core\n_unpickle_sender\nq\x00K\x05M\xe8\x03\x86q\x01Rq\x02.'
    back = Message(data=data, router=router).unpickle()
    assert isinstance(back, Sender)
    assert (back.context.context_id, back.dst_handle) == (5, 1000)


def test_binstring_in_a_container_is_bytes_and_never_text():
    assert Message(data=b'\x80\x02U\x02\xff\xfe\x85.').unpickle() == (b'\xff\xfe',)


# ---- refusals

class Subclass(dict):
    pass


UNWANTED = [
    (slice(1), "cannot unpickle '__builtin__'/'slice'"),
    (object(), "cannot unpickle '__builtin__'/'object'"),
    (collections.defaultdict(), "cannot unpickle 'collections'/'defaultdict'"),
    (ValueError('x'), "cannot unpickle 'exceptions'/'ValueError'"),
    (Subclass(a=1), "cannot unpickle '%s'/'Subclass'" % (__name__,)),
    (len, "cannot unpickle '__builtin__'/'len'"),
]


@pytest.mark.parametrize('value,text', UNWANTED, ids=[type(value).__name__ for value, _ in UNWANTED])
def test_other_types_are_refused_by_name(value, text):
    data = pickle.dumps(value, 2)
    with pytest.raises(StreamError) as caught:
        Message(data=data).unpickle()
    assert text in str(caught.value)


def test_an_ordered_dict_that_is_filled_later_is_refused():
    # Ours is written with its items.
    with pytest.raises(StreamError, match='a dict is expected'):
        Message(data=pickle.dumps(collections.OrderedDict(a=1), 2)).unpickle()


@pytest.mark.parametrize('module,name', [
    (b'os', b'system'), (b'__builtin__', b'eval'), (b'builtins', b'eval'), (b'mitogen.core', b'Router'),
    (b'mitogen.core', b'os'), (b'mitogen.parent', b'Context'), (b'_codecs', b'decode'), (b'codecs', b'encode'),
    (b'mitogen.core', b'Message'), (b'posix', b'system'),
])
def test_a_global_out_of_the_list_is_refused_and_never_called(module, name):
    data = b'\x80\x02c' + module + b'\n' + name + b'\nU\x04true\x85R.'
    with pytest.raises(StreamError) as caught:
        Message(data=data).unpickle()
    assert 'cannot unpickle %r/%r' % (module.decode(), name.decode()) in str(caught.value)


@pytest.mark.parametrize('read', [lambda msg: msg.unpickle(), lambda msg: list(msg.unpickle_iter())])
def test_a_failure_logs_which_message_it_was_and_nothing_of_its_payload(read):
    data = pickle.dumps((u'correct horse', slice(1)), 2)
    msg = Message(data=data, src_id=77)
    with testlib.LogCapture('mitogen') as logs:
        with pytest.raises((StreamError, pickle.UnpicklingError)):
            read(msg)
    assert [r for r in logs.records if r.levelname == 'ERROR' and repr(msg) in r.getMessage()]
    assert not logs.find('horse')


@pytest.mark.parametrize('data', [
    b'\x80\x02cmitogen.core\n_unpickle_call_error\nU\x02no\x85R.',
    b'\x80\x02cmitogen.core\n_unpickle_call_error\nK\x01\x85R.',
    b'\x80\x02cmitogen.core\n_unpickle_call_error\nX\x10\x27\x00\x00' + b'x' * 10000 + b'\x85R.',
    b'\x80\x02cmitogen.core\n_unpickle_context\nJ\xff\xff\xff\xffN\x86R.',
    b'\x80\x02cmitogen.core\n_unpickle_context\nX\x01\x00\x00\x001N\x86R.',
    b'\x80\x02cmitogen.core\n_unpickle_context\nK\x01X\xf5\x01\x00\x00' + b'x' * 501 + b'\x86R.',
    b'\x80\x02cmitogen.core\n_unpickle_context\nK\x01K\x01\x86R.',
    b'\x80\x02cmitogen.core\n_unpickle_sender\nK\x01K\x01\x86R.',
    b'\x80\x02cmitogen.core\nBlob\nK\x01K\x02K\x03\x87R.',
], ids=lambda d: repr(d)[:50])
def test_bad_arguments_to_a_permitted_type_make_the_message_invalid(data):
    with pytest.raises(StreamError) as caught:
        Message(data=data).unpickle()
    assert 'invalid' in str(caught.value)


@pytest.mark.parametrize('args', [b'J\xff\xff\xff\xffK\x01', b'K\x01K\x00', b'K\x01J\xff\xff\xff\xff', b'NK\x01'],
                         ids=repr)
def test_bad_arguments_to_a_sender_make_the_message_invalid(router, args):
    data = b'\x80\x02cmitogen.core\n_unpickle_sender\n' + args + b'\x86R.'
    with pytest.raises(StreamError):
        Message(data=data, router=router).unpickle()


@pytest.mark.parametrize('data', [b'\x80\x02', b'\x80\x02]', b'\x80\x02U\x10abc', b'\x80', b'\x80\x02.', b'\xff\xff',
                                  b'\x80\x02cmitogen.core\nKwargs\nK\x01\x85R.'], ids=repr)
def test_a_damaged_pickle_raises(data):
    with pytest.raises(Exception):
        Message(data=data).unpickle()


# ---- what a child may write, and its parent reads

def long_put(index):
    return b'r' + struct.pack('<L', index)


def frame(data):
    return b'\x95' + struct.pack('<Q', len(data)) + data


#: Each wants a table of 128 MiB or more.
CLAIMS = [
    b'N' + long_put(1 << 23), b'N' + long_put(0xffffffff), b'N' * 300 + long_put(1 << 23), frame(b'N' + long_put(1 << 23)),
    b'Np8388608\n', b'Np00000008388608\n', b'Np 8388608\n', b'Np+8_388_608\n', b'Np8388608\0\n', b'Np99999999999\n',
    b'N' * 300 + b'p8388608\n',
    # A text is one opcode, however long.
    b'X\0\0\x10\0' + b'r' * (1 << 20) + long_put(1 << 18), b'V' + b'r' * (1 << 20) + b'\n' + long_put(1 << 18),
    # Behind whatever has an argument.
    b'(I1\nL2L\nF1.5\nVa\nS"b"\nU\1cT\1\0\0\0dX\1\0\0\0eC\1fB\1\0\0\0gG1234567K8M99J0123\x8a\1h\x8b\1\0\0\0i'
    b'\x8c\1j\x8d\1\0\0\0\0\0\0\0k\x8e\1\0\0\0\0\0\0\0lq\1h\1j\1\0\0\0p1\ng1\nr\2\0\0\0cmitogen.core\nBlob\n'
    b'\x8cXmitogen.core'.replace(b'X', b'\x0c') + b'\x8c\4Blob\x93(imitogen.core\nBlob\n' + long_put(1 << 23),
    # The interpreter forgets what is left of a frame when an argument is longer than that.
] + [b'N' + frame(b'r' + b'\0' * n) + struct.pack('<L', 1 << 23) for n in range(1, 4)] + [
    b'N' + frame(b'p' + b'0' * n) + b'8388608\n' for n in range(3)] + [
    b'N' + frame(b'JXY') + b'12U\5' + long_put(1 << 23),
    b'N' + frame(b'X\2\0\0') + b'\1\0\0\0aU\5' + long_put(1 << 23),
    b'N' + frame(b'NNN' + b'\x95\4\0\0') + struct.pack('<Q', 2) + b'U\5' + long_put(1 << 23),
    b'N' + frame(b'\x95' + struct.pack('<Q', 6) + b'NNN') + b'NNU\5' + long_put(1 << 23)]


def parent_reads(data):
    """
    Yield the values of a message as any context does that has children.
    """
    return Message(data=data).unpickle_iter(find_class=Message()._find_global)


@pytest.mark.parametrize('data', CLAIMS, ids=lambda data: repr(data[:30]))
def test_a_memo_index_costs_no_memory(data):
    tracemalloc.start()
    try:
        # The values that were read before stay right.
        values = parent_reads(b'\x80\x02]q\1.' + data + b'.')
        assert next(values) == []
        with pytest.raises((pickle.UnpicklingError, StreamError, EOFError)):
            next(values)
        assert tracemalloc.get_traced_memory()[1] < (16 << 20)
    finally:
        tracemalloc.stop()


def test_a_memo_index_out_of_bounds_says_so():
    with pytest.raises(pickle.UnpicklingError) as caught:
        next(parent_reads(CLAIMS[0]))
    assert 'memo index out of bounds' in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_many_memo_entries_are_read(protocol):
    # More than 16 bits can count, where we write what is read.
    count = 70000 if protocol == 2 else 9000
    texts = [u'%sr%d' % (u'x' * (i % 130), i) for i in range(count)]
    # Three entries each.
    rows = [[t, i, i * 1000, -i, i * .5, (t,), None] for i, t in enumerate(texts[:count // 3 + 1000])]
    for value in (dict.fromkeys(texts, texts[0]), rows):
        assert list(parent_reads(pickle.dumps(value, protocol))) == [value]
    # The second of two begins with an empty memo.
    data = pickle.dumps(texts, protocol)
    assert list(parent_reads(data + data)) == [texts, texts]


def test_long_byte_strings_are_read():
    for data in b'x' * 2000, b'.' * 2000:
        pickled = Message.pickled(data).data
        assert list(parent_reads(pickled)) == [data]
        assert list(parent_reads(pickled * 2)) == [data, data]
        assert list(parent_reads(pickled + b'\x80\x02N.')) == [data, None]
        with pytest.raises((pickle.UnpicklingError, EOFError)):
            next(parent_reads(pickled[:-2]))


@pytest.mark.parametrize('opcode', [b'I', b'L', b'g', b'p'])
def test_a_number_in_text_is_not_read_without_end(opcode):
    with pytest.raises((pickle.UnpicklingError, StreamError)):
        next(parent_reads(b'N' + opcode + b'7' * 1000000 + b'\n.'))


def test_a_byte_array_is_refused():
    with pytest.raises((pickle.UnpicklingError, StreamError)):
        next(parent_reads(b'\x80\5\x96\1\0\0\0\0\0\0\0x.'))


@pytest.mark.parametrize('name', [u'Kwargs', u'Blob', u'Secret', u'CallError', u'_unpickle_call_error',
                                  u'_codecs encode'])
@pytest.mark.parametrize('state', [b'}Vseed\nK\1s', b'N}Vseed\nK\1s\x86', b')', b']', b'K\0'])
def test_state_is_not_given_to_what_a_pickle_names(name, state):
    module, _, name = ('mitogen.core ' + name).replace(u'mitogen.core _codecs', u'_codecs').partition(u' ')
    data = ('c%s\n%s\n' % (module, name)).encode() + state + b'b.'
    with pytest.raises((pickle.UnpicklingError, StreamError)):
        Message(data=data).unpickle()
    assert not hasattr(getattr(mitogen.core, name, mitogen.core._read_bytes), 'seed')


@pytest.mark.parametrize('state', [b'}Vcontext_id\nK\6s', b'N}Vcontext_id\nK\6s\x86'])
def test_state_is_not_given_to_a_context(router, state):
    victim = router.context_by_id(5, name=u'victim')
    with pytest.raises((pickle.UnpicklingError, StreamError)):
        Message(data=b'cmitogen.core\n_unpickle_context\nK\5N\x86R' + state + b'b.', router=router).unpickle()
    assert victim.context_id == 5


@pytest.mark.parametrize('state', [b'}', b'N'])
def test_empty_state_is_what_python_2_writes(state):
    assert Message(data=b'cmitogen.core\nBlob\nU\2ab\x85\x81' + state + b'b.').unpickle() == b'ab'


def test_lookups_are_denied_by_default_when_iterating():
    msg = Message.pickled(Blob(b'x'))
    with pytest.raises(mitogen.core.UnpicklingError):
        list(msg.unpickle_iter())


@pytest.mark.parametrize('size', [1000, 100000])
def test_deep_nesting_is_refused_or_read_and_never_kills(size):
    data = b'\x80\x02' + b']' * size + b'a' * (size - 1) + b'.'
    try:
        value = Message(data=data).unpickle()
    except Exception:
        return
    depth = 0
    while value:
        value = value[0]
        depth += 1
    assert depth == size - 1


def test_an_argument_that_cannot_be_pickled_raises_at_the_caller():
    with pytest.raises(Exception):
        Message.pickled(lambda: None).unpickle()


def test_an_object_that_raises_pickling_error_travels_as_a_call_error():
    class Stubborn(object):
        def __reduce__(self):
            raise mitogen.core.PicklingError('not me')

    with pytest.raises(CallError) as caught:
        Message.pickled(Stubborn()).unpickle()
    assert 'not me' in str(caught.value)


@pytest.mark.parametrize('args', [
    (b'x' * 100000,), (b'x' * 100000, b'y' * 65537, b'z' * 65536, b'short', u'text'), (None, b'x' * 1000000),
    (u'a', bytes(bytearray(range(256))) * 300), ([b'x' * 70000], {b'k': b'y' * 70000}, b'z' * 70000),
    (b'X\x20\0\0\0' * 20000, b'T\xff\xff\0\0.' * 20000),
], ids=lambda args: '%d' % len(args))
def test_long_byte_strings_arrive_as_arguments(shared_child, args):
    child = shared_child
    assert child.call(targets.identity, args) == args
    assert child.call(targets.all_of, *args) == args
    assert child.call(targets.all_of, *args, key=args) == args + (args,)


def test_a_long_byte_string_that_is_given_twice_is_one_object():
    chain = mitogen.parent.CallChain(None)
    data = b'x' * 100000
    msg = chain.make_msg(targets.all_of, data, u'between', data, [data])
    args = msg.unpickle()[4]
    assert args == (data, u'between', data, [data])
    assert args[0] is args[2]
    assert len(msg.data) < 400000


def test_a_long_byte_string_beside_what_cannot_be_pickled_raises_at_the_caller():
    class Refusing(object):
        def __reduce__(self):
            raise pickle.PicklingError('not me')

    chain = mitogen.parent.CallChain(None)
    with pytest.raises(CallError) as caught:
        chain.make_msg(targets.all_of, b'x' * 100000, Refusing()).unpickle()
    assert 'not me' in str(caught.value)


def test_long_arguments_are_read_by_the_python_that_started_with_text():
    msg = mitogen.parent.CallChain(None).make_msg(targets.all_of, b'x' * 100000)
    names = [op.name for op, _, _ in __import__('pickletools').genops(msg.data)]
    # Those that Python 2 knows.
    assert 'BINSTRING' in names
    assert not [name for name in names if 'BYTES' in name]
    assert b'_codecs' not in msg.data


# ---- the pickle names of the module

def test_unpickler_denies_by_default_and_asks_when_told_to():
    data = pickle.dumps(1j, 2)
    with pytest.raises(mitogen.core.UnpicklingError):
        mitogen.core.Unpickler(io.BytesIO(data)).load()

    def find_class(module, name):
        assert (module, name) == ('__builtin__', 'complex')
        return complex

    assert mitogen.core.Unpickler(io.BytesIO(data), find_class=find_class).load() == 1j


def test_find_deny_always_raises():
    with pytest.raises(mitogen.core.UnpicklingError):
        mitogen.core.find_deny('mitogen.core', 'Blob')


# ---- contexts and senders

def test_a_plain_pickle_of_a_context_has_no_router(router):
    context = router.context_class(router, 123, u'somebody')
    back = pickle.loads(pickle.dumps(context))
    assert back.router is None
    assert (back.context_id, back.name) == (123, u'somebody')


def test_a_context_in_a_message_without_router_has_no_router(router):
    back = round_trip(router.context_class(router, 123, u'somebody'))
    assert back.router is None
    assert (back.context_id, back.name) == (123, u'somebody')


def test_a_context_in_a_message_of_a_router_is_the_canonical_one(router):
    canonical = router.context_by_id(123, name=u'somebody')
    assert round_trip(Context(router, 123, u'somebody'), router) is canonical


def test_a_context_sent_to_a_local_receiver_has_no_router(router):
    with mitogen.core.Receiver(router) as receiver:
        receiver.to_sender().send(router.myself())
        back = receiver.get(timeout=60).unpickle()
    assert back.router is None
    assert back.context_id == mitogen.context_id


def test_a_context_passed_to_a_child_and_back_is_the_identical_object(router):
    child = router.local()
    assert child.call(targets.identity, child) is child


def test_a_sender_comes_back_usable(router):
    with mitogen.core.Receiver(router) as receiver:
        sender = round_trip(receiver.to_sender(), router)
        assert isinstance(sender, Sender)
        sender.send(u'x')
        assert receiver.get(timeout=60).unpickle() == u'x'


def test_a_sender_needs_a_router():
    with pytest.raises(StreamError):
        round_trip(Sender(Context(None, 0), 1000))


# ---- errors

def test_error_interpolates_only_with_arguments():
    assert mitogen.core.Error('e%s').args[0] == 'e%s'
    assert mitogen.core.Error('e%s', 1).args[0] == 'e1'
    assert type(mitogen.core.Error(b'x').args[0]) is mitogen.core.UnicodeType
    assert mitogen.core.Error(b'x').args == (u'x',)
    assert mitogen.core.Error().args == (None,)


@pytest.mark.parametrize('name', ['LatchError', 'ChannelError', 'StreamError', 'TimeoutError', 'CallError'])
def test_errors_share_one_base(name):
    assert issubclass(getattr(mitogen.core, name), mitogen.core.Error)


def test_timeout_error_is_our_own():
    assert not issubclass(mitogen.core.TimeoutError, OSError)


@pytest.mark.parametrize('name', [
    'ModuleDeniedByOverridesError', 'ModuleDeniedByBlocksError', 'ModuleUnsuitableError'])
def test_module_refusals_are_import_errors_with_a_text(name):
    cls = getattr(mitogen.core, name)
    assert issubclass(cls, mitogen.core.ModuleNotFoundError)
    assert issubclass(cls, ImportError)
    assert cls.fmt.count('%s') == 1


def test_call_error_of_an_exception_names_its_class():
    assert CallError(SystemExit('eek')).args[0] == 'builtins.SystemExit: eek'
    assert CallError(KeyError('k')).args[0] == "builtins.KeyError: 'k'"


def test_call_error_inside_an_except_block_names_the_raising_function():
    try:
        targets.fail('x')
    except ValueError as error:
        text = CallError(error).args[0]
    lines = text.split('\n')
    assert lines[0] == 'builtins.ValueError: x'
    assert 'fail' in text
    assert len(lines) > 2


def test_call_error_survives_a_plain_pickle():
    back = pickle.loads(pickle.dumps(CallError('text')))
    assert type(back) is CallError
    assert back.args == ('text',)


def test_call_error_reduces_to_its_text():
    function, args = CallError('text').__reduce__()[:2]
    assert function is mitogen.core._unpickle_call_error
    assert args == (u'text',)


@pytest.mark.parametrize('bad', [b'bytes', 1, None, Secret(u'x'), u'x' * 10000], ids=lambda v: repr(v)[:20])
def test_unpickle_call_error_takes_only_short_text(bad):
    with pytest.raises(TypeError):
        mitogen.core._unpickle_call_error(bad)
    assert mitogen.core._unpickle_call_error(u'x' * 9999).args == (u'x' * 9999,)


# ---- in calls

def test_an_unwanted_argument_gives_a_call_error_and_the_child_lives_on(router):
    child = router.local()
    with pytest.raises(CallError) as caught:
        child.call(targets.identity, slice(1))
    assert 'StreamError' in str(caught.value)
    assert "cannot unpickle '__builtin__'/'slice'" in str(caught.value)
    assert child.call(targets.identity, 1) == 1


def test_an_unwanted_result_gives_a_stream_error_and_the_child_lives_on(router):
    child = router.local()
    with pytest.raises(StreamError) as caught:
        child.call(targets.return_slice)
    assert "cannot unpickle '__builtin__'/'slice'" in str(caught.value)
    assert child.call(targets.identity, 1) == 1


@pytest.mark.parametrize('function', ['return_lambda', 'return_lock'])
def test_a_result_that_cannot_be_pickled_gives_a_call_error_and_the_child_lives_on(router, function):
    child = router.local()
    with pytest.raises(CallError):
        child.call(getattr(targets, function))
    assert child.call(targets.identity, 1) == 1


def test_a_long_exception_text_reaches_the_caller(router):
    child = router.local()
    with pytest.raises(CallError) as caught:
        child.call(targets.fail, u'y' * 50000)
    assert str(caught.value).startswith('builtins.ValueError: yyy')


@pytest.mark.parametrize('value', [
    None, True, 0, 2 ** 70, 1.5, u'\xe9', b'\xff', [1, u'a', b'b'], {u'k': (b'v', None)}, Blob(b'b'), Secret(u's'),
    b'\xff' * (1 << 20), u'\u20ac' * (1 << 18),
], ids=lambda v: repr(v)[:20])
def test_values_make_the_round_trip_through_a_child(shared_child, value):
    back = shared_child.call(targets.identity, value)
    assert back == value
    assert type(back) is type(value)


# ---- PyPy

#: Lets CPython look like PyPy 8, whose `_pickle` writes an opcode of protocol 4 after each text in
#: a list.
LIKE_PYPY = '''
import pickletools, sys, types
del sys.modules['pickle']
sys.modules['__pypy__'] = types.ModuleType('__pypy__')
sys.builtin_module_names = tuple(name for name in sys.builtin_module_names if name != '_functools')
sys.modules['_functools'] = None
sys.modules['_pickle'] = fake = types.ModuleType('_pickle')
class PickleError(Exception): pass
class PicklingError(PickleError): pass
class UnpicklingError(PickleError): pass
class Pickler: pass
class Unpickler: pass
def dumps(obj, protocol=None, **kwargs): return b'\\x80\\x02](X\\x01\\x00\\x00\\x00a\\x94e.'
dump = load = loads = None
for name in 'PickleError PicklingError UnpicklingError Pickler Unpickler dumps dump load loads'.split():
    setattr(fake, name, globals()[name])
if %r:
    import pickle
import mitogen.core
for values in [u'a', u'b'], (u'a', [u'b', u'c']), {u'a': [u'b', u'b']}:
    for message in mitogen.core.Message.pickled(values), mitogen.core.Message.pickled(values, values):
        assert max(op.proto for op, _, _ in pickletools.genops(bytes(message.data))) <= 2
        assert message.unpickle() == values
assert sys.modules['_pickle'] is fake
assert not %r or sys.modules['pickle'] is pickle
print(mitogen.core.CORE)
'''


@pytest.mark.pure
@pytest.mark.parametrize('has_pickle', [False, True])
def test_what_pypy_writes_can_be_read_by_python_2(has_pickle):
    env = dict(os.environ, MITOGEN_CORE='pure')
    out = subprocess.run([sys.executable, '-W', 'error', '-c', LIKE_PYPY % (has_pickle, has_pickle)], env=env,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert out.stdout == 'pure\n'
