# SPDX-License-Identifier: BSD-3-Clause
"""
Read what children write: a pickle is looked through before it is loaded.
"""

from __future__ import absolute_import  # house

import re  # house
import struct  # house

import mitogen.core  # house
from mitogen.core import b  # house
from mitogen.parent import _has_deep_tuples, _may_be_long, _NOTED, _with_depth, _KeyReader  # house


#: A number in text with more digits takes long to read.
_MAX_DIGITS = 4300

#: Every pickle may use as many memo entries.
_MEMO_MIN = 65536

#: In payloads longer than this it does not pay to search for `_SUSPECT` first.
_SMALL_PAYLOAD = 1000

#: As many objects may be copies of what a message has once.
_FEW_OBJECTS = 7

#: Matches whatever could be a memo index beyond `_MEMO_MIN`, a bytearray, or a
#: FRAME, which can part an opcode from its argument. A match proves nothing; a
#: payload without one is harmless.
_SUSPECT = re.compile(br'r..(?:[^\0].|.[^\0])|p[ \t\v\f\r+]*[0-9_]{6}|'
                      br'[\x95\x96]',
                      re.S).search
_INDEX = re.compile(br'0*([0-9]{1,10})\n').match

#: How many bytes of the argument are its length; and how many lines it has.
_COUNTED = {}
_LINES = {}
for _table, _number, _opcodes in ((_COUNTED, 1, 'UC\x8a\x8c'),
                                  (_COUNTED, 4, 'XTB\x8b'),
                                  (_COUNTED, 8, '\x8d\x8e'),
                                  (_LINES, 1, 'FILPSVgp'), (_LINES, 2, 'ci')):
    _table.update((ord(_opcode), _number) for _opcode in _opcodes)

_skip = None


def _make_skip():
    """
    Return the `match` of an expression for opcodes of fixed length, short
    text, and small memo indexes.
    """
    texts = b'|'.join(re.escape(struct.pack('<I', n)) + b('.{%d}' % n)
                      for n in range(96))
    # The number of turns is limited, as the matcher keeps a note of each.
    return re.compile(
        br'(?:[(012NQae)}\]lt.\x85-\x89\x8f-\x94\x97\x98]+|'
        br'[Khq\x80\x82].|X(?:' + texts + br')|r..\0\0|[M\x83]..|'
        br'[Jj\x84].{4}|G.{8}){0,256}', re.S).match


def _get_skip():
    global _skip
    _skip = _skip or _make_skip()
    return _skip


def _look_through(data):
    """
    Return of some pickles

    - the offset of the first opcode that the interpreter shall not carry out,
      or None;
    - a list of the offsets of opcodes before that, which have to do with
      dictionaries, and of frames;
    - how many objects are made by calling something;
    - whether something is given state.

    These are refused:

    - A memo index larger than the number of opcodes before it can be. The
      interpreter makes a table as long as the largest index.
    - A number in text with many digits. Reading it takes long.
    - A bytearray, which no peer of ours writes. The interpreter claims as much
      memory as its length announces.
    - An argument that reaches beyond its FRAME. The interpreter reads a frame
      at once, and drops the rest of it at a longer argument.

    This follows each opcode, so it finds them where the interpreter does. At an
    unknown opcode the interpreter stops as well.

    :param bytes data: pickles, one behind the other.
    """
    skip = _get_skip()
    size = end = len(data)
    pos = inert = reduces = 0
    builds = False
    spots = []

    while pos < size:
        if pos == end:
            end = size
        before = pos
        start = pos = skip(data, pos, end).end()
        if pos == end:
            continue
        opcode = data[pos]
        pos += 1
        width = _COUNTED.get(opcode)
        if width:
            count = int.from_bytes(data[pos:pos + width], 'little')
            pos += width + count
            inert += count
        elif opcode in _LINES:
            for _ in range(_LINES[opcode]):
                pos = data.find(b'\n', pos) + 1 or size + 1
            inert += pos - start - 1
            if opcode == 0x70:
                found = _INDEX(data, start + 1)
                if (not found or
                        int(found.group(1)) > max(_MEMO_MIN, start - inert)):
                    return start, spots, reduces, builds
            elif opcode in b'ILg' and pos - start > _MAX_DIGITS:
                return start, spots, reduces, builds
            elif opcode == 0x69:
                reduces += 1
        elif opcode == 0x72:
            pos += 4
            index = int.from_bytes(data[pos - 4:pos], 'little')
            if index > max(_MEMO_MIN, start - inert):
                return start, spots, reduces, builds
        elif opcode in _NOTED:
            spots.append(start)
        elif opcode in b'Ro\x81':
            reduces += 1
        elif opcode == 0x62:
            builds = True
        elif opcode == 0x95:
            spots.append(start)
            pos += 8
            count = int.from_bytes(data[pos - 8:pos], 'little')
            if pos + count > end:
                pos = size + 1
            elif end == size:
                end = pos + count
        elif opcode == 0x96:
            return start, spots, reduces, builds
        elif start > before:
            # The next opcode may be one that could be skipped, too.
            pos = start
        else:
            pos = size + 1
        if pos > end:
            return None if end == size else start, spots, reduces, builds
    return None, spots, reduces, builds


