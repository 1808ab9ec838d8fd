# SPDX-License-Identifier: BSD-3-Clause
"""
Tags of wheels, compared with the facts that a child tells about its
interpreter.
"""

from __future__ import absolute_import  # house

import re  # house


#: Tag of the first kind of wheels for many Linuxes -> version of glibc.
_OLD_MANYLINUX = {'manylinux1': (2, 5), 'manylinux2010': (2, 12),
                  'manylinux2014': (2, 17)}

_LIBC_TAG_RE = re.compile(r'(manylinux|musllinux)_(\d+)_(\d+)_(\w+)\Z')
_MACOS_TAG_RE = re.compile(r'macosx_(\d+)_(\d+)_(\w+)\Z')


def _version(text):
    """
    Return the first two numbers of a version.
    """
    return tuple(int(word) for word in re.findall(r'\d+', text)[:2])


def _expand(tag):
    """
    Yield the triples of a tag, each part of which may be several.
    """
    parts = tag.split('-')
    if len(parts) == 3:
        for python in parts[0].split('.'):
            for abi in parts[1].split('.'):
                for platform in parts[2].split('.'):
                    yield python, abi, platform


class _Platform(object):
    """
    An interpreter and its system, as they describe themselves.

    :param str text: of :func:`mitogen._freight.describe`. It may be anything.
    :raises ValueError: it is no description.
    """
    def __init__(self, text):
        words = text.split(' ')
        if len(words) != 6 or not all(re.match(r'[\w.-]{1,100}\Z', word)
                                      for word in words):
            raise ValueError('no description of an interpreter')
        self.python, self.abi, self.platform, self.libc, version, self.magic = words
        self.libc_version = _version(version)

    def __str__(self):
        return '%s-%s-%s (%s %s)' % (
            self.python, self.abi, self.platform, self.libc,
            '.'.join(map(str, self.libc_version)))

    def _minor(self, tag):
        """
        Return the version that the tag of a CPython of our kind tells, or None.
        """
        found = re.match(r'cp3(\d+)$', tag)
        own = re.match(r'cp3(\d+)$', self.python)
        return (int(found.group(1)), int(own.group(1))) if found and own else None

    def _runs_abi(self, python, abi):
        if abi == 'none':
            return python in (self.python, 'py3', 'py' + self.python[2:]) or \
                python.startswith('py3') and python[3:].isdigit() and \
                int(python[3:]) <= int(self.python[3:] or 0)
        if abi == 'abi3':
            minors = self._minor(python)
            return minors is not None and minors[0] <= minors[1] and \
                't' not in self.abi
        return python == self.python and abi == self.abi

    def _machine(self):
        """
        Return the ending that a platform tag has here.
        """
        return self.platform.partition('_')[2]

    def _why_no_platform(self, platform, own):
        """
        Return the reason that forbids a platform tag: "platform" or "C
        library", or None.

        :param _Platform own: of this process, for what was built here.
        """
        if platform == 'any':
            return None
        wanted = _LIBC_TAG_RE.match(platform)
        name, _, machine = platform.partition('_')
        if wanted:
            kind = {'manylinux': 'glibc', 'musllinux': 'musl'}[wanted.group(1)]
            version = int(wanted.group(2)), int(wanted.group(3))
            machine = wanted.group(4)
        elif name in _OLD_MANYLINUX:
            kind, version = 'glibc', _OLD_MANYLINUX[name]
        elif name == 'macosx':
            return self._why_no_macos(platform)
        elif platform == self.platform == own.platform:
            kind, version = own.libc, own.libc_version
        else:
            return 'platform'
        if self.platform != 'linux_' + machine and platform != self.platform:
            return 'platform'
        if self.libc != kind or self.libc_version < version:
            return 'C library'
        return None

    def _why_no_macos(self, platform):
        found = _MACOS_TAG_RE.match(platform)
        machine = _MACOS_TAG_RE.match(self.platform)
        if not found or not machine or \
                found.group(3) not in (machine.group(3), 'universal2'):
            return 'platform'
        wanted = int(found.group(1)), int(found.group(2))
        return 'platform' if self.libc_version < wanted else None

    def why_not(self, tags, own):
        """
        Return why a distribution with some tags does not run here, as text, or
        :data:`None` if it does.

        :param _Platform own: of this process.
        """
        triples = [triple for tag in tags for triple in _expand(tag)]
        reasons = [self._why_no_platform(platform, own)
                   for python, abi, platform in triples
                   if self._runs_abi(python, abi)]
        if None in reasons:
            return None
        if not reasons:
            what = 'ABI' if any(self._why_no_platform(triple[2], own) is None
                                for triple in triples) else 'platform'
        else:
            what = 'C library' if 'C library' in reasons else 'platform'
        return 'the %s: it is for %s, and the child is %s' % (
            what, ', '.join(tags) or 'nothing known', self)
