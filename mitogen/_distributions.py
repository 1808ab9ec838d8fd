# SPDX-License-Identifier: BSD-3-Clause
"""
Distributions that only the parent has, for :mod:`importlib.metadata`. A child fetches this module
if it needs it.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import io
import re
import sys

import mitogen.core


def _normalize(name):
    """
    Return the form of a name that is the same for all spellings.
    """
    return re.sub(u'[-_.]+', u'_', mitogen.core.to_text(name)).lower()


class _File(object):
    """
    A file of a distribution, where the parent has it.

    :param distribution: that has the file.
    :param str path: from the folder that the distribution is in.
    """
    def __init__(self, distribution, path):
        self._distribution = distribution
        self._path = str(path)

    def __str__(self):
        return 'master:' + self._path

    def exists(self):
        """
        Tell whether the file is there. Always true: it was there when the distribution was
        installed.
        """
        return True

    def read_bytes(self):
        """
        Return the content.

        :raises IOError: the parent does not give it.
        """
        content = self._distribution._read_file(self._path)
        if content is None:
            raise IOError('the parent has no such file: %r' % (self._path,))
        return content

    def open(self, mode='r', **kwargs):
        """
        Return a file object for reading; parameters as of :func:`io.open`.
        """
        fp = io.BytesIO(self.read_bytes())
        return fp if 'b' in mode else io.TextIOWrapper(fp, **kwargs)

    def read_text(self, encoding='utf-8', **kwargs):
        """
        Return the content as text.
        """
        return self.open(encoding=encoding, **kwargs).read()


class _Metadata(object):
    """
    The metadata of one distribution of the parent. It is a mixin for the class of distributions
    that the caller's :mod:`importlib.metadata` has.

    :param requester: that asks the parent.
    :param list fields: name, version, names of modules, entry points, as text.
    """
    def __init__(self, requester, fields):
        self._requester = requester
        self._name, self._version, self._modules, self._entry_points = fields

    @property
    def name(self):
        return str(self._name)

    @property
    def version(self):
        return str(self._version)

    @property
    def _normalized_name(self):
        return _normalize(self._name)

    def read_text(self, filename):
        """
        Return a file of the metadata, :data:`None` if there is none.
        """
        if filename == 'entry_points.txt':
            return self._entry_points or None
        content = self._read_metadata(str(filename))
        return None if content is None else content.decode('utf-8', 'replace')

    def locate_file(self, path):
        """
        Return an object for a file of the distribution that can be read.
        """
        return _File(self, path)

    def _read_metadata(self, filename):
        content = self._requester._get_resource(
            _normalize(self._name), u'%s/%s' % (mitogen.core._DISTRIBUTION_RESOURCE, filename))
        return None if content is None else bytes(content)

    def _read_file(self, path):
        top, _, rest = path.partition('/')
        if top.endswith(('.dist-info', '.egg-info')):
            return self._read_metadata(rest)
        if not rest:
            top, rest = top.rpartition('.')[0], mitogen.core._SOURCE_RESOURCE
        return self._requester._get_resource(top, rest)


def _ask(requester, name):
    """
    Yield the fields of the distributions of a name, or of all, that the parent has.
    """
    content = requester._get_resource(name, mitogen.core._DISTRIBUTION_RESOURCE)
    words = bytes(content or b'').decode('utf-8').split(u'\0')
    for at in range(0, len(words) - 3, 4):
        yield words[at:at + 4]


def _find_here(importer, context):
    """
    Yield the distributions that other finders find.
    """
    for finder in sys.meta_path:
        find = getattr(finder, 'find_distributions', None)
        if find and finder is not importer:
            for distribution in find(context):
                yield distribution


def _name_of(distribution):
    """
    Return the normalized name of any distribution.
    """
    return getattr(distribution, '_normalized_name', None) or _normalize(distribution.metadata['Name'] or '')


def _find(importer, context):
    """
    Yield the distributions that the parent has: those that are not here, and those whose modules
    are to come from there anyway.

    :param context: of the same module as the class of the distributions, or :data:`None`.
    """
    api = mitogen.core.import_module(
        'importlib.metadata' if context is None else type(context).__module__)
    if context is None:
        context = api.DistributionFinder.Context()
    if 'path' in vars(context):
        # The caller wants the distributions of some folder.
        return
    name, overrides = context.name, importer.policy.overrides
    if name and not overrides and next(_find_here(importer, context), None):
        return
    here = set(_name_of(found) for found in _find_here(importer, context))
    kind = type('Distribution', (_Metadata, api.Distribution), {})
    requester = importer._resource_requester
    for fields in _ask(requester, _normalize(name) if name else u''):
        if _normalize(fields[0]) not in here or any(
                importer.policy.overriden(module) for module in fields[2].split()):
            yield kind(requester, fields)
