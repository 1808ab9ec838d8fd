# SPDX-License-Identifier: BSD-3-Clause
"""
Files of a host: how they come there, and from there.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional, Union

import mitogen._files.folders
import mitogen._files.items
import mitogen._files.opened
import mitogen._files.reader
import mitogen._files.writer
import mitogen.core
from mitogen._tree import errors
from mitogen._tree.calls import Calls
from mitogen._tree.content import Content
from mitogen._tree.meter import Copied, Meter, Progress
from mitogen._tree.options import MOST_READ

if TYPE_CHECKING:
    from mitogen._tree.host import Host

LOG = logging.getLogger('mitogen.tree')

#: A path here, or there.
Path = Union[str, bytes, 'os.PathLike[str]', 'os.PathLike[bytes]']

#: Lists of items that may be on their way, and bytes in those that are sent.
WINDOW, WINDOW_BYTES = 8, 3 << 19


class FileError(mitogen.core.Error, OSError):
    """
    A file or a folder, here or on a host, could not be read, or not be written.

    :ivar host: name of the host that it has to do with.
    """
    host: Optional[str] = None

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def reason(self) -> str:
        """
        The reason, in one line.
        """
        return errors._first_line(self)


#: How the class of the errors over there is told.
_THERE = 'mitogen._files.FileError'


@contextlib.contextmanager
def _telling(host: Host) -> Iterator[None]:
    """
    Have errors of files, here and there, raised as :class:`FileError`.
    """
    try:
        yield
        return
    except mitogen._files.FileError as e:
        error = FileError(str(e))
    except errors.RemoteError as e:
        if e.type != _THERE:
            raise
        error = FileError(mitogen.core._printable('%s (on %s)' % (e.message, host.name)))
    error.host = host.name
    raise error


def _blob(path: Path) -> mitogen.core.Blob:
    path = os.fsencode(path)
    if not path or b'\0' in path:
        raise ValueError('%r is no path' % (path,))
    return mitogen.core.Blob(path)


def _name_of(path: bytes) -> Optional[mitogen.core.Blob]:
    """
    Return the name that something gets in a folder, None if only its content goes there.
    """
    name = os.path.basename(path)
    return None if name in (b'', b'.', b'..') else mitogen.core.Blob(name)


def _size_of(items: Any) -> int:
    """
    Return about how many bytes a list of items takes.
    """
    return sum(len(member) for item in items for member in item[1:] if isinstance(member, bytes))


def _is_full(sizes: collections.deque[int]) -> bool:
    """
    Tell whether lists of these sizes that are on their way are a window of them.
    """
    return len(sizes) >= WINDOW or sum(sizes) >= WINDOW_BYTES


def _send(host: Host, items: Any, target: bytes, name: Optional[bytes], meter: Meter) -> None:
    """
    Have a host write items, with a window of them on their way.
    """
    calls = Calls(host)
    sizes: collections.deque[int] = collections.deque()
    number = calls.open(mitogen._files.opened.start_writing, target, name)
    with calls.opened(number), contextlib.closing(mitogen._files.reader.together(items)) as lists:
        for some in lists:
            while _is_full(sizes):
                meter.note(calls.end()[1][1])
                sizes.popleft()
            sizes.append(_size_of(some))
            calls.begin(mitogen._files.opened.write_on, number, some)
        while calls:
            meter.note(calls.end()[1][1])
        calls.call(mitogen._files.opened.finish_writing, number)


def _receive(host: Host, source: bytes) -> Iterator[Any]:
    """
    Yield lists of the items of what a host has. To be closed.
    """
    calls = Calls(host)
    number = calls.open(mitogen._files.opened.start_reading, source)
    with calls.opened(number):
        for _ in range(WINDOW):
            calls.begin(mitogen._files.opened.read_on, number)
        while True:
            some, _ = calls.end()
            if some is None:
                break
            calls.begin(mitogen._files.opened.read_on, number)
            yield some
        while calls:
            calls.end()


def put(host: Host, local: Path, remote: Path, progress: Optional[Progress] = None) -> Copied:
    """
    See :meth:`Host.put`.
    """
    source, target = _blob(local), _blob(remote)
    name = _name_of(source)
    meter = Meter(progress, os.fsdecode(name or b''))
    with _telling(host):
        _send(host, mitogen._files.reader.items_of(source), target, name, meter)
    return meter.copied


def get(host: Host, remote: Path, local: Path, progress: Optional[Progress] = None) -> Copied:
    """
    See :meth:`Host.get`.
    """
    source, target = _blob(remote), _blob(local)
    name = _name_of(source)
    meter = Meter(progress, os.fsdecode(name or b''))
    writer = mitogen._files.writer.Writer(target, name)
    with _telling(host), contextlib.closing(writer), contextlib.closing(_receive(host, source)) as lists:
        for some in lists:
            writer.take(some)
            meter.note(some)
        writer.finish()
    return meter.copied


def read(host: Host, remote: Path, limit: int = MOST_READ) -> bytes:
    """
    See :meth:`Host.read_bytes`.
    """
    source = _blob(remote)
    content = Content(source, limit)
    with _telling(host), contextlib.closing(_receive(host, source)) as lists:
        for some in lists:
            content.take(some)
        return content.finish()


def write(host: Host, remote: Path, data: bytes, mode: Optional[int] = None) -> None:
    """
    See :meth:`Host.write_bytes`.
    """
    target = _blob(remote)
    with _telling(host):
        _send(host, _items_of_bytes(data, mode), target, None, Meter(None, ''))


def _items_of_bytes(data: bytes, mode: Optional[int]) -> Iterator[Any]:
    view, size = memoryview(data), mitogen._files.items.CHUNK
    yield mitogen._files.items.FILE, mitogen.core.Blob(b'file'), mode, len(data)
    for start in range(0, len(data), size):
        yield mitogen._files.items.DATA, mitogen.core.Blob(view[start:start + size])
    yield mitogen._files.items.DONE,


def mkdir(host: Host, remote: Path, mode: int, parents: bool, exist_ok: bool) -> None:
    """
    See :meth:`Host.mkdir`.
    """
    with _telling(host):
        host.call(mitogen._files.folders.make_folder, _blob(remote), mode, parents, exist_ok)


@contextlib.contextmanager
def tempdir(host: Host, prefix: str) -> Iterator[str]:
    """
    See :meth:`Host.tempdir`.
    """
    with _telling(host):
        path = host.call(mitogen._files.folders.make_own_folder, mitogen.core.Blob(os.fsencode(prefix)))
        if not isinstance(path, bytes):
            raise mitogen._files.error(os.fsencode(prefix), 'the host sent something that is not a path')
    try:
        yield os.fsdecode(bytes(path))
    finally:
        try:
            host.call(mitogen._files.folders.remove_tree, path)
        except mitogen.core.ChannelError:
            LOG.debug('%r was lost before its folder %r was removed', host, path)
