"""
Values of the standard library, and of classes that a program registers, travel; a reader makes
nothing else of them, and runs nothing, whatever a peer writes.
"""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import os
import pathlib
import pickle
import pickletools
import sys
import time
import typing
import uuid

import pytest

import mitogen
import mitogen._values
import mitogen.core
import mitogen.parent  # noqa: F401
from mitogen.core import Blob, Message, StreamError
from mitogen.values import register

import pythons
import targets
import value_targets
from value_targets import Colour, Job, Key, Pair, Rights

UTC = datetime.timezone.utc
EAST = datetime.timezone(datetime.timedelta(hours=1), 'EAST')

VALUES = [
    set(), {1, 'a', (2, None)}, frozenset([frozenset([1])]), 1j, bytearray(b''), bytearray(b'\0\xff'), range(2, 10, 3),
    range(-(1 << 80), 5), datetime.datetime(2020, 1, 2, 3, 4, 5, 678901), datetime.datetime(1, 1, 1, tzinfo=UTC),
    datetime.datetime.max.replace(tzinfo=EAST), datetime.date(2020, 2, 29), datetime.time(23, 59, 59, 999999),
    datetime.time(1, tzinfo=EAST), datetime.timedelta(-5, 1, 2), UTC, EAST, decimal.Decimal('-1.50'),
    decimal.Decimal('NaN').copy_abs(), decimal.Decimal('1E+999999'), fractions.Fraction(-1, 3), uuid.UUID(int=5),
    pathlib.PurePosixPath('/a/../b c'), pathlib.PureWindowsPath('C:\\x'), pathlib.Path('x'), pathlib.Path(),
    collections.OrderedDict([('b', 1), ('a', 2)]), collections.Counter('aab'), collections.deque([1, [2]]),
    collections.deque([1], 3), os.stat('/'), os.uname(), time.gmtime(0), os.times(), os.statvfs('/'),
    os.terminal_size((80, 24)), {datetime.date(2020, 1, 1): {decimal.Decimal(1): (1j, frozenset())}},
    Colour.BLUE, Rights.READ | Rights.WRITE, Job('x', [Key(1)]), Key(1, (2, Key(3))), Pair(Key(1), Colour.RED),
    {Key(1): 1, Pair(1): 2, Colour.RED: 3}, [{Key(2)}, frozenset([Pair(1)])],
]


def there_and_back(value):
    return Message.pickled(value).unpickle()


def read(module, name, *args):
    """
    Read what a peer may write: a class by its names, called with some arguments.
    """
    data = b'\x80\x02c%s\n%s\n%sR.' % (module.encode(), name.encode(), pickle.dumps(args, 2)[2:-1])
    return Message(data=data, enc=Message.ENC_PKL).unpickle()


def same(found, value):
    assert type(found) is type(value)
    assert found == value or repr(found) == repr(value) == "Decimal('NaN')"


@pytest.fixture(scope='module')
def child():
    with mitogen.Tree() as tree:
        yield tree.connect('local:')


# ---- what travels

@pytest.mark.parametrize('value', VALUES, ids=lambda value: type(value).__name__)
def test_a_value_arrives_as_it_was(value):
    same(there_and_back(value), value)
    one, other = there_and_back([value, value])
    assert one is other


def test_values_go_to_a_child_and_back(child):
    for value in VALUES:
        same(child.call(targets.identity, value), value)
    assert child.call(value_targets.kinds, [{1}, Job('a'), Key(1)]) == ['set', 'Job', 'Key']
    found = child.call(value_targets.made_here)
    assert found[:3] == [Job('made', [Colour.BLUE]), Pair(1, {2}), datetime.date(2020, 1, 2)]
    assert found[3] == os.uname() and found[4] == {'a': 2, 'b': 1}


def test_an_old_way_of_calling_sends_them_too(shared_child):
    assert shared_child.call(targets.identity, [{1}, Job('a')]) == [{1}, Job('a')]


