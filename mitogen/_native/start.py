# SPDX-License-Identifier: BSD-3-Clause
"""
Tell the extension which classes and functions of Python it needs.
"""

from __future__ import absolute_import  # house

import os  # house

import mitogen  # house
import _mitogen_core as _c  # house
from mitogen._native import _dead_text, _NATIVE_POLICIES, _Package, _routers, _slow_unpickle, _tell_identity  # house
from mitogen._native import Context, core, Message, Receiver, Router, Sender  # house


def why_not():
    """Return None: the compiled core can be had, if this was imported."""
    pass


def _take_apart(value):
    return core.import_module('mitogen._buffers').take_apart(value)


def _find_value(module, name):
    if module in core._VALUE_MODULES:
        return core.import_module('mitogen._values').find(module, name)


def _fallback_pickle(*objs):
    return mitogen.core._pure['Message'].pickled(*objs).data


_c.configure({
    'message_type': Message, 'receiver_type': Receiver,
    'TimeoutError': core.TimeoutError, 'LatchError': core.LatchError,
    'ChannelError': core.ChannelError, 'Error': core.Error,
    'StreamError': core.StreamError, 'CallError': core.CallError,
    'UnpicklingError': core.DamagedError,
    'has_parent_authority': core.has_parent_authority,
    'slow_unpickle': _slow_unpickle, 'dead_text': _dead_text,
    'broker_shutdown_msg': core.Waker.broker_shutdown_msg,
    'latch_closed_msg': 'the latch is closed',
    'duplicate_handle_msg': Router.duplicate_handle_msg,
    'Blob': core.Blob, 'Secret': core.Secret, 'Kwargs': core.Kwargs,
    'Context': Context, 'Sender': Sender,
    'unpickle_call_error': core._unpickle_call_error,
    'unpickle_context': lambda msg, *args:
        (msg._read_context if msg else mitogen.core._unpickle_context)(*args),
    'unpickle_sender': lambda msg, *args: msg._read_sender(*args),
    'take_buffer_apart': _take_apart, 'unpickle_buffer': core._unpickle_buffer,
    'find_value': _find_value, 'fallback_pickle': _fallback_pickle,
})
_c.set_neighbour_policies(_NATIVE_POLICIES[1:])
spin = core._spin_wanted()
if spin is not None:
    _c.set_spin(spin / 1e6)
mitogen.__class__ = _Package
_tell_identity()
# The loops see to themselves, inside fork().
os.register_at_fork(after_in_child=_routers.clear)
