# SPDX-License-Identifier: BSD-3-Clause
"""
Pass on to children what their parents' parents serve: ids, modules, resources.
"""

from __future__ import absolute_import  # house

import threading  # house

import mitogen.core  # house
from mitogen.core import b, to_text  # house
from mitogen.parent import _handle, ABSENT_MAX, is_immediate_child, is_sane_resource, LOG  # house
from mitogen.parent import REQUEST_MAX, Throttle  # house


class ChildIdAllocator(object):
    """
    Hands out context ids from blocks that the master reserves for us.

    :param Router router: that is asked through.
    """
    def __init__(self, router):
        self.router = router
        self._lock = threading.Lock()
        self._ids = iter(())   # guarded by _lock

    def __repr__(self):
        return 'ChildIdAllocator(%r)' % (self.router,)

    def allocate(self):
        """
        Return the next id. Blocks for the master when a block is used up, so
        not on the broker thread.
        """
        with self._lock:
            for id_ in self._ids:
                return id_
            request = mitogen.core.Message(handle=mitogen.core.ALLOCATE_ID)
            master = self.router.context_by_id(0)
            start, end = master.send_await(request)
            LOG.debug('%r: received ids %d to %d', self, start, end - 1)
            self._ids = iter(range(start + 1, end))
            return start


class _Forwarder(object):
    """
    Serves children from what is kept of what the parent sent.

    :param Router router: of this context.
    :param mitogen.core.Context parent_context: our parent.
    """
    def __init__(self, router, parent_context):
        self.parent_context = parent_context
        self.router = router

    def __repr__(self):
        return type(self).__name__

    def _stream_to(self, child_id):
        """
        Return the stream to a direct child, or None if it has gone.
        """
        stream = self.router.stream_by_id(child_id)
        if stream is not None and stream.protocol.remote_id == child_id:
            return stream
        return None

    def _send(self, stream, handle, *objs):
        """Send pickled objects to the other end of a stream."""
        self.router._async_route(mitogen.core.Message.pickled(
            *objs, dst_id=stream.protocol.remote_id, handle=handle))


class ModuleForwarder(_Forwarder):
    """
    Answers children that ask for modules in a context that gets its own from a
    parent: each module comes down once, and is kept.

    :param mitogen.core.Importer importer: whose cache is served.
    """
    def __init__(self, router, parent_context, importer):
        super(ModuleForwarder, self).__init__(router, parent_context)
        self.importer = importer
        _handle(router, mitogen.core.GET_MODULE,
                Throttle(router, self._on_get_module), is_immediate_child)
        _handle(router, mitogen.core.FORWARD_MODULE,
                self._on_forward_module, mitogen.core.has_parent_authority)

    def _on_get_module(self, msg):
        child_id = msg.src_id
        if len(msg.data) > REQUEST_MAX:
            LOG.error('%r: context %d asks for a module with a name of %d '
                      'bytes', self, child_id, len(msg.data))
            return
        fullname = to_text(msg.data)
        LOG.debug('%r: context %d asks for %r', self, child_id, fullname)

        def on_cached():
            stream = self._stream_to(child_id)
            if stream is not None:
                self._send_with_related(stream, fullname)

        if (fullname not in self.importer._cache and
                len(self.importer._cache) >= ABSENT_MAX):
            # Nobody needs that many modules.
            LOG.error('%r: context %d asks for too many modules, the last one '
                      'is %r', self, child_id, fullname)
            stream = self._stream_to(child_id)
            if stream is not None:
                self._send(stream, mitogen.core.LOAD_MODULE,
                           (fullname, None, None, None, ()))
            return
        self.importer._request_module(fullname, on_cached)

    def _on_forward_module(self, msg):
        id_bytes, _, name_bytes = mitogen.core.bytes_partition(
            msg.data, b('\x00'))
        target_id, fullname = int(id_bytes), to_text(name_bytes)
        stream = self.router.stream_by_id(target_id)
        if stream is None or stream.protocol.remote_id == mitogen.parent_id:
            LOG.error('%r: dropping the forward of %r to context %d: no route '
                      'down to it', self, fullname, target_id)
            return
        if fullname in stream.protocol.sent_modules:
            return

        def on_cached():
            self._send_with_related(stream, fullname)
            # Each context on the way to the target does the same.
            next_id = stream.protocol.remote_id
            if next_id != target_id:
                stream.protocol.send(mitogen.core.Message(
                    dst_id=next_id,
                    handle=mitogen.core.FORWARD_MODULE,
                    data=msg.data,
                ))

        self.importer._request_module(fullname, on_cached)

    def _send_with_related(self, stream, fullname):
        """
        Send a module that is in the cache, and before it those that it will
        ask for, unless they were sent on this stream before.
        """
        cache = self.importer._cache
        if fullname not in cache:
            # Our parent was lost before it could answer.
            self._send(stream, mitogen.core.LOAD_MODULE,
                       (fullname, None, None, None, ()))
            return
        related = [to_text(name) for name in cache[fullname][4]
                   if name in cache]
        for name in related + [fullname]:
            if name not in stream.protocol.sent_modules:
                stream.protocol.sent_modules.add(name)
                self._send(stream, mitogen.core.LOAD_MODULE, cache[name])


class ResourceForwarder(_Forwarder):
    """
    Answers children that ask for package data, as `ModuleForwarder` does those
    that ask for modules.

    :param mitogen.core.ResourceRequester requester: whose cache is served.
    """
    def __init__(self, router, parent_context, requester):
        super(ResourceForwarder, self).__init__(router, parent_context)
        self.requester = requester
        _handle(router, mitogen.core.GET_RESOURCE,
                Throttle(router, self._on_get_resource), is_immediate_child)

    def _on_get_resource(self, msg):
        child_id = msg.src_id
        key = msg.unpickle(throw=False)
        if not is_sane_resource(key):
            LOG.error('%r: ignoring a bad request of context %d', self,
                      child_id)
            return
        package, resource = key = tuple(to_text(word) for word in key)
        if (key not in self.requester._cache and
                len(self.requester._cache) >= ABSENT_MAX):
            LOG.error('%r: context %d asks for too many resources, the last '
                      'one is %r', self, child_id, key)
            stream = self._stream_to(child_id)
            if stream is not None:
                self._send(stream, mitogen.core.LOAD_RESOURCE, key, None)
            return
        LOG.debug('%r: context %d asks for %r of %r',
                  self, child_id, resource, package)

        def on_cached():
            stream = self._stream_to(child_id)
            if stream is not None:
                # Not there: our parent was lost before it could answer.
                content = self.requester._cache.get(key)
                self._send(stream, mitogen.core.LOAD_RESOURCE, key, content)

        self.requester._request_resource(package, resource, on_cached)
