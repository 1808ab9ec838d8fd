# SPDX-License-Identifier: BSD-3-Clause
"""
The compiled leaf of Message.
"""

from __future__ import absolute_import  # house

import sys  # house

import mitogen  # house
import _mitogen_core as _c  # house
from mitogen._native import _Signature, core  # house


class Message(core._MessageBase, _c.Message):
    # The name that pickles and programs know.
    __module__ = 'mitogen.core'
    if sys.version_info < (3, 10):
        __signature__ = _Signature('**kwargs')
    # Fields, `pickled` and `unpickle` are compiled.

    # In C, messages have no bytes of their own. Only what answers with many modules at once packs
    # them itself, and only a protocol over another router reads them in Python.

    def _pack(self, *fields):
        return core._module('struct').pack(self.HEADER_FMT, *fields)

    @classmethod
    def _unpack(cls, buf, position=0):
        return core._module('struct').unpack_from(cls.HEADER_FMT, buf, position)

    def __reduce__(self):
        # For copies, of which the fields are no part of the dictionary here.
        fields = dict((name, getattr(self, name)) for name in _FIELDS)
        return _make_message, (type(self), dict(self.__dict__, **fields))

    def unpickle_iter(self, throw=True, throw_dead=True,
                      find_class=core.find_deny):
        if find_class is not core.find_deny:
            for obj in core._MessageBase.unpickle_iter(
                    self, throw, throw_dead, find_class):
                yield obj
            return
        if self.enc == self.ENC_BIN:
            raise core.DamagedError('not pickled')
        if throw_dead and self.is_dead:
            self._throw_dead()
        objs, error = self._unpickle_all(True)
        for obj in objs:
            if throw and isinstance(obj, core.CallError):
                raise obj
            yield obj
        if error is not None:
            mitogen.core._note_damage(self)
            raise error


_FIELDS = ('dst_id', 'src_id', 'auth_id', 'handle', 'reply_to', 'data', 'enc',
           'router', 'receiver')


def _make_message(cls, attributes):
    msg = cls()
    for name, value in attributes.items():
        setattr(msg, name, value)
    return msg


def _slow_unpickle(msg, find_class, failure=None):
    """
    Unpickle with the caller's own look-ups, or log a payload that the native
    decoder refused with `failure`. An empty payload need not be logged.
    """
    if failure is not None:
        if msg.data:
            mitogen.core._note_damage(msg)
        return None
    for obj in core._MessageBase.unpickle_iter(msg, False, False, find_class):
        return obj
    raise core.StreamError('invalid message: the payload is empty')


def _dead_text(msg):
    """Return what the ChannelError of a dead message says."""
    try:
        msg._throw_dead()
    except core.ChannelError:
        e = sys.exc_info()[1]
        explain = getattr(msg.router, '_explain', None)
        if explain and not e.detail and msg.src_id == mitogen.context_id:
            return explain(e.args[0])
        # The constructor takes them apart again.
        return '\n'.join(filter(None, [e.args[0], e.detail]))
