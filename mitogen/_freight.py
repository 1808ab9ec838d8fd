# SPDX-License-Identifier: BSD-3-Clause
"""
Distributions that came from the master whole, as files.

A module that is part of such a distribution comes as two lines that call
:func:`take`. That asks the master for the distribution, and says which
interpreter this is. If the master can send it, its files are written into a
private folder, the folder becomes the last entry of :data:`sys.path`, and the
module is loaded from there. Else the module is loaded without a file, as others are.

The folder is gone when the last process that may use it is.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import os
import sys
import threading
import zlib

import mitogen.core
import mitogen._private_folder


#: Requests for pieces that are on their way at a time.
WINDOW = 16

#: Bytes that are written at a time.
STEP = 262144


class Refused(Exception):
    """
    The master cannot send a distribution. The text says why.
    """
    pass


# Guards the names below, and is held while a distribution comes.
_lock = threading.Lock()
_folders = {}       # distribution -> folder with its files
_refusals = {}      # distribution -> why it was refused


def _replace_lock():
    """
    In a child made by fork: the thread that may have held it is not there.
    """
    global _lock
    _lock = threading.Lock()


mitogen.core._fork_hooks.append(_replace_lock)


def _libc():
    """
    Return the kind and the version of the C library, two empty texts if they
    are not known.
    """
    if sys.platform == 'darwin':
        import platform
        return 'macos', platform.mac_ver()[0]
    try:
        words = (os.confstr('CS_GNU_LIBC_VERSION') or '').split()
    except (AttributeError, OSError, ValueError):
        words = ()
    return tuple(words) if len(words) == 2 else _musl()


def _musl():
    import glob
    import re
    import subprocess
    for path in glob.glob('/lib/ld-musl-*'):
        process = subprocess.Popen([path], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT)
        found = re.search(b'Version ([0-9.]+)', process.communicate()[0])
        if found:
            return 'musl', found.group(1).decode()
    return '', ''


def describe():
    """
    Return what extensions this interpreter can load, and which bytecode it
    runs, as words: tag of the Python, of the ABI, of the platform, kind and
    version of the C library, magic number.
    """
    import importlib.util
    import sysconfig
    kind = sys.implementation.name
    python = {'cpython': 'cp', 'pypy': 'pp'}.get(kind, kind)
    python += '%d%d' % sys.version_info[:2]
    abi = python + getattr(sys, 'abiflags', '')
    if kind == 'pypy':
        abi = 'pypy%d%d_pp%d%d' % (sys.version_info[:2] +
                                   sys.pypy_version_info[:2])
    platform = sysconfig.get_platform()
    if sys.maxsize < 2 ** 32:
        # The system may have more bits than this interpreter.
        platform = platform.replace('x86_64', 'i686').replace('aarch64', 'armv7l')
    words = (python, abi, platform.replace('-', '_').replace('.', '_'))
    return ' '.join(word or '-' for word in words + _libc() + (
        ''.join('%02x' % byte for byte in importlib.util.MAGIC_NUMBER),))


class _Pieces(object):
    """
    Asks the parent for the pieces of an archive, several at a time.

    :param requester: of the importer.
    :param str name: of the module for which they are wanted.
    """
    def __init__(self, requester, name):
        self._requester = requester
        self._name = name

    def ask(self, resource):
        """
        Ask for one piece.

        :returns: function that waits for it and returns it.
        """
        latch = mitogen.core.Latch()
        self._requester._request_resource(self._name, resource, latch.put)
        key = mitogen.core.to_text(self._name), mitogen.core.to_text(resource)

        def get():
            latch.get()
            # Nobody else wants it, and it may be large.
            content = self._requester._cache.pop(key, None)
            if content is None:
                raise ImportError('the connection was lost, or the parent has '
                                  'no such piece', name=self._name)
            return bytes(content)

        return get

    def each(self, resources):
        """
        Yield all pieces in order.
        """
        waiting = []
        for resource in resources:
            waiting.append(self.ask(resource))
            if len(waiting) >= WINDOW:
                yield waiting.pop(0)()
        while waiting:
            yield waiting.pop(0)()


class _Unpacker(object):
    """
    Writes the files of an archive below a new folder, and nothing elsewhere.

    :param str folder: exists, is empty, and only we can write there.
    :param int most: bytes that the files may have together.
    """
    def __init__(self, folder, most):
        self._folder = folder
        self._most = most
        self._inflate = zlib.decompressobj()
        self._buffer = bytearray()
        self._made = set()
        self._fp = None
        self._left = 0
        self.is_complete = False

    def feed(self, data):
        """
        Take the next piece.

        :raises ValueError: it is no such archive.
        :raises OSError: a file cannot be written.
        """
        while data and not self._inflate.eof:
            self._buffer += self._inflate.decompress(data, STEP)
            data = self._inflate.unconsumed_tail
            while self._go_on():
                pass
        while not self._inflate.eof and self._more():
            pass

    def _more(self):
        """
        Take the rest of the last piece.
        """
        found = self._inflate.decompress(b'', STEP)
        self._buffer += found
        while self._go_on():
            pass
        return found

    def _go_on(self):
        """
        Do one step with the bytes that have come, and return whether there may
        be another.
        """
        if self._fp is not None:
            return self._write()
        end = self._buffer.find(b'\n')
        if end < 0:
            if len(self._buffer) > 5000:
                raise ValueError('the header does not end')
            return False
        head = bytes(self._buffer[:end]).decode('utf-8')
        del self._buffer[:end + 1]
        if not head:
            self.is_complete = True
            return False
        mode, self._mtime, size, path = head.split(' ', 3)
        self._left = int(size)
        self._most -= self._left
        if self._left < 0 or self._most < 0:
            raise ValueError('more than was said')
        self._open(path, 0o700 if mode == 'x' else 0o600)
        return True

    def _open(self, path, mode):
        parts = path.split('/')
        if '\0' in path or any(part in ('', '.', '..') for part in parts):
            raise ValueError('a path that leads out of the folder: %r' % (path,))
        for count in range(1, len(parts)):
            folder = '/'.join(parts[:count])
            if folder not in self._made:
                os.mkdir(os.path.join(self._folder, folder), 0o700)
                self._made.add(folder)
        self._path = os.path.join(self._folder, path)
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL |
                     getattr(os, 'O_NOFOLLOW', 0), mode)
        self._fp = os.fdopen(fd, 'wb')

    def _write(self):
        data = self._buffer[:self._left]
        del self._buffer[:len(data)]
        self._fp.write(data)
        self._left -= len(data)
        if self._left:
            return False
        self._fp.close()
        self._fp = None
        # Bytecode beside it tells the time of its source.
        os.utime(self._path, (int(self._mtime),) * 2)
        return True

    def close(self):
        if self._fp is not None:
            self._fp.close()


class _Offer(object):
    """
    The master's answer about a distribution that it can send.

    :ivar str digest: SHA-256 of its archive.
    :ivar int size: bytes of its files.
    :ivar int count: pieces of the archive.
    :ivar int kept: bytes of archives that may stay here for later runs.
    :ivar bytes first: the first piece, empty if it is to be asked for.
    """
    def __init__(self, head, first):
        words = head.split(' ') + ['0']
        self.digest = words[1]
        self.size, self.count, self.kept = map(int, words[2:5])
        self.first = first

    def pieces(self, source):
        """
        Yield all pieces.

        :param _Pieces source: of those that have not come yet.
        """
        if self.first:
            yield self.first
        for piece in source.each('\0piece %s %d' % (self.digest, number)
                                 for number in range(bool(self.first), self.count)):
            yield piece


def _ask(importer, name):
    """
    Ask the master for the distribution of a module.

    :returns: its :class:`_Offer`.
    :raises Refused: the master does not send it.
    """
    requester = importer._resource_requester
    pieces = _Pieces(requester, name)
    # The master may have sent it already, and says so if it comes just now.
    offer = mitogen.core.to_text(name), mitogen.core.to_text('\0offer')
    reply = requester._cache.pop(offer, None)
    if reply is None:
        reply = pieces.ask('\0take ' + describe())()
        if reply == b'offered':
            reply = requester._cache.pop(offer, None)
            if reply is None:
                # An earlier import has used it.
                reply = pieces.ask('\0retake ' + describe())()
    head, _, first = bytes(reply).partition(b'\n')
    head = head.decode('utf-8')
    if not head.startswith('ok '):
        raise Refused(head.partition(' ')[2])
    return _Offer(head, first)


def _unpack(offer, pieces):
    """
    Return a new folder with the files of an archive.

    :raises ValueError: it is not the archive that the master has announced. Nothing stays.
    """
    import hashlib
    found = hashlib.sha256()
    with mitogen._private_folder.new_folder(offer.size) as folder:
        unpacker = _Unpacker(folder, offer.size)
        try:
            for piece in pieces:
                found.update(piece)
                unpacker.feed(piece)
        finally:
            unpacker.close()
        if found.hexdigest() != offer.digest or not unpacker.is_complete:
            raise ValueError('the files that arrived are not those that were announced')
        return folder


def _receive(importer, name):
    """
    Return the folder with the files of the distribution of a module.

    :raises Refused: the master does not send it.
    :raises ImportError: it did not come, or cannot be written.
    """
    offer = _ask(importer, name)
    pieces = offer.pieces(_Pieces(importer._resource_requester, name))
    try:
        if not offer.kept:
            return _unpack(offer, pieces)
        import mitogen._kept_archives
        return mitogen._kept_archives.unpack(offer, pieces, _unpack)
    except (OSError, ValueError, zlib.error) as e:
        raise ImportError('cannot store the files of %r here: %s' % (name, e),
                          name=name)


def _folder_of(importer, name, distribution):
    """
    Return the folder with the files of a distribution, which is on the path.
    """
    with _lock:
        if distribution in _refusals:
            raise Refused(_refusals[distribution])
        if distribution not in _folders:
            try:
                folder = _receive(importer, name)
            except Refused as e:
                _refusals[distribution] = str(e)
                raise
            _folders[distribution] = folder
            sys.path.append(folder)
            _extend_namespaces(folder, '')
        return _folders[distribution]


def _extend_namespaces(folder, prefix):
    """
    Tell packages that have no file of their own that a part of them is here.
    """
    for name in os.listdir(folder):
        module = sys.modules.get(prefix + name)
        inner = os.path.join(folder, name)
        if module is None or not os.path.isdir(inner) or \
                os.path.exists(os.path.join(inner, '__init__.py')):
            continue
        path = getattr(module, '__path__', None)
        if path is not None and inner not in path:
            path.append(inner)
        _extend_namespaces(inner, prefix + name + '.')


def take(name, distribution):
    """
    Load a module of a distribution that travels whole. Called by the module that
    has come in its place.

    :param str name: of the module.
    :param str distribution: its name and version.
    :raises ImportError: it cannot be had. The text says why.
    """
    module = sys.modules[name]
    importer = module.__spec__.loader
    try:
        folder = _folder_of(importer, name, distribution)
    except Refused as e:
        _load_alone(importer, module, str(e))
    else:
        _load_from(folder, name)


def _load_from(folder, name):
    """
    Load a module from a folder, and put it where the import system will find it.
    """
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec
    above = name.split('.')[:-1]
    spec = PathFinder.find_spec(name, [os.path.join(folder, *above)])
    if spec is None:
        raise ImportError('the distribution has no module %r' % (name,),
                          name=name)
    module = module_from_spec(spec)
    # The lock makes other threads wait until the module is complete.
    spec._initializing = True
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        spec._initializing = False


def _load_alone(importer, module, why):
    """
    Load a module that came as others do, as the rest of its distribution will.
    """
    name = module.__name__
    source = importer._resource_requester._get_resource(
        name, mitogen.core._SOURCE_RESOURCE)
    if source is None:
        raise ImportError('cannot import %r: %s' % (name, why), name=name)
    entry = list(importer._cache[name])
    entry[3] = zlib.compress(bytes(source), 1)
    importer._cache[name] = tuple(entry)
    importer.exec_module(module)


def refuse(name, distribution, why):
    """
    Say why a native extension is not here. Called by the module that has come in
    its place.

    :raises ImportError: always.
    """
    raise ImportError('cannot import %r: %s' % (
        name, _refusals.get(distribution, why)), name=name)
