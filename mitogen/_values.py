# SPDX-License-Identifier: BSD-3-Clause
"""
Values: types of the standard library that travel beside text, numbers, lists, tuples and dicts. A
pickler writes them as it writes them for any program. The reader looks the two names of a class up
in a table of this module, and makes a value by a function of this module, which checks each part.
It never calls what a peer has named.

A program may register classes of its own: dataclasses, enumerations, and tuples with named fields.
Each side knows them by its own registration. They travel field by field.
"""

from __future__ import absolute_import

import re
import sys
import threading

import mitogen.core
from mitogen.core import BytesType, integer_types, PY3, UnicodeType


#: Characters, and bits of a number, that a Decimal or a Fraction may have.
_TEXT_MAX = 10000
_BITS_MAX = 1 << 15

#: Hashing a tuple means hashing what is in it, which may be one tuple many times. A set may have as
#: many such steps for each of its items, and some more.
_STEPS_PER_ITEM, _FREE_STEPS = 128, 1024

#: So many items take little time, however their hashes collide.
_FEW = 256

_FRACTION = re.compile(u'-?[0-9]{1,5000}(?:/[0-9]{1,5000})?\\Z').match
_UUID = re.compile(u'[0-9a-f]{32}\\Z').match


class Maker(object):
    """
    Makes values of one class.

    :ivar is_key: whether they may be keys of a dict.
    """
    #: Whether the class is one of a program.
    is_record = False

    def __init__(self, make, is_key=True):
        self._make = make
        self.is_key = is_key

    def __call__(self, *args):
        try:
            return self._make(*args)
        except (TypeError, ValueError, MemoryError):
            raise
        except Exception:
            # A number out of bounds, say, or a class that this Python lacks.
            raise ValueError('no value can be made of this: %s' % (sys.exc_info()[1],))

    def __setstate__(self, state):
        raise mitogen.core.UnpicklingError('BUILD is not accepted')


def _module(name):
    return mitogen.core.import_module(name)


def _text(value):
    """
    Return a short text, which Python 2 may have written as bytes.
    """
    if type(value) is BytesType:
        value = value.decode('ascii')
    if type(value) is not UnicodeType or len(value) > _TEXT_MAX:
        raise ValueError('bad text')
    return value


def _integers(*values):
    for value in values:
        if type(value) not in integer_types:
            raise ValueError('bad number')


def _state(data, size):
    """
    Return the bytes of the state of a date or a time as numbers.
    """
    if not isinstance(data, BytesType) or len(data) != size:
        raise ValueError('bad date or time')
    return list(bytearray(data))


#
# Sets.
#

def _steps(items):
    """
    Return how many steps the hashes of some items take at most.

    :raises ValueError: too many.
    """
    left = _STEPS_PER_ITEM * len(items) + _FREE_STEPS
    while True:
        items = [item for item in items if isinstance(item, tuple)]
        if not items:
            return
        left -= sum(map(len, items))
        if left < 0:
            raise ValueError('the items of a set take too long to hash')
        items = [part for item in items for part in item]


def check_items(items):
    """
    Check that the hashes of some items take no long time, and do not collide.

    :raises ValueError: they do.
    """
    _steps(items)
    # Only a context that has children reads what it cannot trust.
    parent = sys.modules.get('mitogen.parent')
    if parent is None or len(items) <= _FEW or not PY3:
        return
    hashes = [hash(item) for item in items if type(item) not in parent._HARMLESS]
    if len(hashes) > _FEW:
        table = parent._Table([])
        table.put(hashes, _STEPS_PER_ITEM * len(hashes))


def _make_set(items):
    if type(items) is not list:
        raise ValueError('a set must be made from a list')
    check_items(items)
    return set(items)


def _make_frozenset(items):
    return frozenset(_make_set(items))


#
# Numbers and bytes.
#

def _make_complex(real, imag):
    if type(real) is not float or type(imag) is not float:
        raise ValueError('bad number')
    return complex(real, imag)


def _make_bytearray(data=b'', _encoding=None):
    if type(data) is UnicodeType:
        data = data.encode('latin-1')
    if not isinstance(data, BytesType):
        raise ValueError('bytes expected')
    return bytearray(data)


def _make_range(start, stop, step):
    _integers(start, stop, step)
    return mitogen.core.range(start, stop, step)


def _make_decimal(text):
    return _module('decimal').Decimal(_text(text))


def _make_fraction(first, second=None):
    fraction = _module('fractions').Fraction
    if second is None:
        if not _FRACTION(_text(first)):
            raise ValueError('bad number')
        return fraction(_text(first))
    _integers(first, second)
    if max(first.bit_length(), second.bit_length()) > _BITS_MAX:
        raise ValueError('bad number')
    return fraction(first, second)


#
# Time.
#

def _zone(zone):
    if zone and (not PY3 or type(zone[0]) is not _module('datetime').timezone):
        raise ValueError('bad time zone')
    return zone[0] if zone else None


