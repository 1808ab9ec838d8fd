# SPDX-License-Identifier: BSD-3-Clause
"""
Look at the keys of the dictionaries in a pickle before it is loaded.
"""

from __future__ import absolute_import  # house

import sys  # house

import mitogen.core  # house


#: This many keys do not cost much, however they collide.
_FREE_KEYS = 256

#: The budget for comparing keys: some for each key, and some to begin with.
_PER_KEY, _FREE = 128, 1 << 18

#: The price of a key whose hash is not known.
_PER_RECORD = 512

#: Tuples in tuples in a key. Hashing them takes stack, unguarded.
_KEY_DEPTH = 100

#: All objects of a message together may have as many bytes, characters and
#: items as the message has bytes, and this many more.
_FREE_COPIES = 65536

#: Arguments after the first one cost nothing up to this size: most are names of a kind.
_FREE_ARGUMENT = 16

#: Keys of these types have hashes that no sender can foresee.
_HARMLESS = frozenset([type(None), bool])
if sys.flags.hash_randomization:
    _HARMLESS |= set([mitogen.core.BytesType, mitogen.core.UnicodeType])

#: An opcode that puts items into a dictionary -> opcodes that give both, in a
#: tuple, to `persistent_load`, and take the dictionary back from it.
_NOTED = {ord('d'): b't\x85Q', ord('u'): b't\x86Q', ord('s'): b'\x86\x86Q'}


def _refuse_keys():
    raise mitogen.core.UnpicklingError(
        'the keys of a dictionary collide, or take too long to hash')