def _gives_state(data):
    """
    Tell whether some pickles give state to something that they hold.
    """
    if mitogen.core.PY3:
        return _look_through(data)[3]
    import pickletools
    fp = mitogen.core.BytesIO(data)
    while fp.tell() < len(data):
        if any(opcode.name == 'BUILD' for opcode, _, _ in pickletools.genops(fp)):
            return True
    return False


def _refuse(what):
    raise mitogen.core.UnpicklingError(
        'memo index out of bounds, a number too long, or a bytearray')


class _BytesReader(object):
    """
    Unpickler of a payload that is only a long byte string. The interpreter's
    own copies it twice.
    """
    def __init__(self, file, data):
        self._file = file
        self._data = data

    def load(self):
        self._file.seek(len(self._data))
        return self._data[7:-1]


class _Checked(object):
    """
    Unpickler of a payload that another unpickler has looked through before.
    """
    def __init__(self, first, then):
        self._first = first
        self._then = then

    def load(self):
        self._first.load()
        return self._then.load()


def _make_unpickler(file, find_class=mitogen.core.find_deny,
                    _make=mitogen.core.Unpickler):
    data = file.getvalue()
    size = len(data)
    if (size > _SMALL_PAYLOAD and data.startswith(b'\x80\x02T') and
            data[-1:] == b'.' and
            data[3:7] == struct.pack('<L', (size - 8) & 0x7fffffff)):
        return _BytesReader(file, data)
    if size <= _SMALL_PAYLOAD and not _SUSPECT(data) and \
            not _has_deep_tuples(data):
        return _with_depth(_make(file, find_class), data)
    claim, spots, reduces, _ = _look_through(data)
    if claim is not None:
        # The unpickler reads what stands before, then this persistent id,
        # which is refused.
        data = data[:claim] + b'P0\n'
        file.seek(0)
        file.write(data)
        file.truncate()
        file.seek(0)
    unpickler = _make(file, find_class)
    if claim is not None:
        unpickler.persistent_load = _refuse
    if reduces > _FEW_OBJECTS or (
            any(data[spot] in _NOTED for spot in spots) and
            _may_be_long(data)):
        unpickler = _Checked(_KeyReader(data, spots, find_class, _make),
                             unpickler)
    return _with_depth(unpickler, data)


def _refuse_state(*args):
    """
    Stand in for the method that takes an object's state.

    A pickle may give state to anything in it: to the one context of that id
    there is, or to a class or function that it names.
    """
    if args[-1] not in (None, {}):
        raise mitogen.core.UnpicklingError('BUILD is not accepted')


if mitogen.core.pickle.__name__ == '_pickle':
    # All other objects keep a dictionary.
    mitogen.core._unpickler = _make_unpickler

if mitogen.core.CORE == 'pure':
    for _object in (mitogen.core.Blob, mitogen.core.Context,
                    mitogen.core.Kwargs, mitogen.core.Secret,
                    mitogen.core.Sender, mitogen.core._read_bytes,
                    mitogen.core._unpickle_call_error, mitogen.core._unpickle_buffer):
        _object.__setstate__ = _refuse_state
