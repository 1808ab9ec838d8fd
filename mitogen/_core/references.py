# SPDX-License-Identifier: BSD-3-Clause
"""
How a Context and a Sender are read from a pickle.
"""

from __future__ import absolute_import  # house

from mitogen.core import _seldom, Context, integer_types, Router, Sender, UnicodeType  # house


@_seldom
def _is_int(value, least):
    return isinstance(value, integer_types) and value >= least


@_seldom
def _unpickle_sender(router, context_id, dst_handle):
    if (_is_int(context_id, 0) and _is_int(dst_handle, 1) and
            isinstance(router, Router)):
        return Sender(Context(router, context_id), dst_handle)
    raise TypeError('bad Sender, or nothing to send by')


@_seldom
def _unpickle_context(context_id, name, router=None):
    named = (isinstance(name, UnicodeType) and
             len(name) <= Context.NAME_MAX_LEN)
    if not _is_int(context_id, 0) or not (named or name is None):
        raise TypeError('bad Context')
    if not isinstance(router, Router):
        return Context(None, context_id, name)
    return router.context_by_id(context_id, name=name)
