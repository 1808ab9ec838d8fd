# SPDX-License-Identifier: BSD-3-Clause
"""
Distributions: the metadata of the distributions installed here, for children.
"""

from __future__ import absolute_import  # house

import os  # house
import re  # house
import sys  # house

from mitogen.master import _archive_names, _read_file, _stamp_of, to_text  # house


#: Bytes of one file of metadata.
_METADATA_MAX = 8 * 1048576

#: Bytes of an answer about all distributions.
_OVERVIEW_MAX = 4 * 1048576

#: Matches a line of RECORD about a file of a package or module: not about metadata, nor libraries.
_MODULE_RE = re.compile(r'^"?([A-Za-z_]\w*)(?:\.[\w.-]+|/[^,\n]*)"?,', re.M)

_SUFFIXES = ('.dist-info', '.egg-info')


def _normalized(name):
    """
    Return the form of a distribution's name that is the same for all spellings.
    """
    return re.sub(u'[-_.]+', u'_', to_text(name)).lower()


class _DiskMetadata(object):
    """
    The metadata of a distribution, which is a folder or a single file.
    """
    def __init__(self, path):
        self._path = path

    def read(self, filename):
        """
        Return a file, :data:`None` if there is no such file.
        """
        path = os.path.join(self._path, filename)
        if os.path.isfile(self._path) and filename == 'PKG-INFO':
            path = self._path
        stamp = _stamp_of(path)
        if stamp is None or stamp[1] > _METADATA_MAX or not os.path.isfile(path):
            return None
        return _read_file(path)


class _ArchiveMetadata(object):
    """
    Metadata folders of an archive.
    """
    def __init__(self, loader, folder):
        self._loader = loader
        self._folder = folder

    def read(self, filename):
        """
        Return a file, :data:`None` if there is no such file.
        """
        try:
            return self._loader.get_data(os.path.join(self._loader.archive, self._folder, filename))
        except (IOError, OSError):
            return None


class _Distribution(object):
    """
    One distribution, as a child is told of it.

    :param metadata: where its files are.
    :raises ValueError: it has no name.
    """
    def __init__(self, metadata):
        self._metadata = metadata
        self._modules = None
        head = self._text('METADATA') or self._text('PKG-INFO')
        fields = dict(re.findall(r'^(Name|Version):[ \t]*(\S.*?)\s*$', head.partition('\n\n')[0], re.M))
        if 'Name' not in fields:
            raise ValueError('there is no project name in %r' % (metadata,))
        self.name = fields['Name']
        self.key = _normalized(self.name)
        self._version = fields.get('Version', '')

    def _text(self, filename):
        content = self._metadata.read(filename)
        return u'' if content is None else content.decode('utf-8', 'replace').replace('\r\n', '\n')

    def read(self, filename):
        """
        Return a file of the metadata, :data:`None` if there is none. A child has chosen the name.
        """
        if re.match(r'[\w-][\w.-]*(/[\w-][\w.-]*)*$', filename) is None:
            return None
        return self._metadata.read(filename)

    def modules(self):
        """
        Return the set of the names at the top level.
        """
        if self._modules is None:
            found = set(self._text('top_level.txt').split()) or set(_MODULE_RE.findall(self._text('RECORD')))
            found.discard('__pycache__')
            self._modules = found or set([self.key])
        return self._modules

    def is_seen(self, policy):
        """
        Tell whether a child may know of the distribution: not if it may have none of the modules.
        """
        if not policy.overrides and not policy.blocks:
            # Last, as looking for the modules takes longest.
            return True
        return any(not policy.denied(name) or any(other.startswith(name + '.') for other in policy.overrides)
                   for name in self.modules())

    def tell(self, policy):
        """
        Return the fields that a child is sent. It needs the names of modules if some have to come
        from here.
        """
        modules = sorted(self.modules()) if policy.overrides else ()
        fields = (self.name, self._version, u' '.join(modules), self._text('entry_points.txt'))
        return u'\0'.join(to_text(field).replace(u'\0', u'') for field in fields)


def _list_entry(path):
    """
    Yield where there may be metadata of distributions below an entry of the path.
    """
    if os.path.isdir(path):
        for name in sorted(os.listdir(path)):
            if name.endswith(_SUFFIXES):
                yield _DiskMetadata(os.path.join(path, name))
    elif os.path.isfile(path):
        import zipimport
        loader = zipimport.zipimporter(path)
        folders = set(name.partition(os.sep)[0] for name in _archive_names(loader))
        for name in sorted(folders):
            if name.endswith(_SUFFIXES):
                yield _ArchiveMetadata(loader, name)


class _Distributions(object):
    """
    All distributions that are installed here. Broker thread.
    """
    def __init__(self):
        #: Entry of the path -> (stamp, list of distributions).
        self._by_entry = {}

    def _read_entry(self, path):
        found = []
        try:
            for metadata in _list_entry(path):
                try:
                    found.append(_Distribution(metadata))
                except (IOError, OSError, ValueError):
                    # A folder without a distribution may be left behind.
                    continue
        except Exception:
            # No archive, or a folder that may not be read.
            pass
        return found

    def _in_entry(self, path):
        stamp = _stamp_of(path)
        kept = self._by_entry.get(path)
        if kept is None or kept[0] != stamp:
            kept = self._by_entry[path] = stamp, self._read_entry(path)
        return kept[1]

    def _all(self):
        """
        Return all as a list, the first of each name.
        """
        found, keys = [], set()
        for path in sys.path:
            for distribution in self._in_entry(path or os.curdir):
                if distribution.key not in keys:
                    keys.add(distribution.key)
                    found.append(distribution)
        return found

    def answer(self, policy, name, filename):
        """
        Return what a child is sent.

        :param name: normalized, of a distribution; if it is empty, of all.
        :param filename: of its metadata, or empty for an overview.
        :raises ValueError: that is too much.
        """
        found = [one for one in self._all() if name in (u'', one.key) and one.is_seen(policy)]
        if filename:
            return found[0].read(filename) if found and name else None
        content = u'\0'.join(one.tell(policy) for one in found).encode('utf-8')
        if len(content) > _OVERVIEW_MAX:
            raise ValueError('an overview of %d bytes' % (len(content),))
        return content
