# SPDX-License-Identifier: BSD-3-Clause
"""
ModuleForwarder: children get modules that came from the parent.
"""

from __future__ import absolute_import  # house

import mitogen  # house
import mitogen.core  # house
from mitogen.core import b, to_text  # house
from mitogen.parent import _Forwarder, _handle, ABSENT_MAX, is_immediate_child, LOG, REQUEST_MAX, Throttle  # house


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
