# SPDX-License-Identifier: BSD-3-Clause
"""
How a Context and a Sender are read from a pickle.
"""

from __future__ import absolute_import  # house

import _weakref  # house
from mitogen.core import _has_parent_authority, _seldom, Context, integer_types, Router, Sender, UnicodeType  # house


@_seldom
class _Listeners(list):
    """The listeners of a context that was only mentioned: it is kept once it
    has one."""
    keep = None

    def append(self, func):
        list.append(self, func)
        if self.keep:
            self.keep()


@_seldom
class _Mentions(object):
    """
    The contexts that are known only because messages named them. One is kept
    as long as a program refers to it, or listens to its signals. Any thread.

    :param router: whose lock guards the references.
    """
    def __init__(self, router):
        self._router = router
        #: id -> {authority that it was named with: weak reference}
        self._refs = {}
        #: The contexts that are listened to.
        self._kept = {}
        self._count, self._sweep_at = 0, 100

    def get(self, context_id, auth_id=None):
        """Return the context that was named with an authority, or None."""
        ref = self._refs.get(context_id, {}).get(auth_id)
        return ref and ref()

    def take(self, context_id):
        """Return the contexts of that id, and forget them."""
        with self._router._write_lock:
            refs = self._refs.pop(context_id, {})
            self._kept.pop(context_id, None)
        return [i for i in [ref() for ref in refs.values()] if i]

    def add(self, context, auth_id):
        """Return `context`, or one like it that is here already."""
        context_id = context.context_id
        listeners = _Listeners()
        listeners.keep = lambda: self._keep(context_id, auth_id)
        context.__dict__['_signals'] = {'disconnect': listeners}
        with self._router._write_lock:
            known = self.get(context_id, auth_id)
            if not known:
                self._refs.setdefault(context_id, {})[auth_id] = _weakref.ref(context)
                self._count += 1
                if self._count > self._sweep_at:
                    self._sweep()
        return known or context

    def _sweep(self):
        for context_id, refs in list(self._refs.items()):
            for auth_id, ref in list(refs.items()):
                if not ref():
                    del refs[auth_id]
            if not refs:
                del self._refs[context_id]
        self._count = sum([len(refs) for refs in self._refs.values()])
        self._sweep_at = 100 + 2 * self._count

    def _keep(self, context_id, auth_id):
        # Without the lock: the router may hold it when it begins to listen.
        context = self.get(context_id, auth_id)
        self._kept.setdefault(context_id, {})[auth_id] = context


@_seldom
def _is_int(value, least):
    return isinstance(value, integer_types) and value >= least


@_seldom
def _authority_over(router, context_id, auth_id):
    """
    Return the `auth_id` for messages to a context that was named with that
    authority; None, for our own, if it makes no difference.
    """
    if auth_id in (None, context_id) or _has_parent_authority(auth_id):
        return
    stream = router.stream_by_id(auth_id)
    # It may give orders to contexts below it. We know only of neighbours which
    # those are.
    if (not stream or stream.protocol.remote_id != auth_id or
            router.stream_by_id(context_id) is not stream):
        return auth_id


@_seldom
def _unpickle_sender(router, context_id, dst_handle, auth_id=None):
    if (_is_int(context_id, 0) and _is_int(dst_handle, 1) and
            isinstance(router, Router)):
        context = Context(router, context_id)
        context.auth_id = _authority_over(router, context_id, auth_id)
        return Sender(context, dst_handle)
    raise TypeError('bad Sender, or nothing to send by')


@_seldom
def _unpickle_context(context_id, name, router=None, auth_id=None):
    named = (isinstance(name, UnicodeType) and
             len(name) <= Context.NAME_MAX_LEN)
    if not _is_int(context_id, 0) or not (named or name is None):
        raise TypeError('bad Context')
    if not isinstance(router, Router):
        return Context(None, context_id, name)
    auth_id = _authority_over(router, context_id, auth_id)
    if auth_id is None:
        known = router.context_by_id(context_id, create=False)
        if known:
            return known
    context = router.context_class(router, context_id, name=name)
    context.auth_id = auth_id
    if auth_id is not None:
        # The object that is told of a loss; other names of it do not matter.
        context._known = _unpickle_context(context_id, None, router)
    if not router._mentioned:
        router._mentioned = _Mentions(router)
    return router._mentioned.add(context, auth_id)
