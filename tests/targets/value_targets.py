"""
Classes of a program that travel, and what hosts do with values.
"""

import collections
import datetime
import dataclasses
import enum
import os
import typing

from mitogen.values import register


@register
class Colour(enum.Enum):
    RED = 'r'
    BLUE = 'b'


@register
class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@register
@dataclasses.dataclass
class Job:
    name: str
    left: list = dataclasses.field(default_factory=list)
    colour: Colour = Colour.RED

    def __post_init__(self):
        self.name = self.name.upper()


@register
@dataclasses.dataclass(frozen=True)
class Key:
    number: int
    more: object = None

    def __setstate__(self, state):
        raise AssertionError('never called')


@register
class Pair(typing.NamedTuple):
    first: object
    second: object = None


def kinds(value):
    return [type(item).__name__ for item in value]


def made_here():
    return [Job('made', [Colour.BLUE]), Pair(1, {2}), datetime.date(2020, 1, 2), os.uname(), collections.Counter('aab')]


def items():
    yield Job('first')
    yield Pair(Key(1))


def return_stat():
    return os.stat('/')