def _make_datetime(data, *zone):
    high, low, month, day, hour, minute, second, a, b, c = _state(data, 10)
    return _module('datetime').datetime(
        high * 256 + low, month & 127, day, hour, minute, second, (a * 256 + b) * 256 + c, _zone(zone))


def _make_date(data):
    high, low, month, day = _state(data, 4)
    return _module('datetime').date(high * 256 + low, month, day)


def _make_time(data, *zone):
    hour, minute, second, a, b, c = _state(data, 6)
    return _module('datetime').time(hour & 127, minute, second, (a * 256 + b) * 256 + c, _zone(zone))


def _make_timedelta(days, seconds, micros):
    _integers(days, seconds, micros)
    return _module('datetime').timedelta(days, seconds, micros)


def _make_timezone(offset, *name):
    datetime = _module('datetime')
    if type(offset) is not datetime.timedelta or len(name) > 1:
        raise ValueError('bad time zone')
    return datetime.timezone(offset, *map(_text, name))


#
# Containers.
#

def _only_dict(value):
    # Keys of Python's own dict were checked when it was read.
    if type(value) is not dict:
        raise ValueError('a dict is expected')
    return value


def _make_ordered_dict(items=None):
    if not PY3:
        raise ValueError('the order is lost on Python 2')
    return _module('collections').OrderedDict(_only_dict(items))


def _make_counter(items):
    return _module('collections').Counter(_only_dict(items))


def _make_deque(items, length=None):
    if type(items) is not list or not (length is None or type(length) in integer_types and 0 <= length < 1 << 31):
        raise ValueError('bad deque')
    return _module('collections').deque(items, length)


#
# Names.
#

def _make_uuid(text):
    if not _UUID(_text(text)):
        raise ValueError('bad UUID')
    return _module('uuid').UUID(_text(text))


def _path_maker(name):
    def make(*parts):
        for part in parts:
            if type(part) is not UnicodeType:
                raise ValueError('the parts of a path must be text')
        pathlib = _module('pathlib')
        cls = getattr(pathlib, name)
        if not issubclass(cls, (pathlib.PurePath, type(pathlib.Path()))[name[:4] != 'Pure']):
            # A path of another kind of system can be looked at here, but leads nowhere.
            cls = getattr(pathlib, 'Pure' + name.replace('Path', '') + 'Path')
        return cls(*parts)
    return make


def _record_maker(module, name):
    """
    Return what makes one of the tuples with names that functions of the system return.
    """
    def make(items, more):
        if type(items) is not tuple or type(more) is not dict:
            raise ValueError('bad ' + name)
        for item in list(items) + list(more.values()):
            if not isinstance(item, integer_types + (float, UnicodeType, BytesType, type(None))):
                if type(item) is not list or not all(isinstance(part, (UnicodeType, BytesType)) for part in item):
                    raise ValueError('bad ' + name)
        return getattr(_module(module), name)(items, more)
    return make


_MAKERS = {
    ('__builtin__', 'set'): Maker(_make_set, False),
    ('__builtin__', 'frozenset'): Maker(_make_frozenset),
    ('__builtin__', 'complex'): Maker(_make_complex),
    ('__builtin__', 'bytearray'): Maker(_make_bytearray, False),
    ('__builtin__', 'xrange'): Maker(_make_range),
    ('datetime', 'datetime'): Maker(_make_datetime),
    ('datetime', 'date'): Maker(_make_date),
    ('datetime', 'time'): Maker(_make_time),
    ('datetime', 'timedelta'): Maker(_make_timedelta),
    ('datetime', 'timezone'): Maker(_make_timezone),
    ('decimal', 'Decimal'): Maker(_make_decimal),
    ('fractions', 'Fraction'): Maker(_make_fraction),
    ('uuid', 'UUID'): Maker(_make_uuid),
    ('collections', 'OrderedDict'): Maker(_make_ordered_dict, False),
    ('collections', 'Counter'): Maker(_make_counter, False),
    ('collections', 'deque'): Maker(_make_deque, False),
}
for _module_name in 'pathlib', 'pathlib._local':
    for _name in 'PurePosixPath', 'PureWindowsPath', 'PosixPath', 'WindowsPath':
        _MAKERS[_module_name, _name] = Maker(_path_maker(_name))
for _module_name, _name in (
        ('os', 'stat_result'), ('os', 'statvfs_result'), ('os', 'terminal_size'), ('posix', 'uname_result'),
        ('posix', 'times_result'), ('time', 'struct_time'), ('pwd', 'struct_passwd'), ('grp', 'struct_group')):
    _MAKERS[_module_name, _name] = Maker(_record_maker(_module_name, _name))


def find(module, name, msg=None):
    """
    Return the :class:`Maker` of a class, or None if values of it do not travel.

    :param msg: the message that names it, if an unpickler of Python reads it: that one would give
        any state to what was made.
    :raises UnpicklingError: the message gives state to something.
    """
    maker = _MAKERS.get((module, name))
    if maker is not None and msg is not None and not vars(msg).get('_is_stateless'):
        parent = sys.modules.get('mitogen.parent')
        if parent is not None and parent._gives_state(msg.data):
            raise mitogen.core.UnpicklingError('BUILD is not accepted')
        vars(msg)['_is_stateless'] = True
    return maker