class _Table(object):
    """
    The keys of a dictionary that is read, and where its table would hold them.

    :param texts: lists of keys that it has, all harmless.
    """
    def __init__(self, texts):
        self.texts = set()
        self.texts.update(*texts)
        #: Hashes of all other keys.
        self.hashes = []
        #: For each place, whether one of those is there.
        self.taken = bytearray()

    def __len__(self):
        return len(self.texts) + len(self.hashes)

    def copy(self):
        table = _Table([self.texts])
        table.hashes = self.hashes[:]
        return table

    def put(self, hashes, left):
        """
        Follow the probes that a dictionary makes for new keys, see
        `_mitogen_core/codec/probes.c`.

        :param left: how many places that are taken may be met.
        :returns: the rest of the budget.
        """
        while hashes:
            size = len(self.taken) or 2 * _FREE_KEYS
            if not self.taken or len(self) >= 2 * size // 3:
                while len(self) >= 2 * size // 3:
                    size *= 2
                self.taken = bytearray(size)
                left = self._take(self.hashes, left)
            some = hashes[:2 * size // 3 - len(self)]
            left = self._take(some, left)
            self.hashes += some
            hashes = hashes[len(some):]
        return left

    def _take(self, hashes, left):
        taken = self.taken
        mask = len(taken) - 1
        for value in hashes:
            at = value & mask
            if taken[at]:
                perturb = value & (2 * sys.maxsize + 1)
                while taken[at]:
                    left -= 1
                    perturb >>= 5
                    at = (5 * at + perturb + 1) & mask
                if left < 0:
                    _refuse_keys()
            taken[at] = 1
        return left


class _Stand(dict):
    """
    Stands for an object that a pickle makes by calling something. Each message
    has a subclass, which knows its :class:`_KeyReader`.
    """
    reader = None
    #: Whether it is of a class of the program, which hashes it as the sender may foresee.
    is_record = False
    #: Bytes, or characters, that it has.
    size = 0

    def __init__(self, *args):
        if args and isinstance(args[0], (bytes, mitogen.core.UnicodeType)):
            self.size = len(args[0])
        for i, arg in enumerate(args):
            self.reader.pay_for_copy(arg, _FREE_ARGUMENT if i else 0)
        if args and isinstance(args[0], dict):
            # Kwargs: it begins with the items of the dictionary.
            self.update((0, notes.copy()) for notes in args[0].values())

    def __setstate__(self, state):
        pass


class _KeyReader(object):
    """
    Reads pickles as if no key were ever hashed, and refuses those whose keys
    would take long: a sender that knows the hashes of numbers can choose them
    so that a dictionary probes many taken places on its way to each, and a
    tuple may hold another one many times, which holds the next many times.

    A dictionary stays empty here, but for a note of its keys: under 0 a list
    of tuples of keys, all harmless, or a :class:`_Table`.

    :param bytes data: the pickles.
    :param spots: offsets of all opcodes in `_NOTED`, and of those of frames.
    :param find_class: as the unpickler's.
    :param make: makes an unpickler.
    """
    def __init__(self, data, spots, find_class, make):
        parts = []
        before = 0
        for spot in spots:
            parts += data[before:spot], _NOTED.get(data[spot], b'')
            # The lengths change, so frames are left out.
            before = spot + (1 if data[spot] in _NOTED else 9)
        parts.append(data[before:])
        self._find_class = find_class
        self._stand = type('_Stand', (_Stand,), {'reader': self})
        self._record = type('_Record', (self._stand,), {'is_record': True})
        self._unpickler = make(mitogen.core.BytesIO(b''.join(parts)),
                               self._find)
        self._unpickler.persistent_load = self._note
        # Python 3 makes bytes of a text, and a Blob, or a bytearray, of these.
        self._copies_left = 2 * (len(data) + _FREE_COPIES)
        self._has_records = False
        self._left = _FREE

    def load(self):
        """
        Look through the next pickle.
        """
        self._unpickler.load()

    def _find(self, module, name):
        found = self._find_class(module, name)
        if getattr(found, 'is_record', False):
            self._has_records = True
            return self._record
        if found is mitogen.core._read_bytes or getattr(found, 'is_key', False):
            return lambda *args: self._make_key(found, args)
        return self._stand

    def _make_key(self, make, args):
        """
        Return a value that may be a key.
        """
        stand = self._stand(*args)
        if make is mitogen.core._read_bytes and stand.size > _FREE_ARGUMENT:
            # It is not what a date is made of.
            return stand
        try:
            # Its hash is what counts.
            return make(*args)
        except TypeError:
            # An object is in it that stands for another one.
            return stand

    def _pay(self, price):
        self._left -= price
        if self._left < 0:
            _refuse_keys()

    def pay_for_copy(self, arg, free=0):
        """
        Note that an object is made of another one, which costs nothing up to a size.
        """
        if isinstance(arg, dict):
            sizes = [len(notes) if isinstance(notes, _Table) else
                     sum(map(len, notes)) for notes in arg.values()]
            self._copies_left -= sum(sizes) + getattr(arg, 'size', 0)
        elif isinstance(arg, (bytes, mitogen.core.UnicodeType, list, tuple)) and len(arg) > free:
            self._copies_left -= len(arg)
        if self._copies_left < 0:
            raise mitogen.core.UnpicklingError('a message copies itself')

    def _note(self, args):
        """
        Stand in for the opcodes in `_NOTED`.
        """
        if type(args) is not tuple or not 0 < len(args) < 3 or \
                type(args[-1]) is not tuple:
            # The pickle has a persistent id of its own. The real unpickler
            # refuses that.
            return None
        stand = args[0] if len(args) == 2 else {}
        if isinstance(stand, dict):
            keys = args[-1][::2]
            notes = stand.setdefault(0, [])
            self._left += _PER_KEY * len(keys)
            if type(notes) is list and _HARMLESS.issuperset(map(type, keys)):
                notes.append(keys)
            else:
                self._add(stand, keys)
        return stand

    def _add(self, stand, keys):
        table = stand[0]
        if type(table) is list:
            table = stand[0] = _Table(table)
        hashes = []
        for key in keys:
            if type(key) in _HARMLESS:
                table.texts.add(key)
            elif isinstance(key, _Stand):
                self._pay(_PER_RECORD * key.is_record)
            else:
                if isinstance(key, tuple):
                    self._pay_for_tuple(key)
                try:
                    hashes.append(hash(key))
                except TypeError:
                    # The real dictionary will raise the error, or a record is in it.
                    self._pay(_PER_RECORD * self._has_records)
        if len(table) + len(hashes) < _FREE_KEYS:
            table.hashes += hashes
        else:
            self._left = table.put(hashes, self._left)

    def _pay_for_tuple(self, key):
        level = [key]
        for _ in range(_KEY_DEPTH):
            self._pay(sum(map(len, level)))
            level = [item for items in level for item in items
                     if isinstance(item, tuple)]
            if not level:
                return
        _refuse_keys()


def _count(data, opcodes):
    """
    Return how many of some opcodes there may be in some pickles. Bytes of text
    count as well.
    """
    return len(data) - len(data.translate(None, opcodes))


def _has_deep_tuples(data):
    """
    Tell whether many tuples may be inside each other in some pickles, or one
    many times in the next.
    """
    tuples = _count(data, b'\x85\x86\x87')
    if tuples < _KEY_DEPTH:
        tuples += min(data.count(b't'), data.count(b'('))
    return tuples >= _KEY_DEPTH or (
        # It takes as many references to make a thousand of one.
        tuples >= 4 and _count(data, b'hjg2') >= 24)


def _may_be_long(data):
    """
    Tell whether the keys of dictionaries may take long. A true result may be
    wrong; a false one is right.
    """
    return (_has_deep_tuples(data) or not sys.flags.hash_randomization or
            _count(data, b'KMJGILF\x8a\x8b') >= _FREE_KEYS)
