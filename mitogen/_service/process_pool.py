# SPDX-License-Identifier: BSD-3-Clause
"""
The one pool of this process, and calls of services by name.
"""

from __future__ import absolute_import  # house

import os  # house
import threading  # house

import mitogen.core  # house

from mitogen.service import Pool, to_text  # house


#: The pool of this process, the id of that process (a fork has a copy that is
#: of no use), and the lock to make one under.
_pool = None
_pool_pid = None
_pool_lock = threading.Lock()


def _replace_pool_lock():
    """
    In a child made by fork: the thread that may have held the lock does not
    exist there.
    """
    global _pool_lock
    _pool_lock = threading.Lock()


mitogen.core._fork_hooks.append(_replace_pool_lock)


@mitogen.core.takes_router
def get_or_create_pool(size=None, router=None, context=None):
    """
    Return the pool of this process, made now if there is none that runs. It is
    stopped when its broker shuts down. Any thread.

    :param int size:
        How many threads a new one gets; 2 if :data:`None`.
    :param mitogen.core.Router router:
        For a new one; if :data:`None`, that of `context`, or else that of the
        pool that was stopped.
    :raises ValueError:
        A pool must be made, and there is no router.
    """
    global _pool, _pool_pid
    with _pool_lock:
        pool = _pool
        if _pool_pid != os.getpid():
            pool = None
        if pool is not None and not pool.closed:
            return pool

        if router is None and context is not None:
            router = context.router
        if router is None and pool is not None:
            router = pool.router
        if router is None:
            raise ValueError('a pool needs a router or a context')
        _pool = Pool(
            router,
            size=size or 2,
            overwrite=True,
            # Calls that arrived before there was a pool.
            recv=mitogen.core.Dispatcher._service_recv,
        )
        _pool._stop_with_broker()
        _pool_pid = os.getpid()
        return _pool


def _name_of(service):
    """
    Return the name of a service, given by text, UTF-8 bytes, or its class.
    """
    if isinstance(service, mitogen.core.AnyTextType):
        return to_text(service)
    return to_text(service.name())


def call(service_name, method_name, call_context=None, **kwargs):
    """
    Call a method of a service, here or elsewhere, and return its result.

    In this process, that is a plain call on this thread, and no policy is
    asked: code that runs in this process may do anything anyway.

    :param service_name:
        Text, or an object with a method `name`, like the class.
    :param mitogen.core.Context call_context:
        Where; :data:`None` for this process.
    """
    if call_context is not None:
        return call_context.call_service(service_name, method_name, **kwargs)
    pool = get_or_create_pool(context=kwargs.get('context'))
    service = pool.get_service(_name_of(service_name))
    return getattr(service, method_name)(**kwargs)