@pytest.mark.parametrize('threads', [1, 2])
def test_a_class_is_known_before_its_first_value_comes(threads):
    with mitogen.Tree(threads=threads) as tree:
        host = tree.connect('local:')
        # The first call of the host: it has not imported the module of the class.
        assert [f.result() for f in [host.submit(targets.identity, Key(i)) for i in range(20)]] == [
            Key(i) for i in range(20)]
        assert list(host.stream(value_targets.items)) == [Job('first'), Pair(Key(1))]
        with host.executor(2) as pool:
            assert list(pool.map(targets.identity, [Job('a'), Colour.RED])) == [Job('a'), Colour.RED]
        assert host.options(worker=True).call(targets.identity, Pair(1)) == Pair(1)
        assert host.connect('local:').call(targets.identity, Pair(2)) == Pair(2)


def test_no_method_of_a_registered_class_runs_and_what_is_missing_gets_its_default():
    # A constructor would write it in capitals.
    job = Job('name')
    job.name = 'small'
    assert there_and_back(job).name == 'small'
    found = read('value_targets', 'Job', {'name': 'x'})
    assert (found.left, found.colour) == ([], Colour.RED) and found.left is not read('value_targets', 'Job', {'name': 'x'}).left


def test_many_values_and_long_ones():
    days = [datetime.date.fromordinal(number) for number in range(1, 5000)]
    assert there_and_back(dict.fromkeys(days)) == dict.fromkeys(days)
    assert there_and_back(set(range(100000))) == set(range(100000))
    assert there_and_back(set(days)) == set(days)
    assert there_and_back([{i} for i in range(3000)]) == [{i} for i in range(3000)]
    assert there_and_back(bytearray(1 << 20)) == bytearray(1 << 20)
    assert there_and_back(list(map(str, range(1000))) + [{1}]) == list(map(str, range(1000))) + [{1}]


# ---- what does not

class Derived(collections.OrderedDict):
    pass


@dataclasses.dataclass
class Unknown:
    name: str


@pytest.mark.parametrize('value, name', [
    (Derived(), 'Derived'), (collections.defaultdict(list), 'defaultdict'), (Unknown('x'), 'Unknown'), (slice(1), 'slice'),
    (datetime.datetime(2020, 1, 1, tzinfo=type('Zone', (datetime.tzinfo,), {})()), 'Zone'),
])
def test_others_are_refused_with_their_name(child, value, name):
    with pytest.raises((mitogen.core.CallError, TypeError, pickle.PicklingError), match=name):
        child.call(targets.identity, [1, value])
    assert child.call(targets.identity, 1) == 1


@pytest.mark.parametrize('cls', [
    int, dict, type('Plain', (), {}), lambda: 1, 5, typing.NamedTuple('Inner', [('x', int)]),
], ids=lambda made: getattr(made, '__name__', repr(made)))
def test_classes_of_another_kind_are_not_registered(cls):
    if cls is not None and getattr(cls, '_fields', None):
        cls.__qualname__ = 'outer.<locals>.Inner'
    with pytest.raises(TypeError, match='is no dataclass, Enum or NamedTuple of a module'):
        register(cls)


def test_a_value_that_holds_itself_is_an_error_of_the_sender(child):
    items = collections.deque()
    items.append(items)
    with pytest.raises((RecursionError, mitogen.core.Error)):
        child.call(targets.identity, items)
    assert child.call(targets.identity, 1) == 1


# ---- what a peer may write

