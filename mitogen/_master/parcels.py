# SPDX-License-Identifier: BSD-3-Clause
"""
Parcels: modules as they travel to children that take several at once.
"""

from __future__ import absolute_import  # house

import collections  # house
import marshal  # house
import os  # house
import zlib  # house

import mitogen.parent  # house

from mitogen.master import _file_cache, _FURNISH_RE, _get_bytecode, _kept, _log_swallowed, _read_file  # house
from mitogen.master import _search_path, _stamp_of, _with_head, _with_packages, get_child_modules, PY3  # house
from mitogen.master import RESPONDER_LOG, to_text  # house


#: All that a child is told about a module, but for its content. The path is
#: :data:`None` if there is no such module, or none that may be served.
#: `load` tells of modules of a distribution that travels whole; :data:`None` for all others.
#: `folder` is what :func:`_stamp_of` returns for that of a package.
#: `is_promised` tells whether the files of its distribution are sent once a child looks for one.
_Parcel = collections.namedtuple('_Parcel', 'name present path stamp load folder is_promised')
_Parcel.__new__.__defaults__ = None, False


#: The module that ``importlib.resources.as_file`` needs for folders before Python 3.12.
_FOLDERS = 'mitogen._folders'

#: The module that fetches those files. A module that needs it has such files.
_PROMISES = 'mitogen._promises'


def _stamps_around(package):
    """
    Return a value that changes when a module is added to a package, or to the top level if the name
    is empty.
    """
    try:
        return list(map(_stamp_of, _search_path(package)))
    except Exception:
        # A finder of another package. There is no such module then.
        return None


