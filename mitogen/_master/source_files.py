# SPDX-License-Identifier: BSD-3-Clause
"""
Which files hold source, and how it is read.
"""

from __future__ import absolute_import  # house

import os  # house
import re  # house
import string  # house

import mitogen  # house
import mitogen.core  # house

from mitogen.master import b  # house


#: Base names that stand for a module made in memory; there is no such file.
SPECIAL_FILE_PATHS = set([
    '__synthetic__',
    '<ansible_synthetic_collection_package>',
])


#: Bytes that no text has, in whatever coding of those that Python reads: control
#: characters other than blanks. The first block of any executable has some.
_BINARY = frozenset(range(32)) - frozenset(bytearray(string.whitespace.encode('ascii'))) | frozenset([127])


def _looks_like_script(path):
    """
    Return :data:`True` if the file begins with text.
    """
    if os.path.isdir(path):
        return False
    try:
        fp = open(path, 'rb')
    except (IOError, OSError):
        return False
    try:
        return not _BINARY.intersection(bytearray(fp.read(512)))
    finally:
        fp.close()


def _py_filename(path):
    """
    Return `(path of the source, is_special)` for a module's file, or
    `(None, False)` if it has no source. A special path exists in name only.
    """
    if not path:
        return None, False
    if path[-4:] in ('.pyc', '.pyo'):
        return path[:-1], False
    if path.endswith('.py'):
        return path, False
    if os.path.basename(path) in SPECIAL_FILE_PATHS:
        return path, True
    if os.path.exists(path) and _looks_like_script(path):
        return path, False
    return None, False


def _read_file(path):
    fp = open(path, 'rb')
    try:
        return fp.read()
    finally:
        fp.close()


#: Matches the line by which a module in parts runs them.
_FURNISH_RE = re.compile(b(r'^mitogen\._house\.furnish\('), re.MULTILINE)


def _whole(fullname, path, source):
    """
    Return the source to serve for a file. In a checkout some modules
    of this package only run their parts, which a child does not have.
    """
    if fullname.startswith('mitogen.') and _FURNISH_RE.search(source):
        import mitogen._house
        source = mitogen._house.join(path).encode('utf-8')
    return source


def _to_source_bytes(source):
    if isinstance(source, mitogen.core.UnicodeType):
        source = source.encode('utf-8')
    return source
