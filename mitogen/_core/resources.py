# SPDX-License-Identifier: BSD-3-Clause
"""
Data files of packages, from the parent.
"""

from __future__ import absolute_import  # house

import sys  # house

from mitogen.core import _Fetcher, _FOLDER_RESOURCE, _seldom, BytesIO, GET_RESOURCE  # house
from mitogen.core import import_module, LOAD_RESOURCE, Message, to_text  # house


class ResourceRequester(_Fetcher):
    """Fetch data files of packages. `_cache`: (package, name) -> bytes or
    None."""

    _handle = LOAD_RESOURCE

    def _read(self, msg):
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
def _list_names(requester, package, resource):
    """Return the names that a parent has listed as a dict of name -> whether
    there is more inside; None if it has no such list."""
    content = requester._get_resource(package, resource)
    if content is None:
        return None
    return dict((str(name.rstrip('/')), name[-1:] == '/') for name in
                bytes(content).decode('utf-8').split('\0') if name)


@_seldom
def _register_folders(kind):
    """Let ``importlib.resources.as_file()`` of old Pythons take folders."""
    as_file = getattr(sys.modules.get('importlib.resources'), 'as_file', None)
    if hasattr(as_file, 'register') and sys.version_info < (3, 12):
        def copy(entry):
            return import_module('mitogen._folders')._copied(entry)

        as_file.register(kind, copy)


@_seldom
class ResourceReader(object):
    """`importlib.resources` for one package that came from the parent."""

    def __init__(self, requester, fullname):
        self._requester = requester
        self._package = fullname

    def _read(self, name):
        return self._requester._get_resource(self._package, name)

    def _list(self, *parts):
        """Return what is in a folder: dict of name -> whether it is a folder,
        None if it is no folder."""
        return _list_names(self._requester, self._package,
                           '/'.join((_FOLDER_RESOURCE,) + parts))

    def _expect(self, *parts):
        """Ask for a file together with the list of its folder, unless that is
        here: a program that looks whether it is a file will read it."""
        requester = self._requester
        folder = '/'.join((_FOLDER_RESOURCE,) + parts[:-1])
        if (to_text(self._package), to_text(folder)) not in requester._cache:
            requester._request_resource(self._package, '/'.join(parts), int)

    def is_resource(self, name):
        return self._read(name) is not None

    def open_resource(self, resource):
        content = self._read(resource)
        return BytesIO(content) if content is not None else \
            self.resource_path(resource)

    def resource_path(self, resource):
        raise FileNotFoundError(resource)

    def contents(self):
        return iter(self.files()._inside())

    def files(self):
        """Return what ``importlib.resources.files()`` does, 3.10 and later."""
        _register_folders(self.Entry)
        return self.Entry(self, ())

    class Entry(object):
        """
        A place in the package, whether or not anything is there. Folders are
        listed once, files are read once.
        """
        def __init__(self, reader, parts):
            self._reader = reader
            self._parts = parts
            self.name = parts[-1] if parts else \
                reader._package.rpartition('.')[2]

        def __repr__(self):
            return 'Entry(%r)' % ('/'.join(self._parts),)

        def _inside(self):
            found = self._reader._list(*self._parts)
            if found is None:
                raise NotADirectoryError('/'.join(self._parts))
            return found

        def _kind(self):
            """Return True for a folder, False for a file, None for nothing."""
            if not self._parts:
                return True
            self._reader._expect(*self._parts)
            found = self._reader._list(*self._parts[:-1]) or {}
            return found.get(self._parts[-1])

        def joinpath(self, *names):
            parts = '/'.join(map(str, names)).split('/')
            return type(self)(self._reader, self._parts + tuple(filter(None, parts)))

        __truediv__ = joinpath

        def is_file(self):
            return self._kind() is False

        def is_dir(self):
            return self._kind() is True

        def iterdir(self):
            return iter([self / name for name in sorted(self._inside())])

        def open(self, mode='r', *args, **kwargs):
            import io
            fp = self._reader.open_resource('/'.join(self._parts))
            return fp if 'b' in mode else \
                io.TextIOWrapper(fp, *args, **kwargs)

        def read_bytes(self):
            return self.open('rb').read()

        def read_text(self, *args, **kwargs):
            return self.open('r', *args, **kwargs).read()
