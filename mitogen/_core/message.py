# SPDX-License-Identifier: BSD-3-Clause
"""
_MessageBase: the header of a message, what it may carry, and how that is read.
"""

from __future__ import absolute_import  # house

import sys  # house
from _codecs import utf_8_encode  # house

import mitogen  # house
from mitogen.core import _read_bytes, _seldom, _SELDOM, _unpickle_buffer, _unpickle_call_error, _unpickler, BytesIO  # house
from mitogen.core import CallError, ChannelError, find_deny, has_parent_authority, import_module, IS_DEAD, LOG, Secret  # house
from mitogen.core import BytesType, StreamError, UnicodeType  # house

if _SELDOM:
    #: Modules of the classes that `mitogen._values` knows. It adds to them.
    _VALUE_MODULES = set([
        '__builtin__', 'collections', 'datetime', 'decimal', 'fractions', 'grp', 'os', 'pathlib', 'pathlib._local', 'posix',
        'pwd', 'time', 'uuid'])


class _MessageBase(object):
    """
    One message, from one handle of a context to a handle of another.

    Any attribute may be given as a keyword argument. Not locked: a message
    belongs to one thread at a time.

    :raises ValueError: unknown `enc`.
    """
    HEADER_FMT = '>hLLLLLL'
    HEADER_LEN = 26
    HEADER_MAGIC = ENC_MGC = 0x4d49
    ENC_PKL = 0x4d4a
    ENC_BIN = 0x4d4b
    ENCS = frozenset([ENC_MGC, ENC_PKL, ENC_BIN])

    @_seldom
    def __repr__(self):
        # Nothing of the payload: this is logged, and a password may be in it.
        return 'Message(src=%r:%r dst=%r:%r auth_id=%r enc=%r, %d bytes)' % (
            self.src_id, self.reply_to, self.dst_id, self.handle,
            self.auth_id, self.enc, len(self.data))

    def _header(self, size):
        # The other end would take the connection for corrupted.
        if self.enc not in self.ENCS:
            raise ValueError('unknown enc: %r' % (self.enc,))
        return self._pack(self.enc, self.dst_id, self.src_id, self.auth_id,
                          self.handle, self.reply_to or 0, size)

    def pack(self):
        """Return the frame as bytes. `dst_id` and `handle` must be set."""
        # Read once: another thread may change it.
        data = self.data
        return self._header(len(data)) + data

    @classmethod
    def dead(cls, reason=None, **kwargs):
        """Build a dead message; `reason` is text or None."""
        return cls(reply_to=IS_DEAD, data=utf_8_encode(reason or '')[0],
                   **kwargs)

    @_seldom
    @classmethod
    def encoded(cls, obj, enc, **kwargs):
        """Build a message by encoding: ENC_PKL pickles `obj`, ENC_BIN wants
        bytes."""
        if enc == cls.ENC_PKL:
            return cls.pickled(obj, **kwargs)
        if enc != cls.ENC_BIN:
            raise ValueError('cannot encode as %r' % (enc,))
        if not isinstance(obj, BytesType):
            raise TypeError('ENC_BIN takes bytes')
        return cls(data=obj, enc=enc, **kwargs)

    @_seldom
    def decode(self, throw=True, throw_dead=True):
        """Return the payload according to `enc`."""
        if self.enc == self.ENC_BIN:
            return self.data
        if self.enc == self.ENC_PKL:
            return self.unpickle(throw=throw, throw_dead=throw_dead)
        raise ValueError('cannot decode %r' % (self.enc,))

    def reply(self, msg, router=None, **kwargs):
        """
        Send `msg`, or a message that carries it, to whoever sent this one.

        :param router: used when this message came from no router.
        """
        reply = msg if isinstance(msg, _MessageBase) else self.pickled(msg)
        reply.dst_id = self.src_id
        reply.handle = self.reply_to
        for name, value in kwargs.items():
            setattr(reply, name, value)
        if reply.handle:
            (self.router or router).route(reply)
        else:
            LOG.debug('no reply is expected: %r', reply)

    def _find_global(self, module, name):
        if module == 'mitogen.core' and name in ('Kwargs', 'Blob'):
            return globals()[name]
        if module + '.' + name in ('_codecs.encode', '__builtin__.bytes'):
            return _read_bytes
        return self._find_seldom(module, name)

    @_seldom
    def _find_seldom(self, module, name):
        found = None
        if module == 'mitogen.core':
            found = {
                'Secret': Secret,
                'CallError': _unpickle_call_error,
                '_unpickle_call_error': _unpickle_call_error,
                '_unpickle_context': self._read_context,
                '_unpickle_sender': self._read_sender,
                '_unpickle_buffer': _unpickle_buffer,
            }.get(name)
        elif module in _VALUE_MODULES:
            try:
                found = import_module('mitogen._values').find(module, name, self)
            except ImportError:
                # An older parent does not have it.
                pass
        if not found:
            raise StreamError('cannot unpickle %r/%r', module, name)
        return found

    # A third item is the authority of the context that named it first. Only
    # this process and its parents may state that; others name a context with
    # their own authority.

    @_seldom
    def _named_by(self, auth_id=None):
        if auth_id is None or not has_parent_authority(self):
            return self.auth_id
        return auth_id

    @_seldom
    def _read_context(self, context_id, name, *auth_id):
        return mitogen.core._unpickle_context(
            context_id, name, self.router, self._named_by(*auth_id))

    @_seldom
    def _read_sender(self, context_id, dst_handle, *auth_id):
        return mitogen.core._unpickle_sender(
            self.router, context_id, dst_handle, self._named_by(*auth_id))

    def _throw_dead(self):
        if self.data:
            raise ChannelError(UnicodeType(self.data, 'utf-8', 'replace'))
        if self.src_id == mitogen.context_id:
            raise ChannelError(ChannelError.local_msg)
        raise ChannelError(ChannelError.remote_msg)

    def unpickle_iter(self, throw=True, throw_dead=True, find_class=find_deny):
        """Yield every object carried. By default no class may be named."""
        if self.enc == self.ENC_BIN:
            raise mitogen.core.DamagedError('not pickled')
        if throw_dead and self.is_dead:
            self._throw_dead()
        fp = BytesIO(self.data)
        unpickler = _unpickler(fp, find_class)
        more = self.data
        while more:
            try:
                obj = unpickler.load()
                more = fp.tell() < len(self.data)
            except Exception:
                e = sys.exc_info()[1]
                mitogen.core._note_damage(self)
                if isinstance(e, (TypeError, ValueError)):
                    raise StreamError('invalid message: %s', e)
                raise mitogen.core._as_damage(e)
            if throw and isinstance(obj, CallError):
                try:
                    raise obj
                finally:
                    # The traceback refers to this frame. No cycle of both:
                    # some Pythons never find it.
                    obj = unpickler = fp = None
            yield obj
