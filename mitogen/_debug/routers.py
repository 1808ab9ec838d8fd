# SPDX-License-Identifier: BSD-3-Clause
"""
The routers of this process, and their streams, for programs to look at.
"""

from __future__ import absolute_import  # house

import gc  # house

import mitogen.core  # house


def get_subclasses(klass):
    """
    Return the set of a class and everything derived from it.
    """
    found = set()
    stack = [klass]
    while stack:
        klass = stack.pop()
        if klass not in found:
            found.add(klass)
            stack.extend(klass.__subclasses__())
    return found


def _make_id(obj):
    return '%08x' % (id(obj),)


def get_routers():
    """
    Return a dictionary of all routers of this process.
    """
    # By type: objects may do anything when asked for their class.
    classes = tuple(get_subclasses(mitogen.core.Router))
    return dict((_make_id(obj), obj) for obj in gc.get_objects()
                if type(obj) in classes)


def get_router_info():
    """
    Return how many streams, contexts and handles each router has.
    """
    return {
        'routers': dict((key, {
            'id': key,
            'streams': len(router._streams()),
            'contexts': len(router._context_by_id),
            'handles': len(router._handle_map),
        }) for key, router in get_routers().items()),
    }


def _describe_stream(router, stream):
    monitor = getattr(router, 'route_monitor', None)
    return {
        'name': stream.name,
        'remote_id': stream.protocol.remote_id,
        'sent_module_count': len(stream.protocol.sent_modules),
        'routes': sorted(monitor.get_routes(stream)) if monitor else [],
        'type': type(stream.conn or stream.protocol).__module__,
    }


def get_stream_info(router_id):
    """
    Return a description of each stream of a router.

    :param str router_id:
        Key of :func:`get_routers`.
    :raises KeyError:
        There is no such router.
    """
    router = get_routers()[router_id]
    return {
        'streams': dict((_make_id(stream), _describe_stream(router, stream))
                        for stream in router._streams()),
    }
