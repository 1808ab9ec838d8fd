# SPDX-License-Identifier: BSD-3-Clause
"""
The files that a module imports, remembered from run to run.

Ansible parses and compiles a module, and all that it imports, to find out which files belong into
its archive: some three tenths of a second for each module in each run. The names of these files are
kept here, with digests of their texts, in the user's folder of Ansible. They are used again only
while every text is the same.
"""

from __future__ import absolute_import

import functools
import hashlib
import marshal
import os
import sys

import ansible

import mitogen.ansible.folder

#: The part of Ansible whose files are remembered. Modules that import others are left to Ansible.
PREFIX = 'ansible/module_utils/'

#: Ansible makes these up.
MADE_UP = ('ansible/__init__.py', 'ansible/module_utils/__init__.py')

#: A folder of the user's own with more files than this is not looked through.
MOST_FILES = 200


class Recorder(object):
    """
    An archive that remembers the files written to it.
    """

    def __init__(self, archive):
        self.archive = archive
        self.written = []

    def __getattr__(self, name):
        return getattr(self.archive, name)

    def writestr(self, info, data, *args, **kwargs):
        self.written.append((getattr(info, 'filename', info), data.encode('utf-8') if isinstance(data, str) else bytes(data)))
        return self.archive.writestr(info, data, *args, **kwargs)


def install(module_common):
    """
    Have Ansible's `recursive_finder` ask here first.
    """
    find = module_common.recursive_finder
    if getattr(find, 'is_mitogen', False):
        return

    @functools.wraps(find)
    def remembering(name, module_fqn, module_data, zf, date_time=None, *rest):
        path = where(module_common, name, module_fqn, module_data, rest)
        found = path and recall(path)
        if found:
            for file_name, text in found[1]:
                zf.writestr(module_common._make_zinfo(file_name, date_time, zf=zf), text)
            return found[0] and module_common.ModuleMetadataV1(serialization_profile=found[0])
        recorder = Recorder(zf)
        metadata = find(name, module_fqn, module_data, recorder, date_time, *rest)
        if path:
            remember(path, getattr(metadata, 'serialization_profile', ''), recorder.written)
        return metadata

    remembering.is_mitogen = True
    module_common.recursive_finder = remembering


def where(module_common, name, module_fqn, module_data, rest):
    """
    Return the file that knows of a module, or None if it is not to be remembered.
    """
    if not hasattr(module_common, '_make_zinfo') or any(getattr(item, 'extension_names', ()) for item in rest):
        return None
    own = own_files(module_common)
    if own is None:
        return None
    data = module_data.encode('utf-8') if isinstance(module_data, str) else bytes(module_data)
    known = repr((ansible.__file__, ansible.__version__, sys.version, str(name), str(module_fqn), own)).encode('utf-8')
    digest = hashlib.sha256(known + b'\0' + data).hexdigest()
    return os.path.join(mitogen.ansible.folder.home(), digest)


def own_files(module_common):
    """
    Return the files of users in which module_utils may be found before Ansible's, with times and
    sizes; None for too many.
    """
    found = []
    for folder in module_common.module_utils_loader._get_paths(subdirs=False):
        if os.path.realpath(folder) == os.path.realpath(module_common._MODULE_UTILS_PATH):
            continue
        for base, _, names in os.walk(folder):
            for name in names:
                status = os.stat(os.path.join(base, name))
                found.append((os.path.join(base, name), status.st_mtime, status.st_size))
            if len(found) > MOST_FILES:
                return None
    return sorted(found)


def text_of(name):
    """
    Return the text of a file of Ansible's.
    """
    with open(os.path.join(os.path.dirname(ansible.__file__), name[len('ansible/'):]), 'rb') as fp:
        return fp.read()


def recall(path):
    """
    Return (serialization profile, [(name, text)]), or None if the module is not known or its files
    have changed.
    """
    try:
        with open(path, 'rb') as fp:
            profile, made_up, files = marshal.loads(fp.read())
        members = list(made_up)
        for name, digest in files:
            if not name.startswith(PREFIX) or '..' in name:
                return None
            text = text_of(name)
            if hashlib.sha1(text).digest() != digest:
                return None
            members.append((name, text))
        return profile, members
    except (IOError, OSError, ValueError, EOFError, TypeError):
        return None


def remember(path, profile, written):
    """
    Remember the files of an archive, if all of them are Ansible's.
    """
    made_up = [(name, text) for name, text in written if name in MADE_UP]
    files = []
    try:
        for name, text in written:
            if name in MADE_UP:
                continue
            if not name.startswith(PREFIX) or text_of(name) != text:
                return
            files.append((str(name), hashlib.sha1(text).digest()))
        mitogen.ansible.folder.write(path, marshal.dumps((str(profile), made_up, files), 2))
    except (IOError, OSError):
        # It is found out anew the next time.
        pass

