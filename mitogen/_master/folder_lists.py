# SPDX-License-Identifier: BSD-3-Clause
"""
Lists of what is in the folders of packages, for children.
"""

from __future__ import absolute_import  # house

import os  # house

from mitogen.master import _iter_loader, _search_path, to_text  # house


#: Names in one list. No package has more, and a child must not make the master list more.
_LISTED_MAX = 10000


def _pack_names(names):
    """
    Return the list that a child is sent.

    :param dict names: name -> whether there is more inside.
    :raises ValueError: these are too many.
    """
    if len(names) > _LISTED_MAX:
        raise ValueError('%d names are too many for one list' % (len(names),))
    return u'\0'.join(to_text(name) + (u'/' if names[name] else u'')
                      for name in sorted(names)).encode('utf-8', 'replace')


def _list_disk(path):
    """
    Return what is in a folder: name -> whether that is a folder.

    :raises OSError: it is none, or may not be read.
    """
    found = {}
    for name in os.listdir(path):
        found[name] = os.path.isdir(os.path.join(path, name))
    return found


def _archive_names(loader):
    """
    Return the names of all that is in an archive, by its loader. The loader keeps them,
    which :mod:`zipfile` does not: it would read them for each question of a child.
    """
    read = getattr(loader, '_get_files', None)
    # Until 3.14 they are read when the loader is made.
    return loader._files if read is None else read()


def _list_archive(loader, path):
    """
    Return the entries of a folder in an archive, empty if there is none.
    """
    folder = path[len(loader.archive):].strip(os.sep) + os.sep
    names = {}
    for name in _archive_names(loader):
        if name.startswith(folder) and name != folder:
            name, inside, _ = name[len(folder):].partition(os.sep)
            names[name] = names.get(name, False) or bool(inside)
    return names


def _list_by_reader(reader, parts):
    """
    Return the entries of a package that is in neither, but has a reader of resources.
    """
    files = getattr(reader, 'files', None)
    if files is None:
        return {} if parts else dict((name, not reader.is_resource(name)) for name in reader.contents())
    place = files()
    for part in parts:
        place = place.joinpath(part)
    return dict((item.name, item.is_dir()) for item in place.iterdir())


def _list_folder(loader, locations, fullname, parts):
    """
    Return the entries of a folder of a package, as text for a child.

    :param loader: of the package.
    :param locations: folders that the package is in.
    :param parts: names of folders, from the package to the one that is meant.
    :raises Exception: there is no such folder.
    """
    names, is_there = {}, False
    for location in locations:
        path = os.path.join(location, *parts)
        if os.path.isdir(path):
            names.update(_list_disk(path))
            is_there = True
        elif hasattr(loader, 'archive') and (hasattr(loader, '_files') or hasattr(loader, '_get_files')):
            names.update(_list_archive(loader, path))
    if not names and not is_there:
        names = _list_by_reader(loader.get_resource_reader(fullname), parts)
    if not names and not is_there:
        raise IOError('there is no such folder')
    names.pop('__pycache__', None)
    return names


def _list_package(fullname, policy):
    """
    Return the modules directly inside a package that a child may have, as :mod:`pkgutil` lists them
    on a disk: name -> whether that is a package. A folder without ``__init__`` is not listed.
    """
    import pkgutil
    folders = _search_path(fullname)
    entries = pkgutil.iter_modules(folders) if folders else _iter_loader(fullname)
    return dict((entry[1], entry[2]) for entry in entries if not policy.denied('%s.%s' % (fullname, entry[1])))


def _may_see(policy, fullname, parts):
    """
    Tell whether a child may see a file or folder in a package: not where the module that is meant
    by its name is denied.
    """
    name = fullname
    for part in parts:
        name += '.' + part.partition('.')[0]
        if policy.denied(name):
            return False
    return True