class _Parcels(object):
    """
    Finds each module once, and makes its contents once for all children. Files
    that were edited are looked at anew. Broker thread.

    :param ModuleResponder responder:
        Finds the source, and makes what children are to run of it.
    """
    def __init__(self, responder):
        self._responder = responder
        self._parcels = {}
        self._needs = {}
        #: Name -> whether children run exactly the file of a module.
        self._is_whole_file = {}
        #: Name of a module that is not there -> what :func:`_stamps_around` returned then.
        self._absent = {}
        #: Names of modules whose files were looked at in this slice of work, :data:`None` between
        #: two slices.
        self._looked_at = None

    def begin(self):
        """
        Begin one slice of work, in which each file is looked at once.
        """
        self._looked_at = set()
        _kept.begin()

    def end(self):
        """
        Look at all files anew from now on.
        """
        self._looked_at = None
        _kept.end()

    def get(self, fullname):
        """
        Return the :class:`_Parcel` of a module. The policy is not asked.
        """
        parcel = self._parcels.get(fullname)
        looked_at = self._looked_at
        if parcel is not None and (looked_at and fullname in looked_at or self.is_fresh(parcel)):
            if looked_at is not None:
                looked_at.add(fullname)
            return parcel
        if parcel is not None:
            self._responder._forget(fullname)
            self._needs.pop(fullname, None)
            self._is_whole_file.pop(fullname, None)
        parcel = self._find(fullname)
        if self._responder._keeps(parcel, self._parcels):
            self._parcels[fullname] = parcel
        return parcel

    def is_fresh(self, parcel):
        """
        Tell whether the file of a module is unchanged, or a module is still not there.
        """
        if parcel.path is None:
            return self._is_still_absent(parcel.name)
        return parcel.stamp is None or (
            parcel.stamp == _stamp_of(parcel.path) and
            (parcel.folder is None or parcel.folder == _stamp_of(os.path.dirname(parcel.path))))

    def _is_still_absent(self, fullname):
        stamps = _kept.get(_stamps_around, fullname.rpartition('.')[0])
        if self._absent.get(fullname) == stamps:
            return True
        self._responder._forget(fullname)
        return self._find(fullname).path is None

    def _note_absent(self, fullname):
        if len(self._absent) >= mitogen.parent.ABSENT_MAX:
            self._absent.clear()
        self._absent[to_text(fullname)] = _kept.get(_stamps_around, fullname.rpartition('.')[0])

    def _find(self, fullname):
        path, source, is_pkg = self._responder._find_servable(fullname)
        is_altered = self._responder._finder._is_altered(fullname)
        load, is_promised = (None, False) if is_altered else \
            self._responder._freight.find(fullname, path)
        if source is None:
            if load is None or load.text is None:
                self._note_absent(fullname)
                return _Parcel(to_text(fullname), None, None, None, load)
            return _Parcel(to_text(fullname), load.present, to_text(load.path),
                           _stamp_of(load.path), load)
        return _Parcel(
            to_text(fullname),
            get_child_modules(path, fullname) if is_pkg else None,
            to_text(path),
            None if is_altered else _stamp_of(path),
            load,
            _stamp_of(os.path.dirname(path)) if is_pkg and not is_altered else None,
            is_promised,
        )

    @staticmethod
    def _stands_for_another(parcel):
        """
        Tell whether a parcel only says how to get a module.
        """
        return parcel.load is not None and parcel.load.text is not None

    def is_carried(self, fullname, refused):
        """
        Tell whether a module comes with its distribution.

        :param set refused: distributions that do not come.
        """
        load = self.get(fullname).load
        distribution = load and load.distribution
        return bool(distribution) and distribution.label not in refused and \
            fullname != distribution.outermost(fullname)

    def has_inside(self, fullname, name):
        """
        Tell whether a package has a module directly inside.
        """
        return to_text(name) in (self.get(fullname).present or ())

    def _has_bytecode(self, parcel):
        found = self._is_whole_file.get(parcel.name)
        if found is None:
            found = (PY3 and parcel.stamp is not None and
                     parcel.path.endswith('.py') and
                     self._responder._find_servable(parcel.name)[1] is not None and
                     self._responder._is_sent_as_it_is(parcel.name))
            if parcel.name in self._parcels:
                self._is_whole_file[parcel.name] = found
        return found

    @staticmethod
    def _is_small_part(parcel):
        """
        Tell whether a module is one of this package that only children import, and has a file of
        its own. Far children are sent less if they compile it.
        """
        return parcel.name.startswith('mitogen._') and PY3 and parcel.stamp is not None and \
            _FURNISH_RE.search(_read_file(parcel.path)) is None

    def content(self, parcel, as_bytecode, level):
        """
        Return the content of a module, compressed.

        :param bool as_bytecode: if that can be had.
        :param int level: of the compression.
        :raises Exception: it cannot be made.
        """
        if self._stands_for_another(parcel):
            return zlib.compress(parcel.load.text.encode('utf-8'))
        if parcel.name.partition('.')[0] == 'mitogen':
            as_bytecode = as_bytecode and not level and self._is_small_part(parcel)
            # Else compressed as well as possible: modules of this package go to all children.
            level = 0 if as_bytecode else 9
        else:
            as_bytecode = as_bytecode and self._has_bytecode(parcel)

        def make():
            return zlib.compress(self._make(parcel, as_bytecode), level)

        return _file_cache.get(parcel.path, parcel.stamp,
                               (parcel.name, as_bytecode, level), make)

    def _make(self, parcel, as_bytecode):
        if as_bytecode:
            try:
                return _with_head(_get_bytecode(parcel.name, parcel.path,
                                                parcel.stamp))
            except SyntaxError:
                # The child's import has to fail as ours would.
                pass
            except Exception:
                _log_swallowed(RESPONDER_LOG, 'cannot compile %r, so children '
                               'are sent its source', parcel.name)
        return self._responder._get_source(parcel.name)

    def needs(self, fullname):
        """
        Return the modules that a module imports, as a list of pairs of name and
        whether that is a module for sure.
        """
        needs = self._needs.get(fullname)
        if needs is None:
            needs = list(_with_packages(self._find_needs(fullname)))
            if fullname in self._parcels:
                # A child may ask for any number of modules that do not exist.
                self._needs[fullname] = needs
        return needs

    def _find_needs(self, fullname):
        parcel = self.get(fullname)
        if parcel.path is None:
            return []
        found = list(self._responder._finder._find_imports(
            fullname, parcel.present is not None, self._code_getter(parcel)))
        if self._stands_for_another(parcel):
            # The child needs the others once the distribution is there.
            found = [('mitogen._freight', True)] + found
        elif any(name.startswith('importlib.resources.') for name, _ in found):
            found += [(_FOLDERS, True)]
        if parcel.is_promised:
            found = [(_PROMISES, True)] + found
        return found

    def reads_files(self, fullname):
        """
        Return the package whose files a module reads by ``importlib.resources``, as far as its
        imports say so, or :data:`None`.
        """
        if (_FOLDERS, True) not in self._needs.get(fullname, ()):
            return None
        return fullname if self.get(fullname).present is not None else fullname.rpartition('.')[0]

    def later(self, fullname):
        """
        Return the modules that functions of a module import, as a list like that of :meth:`needs`.
        """
        parcel = self.get(fullname)
        if parcel.path is None:
            return []
        found = self._responder._finder._find_later_imports(
            fullname, parcel.present is not None, self._code_getter(parcel))
        return list(_with_packages(found))

    def _code_getter(self, parcel):
        """
        Return a function that returns the code of a module; None if it has to be compiled.
        """
        # A module of this package imports the same ones when its text was made smaller.
        is_ours = PY3 and parcel.stamp is not None and parcel.name.startswith('mitogen.') and parcel.path.endswith('.py')
        if not is_ours and not self._has_bytecode(parcel):
            return None
        return lambda: marshal.loads(_get_bytecode(parcel.name, parcel.path, parcel.stamp))
