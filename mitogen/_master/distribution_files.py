# SPDX-License-Identifier: BSD-3-Clause
"""
Distributions, and their files.
"""

from __future__ import absolute_import  # house

import os  # house
import re  # house

import mitogen.core  # house

from mitogen.master import _read_file, _stamp_of, to_text  # house


#: Files that no running program needs.
_IDLE = ('.pyi', '.a', '.pyc', '.pyo')

#: Words of a module that looks for files beside itself.
_BY_PATH_RE = re.compile(br'\b(?:__file__|__path__)\b|\bstr\(\s*(?:\w+\.)*files\(')

#: Words of a package that reads the stub beside its ``__init__.py`` as it is imported, to know
#: which modules are lazy.
_BY_STUB_RE = re.compile(br'\b(?:attach_stub|__file__)\b')

#: Words of a module that lists files.
_LISTS_RE = re.compile(br'\b(?:listdir|scandir|iterdir|i?glob|walk|iter_modules|walk_packages)\s*\(')


#: A path that leads out of the folder that it is relative to.
_OUTSIDE_RE = re.compile(r'(?:^|/)\.{0,2}(?:/|\Z)|[\\\0\n]')

_NAME_PART_RE = re.compile(r'[^\W\d]\w*\Z')


def _normalize(name):
    return re.sub(r'[-_.]+', '-', name).lower()


def _module_of(path):
    """
    Return the name of the module whose file has that path, be it in Python or a
    native extension; :data:`None` for any other file.
    """
    base, _, name = path.rpartition('/')
    parts = base.split('/') if base else []
    stem, _, suffix = name.partition('.')
    if suffix not in ('py', 'so') and not suffix.endswith('.so'):
        return None
    parts.append(stem)
    if not all(map(_NAME_PART_RE.match, parts)):
        return None
    return '.'.join(parts[:-1] if stem == '__init__' else parts) or None


def _owner_of(path):
    """
    Return the name of the module to which a file belongs, or of the package that
    it is in; empty if there is none.
    """
    base, _, name = path.rpartition('/')
    if base.endswith('/__pycache__') and name.endswith('.pyc'):
        path = '%s/%s.py' % (base.rpartition('/')[0], name.partition('.')[0])
    return _module_of(path) or base.replace('/', '.')


def _top_of(path):
    """
    Return the name of the folder or module at the top.
    """
    top, slash, _ = path.partition('/')
    return top if slash else top.partition('.')[0]


