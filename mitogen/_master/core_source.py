# SPDX-License-Identifier: BSD-3-Clause
"""
The source of the core as children are sent it: minified, or shrunk for their
kind.
"""

from __future__ import absolute_import  # house

import binascii  # house
import zlib  # house

import mitogen  # house
import mitogen.core  # house
import mitogen.parent  # house

from mitogen.master import _log_swallowed, LOG  # house


#: The core's source as children get it, once a child has needed it.
_core_source = None

_get_full_core_source = None


def _mark_of(source):
    """
    Return text that differs for different sources.

    :param source: text or bytes.
    """
    if not isinstance(source, bytes):
        source = source.encode('utf-8')
    return '%d-%08x' % (len(source), zlib.crc32(source) & 0xffffffff)


def _made_before(key):
    """
    Return the texts that were made of the core's source when this package was built, as a list: to
    make them takes longer than a short program runs. None if there are none, or the source is
    another one now.

    :param key: :data:`None` for the minified source, and otherwise (py3, whole).
    """
    try:
        from mitogen import _core_texts
    except ImportError:
        return None
    if _core_texts.SOURCE != _mark_of(_get_full_core_source()) or key not in _core_texts.TEXTS:
        return None
    return [text and zlib.decompress(binascii.a2b_base64(text)).decode('utf-8') for text in _core_texts.TEXTS[key]]


def _minified_before(fullname, source):
    """
    Return the minified source of a module of this package, as bytes, that was made when the package
    was built. None if there is none, or the source is another one now.

    :param bytes source: what the module has now.
    """
    try:
        from mitogen import _core_texts
    except ImportError:
        return None
    mark, text = _core_texts.MODULES.get(fullname, (None, None))
    return zlib.decompress(binascii.a2b_base64(text)) if mark == _mark_of(source) else None


def _get_core_source():
    """
    Return the source of the core, minified, in the type that
    :func:`mitogen.parent._get_core_source` has. Any thread. The core on disk
    is read once: a child must run what this process runs, even if it is
    upgraded meanwhile.
    """
    global _core_source
    if _core_source is None:
        full = _get_full_core_source()
        kept = _made_before(None)
        if kept:
            source = kept[0]
        else:
            import mitogen.minify
            source = mitogen.minify.minimize_source(full, fill=True)
        if isinstance(full, bytes):
            source = source.encode('utf-8')
        _core_source = source
    return _core_source


def _reduce_core_source(py3, whole):
    """
    Return the two texts that :data:`mitogen.parent._reduce_core_source`
    describes.
    """
    # A program may have replaced the function.
    kept = _made_before((py3, whole)) if mitogen.parent._get_core_source is _get_core_source else None
    if kept:
        return tuple(kept)
    try:
        return _make_reduced(py3, whole)
    except ImportError:
        # PyPy has no symbol tables.
        LOG.debug('cannot reduce the core', exc_info=True)
    except Exception:
        _log_swallowed(LOG, 'cannot reduce %r, so children are sent twice as '
                       'much', 'mitogen.core')
    # The whole text then, since a child may pass it on to a child of the other
    # kind.
    return mitogen.core.to_text(mitogen.parent._get_core_source()), None


def _make_reduced(py3, whole):
    import mitogen._shrink
    source = mitogen.parent._get_core_source()
    constants = {'PY3': py3, '_REDUCED': True}
    text = source.replace(mitogen.parent._FUTURE, b'') if py3 else source
    if whole:
        return mitogen._shrink.shrink_source(text, constants), None
    return mitogen._shrink.divide_source(text, constants)


if mitogen.is_master and \
        mitogen.parent._get_core_source.__module__ != __name__:
    _get_full_core_source = mitogen.parent._get_core_source
    mitogen.parent._get_core_source = _get_core_source
    mitogen.parent._reduce_core_source = _reduce_core_source
