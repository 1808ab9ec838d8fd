# SPDX-License-Identifier: BSD-3-Clause
"""
The code of modules, from the interpreter's own cache where that is possible.
"""

from __future__ import absolute_import  # house

import marshal  # house

from mitogen.master import _file_cache, _read_file  # house


def _read_cached_bytecode(path, stamp):
    """
    Return what the interpreter has cached for a file of source, or
    :data:`None`. The cache must be that of the present file.
    """
    import importlib.util
    import struct
    try:
        data = _read_file(importlib.util.cache_from_source(path))
    except (IOError, OSError, NotImplementedError, ValueError):
        return None
    expected = importlib.util.MAGIC_NUMBER + struct.pack(
        '<LLL', 0, stamp[0] // 1000000000 & 0xffffffff, stamp[1] & 0xffffffff)
    return data[16:] if data[:16] == expected else None


def _get_bytecode(fullname, path, stamp):
    """
    Return the marshalled code of a file of source. If it is not cached,
    compile it and have it cached.

    :param stamp: of the file.
    :raises Exception: it cannot be read, or does not compile.
    """
    def make():
        code = _read_cached_bytecode(path, stamp)
        if code is None:
            import importlib.machinery
            loader = importlib.machinery.SourceFileLoader(fullname, path)
            code = marshal.dumps(loader.get_code(fullname))
        return code

    return _file_cache.get(path, stamp, 'bytecode', make)


def _with_head(bytecode):
    """
    Return bytecode as a file of the interpreter's cache has it. The time and
    size of the source are left out.
    """
    import importlib.util
    return importlib.util.MAGIC_NUMBER + bytes(bytearray(12)) + bytecode
