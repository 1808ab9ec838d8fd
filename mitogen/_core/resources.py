# SPDX-License-Identifier: BSD-3-Clause
"""
Data files of packages, from the parent.
"""

from __future__ import absolute_import  # house

import sys  # house

from mitogen.core import _Fetcher, _seldom, BytesIO, GET_RESOURCE, has_parent_authority, LOAD_RESOURCE  # house
from mitogen.core import Message, to_text  # house


class ResourceRequester(_Fetcher):
    """Fetch data files of packages. `_cache`: (package, name) -> bytes or
    None."""

    def _install_handler(self, router):
        router.add_handler(self._on_load_resource, LOAD_RESOURCE,
                           policy=has_parent_authority)

    def _on_load_resource(self, msg):
        if msg.is_dead:
            return self._abandon()
        key, content = msg.unpickle_iter()
        self._answer(tuple(key), content)

    def _request_resource(self, fullname, resource, callback):
        key = to_text(fullname), to_text(resource)
        self._request(key, callback, lambda: Message.pickled(
            key, handle=GET_RESOURCE))

    def _get_resource(self, fullname, resource):
        self._get(self._request_resource, fullname, resource)
        return self._cache.get((to_text(fullname), to_text(resource)))


@_seldom
class ResourceReader(object):
    """`importlib.resources` for one package that came from the parent."""

    def __init__(self, requester, fullname):
        self._read = lambda name: requester._get_resource(fullname, name)

    def is_resource(self, name):
        return self._read(name) is not None

    def open_resource(self, resource):
        content = self._read(resource)
        return BytesIO(content) if content is not None else \
            self.resource_path(resource)

    def resource_path(self, resource):
        raise FileNotFoundError(resource)

    def contents(self):
        raise NotImplementedError('the parent cannot list resources')

    def files(self):
        """Return what ``importlib.resources.files()`` does, 3.10 and later."""
        return self.Entry(self, ())

    class Entry(object):
        """
        A place in the package, whether or not anything is there: what is no
        file counts as a folder, which cannot be listed.
        """
        def __init__(self, reader, parts):
            self._reader = reader
            self._parts = parts
            self.name = parts[-1] if parts else ''

        def __repr__(self):
            return 'Entry(%r)' % ('/'.join(self._parts),)

        def joinpath(self, *names):
            parts = '/'.join(map(str, names)).split('/')
            return type(self)(self._reader, self._parts + tuple(filter(None, parts)))

        __truediv__ = joinpath

        def is_file(self):
            return bool(self._parts) and \
                self._reader.is_resource('/'.join(self._parts))

        def is_dir(self):
            return not self.is_file()

        def iterdir(self):
            # is_resource() of 3.11 and 3.12 lists the package to find the one
            # name it was asked for: that entry can be given to it.
            caller = sys._getframe(1)
            if caller.f_code.co_name == 'is_resource' and \
                    caller.f_globals.get('__name__', '').endswith('resources._legacy'):
                return iter([self.joinpath(caller.f_locals['resource'])])
            return iter(self._reader.contents())

        def open(self, mode='r', *args, **kwargs):
            import io
            fp = self._reader.open_resource('/'.join(self._parts))
            return fp if 'b' in mode else \
                io.TextIOWrapper(fp, *args, **kwargs)

        def read_bytes(self):
            return self.open('rb').read()

        def read_text(self, *args, **kwargs):
            return self.open('r', *args, **kwargs).read()