class _DistributionFiles(object):
    """
    A distribution: files by their path, with slashes, below the folder that they
    are installed in.

    :param str name:
    :param str version:
    :param tags: of its wheel.
    :param files: dict of path -> bytes, :data:`None` if that is not known.
    """
    #: Bytes of modules that are looked through. Those of a larger distribution with data are taken
    #: to look for it.
    most_text = 1048576

    #: A distribution with this many bytes of data for each byte of code is of no use without its
    #: data. Its limit for data is this many times as high.
    little_code, much_data = 20, 16

    def __init__(self, name, version, tags, files):
        self.name = name
        self.version = version
        self.tags = tags
        self.files = dict((path, files[path]) for path in files
                          if not _OUTSIDE_RE.search(path))
        #: Module -> path, of modules that are native extensions and nothing else.
        self.natives = dict(self._find_natives())
        self._by_path = self._light = self._stubs = None

    @property
    def label(self):
        """
        Name and version.
        """
        return '%s-%s' % (self.name, self.version)

    def _find_source(self, fullname):
        base = fullname.replace('.', '/')
        for path in base + '/__init__.py', base + '.py':
            if path in self.files:
                return path

    def _find_natives(self):
        for path in self.files:
            fullname = '.so' in path and _module_of(path)
            # An extension with a module in Python beside it only makes that
            # faster, and mypyc's helpers belong to such modules.
            if fullname and not fullname.endswith('__mypyc') and \
                    self._find_source(fullname) is None:
                yield fullname, path

    def path_of(self, fullname):
        """
        Return the path of the file of a module, :data:`None` if it has none.
        """
        return self._find_source(fullname) or self.natives.get(fullname)

    def outermost(self, fullname):
        """
        Return the first of a module, and of the packages that hold it, that has
        a file here.
        """
        for name in mitogen.core.module_lineage(fullname):
            if self.path_of(name):
                return name

    def children(self, fullname):
        """
        Return the names, without those of packages, of the modules in a package;
        None if that is none.
        """
        folder, _, name = self.path_of(fullname).rpartition('/')
        if name.partition('.')[0] != '__init__':
            return None
        prefix = folder.replace('/', '.') + '.'
        names = (_module_of(path) for path in self.files if path.startswith(folder))
        return sorted(set(to_text(name[len(prefix):].partition('.')[0])
                          for name in names if name and name.startswith(prefix)))

    @property
    def stamp(self):
        """
        A value that changes when another distribution is installed in its place.
        """
        return self.label, _stamp_of(self.origin)

    def data(self):
        """
        Return the paths of files in its packages that are no code.
        """
        return [path for path in self.files
                if '/' in path and '.dist-info/' not in path and
                not self._is_idle(path) and not path.endswith(('.py', '/py.typed')) and
                not ('.so' in path and _module_of(path))]

    def _is_idle(self, path):
        return path.endswith(_IDLE) and not (path.endswith('.pyi') and path in self._read_stubs())

    def _read_stubs(self):
        """
        Return the paths of stubs that programs read, as a set: those of packages that do so, and
        those that are for modules of others, as a checker of types has them.
        """
        if self._stubs is None:
            folders = set(path.rpartition('/')[0] for path in self.files if _module_of(path))
            self._stubs = set(
                path for path in self.files if path.endswith('.pyi') and (
                    path.rpartition('/')[0] not in folders or
                    path.endswith('/__init__.pyi') and path[:-1] in self.files and self._has(path[:-1], _BY_STUB_RE)))
        return self._stubs

    def _has(self, path, regex):
        try:
            return regex.search(self.read(path)) is not None
        except (IOError, OSError):
            # It was removed after the installation.
            return False

    def size_of_all(self, paths):
        """
        Return how many bytes some files have.
        """
        sizes = ((path, self.files[path]) for path in paths)
        return sum(self.size_of(path) if size is None else size
                   for path, size in sizes)

    def _texts(self):
        return [path for path in self.files if path.endswith('.py') and '/tests/' not in path]

    def reads_by_path(self):
        """
        Tell whether its modules look for files beside themselves, as far as their text says so.
        """
        if self._by_path is None:
            self._by_path = self._find_by_path()
        return self._by_path

    def _find_by_path(self):
        has_data, left = bool(self.data()), self.most_text
        for path in self._texts():
            try:
                text = self.read(path)
            except (IOError, OSError):
                # It was removed after the installation.
                continue
            if _BY_PATH_RE.search(text) and (has_data or _LISTS_RE.search(text)):
                return True
            left -= len(text)
            if left < 0:
                return has_data
        return False

    def is_light(self, most):
        """
        Tell whether it has so little code and data that a child which imports it is sent all of it.

        :param int most:
            Bytes of data that are little. Of a distribution that has little else, more are.
        """
        if self._light is None:
            data = self.data()
            size, code = self.size_of_all(data), self.size_of_all(self._texts())
            self._light = code <= (most if data else self.most_text) and \
                size <= most * (self.much_data if size > self.little_code * code else 1)
        return self._light

    def choose(self, is_denied, with_tests):
        """
        Return the paths that travel: those of files, then those of bytecode,
        which is of use to some children.

        :param is_denied: function that tells whether a module may not travel.
        :param bool with_tests: also the folders named `tests` in packages.
        """
        # Files beside the packages, such as metadata and libraries, are no modules.
        tops = set(_top_of(path) for path in self.files
                   if path.endswith('.py') or '.so' in path and _module_of(path))
        paths, bytecode = [], []
        for path in self.files:
            fullname = _top_of(path) in tops and _owner_of(path)
            if fullname and is_denied(fullname) or \
                    '/tests/' in path and not with_tests:
                continue
            if path.endswith('.pyc'):
                bytecode.append(path)
            elif not self._is_idle(path):
                paths.append(path)
        return paths, bytecode

    def _load(self, read, paths):
        """
        Yield tuples of path, whether it is a program, time, and content.

        :param read: function that returns the content of a file.
        """
        for path in paths:
            try:
                yield path, self.is_program(path), self.time_of(path), read(path)
            except (IOError, OSError):
                # The file was removed after the installation.
                continue


