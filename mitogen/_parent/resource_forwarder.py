# SPDX-License-Identifier: BSD-3-Clause
"""
ResourceForwarder: children get data files that came from the parent.
"""

from __future__ import absolute_import  # house

import mitogen.core  # house
from mitogen.core import to_text  # house
from mitogen.parent import _Forwarder, _handle, _read_request, ABSENT_MAX, is_immediate_child, is_sane_resource, LOG  # house
from mitogen.parent import Throttle  # house


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
        key = _read_request(msg)
        if not is_sane_resource(key):
            mitogen.core._tell_seldom(
                LOG.error, self, 'requests', '%r: ignoring a bad request of context %d', self, child_id)
            return
        package, resource = key = tuple(to_text(word) for word in key)
        if (key not in self.requester._cache and
                len(self.requester._cache) >= ABSENT_MAX):
            mitogen.core._tell_seldom(
                LOG.error, self, 'resources', '%r: context %d asks for too many resources, the last one is %r', self,
                child_id, key)
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
