# SPDX-License-Identifier: BSD-3-Clause
"""
Which installed distribution a module belongs to.
"""

from __future__ import absolute_import  # house

import os  # house
import sys  # house

import mitogen.core  # house

from mitogen.master import _InstalledFiles, _log_swallowed, _normalize, _read_file, _stamp_of, FINDER_LOG, PY3  # house


class _Site(object):
    """
    The distributions in one folder of the path, each read when it is first
    wanted.

    :param str folder:
    """
    def __init__(self, folder):
        self._folder = folder
        self._read = {}     # name of the folder with metadata -> _InstalledFiles, None
        #: Names of folders with metadata, and the normalized name of a distribution -> such names.
        self._infos = [info for info in os.listdir(folder) if info.endswith('.dist-info')]
        self._named = {}
        for info in self._infos:
            self._named.setdefault(_normalize(info.partition('-')[0]), []).append(info)
        #: Name of a module at the top -> names of folders with metadata. None until it is needed,
        #: since many records have to be read for it.
        self._tops = None

    def _note(self, info):
        try:
            record = _read_file(os.path.join(self._folder, info, 'RECORD'))
        except (IOError, OSError):
            return
        for top in set(line.partition(b'/')[0] for line in record.splitlines()):
            name = top.decode('utf-8', 'replace').lstrip('"').partition(',')[0].partition('.')[0]
            self._tops.setdefault(name, []).append(info)

    def _get(self, info):
        if info not in self._read:
            self._read[info] = None
            try:
                self._read[info] = _InstalledFiles(self._folder, info)
            except Exception:
                _log_swallowed(FINDER_LOG, 'cannot read %r in %r', info,
                               self._folder)
        return self._read[info]

    def find(self, fullname):
        """
        Return the :class:`_InstalledFiles` that has a module, or :data:`None`.
        """
        top = fullname.partition('.')[0]
        # Many distributions have the name of their module.
        found = self._find_among(self._named.get(_normalize(top), ()), fullname)
        if found is None:
            if self._tops is None:
                self._tops = {}
                for info in self._infos:
                    self._note(info)
            found = self._find_among(self._tops.get(top, ()), fullname)
        return found

    def _find_among(self, infos, fullname):
        for info in infos:
            found = self._get(info)
            if found is not None and found.path_of(fullname):
                return found
        return None


class _Sites(object):
    """
    The distributions on the path of this process. Broker thread.
    """
    def __init__(self):
        self._sites = {}    # folder -> (when it is to be looked at, stamp, _Site)

    #: Seconds for which a folder is taken to be unchanged.
    period = 0.5

    def _get(self, folder):
        moment = mitogen.core.now()
        until, known, site = self._sites.get(folder, (0, None, None))
        if moment < until:
            return site
        stamp = _stamp_of(folder)
        if stamp != known:
            try:
                site = _Site(folder)
            except (IOError, OSError):
                site = None
        self._sites[folder] = moment + self.period, stamp, site
        return site

    def find(self, fullname, path=None):
        """
        Return the :class:`_InstalledFiles` that has a module, or :data:`None`.

        :param path: of its file, if that is known.
        """
        if PY3:
            for folder in sys.path:
                # Most folders need not be read for most modules.
                site = (path is None or path.startswith(os.path.join(folder, ''))) and self._get(folder or os.curdir)
                found = site and site.find(fullname)
                if found:
                    return found
        return None
