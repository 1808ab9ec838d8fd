# SPDX-License-Identifier: BSD-3-Clause
"""
Waits: which thread waits for what, since when, and for whom.
"""

from __future__ import absolute_import  # house

import gc  # house
import sys  # house
import threading  # house

import mitogen.core  # house

from mitogen.debug import get_subclasses  # house


def _instances(klass):
    # By type: objects may do anything when asked for their class.
    classes = get_subclasses(klass)
    return [obj for obj in gc.get_objects() if type(obj) in classes]


def _describe_handle(router, handle):
    """
    Return text on whom a handle belongs to.
    """
    entry = router._handle_map.get(handle)
    if entry is None:
        return 'handle %s, which is not registered any more' % (handle,)
    # The last element in either core.
    respondent = entry[-1]
    return 'handle %s, for %s' % (
        handle, 'any sender' if respondent is None else
        'a message of %r' % (respondent,))


def _sleepers_of_frames():
    """
    Yield (thread ident, latch, seconds) of each sleep in the pure core.
    """
    code = getattr(mitogen.core.Latch.get, '__code__', None)
    if code is None:
        return
    for ident, frame in list(sys._current_frames().items()):
        while frame is not None:
            sleeper = frame.f_code is code and frame.f_locals.get('sleeper')
            if sleeper:
                yield (ident, frame.f_locals['self'],
                       mitogen.core.now() - sleeper.since)
            frame = frame.f_back


def _outer_waits():
    """
    Return a dict, by the id of a latch that only a function of ours knows:
    text on what that function waits for.
    """
    broker = mitogen.core.Broker
    tellers = {broker.defer_sync.__code__: lambda names: (
        names.get('outcome'), 'the thread of %r to run %r' % (
            names['self'], names['func']))}
    parent = sys.modules.get('mitogen.parent')
    if parent:
        tellers[parent.Connection.connect.__code__] = lambda names: (
            names['self'].latch, 'the connection to %r: %s' % (
                names['context'], names['self']._stage))
        tellers[parent.Context.shutdown.__code__] = lambda names: (
            names.get('latch'), '%r to end' % (names['self'],))

    texts = {}
    for frame in list(sys._current_frames().values()):
        while frame is not None:
            tell = tellers.get(frame.f_code)
            if tell:
                latch, text = tell(frame.f_locals)
                texts[id(latch)] = text
            frame = frame.f_back
    return texts


def get_waits():
    """
    Return a list of what threads of this process wait for, as dicts:
    `thread` (its ident), `name` of the thread, `seconds`, and `what`, a text.
    """
    names = dict((thread.ident, thread.name)
                 for thread in threading.enumerate())
    texts = _outer_waits()
    latches = []
    for receiver in _instances(mitogen.core.Receiver):
        if receiver.handle:
            latch = receiver._latch
            latches.append(latch)
            texts[id(latch)] = _describe_handle(receiver.router,
                                                receiver.handle)
    select = sys.modules.get('mitogen.select')
    for obj in _instances(select.Select) if select else ():
        texts[id(obj._latch)] = 'a select of %s' % (
            ', '.join(map(repr, obj._receivers)) or 'nothing',)

    found = list(_sleepers_of_frames())
    if hasattr(mitogen.core.Latch, '_sleepers'):
        seen = set()
        # A receiver's latch is an object of its own, made when asked for.
        for latch in latches + _instances(mitogen.core.Latch):
            for ident, seconds in latch._sleepers():
                if ident not in seen:
                    seen.add(ident)
                    found.append((ident, latch, seconds))
    return [{
        'thread': ident,
        'name': names.get(ident, '?'),
        'seconds': seconds,
        'what': texts.get(id(latch), repr(latch)),
    } for ident, latch, seconds in found]
