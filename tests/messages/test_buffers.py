"""
Arrays of numbers travel as their bytes; a reader makes nothing else of them, whatever a peer
writes.
"""

import array
import pickle
import sys

import pytest

import mitogen.core
from mitogen.core import Message, StreamError

import buffer_targets
import pythons
import targets

OTHER_ORDER = '>' if sys.byteorder == 'little' else '<'
OWN_ORDER = '<' if sys.byteorder == 'little' else '>'
NAME = b'\x80\x02cmitogen.core\n_unpickle_buffer\n'


def there_and_back(value):
    return Message.pickled(value).unpickle()


def pickle_of(*args):
    """
    Return what a peer may write in place of a buffer.
    """
    return NAME + pickle.dumps(args, 2)[2:-1] + b'R.'


def read(data):
    return Message(data=data, enc=Message.ENC_PKL).unpickle()


@pytest.fixture(scope='module')
def numpy():
    """
    The module, without the threads that it starts when it is imported.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OPENBLAS_NUM_THREADS', '1')
        return pytest.importorskip('numpy')


# ---- what travels

@pytest.mark.parametrize('code', 'bBhHiIlLqQfd')
def test_an_array_is_an_array_of_the_same_numbers(code):
    value = array.array(code, [0, 1, 100])
    found = there_and_back(value)
    assert type(found) is array.array and found == value and found.itemsize == value.itemsize
    found.append(1)


@pytest.mark.parametrize('value', [
    memoryview(b''), memoryview(b'bytes'), memoryview(bytearray(b'abcdef'))[::2],
    memoryview(b'abcdef').cast('B', (2, 3)),
    memoryview(array.array('d', [1, 2])), memoryview(b'ab').cast('c'), memoryview(b'\0\1').cast('?'),
    memoryview(array.array('h', range(6))).cast('B').cast('h', (3, 1, 2)),
])
def test_a_memoryview_has_the_same_elements_and_shape(value):
    found = there_and_back(value)
    assert type(found) is memoryview and found.readonly
    assert (found.tolist(), found.shape, found.itemsize) == (value.tolist(), value.shape, value.itemsize)


def numpy_values(numpy):
    yield numpy.arange(6, dtype='>i4').reshape(2, 3)
    yield numpy.arange(6).reshape(2, 3).T
    yield numpy.arange(9)[::2]
    yield numpy.zeros((0, 4))
    yield numpy.array(5)
    for code in '?bBhHiIlLqQefdFD':
        yield numpy.ones(3, code)


def test_an_array_of_numpy_has_the_same_type_and_shape(numpy):
    for value in numpy_values(numpy):
        found = there_and_back(value)
        assert type(found) is type(value) and (found.dtype, found.shape) == (value.dtype, value.shape)
        assert found.tolist() == value.tolist() and not found.flags.writeable


def test_a_scalar_of_numpy_stays_one(numpy):
    for value in numpy.float64(2.5), numpy.bool_(True), numpy.uint8(3), numpy.complex64(1j):
        found = there_and_back(value)
        assert type(found) is type(value) and found == value


def test_buffers_go_wherever_values_go(shared_child):
    one = array.array('i', [1, 2])
    found = shared_child.call(targets.identity, {'a': [one, one], 'b': (memoryview(b'x'),)})
    assert found['a'] == [one, one] and found['a'][0] is found['a'][1]
    assert found['b'][0] == b'x'
    assert shared_child.call(targets.all_of, one, last=one) == (one, one)


def test_many_buffers_of_one_message_are_read(shared_child):
    many = [array.array('d', [number]) for number in range(100)]
    assert shared_child.call(targets.identity, many) == many


def test_a_child_that_was_sent_none_sends_some(router):
    first, second = router.local().call(buffer_targets.made_there)
    assert first == array.array('i', [1, 2]) and second == b'abc'


def test_a_change_after_the_call_is_not_sent(shared_child):
    value = array.array('b', bytes(1 << 20))
    shared_child.call(buffer_targets.total, [0])
    receivers = [shared_child.call_async(buffer_targets.total, value) for _ in range(8)]
    for at in range(0, len(value), 1000):
        value[at] = 1
    assert [recv.get().unpickle() for recv in receivers] == [0] * 8


# ---- what does not

@pytest.mark.parametrize('value', [array.array('u', 'text'), memoryview(bytes(16)).cast('P')])
def test_buffers_of_something_else_are_refused(value):
    with pytest.raises(TypeError, match='may not be sent; those of numbers may'):
        Message.pickled(value)


def test_arrays_of_something_else_are_refused_before_anything_is_sent(shared_child, numpy):
    for value in (numpy.array([{}]), numpy.array(['text']), numpy.longdouble(1), numpy.datetime64('2020'),
                  numpy.zeros(1, [('a', 'i4')]), numpy.zeros((1,) * 33)):
        with pytest.raises(TypeError, match='may not be sent; those of numbers may'):
            shared_child.call(targets.identity, [value])


# ---- what a peer may write

@pytest.mark.parametrize('kind', ['array', 'memoryview', 'ndarray', 'scalar'])
@pytest.mark.parametrize('data, dtype, shape', [
    (b'1234', '<i4', (2,)), (b'1234', '<i4', (-1,)), (b'1234', '<i4', (-1, -1)), (b'1234', '<i4', (1.0,)),
    (b'1234', '<i4', (True,)), (b'1234', '<i4', 1), (b'1234', '<i4', [1]), (b'1234', '<i4', None),
    (b'1234', '<i4', (1 << 70,)), (b'', '<i4', (0, 1 << 40)), (b'1234', '<i4', (1,) * 33), (b'1234', '<i4', (1, 0)),
    (b'', '<i4', (0,) + (1 << 31,) * 31),
    (b'1234', 'O', (1,)), (b'12345678', '|O8', (1,)), (b'1234', '<U1', (1,)), (b'12', '<V2', (1,)),
    (b'1234', 'i4', (1,)), (b'1234', '<i4\n', (1,)), (b'1234', '<i4,<i4', (1,)), (b'123', '<i3', (1,)),
    (b'1', '<i1', (1,)), (b'1234', '|i4', (1,)),
    (b'1234', b'<i4', (1,)), (b'1234', None, (1,)), ('1234', '<i4', (1,)), (4, '<i4', (1,)), (None, '<i4', (1,)),
    (b'1' * 16, '<f16', (1,)), (b'12345678', '<M8[s]', (1,)),
])
def test_what_is_no_buffer_is_refused(kind, data, dtype, shape, numpy):
    with pytest.raises(StreamError):
        read(pickle_of(data, kind, dtype, shape))


@pytest.mark.parametrize('args', [
    (), (b'1',), (b'1', 'array', '|i1'), (b'1', 'array', '|i1', (1,), 1), (b'1', 'Array', '|i1', (1,)),
    (b'1', b'array', '|i1', (1,)), (b'1', None, '|i1', (1,)), (b'1', [], '|i1', (1,)), (b'1', 'scalar', '|i1', (1,)),
    (b'1', 'ndarray', '|S1', (1,)), (b'1', 'array', '|S1', (1,)),
    (b'1', 'memoryview', '|i1', ()), (b'1', 'array', '|i1', ()),
    (b'12', 'array', OWN_ORDER + 'f2', (1,)), (b'12', 'memoryview', OTHER_ORDER + 'i2', (1,)),
], ids=str)
def test_arguments_of_another_kind_are_refused(args, numpy):
    with pytest.raises(StreamError):
        read(pickle_of(*args))


def test_no_state_is_given_to_what_makes_buffers():
    state = b'}X\x01\x00\x00\x00aK\x01sb.'
    for data in NAME, pickle_of(b'1', 'array', '|i1', (1,))[:-1]:
        with pytest.raises(StreamError):
            read(data + state)
    assert not hasattr(mitogen.core._unpickle_buffer, 'a')


def test_an_array_of_another_order_of_bytes_has_the_same_numbers():
    data = b'\0\1' if OTHER_ORDER == '>' else b'\1\0'
    assert read(pickle_of(data, 'array', OTHER_ORDER + 'i2', (1,))) == array.array('h', [1])


def test_a_reader_without_numpy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, 'numpy', None)
    with pytest.raises(StreamError, match='a numpy array arrived and cannot be read'):
        read(pickle_of(b'1', 'ndarray', '|i1', (1,)))
    # The other buffers travel without numpy.
    assert there_and_back(memoryview(b'x')) == b'x'


@pytest.mark.parametrize('name', ['python2.7', 'python3.6'])
def test_other_pythons_read_arrays(router, name, numpy):
    child = router.local(python_path=pythons.find_python(name))
    assert child.call(buffer_targets.total, array.array('q', [1, 2, 3])) == 6
    child.call(buffer_targets.forget_numpy)
    with pytest.raises(mitogen.core.CallError, match='a numpy array arrived and cannot be read'):
        child.call(buffer_targets.total, numpy.ones(3))
