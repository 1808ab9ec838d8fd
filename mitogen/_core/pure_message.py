# SPDX-License-Identifier: BSD-3-Clause
"""
The pure leaf of Message: its fields, and pickles.
"""

from __future__ import absolute_import  # house

import sys  # house

import mitogen  # house
from mitogen.core import _chosen, _MessageBase, _seldom, BytesIO, BytesType, CallError, CORE, IS_DEAD  # house
from mitogen.core import pickle, Pickler, PicklingError, PY3, _REDUCED, _Reducers, StreamError  # house

if not _REDUCED and CORE == 'native':
    # This leaf is seldom used then. So a child does not import `struct` at its start.
    pass
else:
    import struct

_own = b'array deque Dict UUID'.split()


@_chosen
class Message(_MessageBase):
    dst_id = handle = None
    #: Handle for the reply; None or 0 if there is none, IS_DEAD when this
    #: says that the recipient waits in vain.
    reply_to = None
    data = b''
    #: Router that received the message, None if it was built here.
    router = None
    #: Receiver that a select took the message from.
    receiver = None
    enc = _MessageBase.ENC_MGC
    if not _REDUCED and CORE == 'native':
        _pack = _unpack = None
    else:
        _struct = struct.Struct(_MessageBase.HEADER_FMT)
        _pack = _struct.pack
        _unpack = _struct.unpack_from

    def __init__(self, **kwargs):
        self.src_id = self.auth_id = mitogen.context_id
        if kwargs:
            self.__dict__.update(kwargs)
            assert isinstance(self.data, BytesType)
            if self.enc not in self.ENCS:
                raise ValueError('unknown enc: %r' % (self.enc,))

    def _check(self):
        """Raise ValueError or AssertionError for fields of a wrong kind."""
        assert isinstance(self.data, BytesType)
        numbers = [number for number in (
            self.dst_id, self.src_id, self.auth_id, self.handle,
            self.reply_to) if number is not None]
        try:
            struct.pack('>%dL' % len(numbers), *numbers)
        except struct.error:
            raise ValueError('not a number of 32 bits: %r' % (self,))

    @property
    def is_dead(self):
        """Whether this message says that nothing more will come."""
        return self.reply_to == IS_DEAD

    @classmethod
    def pickled(cls, *objs, **kwargs):
        """
        Build a message that carries pickles of `objs`. An object whose
        pickling raises PicklingError is replaced by a CallError made from
        that; other errors reach the caller.
        """
        if PY3 and len(objs) == 1 and type(objs[0]) is not BytesType:
            # pickle.dumps() makes the same bytes in half the time.
            try:
                data = pickle.dumps(objs[0], 2)
                # Names of classes of buffers, or of what makes them, and of
                # others that are taken apart in ways of ours.
                if not any(x in data for x in _own):
                    return cls(data=data, enc=cls.ENC_PKL, **kwargs)
            except (PicklingError, TypeError):
                pass
        return cls._pickled(list(objs), kwargs)

    @_seldom
    @classmethod
    def _pickled(cls, objs, kwargs):
        while True:
            fp = BytesIO()
            pickler = Pickler(fp, 2)
            if PY3:
                pickler.dispatch_table = _Reducers()
            try:
                for i, obj in enumerate(objs):
                    pickler.dump(obj)
                return cls(data=fp.getvalue(), enc=cls.ENC_PKL, **kwargs)
            except PicklingError:
                # The memo now has entries that were never written, and the
                # pickles share it: begin again.
                objs[i] = CallError(sys.exc_info()[1])

    def unpickle(self, throw=True, throw_dead=True, find_class=None):
        """
        Return the first object carried.

        :param bool throw: raise a :class:`CallError` instead of returning it.
        :param bool throw_dead: raise :class:`ChannelError` for a dead message.
        :raises StreamError: the payload is invalid or names a class that may
            not cross.
        """
        for obj in self.unpickle_iter(throw, throw_dead,
                                      find_class or self._find_global):
            return obj
        raise StreamError('invalid message: the payload is empty')