#
# Classes of programs.
#

#: Parts that an object may have which can be a key, parts of parts included: hashing it takes as
#: many steps.
_PARTS_MAX = 4096

#: Per thread, the modules of the classes that were written.
_written = threading.local()


def _check_hash(cls, parts):
    """
    Check that the hash of an object takes no long time.
    """
    if cls.__hash__ is None:
        return
    left = _PARTS_MAX
    while parts:
        left -= len(parts)
        if left < 0:
            raise ValueError('a %s that can be a key has too many parts' % (cls.__name__,))
        parts = [part for whole in parts for part in _parts_of(whole)]


def _parts_of(value):
    if isinstance(value, tuple):
        return value
    names = _FIELDS.get(type(value), ())
    return [getattr(value, name, None) for name in names]


#: Dataclass -> names of its fields.
_FIELDS = {}


def _dataclass_ways(cls):
    import dataclasses
    fields = dict((field.name, field) for field in dataclasses.fields(cls))
    _FIELDS[cls] = list(fields)

    def default(field):
        if field.default_factory is not dataclasses.MISSING:
            return field.default_factory()
        if field.default is dataclasses.MISSING:
            raise ValueError('field %s of %s is missing' % (field.name, cls.__name__))
        return field.default

    def make(values):
        unknown = set(_only_dict(values)).difference(fields)
        if unknown:
            raise ValueError('%s has no field %r' % (cls.__name__, unknown.pop()))
        _check_hash(cls, list(values.values()))
        made = object.__new__(cls)
        for name, field in fields.items():
            object.__setattr__(made, name, values[name] if name in values else default(field))
        return made

    def take_apart(value):
        return dict((name, getattr(value, name)) for name in fields)
    return make, take_apart


def _enum_ways(cls):
    if issubclass(cls, _module('enum').Flag):
        known = 0
        for member in cls.__members__.values():
            known |= member.value

        def make(value):
            _integers(value)
            if value & ~known:
                raise ValueError('%s has no such flags' % (cls.__name__,))
            return cls(value)
        return make, lambda value: value.value

    def make_member(name):
        found = cls.__members__.get(_text(name))
        if found is None:
            raise ValueError('%s has no member %s' % (cls.__name__, name))
        return found
    return make_member, lambda value: value.name


def _tuple_ways(cls):
    def make(items):
        if type(items) is not tuple or len(items) != len(cls._fields):
            raise ValueError('%s has %d fields' % (cls.__name__, len(cls._fields)))
        _check_hash(cls, items)
        return tuple.__new__(cls, items)
    return make, tuple


def _ways(cls):
    """
    Return two functions for a class: one makes an object of its parts, the other takes an object
    apart.
    """
    if isinstance(cls, type) and '.' not in cls.__qualname__:
        if hasattr(cls, '__dataclass_fields__'):
            return _dataclass_ways(cls)
        if issubclass(cls, _module('enum').Enum):
            return _enum_ways(cls)
        if issubclass(cls, tuple) and hasattr(cls, '_fields'):
            return _tuple_ways(cls)
    raise TypeError('%r is no dataclass, Enum or NamedTuple of a module' % (cls,))


def register(cls):
    """
    Have values of a class of the program travel: a dataclass, an Enum or a NamedTuple. To be used
    as a decorator, in a module that the other side imports, too. No method of the class is called
    when a value arrives: each field is set as it came. A field that did not come gets its default.

    :return: the class.
    :raises TypeError: it is of another kind, or inside of another class or a function.
    """
    if not PY3:
        raise TypeError('registered classes need Python 3.6')
    make, take_apart = _ways(cls)
    maker = Maker(make, False)
    maker.is_record = True
    module = cls.__module__

    def reduce(value):
        vars(_written).setdefault('modules', set()).add(module)
        return cls, (take_apart(value),)
    _MAKERS[module, cls.__name__] = maker
    mitogen.core._VALUE_MODULES.add(module)
    mitogen.core._Reducers.registered[cls] = reduce
    name = cls.__name__.encode() + b'\n'
    if name not in mitogen.core._own:
        mitogen.core._own.append(name)
    return cls


def take_written():
    """
    Return the modules of the registered classes that this thread has written since the last time.
    """
    return vars(_written).pop('modules', ())


def learn(module):
    """
    Import a module that registers classes.
    """
    mitogen.core.import_module(module)


#
# Writing. Python's own pickler writes the other ones so that they can be read.
#

def reducer_of(cls):
    """
    Return the function by which a pickler takes values of a class apart, or None.
    """
    if cls.__module__ == 'uuid' and cls.__name__ == 'UUID':
        return lambda value: (cls, (value.hex,))
    if cls.__module__ == 'collections':
        if cls.__name__ == 'OrderedDict':
            return lambda value: (cls, (dict(value),))
        if cls.__name__ == 'deque':
            return lambda value: (cls, (list(value), value.maxlen))
