# SPDX-License-Identifier: BSD-3-Clause
"""
ResourceResponder: serves data files of packages to children.
"""

from __future__ import absolute_import  # house

import os  # house

import mitogen.core  # house
import mitogen.parent  # house

from mitogen.master import _find_loader, _find_spec, _read_file, _Server, PY3, RESPONDER_LOG, to_text  # house


class ResourceResponder(_Server):
    """
    Serve the data files of packages to children. Handlers run on the broker
    thread.
    """
    def __init__(self, router):
        super(ResourceResponder, self).__init__(
            router, mitogen.core.GET_RESOURCE,
            mitogen.parent.Throttle(router, self._on_get_resource,
                                    self._refuse_resource),
            # The answer goes to the neighbour, which would keep what somebody
            # behind it has asked for.
            mitogen.parent.is_immediate_child)

    def _search_locations(self, fullname):
        """
        Return `(loader, directories)` of a package, without importing it.
        """
        if PY3:
            spec = _find_spec(fullname)
            if spec is None:
                return None, []
            return spec.loader, list(spec.submodule_search_locations or ())
        loader = _find_loader(fullname)
        if loader is None or not loader.is_package(fullname):
            return None, []
        return loader, [os.path.dirname(loader.get_filename(fullname))]

    def _get_resource(self, fullname, resource):
        """
        Return the content of a file in a package, or :data:`None` if there
        is no such file.

        :param fullname:
            Name of the package.
        :param resource:
            Path below the package, with slashes. It may not lead out of it: a
            child is not to read whatever the master can.
        """
        parts = resource.split('/')
        if os.path.isabs(resource) or '\0' in resource or \
                any(part in ('', os.curdir, os.pardir) or os.sep in part
                    for part in parts):
            return None
        loader, locations = self._search_locations(fullname)
        get_data = getattr(loader, 'get_data', _read_file)
        for location in locations:
            try:
                return get_data(os.path.join(location, *parts))
            except (IOError, OSError):
                continue
        get_reader = getattr(loader, 'get_resource_reader', None)
        reader = get_reader and get_reader(fullname)
        if reader is None:
            return None
        try:
            fp = reader.open_resource(resource)
        except (IOError, OSError):
            return None
        try:
            return fp.read()
        finally:
            fp.close()

    def _get_content(self, package, resource):
        """
        Return what answers a request.

        :raises Exception:
            There is no such thing, or the child may not have it.
        """
        content = mitogen.parent.get_late_source(package, resource)
        if content is None:
            responder = self._router.responder
            responder.policy.denied_raise(package)
            if resource == mitogen.core._SOURCE_RESOURCE:
                return responder._get_source(package)
            content = self._get_resource(package, resource)
        return content

    def _answer_with_files(self, stream, request):
        """
        Answer a request for a whole distribution, now or later, and return
        whether it is one.
        """
        package, resource = map(to_text, request)
        if not resource.startswith(u'\0'):
            return False
        responder = self._router.responder
        responder.policy.denied_raise(package)

        def reply(content):
            if self._router.stream_by_id(stream.protocol.remote_id) is stream:
                self._answer(stream, request, content)

        return responder._freight.answer(stream, package, resource, reply)

    def _on_get_resource(self, msg):
        stream = self._stream_of(msg)
        if stream is None:
            return

        request = msg.unpickle(throw=False)
        if not mitogen.parent.is_sane_resource(request):
            # Nobody waits for an answer that would name it.
            RESPONDER_LOG.debug('%r: ignoring a bad request of %s', self,
                                stream)
            return
        try:
            package, resource = request
            if self._answer_with_files(stream, request):
                return
            content = self._get_content(to_text(package), to_text(resource))
        except Exception:
            # The child must have an answer, whatever it is.
            content = None
            RESPONDER_LOG.debug('%r: no answer to a request of %s', self,
                                stream, exc_info=True)
        self._answer(stream, request, content)

    def _refuse_resource(self, msg):
        stream = self._stream_of(msg)
        request = msg.unpickle(throw=False)
        if stream is not None and mitogen.parent.is_sane_resource(request):
            self._answer(stream, request, None)

    def _answer(self, stream, request, content):
        answer = mitogen.core.Message.pickled(request, content)
        answer.dst_id = stream.protocol.remote_id
        answer.handle = mitogen.core.LOAD_RESOURCE
        self._router._async_route(answer)