@pytest.mark.parametrize('module, name, args', [
    ('__builtin__', 'set', ()), ('__builtin__', 'set', ('ab',)), ('__builtin__', 'set', ([1], 2)),
    ('__builtin__', 'set', ([[]],)), ('__builtin__', 'frozenset', ({1: 2},)), ('__builtin__', 'complex', ('1j',)),
    ('__builtin__', 'complex', (1, 2)), ('__builtin__', 'bytearray', (1 << 40,)), ('__builtin__', 'bytearray', ([1],)),
    ('__builtin__', 'xrange', (1,)), ('__builtin__', 'xrange', (1, 2, 0)), ('__builtin__', 'xrange', (1, 2.0, 1)),
    ('datetime', 'datetime', (2020, 1, 1)), ('datetime', 'datetime', (b'\x07\xe4\x0d\1\0\0\0\0\0\0',)),
    ('datetime', 'datetime', (b'\x07\xe4\1\1\x63\0\0\0\0\0',)), ('datetime', 'datetime', (b'\x07\xe4\1\1\0\0\0\0\0\0', 1)),
    ('datetime', 'datetime', (b'\x07\xe4\1\1\0\0\0\xff\xff\xff',)), ('datetime', 'date', (b'\0\0\1\1',)),
    ('datetime', 'date', (b'\0\1\2\x1e',)), ('datetime', 'time', (b'\x18\0\0\0\0\0',)), ('datetime', 'time', ('12',)),
    ('datetime', 'timedelta', (1 << 70, 0, 0)), ('datetime', 'timedelta', (1.5, 0, 0)), ('datetime', 'timezone', (5,)),
    ('datetime', 'timezone', ()), ('decimal', 'Decimal', ('x',)), ('decimal', 'Decimal', (1.5,)),
    ('decimal', 'Decimal', ('1' * 10001,)), ('fractions', 'Fraction', ('1e999999999',)), ('fractions', 'Fraction', ('1/0',)),
    ('fractions', 'Fraction', (1, 0)), ('fractions', 'Fraction', (1 << 40000, 3)), ('fractions', 'Fraction', (1.5,)),
    ('uuid', 'UUID', ('x' * 32,)), ('uuid', 'UUID', (5,)), ('pathlib', 'PurePosixPath', (1,)),
    ('pathlib', 'PurePosixPath', (b'x',)), ('collections', 'OrderedDict', ([[1, 2]],)), ('collections', 'Counter', ('aab',)),
    ('collections', 'deque', ((1,),)), ('collections', 'deque', ([1], -1)), ('collections', 'deque', ([1], 1.5)),
    ('os', 'stat_result', ((1,), {})), ('os', 'stat_result', ([1] * 10, {})), ('os', 'stat_result', (([],) * 9 + ([1],), {})),
    ('os', 'uname_result', (('a',) * 5, {})), ('posix', 'uname_result', (('a',) * 4, {})), ('posix', 'system', ('true',)),
    ('value_targets', 'Colour', ('GREEN',)), ('value_targets', 'Colour', ('mro',)), ('value_targets', 'Colour', (1,)),
    ('value_targets', 'Rights', (8,)), ('value_targets', 'Rights', (-1,)), ('value_targets', 'Rights', ('1',)), ('value_targets', 'Job', ({},)),
    ('value_targets', 'Job', ({'name': 'x', 'other': 1},)), ('value_targets', 'Job', ([],)), ('value_targets', 'Job', ({1: 1},)),
    ('value_targets', 'Job', ('x',)), ('value_targets', 'Pair', ((1,),)), ('value_targets', 'Pair', ([1, 2],)),
    ('value_targets', 'kinds', ([],)), ('value_targets', 'os', ()), ('pathlib', 'os', ()), ('datetime', 'sys', ()),
    ('collections', 'namedtuple', ('a', 'b')), ('decimal', 'getcontext', ()), ('time', 'sleep', (9,)), ('pwd', 'getpwall', ()),
])
def test_what_is_no_value_is_refused(module, name, args):
    with pytest.raises(StreamError):
        read(module, name, *args)


STATE = [b'}X\x05\0\0\0itemsK\x01sb.', b'N}X\x03\0\0\0intK\x01s\x86b.', b'}X\x03\0\0\0intK\x01sb.']


@pytest.mark.parametrize('state', STATE)
@pytest.mark.parametrize('value', [
    collections.Counter('a'), uuid.UUID(int=7), pathlib.PurePosixPath('a'), Key(1), Job('x'), {1}, Colour.RED,
    collections.OrderedDict(a=1), decimal.Decimal(1),
], ids=lambda value: type(value).__name__)
def test_no_state_is_given_to_a_value(value, state):
    data = bytes(Message.pickled(value).data)
    for bad in data[:-1] + state, data[:-1] + b'0' + data[2:-1] + state:
        with pytest.raises(StreamError):
            Message(data=bad, enc=Message.ENC_PKL).unpickle()
    same(Message(data=data, enc=Message.ENC_PKL).unpickle(), value)


