# SPDX-License-Identifier: BSD-3-Clause
"""
ResourceResponder: serves data files of packages to children.
"""

from __future__ import absolute_import  # house

import os  # house

import mitogen.core  # house
import mitogen.parent  # house

from mitogen.master import _Distributions, _find_loader, _find_spec, _list_folder, _list_package  # house
from mitogen.master import _log_swallowed, _log_unreadable, _may_see, _pack_names, _PIECE, _read_file  # house
from mitogen.master import _RETAKE, _search_path, _Server, _stamp_of, _TAKE, _whole, PY3, RESPONDER_LOG, to_text  # house


_NO_RESOURCE = 'cannot read the resource %r, which children may be told not to exist'


class ResourceResponder(_Server):
    """
    Serve the data files of packages to children. Handlers run on the broker
    thread.
    """
    #: How many files are sent before a child asks for one.
    _files_most = 20

    def __init__(self, router):
        self._distributions = _Distributions()
        super(ResourceResponder, self).__init__(
            router, mitogen.core.GET_RESOURCE,
            mitogen.parent.Throttle(router, self._on_get_resource,
                                    self._refuse_resource),
            # The answer goes to the neighbour, which would keep the answer to
            # a context behind it.
            mitogen.parent.is_immediate_child)

    def _search_locations(self, fullname):
        """
        Return `(loader, directories)` of a package, without importing it.
        """
        if PY3:
            spec = _find_spec(fullname)
            if spec is None or spec.submodule_search_locations is None:
                return spec and spec.loader, []
            return spec.loader, _search_path(fullname)
        return _find_loader(fullname), _search_path(fullname)

    @staticmethod
    def _is_inside(parts):
        """
        Tell whether parts of a path lead to where the package is.
        """
        return not any(part in ('', os.curdir, os.pardir) or os.sep in part or '\0' in part
                       for part in parts)

    def _get_names(self, fullname, resource):
        """
        Return the list of the entries of a package, or of a folder of it.

        :raises Exception:
            There is no such thing, or the child may not have it.
        """
        policy = self._router.responder.policy
        if not fullname:
            # An empty name would list all of sys.path.
            return None
        if resource == mitogen.core._MODULES_RESOURCE:
            return _pack_names(_list_package(fullname, policy))
        parts = resource.split('/')[1:]
        if not self._is_inside(parts) or not _may_see(policy, fullname, parts):
            return None
        loader, locations = self._search_locations(fullname)
        names = _list_folder(loader, locations, fullname, parts)
        return _pack_names(dict((name, names[name]) for name in names
                                if _may_see(policy, fullname, parts + [name])))

    def _get_resource(self, fullname, resource):
        """
        Return the content of a file in a package, or :data:`None` if there
        is no such file.

        :param fullname:
            Name of the package.
        :param resource:
            Path below the package, with slashes. It may not lead out of the
            package: a child must not read every file that the master can.
        """
        parts = resource.split('/')
        if not self._is_inside(parts):
            return None
        loader, locations = self._search_locations(fullname)
        get_data = getattr(loader, 'get_data', _read_file)
        for location in locations:
            path = os.path.join(location, *parts)
            try:
                # A child of ours asks for the source of the core, for children
                # of another Python.
                return _whole(fullname + '.', path, get_data(path))
            except (IOError, OSError):
                _log_unreadable(RESPONDER_LOG, _NO_RESOURCE, '%s/%s' % (fullname, resource))
        get_reader = getattr(loader, 'get_resource_reader', None)
        reader = get_reader and get_reader(fullname)
        if reader is None:
            return None
        try:
            fp = reader.open_resource(resource)
        except (IOError, OSError):
            _log_unreadable(RESPONDER_LOG, _NO_RESOURCE, '%s/%s' % (fullname, resource))
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
            kind, _, name = resource.partition('/')
            if kind == mitogen.core._DISTRIBUTION_RESOURCE:
                return self._distributions.answer(responder.policy, package, name)
            responder.policy.denied_raise(package)
            if resource == mitogen.core._SOURCE_RESOURCE:
                return responder._get_source(package)
            if kind in (mitogen.core._MODULES_RESOURCE, mitogen.core._FOLDER_RESOURCE):
                return self._get_names(package, resource)
            content = self._get_resource(package, resource) if \
                _may_see(responder.policy, package, resource.split('/')) else None
        return content

    def _answer_with_files(self, stream, request):
        """
        Answer a request for a whole distribution, now or later, and return
        whether it is one.
        """
        package, resource = map(to_text, request)
        if not resource.startswith((_TAKE, _RETAKE, _PIECE)):
            return False
        responder = self._router.responder
        responder.policy.denied_raise(package)

        def reply(content):
            if self._router.stream_by_id(stream.protocol.remote_id) is stream:
                self._answer(stream, request, content)

        return responder._freight.answer(stream, package, resource, reply)

    def _send_small_files(self, stream, package, most):
        """
        Send a child the list of a package's files, and those that are no modules, before it asks.

        :param int most: bytes of them; if they have more, none is sent.
        :raises Exception: there is no such package, or the child may not have it.
        """
        folder = mitogen.core._FOLDER_RESOURCE
        names = self._get_content(package, folder)
        files = [name for name in to_text(names).split(u'\0')
                 if not name.endswith((u'/', u'.py', u'.pyi', u'.so', u'py.typed'))]
        locations = self._search_locations(package)[1]
        stamps = [_stamp_of(os.path.join(location, name)) for location in locations for name in files]
        if len(files) > self._files_most or sum(stamp[1] for stamp in stamps if stamp) > most:
            return
        for name in [folder] + files:
            self._answer(stream, (to_text(package), to_text(name)), self._get_content(package, name))

    def _on_get_resource(self, msg):
        stream = self._stream_of(msg)
        if stream is None:
            return

        request = mitogen.parent._read_request(msg)
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
        except Exception as e:
            # The child must have an answer, whatever it is.
            content = None
            if isinstance(e, (ImportError, ValueError)):
                RESPONDER_LOG.debug('%r: no answer to a request of %s', self,
                                    stream, exc_info=True)
            else:
                _log_swallowed(RESPONDER_LOG, _NO_RESOURCE, '%s/%s' % tuple(map(to_text, request)))
        self._answer(stream, request, content)

    def _refuse_resource(self, msg):
        stream = self._stream_of(msg)
        request = mitogen.parent._read_request(msg)
        if stream is not None and mitogen.parent.is_sane_resource(request):
            self._answer(stream, request, None)

    def _answer(self, stream, request, content):
        answer = mitogen.core.Message.pickled(request, content)
        answer.dst_id = stream.protocol.remote_id
        answer.handle = mitogen.core.LOAD_RESOURCE
        self._router._async_route(answer)