class _InstalledFiles(_DistributionFiles):
    """
    A distribution that is installed in a folder of the path.

    :param str folder:
    :param str info: name of the folder inside it with the metadata.
    :raises Exception: it does not list its files.
    """
    def __init__(self, folder, info):
        self.folder = folder
        self._info = os.path.join(folder, info)
        self.origin = os.path.join(self._info, 'RECORD')
        name, _, version = info[:-len('.dist-info')].partition('-')
        super(_InstalledFiles, self).__init__(
            name, version, self._read_tags(), self._read_record())

    def _read_text(self, name):
        return _read_file(os.path.join(self._info, name)).decode('utf-8')

    def _read_record(self):
        text = self._read_text('RECORD')
        if '"' in text:
            import csv
            import io
            rows = csv.reader(io.StringIO(text))
        else:
            rows = (line.rsplit(',', 2) for line in text.splitlines())
        return dict((row[0], int(row[2]) if row[2:] and row[2].isdigit() else None)
                    for row in rows if row)

    def _read_tags(self):
        try:
            return re.findall(r'^Tag:\s*(\S+)', self._read_text('WHEEL'), re.M)
        except (IOError, OSError):
            return []

    def _full(self, path):
        return os.path.join(self.folder, path)

    def read(self, path):
        return _read_file(self._full(path))

    def load(self, paths):
        return self._load(self.read, paths)

    def size_of(self, path):
        try:
            return os.path.getsize(self._full(path))
        except OSError:
            return 0

    def time_of(self, path):
        return int(os.path.getmtime(self._full(path)))

    def is_program(self, path):
        return os.access(self._full(path), os.X_OK)

    def full_path(self, fullname):
        """
        Return the path of the file of a module.
        """
        return self._full(self.path_of(fullname))


class _WheelFiles(_DistributionFiles):
    """
    A distribution in a file as the index has it.

    :param str path: of the file.
    :raises Exception: it is none.
    """
    def __init__(self, path):
        import zipfile
        self.origin = path
        words = os.path.basename(path)[:-len('.whl')].split('-')
        if len(words) not in (5, 6):
            raise ValueError('not the name of a wheel: %r' % (path,))
        name, version = words[:2]
        #: Path where it is installed -> member of the archive.
        self._members = {}
        data = '%s-%s.data/' % (name, version)
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
        for info in infos:
            target = info.filename
            if target.startswith(data):
                kind, _, target = target[len(data):].partition('/')
                if kind not in ('purelib', 'platlib'):
                    continue
            if not target.endswith('/'):
                self._members[target] = info
        super(_WheelFiles, self).__init__(
            name, version, ['-'.join(words[-3:])],
            dict((path, self._members[path].file_size) for path in self._members))

    def _has(self, path, regex):
        # The few stubs that this is asked for are small.
        return True

    def load(self, paths):
        import zipfile
        with zipfile.ZipFile(self.origin) as archive:
            for found in self._load(
                    lambda path: archive.read(self._members[path]), paths):
                yield found

    def time_of(self, path):
        return 315532800    # the first that a zip file can have

    def is_program(self, path):
        return bool(self._members[path].external_attr >> 16 & 0o100)

    def full_path(self, fullname):
        return os.path.join(self.origin, self.path_of(fullname))