def test_no_state_is_given_to_what_makes_a_value():
    for names in b'__builtin__\nset\n', b'value_targets\nKey\n':
        with pytest.raises(StreamError):
            Message(data=b'\x80\x02c' + names + STATE[0], enc=Message.ENC_PKL).unpickle()
    assert not hasattr(mitogen._values._MAKERS['__builtin__', 'set'], 'items')


def refuse(data):
    """
    Read a message that takes too much time or memory.
    """
    with pytest.raises(StreamError, match='collide|too long|copies itself|too many parts'):
        Message(data=data, enc=Message.ENC_PKL).unpickle()


def colliding(count):
    """
    Return numbers that have the same hash.
    """
    return [sys.hash_info.modulus * i for i in range(1, count)]


@pytest.mark.parametrize('wrap', [
    lambda keys: set(keys), lambda keys: frozenset(keys), lambda keys: dict.fromkeys(map(fractions.Fraction, keys)),
    lambda keys: dict.fromkeys(map(decimal.Decimal, keys)), lambda keys: collections.Counter(dict.fromkeys(keys, 1)),
    lambda keys: dict.fromkeys(frozenset([key]) for key in keys), lambda keys: set((key, 1) for key in keys),
], ids=['set', 'frozenset', 'Fraction', 'Decimal', 'Counter', 'frozensets', 'tuples'])
def test_keys_and_items_that_collide_are_refused(wrap):
    # Each has the same hash.
    refuse(bytes(Message.pickled(wrap(colliding(4000))).data))


def test_keys_of_registered_classes_that_collide_are_refused():
    refuse(bytes(Message.pickled(dict.fromkeys(map(Key, colliding(4000)))).data))


def test_items_that_take_long_to_hash_are_refused():
    # Each tuple holds the one before twice.
    bomb = b')' + b'q\0h\0\x86'.join([b''] * 40)
    for data in (b'c__builtin__\nset\n]' + bomb + b'a\x85R.',
                 b'cvalue_targets\nPair\n' + bomb + b'h\0\x86\x85R.'):
        refuse(b'\x80\x02' + data)


@pytest.mark.parametrize('name', [b'set', b'frozenset', b'bytearray'])
def test_copies_that_take_memory_are_refused(name):
    long = pickletools.optimize(pickle.dumps(b'x' * 100000 if name == b'bytearray' else list(range(10000)), 2))[2:-1]
    data = b'\x80\x02(c__builtin__\n' + name + b'\nq\0' + long + b'q\1\x85R' + b'h\0h\1\x85R' * 3000 + b't.'
    refuse(data)


def test_long_bytes_are_copied_twice(child):
    value = [mitogen.core.Blob(b'x' * 400000), bytearray(400000)] + [{i} for i in range(10)]
    assert child.call(targets.identity, value) == value


def test_where_no_value_may_be_named_none_is():
    for value in {1}, Key(1):
        msg = Message.pickled(value)
        with pytest.raises(mitogen.core.Error):
            list(msg.unpickle_iter())


# ---- other Pythons

def test_python_2_reads_and_writes_what_it_has(router):
    child = router.local(python_path=pythons.find_python('python2.7'))
    for value in ({1}, frozenset([1]), 1j, bytearray(b'\0\xff'), datetime.datetime(2020, 1, 2, 3, 4, 5, 6),
                  datetime.date(2020, 1, 2), datetime.time(1), datetime.timedelta(1, 2, 3), decimal.Decimal('1.5'),
                  fractions.Fraction(1, 2), collections.deque([1], 2), collections.Counter('a'), range(3)):
        found = child.call(targets.identity, value)
        assert type(found) is type(value) and found == value
    for value in UTC, pathlib.PurePosixPath('a'), collections.OrderedDict(a=1), Blob(b'x') and Key(1):
        with pytest.raises(mitogen.core.Error):
            child.call(targets.identity, value)
    assert child.call(targets.identity, 1) == 1


@pytest.mark.parametrize('name', ['python3.6', 'python3.13'])
def test_other_pythons_read_and_write_them(router, name):
    child = router.local(python_path=pythons.find_python(name))
    for value in VALUES:
        if type(value).__module__ != 'value_targets' and 'Key' not in repr(value):
            same(child.call(targets.identity, value), value)
