# SPDX-License-Identifier: BSD-3-Clause
"""
The source of this module.
"""

from __future__ import absolute_import  # house

from mitogen.core import _REDUCED  # house


# The bootstrap sets this before it executes the text it was sent; it stays
# None where the module was imported from a file.
if not _REDUCED:
    _core_source = globals().get('_core_source')


def get_core_source():
    """
    Return the source of this module as bytes, as a child of this process may
    be given it: the text that this process was sent, or the installed file.
    """
    if not _REDUCED:
        if not _core_source:
            path = __file__
            if path[-4:] in ('.pyc', '.pyo'):
                path = path[:-1]
            read = getattr(globals().get('__loader__'), 'get_data', None)
            if read:
                # Also right for a package inside a zip file.
                return read(path)
            with open(path, 'rb') as fp:
                return fp.read()
    return _core_source
