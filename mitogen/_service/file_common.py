# SPDX-License-Identifier: BSD-3-Clause
"""
Policies, types and functions that both services for files use.
"""

from __future__ import absolute_import  # house

import mitogen.core  # house

from mitogen.service import AllowAny, AllowParents, LOG, to_text  # house


# Policies, and types of arguments, of the methods.
_PARENTS = AllowParents()
_ANY = AllowAny()
_PATH = {'path': mitogen.core.FsPathTypes}
_PATH_TO_CONTEXT = dict(_PATH, context=mitogen.core.Context)


def _text_path(path):
    """
    Return a path, given by text, bytes or an object that stands for one, as
    plain text: no other type crosses to another context.
    """
    if hasattr(path, '__fspath__'):
        path = path.__fspath__()
    if isinstance(path, mitogen.core.AnyTextType):
        return to_text(path)
    return path


def _forget_closed(stream, forget):
    """
    Have `forget` called, on the broker thread, when a stream disconnects, or
    now if it has.
    """
    mitogen.core.listen(stream, 'disconnect', forget)
    side = stream.receive_side
    if side is not None and side.closed:
        forget()


def _tell_pool(latch, obj):
    """
    Put something into a latch that a service has its pool wait for. Any thread,
    also the broker's, where an error of one listener would keep the others from
    hearing.
    """
    try:
        latch.put(obj)
    except mitogen.core.LatchError:
        # The pool is closed: `Service.on_shutdown` ends what is left.
        LOG.debug('a closed pool does not hear of %r', obj)
