# SPDX-License-Identifier: BSD-3-Clause
"""
The importer as a loader: facts about modules that came from the parent.
"""

from __future__ import absolute_import  # house

import errno  # house
import os  # house

from mitogen.core import _SELDOM, Importer  # house


# No program asks before the first module has come, and the rest of this text
# with it.
if _SELDOM:
    def _is_package(self, fullname):
        """Tell whether a module is a package.

        :raises ImportError: it did not come from the parent."""
        if self.get_filename(fullname) is None:
            raise ImportError(self.absent_msg % (fullname,))
        return self._cache[fullname][1] is not None

    def _get_code(self, fullname):
        """Return the code of a module, None if its source cannot be had.

        :raises ImportError: it did not come from the parent."""
        self.is_package(fullname)
        source = self.get_source(fullname)
        if source is not None:
            return compile(source, self.get_filename(fullname), 'exec', 0, 1)

    def _get_data(self, path):
        """Return the content of a file in a package, as bytes.

        :param path: beside the `__file__` of the package.
        :raises OSError: there is none."""
        promises = vars(self).get('_promises')
        if promises:
            path = promises.at_parent(path)
        best = name = ''
        for package in list(self._present):
            if not self.is_package(package):
                continue
            folder = os.path.dirname(self.get_filename(package)) + '/'
            if path.startswith(folder) and len(folder) > len(best):
                best, name = folder, package
        content = self._resource_requester._get_resource(
            name, path[len(best):]) if name else None
        if content is None:
            raise IOError(errno.ENOENT, 'the parent has no such file', path)
        return content

    Importer.is_package = _is_package
    Importer.get_code = _get_code
    Importer.get_data = _get_data
