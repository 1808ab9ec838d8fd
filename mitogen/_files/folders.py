# SPDX-License-Identifier: BSD-3-Clause
"""
Folders that a program elsewhere has made and removed.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import os
import shutil
import tempfile

from mitogen._files import expanded, telling
from mitogen.core import Blob


def make_folder(path, mode, parents, exist_ok):
    """
    Make a folder, and with `parents` those that it lies in.
    """
    path = expanded(path)
    above = os.path.dirname(path.rstrip(b'/')) or b'.'
    with telling(path):
        if parents and not os.path.isdir(above):
            make_folder(above, 0o777, True, True)
        try:
            os.mkdir(path, mode)
        except OSError:
            if not exist_ok or not os.path.isdir(path):
                raise


def make_own_folder(prefix):
    """
    Make a folder that no other user may enter, and return its path.
    """
    with telling(prefix):
        return Blob(tempfile.mkdtemp(prefix=bytes(prefix)))


def remove_tree(path):
    """
    Remove a folder and all that lies in it, as far as that is allowed.
    """
    shutil.rmtree(path, ignore_errors=True)
