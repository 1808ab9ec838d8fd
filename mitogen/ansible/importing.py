# SPDX-License-Identifier: BSD-3-Clause
"""
Imports from a payload: the texts that a module of Ansible came with. A part of the text of a
zygote; see `zygote.py`.
"""

import os
import sys
import zlib

from importlib.machinery import ModuleSpec

STDLIB = getattr(sys, 'stdlib_module_names', frozenset(sys.builtin_module_names))

#: Packages that modules of Ansible get from their payload only.
OURS = ('ansible', 'ansible_collections')

#: It starts other interpreters, which import from the archive. Its functions know the place of the
#: archive from the time when it was imported.
RESPAWN = 'ansible.module_utils.common.respawn'

#: A module with one of these, or with anything that is not Python, looks for its archive in the
#: file system.
NEED_ARCHIVE = (RESPAWN, 'ansible.module_utils.embed')


def is_ours(name):
    return name.partition('.')[0] in OURS


class Payload(object):
    """
    The parts of a module: its own text and that of everything below
    `ansible` that it may import.

    :param list members: of (path in the archive, digest).
    :ivar path: of the archive. Unless `needs_archive`, it is never made: modules use it to name
        their own files.
    """
    #: Modules that the first run imported. They are imported here before the second: many modules
    #: run only once, and gain nothing.
    lesson = None
    learned = False
    #: Whether it has run in the background.
    ran = False

    def __init__(self, zygote, name, members):
        self.zygote, self.name, self.members = zygote, name, members
        self.path = '%s/ansible_%s_payload/ansible_%s_payload.zip' % (os.environ.get('TMPDIR', '/tmp'), name, name)
        self.modules = {}
        self.needs_archive = False
        for path, digest in members:
            self.add(path, digest)

    def add(self, path, digest):
        name, is_package = path[:-len('.py')].replace('/', '.'), False
        if name.endswith('.__init__'):
            name, is_package = name[:-len('.__init__')], True
        if name in NEED_ARCHIVE or not path.endswith('.py'):
            self.needs_archive = True
        if path.endswith('.py'):
            self.modules[name] = (path, digest, is_package)

    def text(self, name):
        return self.inflate(self.modules[name][1])

    def inflate(self, digest):
        return zlib.decompress(self.zygote.texts[digest], -15)

    def code(self, name):
        path, digest, _ = self.modules[name]
        found = self.zygote.codes.get((name, digest))
        if found is None:
            found = compile(self.text(name), os.path.join(self.path, path), 'exec', dont_inherit=True)
            self.zygote.codes[name, digest] = found
        return found

    def write(self, folder):
        """
        Make the archive, in a folder of its own. It has what a wrapper of Ansible's would have left
        there.
        """
        import zipfile
        self.path = os.path.join(folder, 'ansible_%s_payload.zip' % (self.name,))
        site = 'import sys\nsys.path.insert(0, "%s")\n' % (self.path,)
        with zipfile.ZipFile(self.path, 'w') as archive:
            for path, digest in self.members:
                archive.writestr(zipfile.ZipInfo(path), self.inflate(digest))
            archive.writestr(zipfile.ZipInfo('sitecustomize.py'), site)


class Loader(object):
    """
    Imports from a payload.
    """

    def __init__(self, payload):
        self.payload = payload

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__
        zygote = self.payload.zygote
        zygote.loaded[name] = self.payload.modules[name][1]
        exec(self.payload.code(name), module.__dict__)

    def get_code(self, name):
        return self.payload.code(name)

    def get_source(self, name):
        if name not in self.payload.modules:
            # Tracebacks ask for `__main__`, by this name.
            raise ImportError('%s has no text here' % (name,))
        return self.payload.text(name).decode('utf-8')

    def get_filename(self, name):
        return os.path.join(self.payload.path, self.payload.modules[name][0])

    def is_package(self, name):
        return self.payload.modules[name][2]

    def get_resource_reader(self, name):
        """
        Return the reader of files that are embedded in the archive.
        """
        import zipimport
        # Such an importer is for one folder, and takes the last part of a name.
        folder = os.path.dirname(os.path.dirname(self.get_filename(name)))
        return zipimport.zipimporter(folder).get_resource_reader(name) if self.is_package(name) else None


class Finder(object):
    """
    Finds in the payload of the task at hand.
    """
    payload = None

    def find_spec(self, name, path=None, target=None):
        if self.payload is None or name not in self.payload.modules:
            return None
        loader = Loader(self.payload)
        filename = loader.get_filename(name)
        spec = ModuleSpec(name, loader, origin=filename, is_package=loader.is_package(name))
        spec.has_location = True
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(os.path.dirname(filename))
        return spec
