# SPDX-License-Identifier: BSD-3-Clause
"""
Read the answers of a host's hub and zygotes.

They are marshalled tuples, and the host may send any bytes in their place:
:func:`marshal.loads` trusts what it reads, and ends the process over some. So
the daemon reads the few types that an answer has here, and checks its shape.
"""

from __future__ import absolute_import

import struct

INT = struct.Struct('<i')

#: First word of an answer -> the types of what follows.
SHAPES = {
    'done': (int, bytes, bytes),
    'fail': (str, str),
    'prompt': (bytes,),
    'unknown': (),
}


class DamagedError(Exception):
    """
    The bytes are no answer.
    """
    pass


class Reader(object):
    """
    :param bytes data: one marshalled tuple, of version 2 of the format.
    """

    def __init__(self, data):
        self.data, self.at = memoryview(data), 0

    def take(self, size):
        found = self.data[self.at:self.at + size]
        if size < 0 or len(found) != size:
            raise DamagedError('an answer ends too early')
        self.at += size
        return found

    def number(self):
        return INT.unpack(self.take(INT.size))[0]

    def value(self):
        kind = bytes(self.take(1))
        if kind == b'i':
            return self.number()
        if kind not in (b's', b'u'):
            raise DamagedError('an answer has a value of type %r' % (kind,))
        data = bytes(self.take(self.number()))
        return data if kind == b's' else data.decode('utf-8', 'surrogatepass')

    def items(self):
        if bytes(self.take(1)) != b'(':
            raise DamagedError('an answer is not a tuple')
        count = self.number()
        if not 0 < count < 5:
            raise DamagedError('an answer has %d values' % (count,))
        found = tuple([self.value() for _ in range(count)])
        if self.at != len(self.data):
            raise DamagedError('more follows an answer')
        return found


def content(value):
    """
    Return bytes that a host has sent.

    :raises DamagedError: it has sent something else. A number would become as many bytes.
    """
    if not isinstance(value, bytes):
        raise DamagedError('a host sent something that is not bytes')
    return bytes(value)


def fragment(value):
    """
    Return what a fragment of shell has come to: (status, output), or None.

    :raises DamagedError: the host sent something else. It might have no end once it is marshalled
        for a worker.
    """
    if value is not None and not (isinstance(value, tuple) and tuple(map(type, value)) == (int, str) and
                                  abs(value[0]) < 1 << 31):
        raise DamagedError('the answer of a host is not the result of a shell fragment')
    return value


def size_and_mode(value):
    """
    Return the size and the permissions of a file.

    :raises DamagedError: the host sent something else.
    """
    if not isinstance(value, (tuple, list)) or len(value) != 2 or \
            not all(type(number) is int and 0 <= number < 1 << 63 for number in value):
        raise DamagedError('the answer of a host is not the size of a file')
    return value[0], value[1] & 0o777


def read(data):
    """
    Return an answer: a tuple of a key of `SHAPES` and the values that belong to it.

    :raises DamagedError: these bytes are no answer.
    """
    try:
        found = Reader(data).items()
    except UnicodeDecodeError as error:
        raise DamagedError(str(error))
    if not isinstance(found[0], str) or found[0] not in SHAPES or \
            tuple(type(value) for value in found[1:]) != SHAPES[found[0]]:
        raise DamagedError('an answer has the wrong shape')
    return found
