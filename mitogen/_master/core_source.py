# SPDX-License-Identifier: BSD-3-Clause
"""
The source of the core as children are sent it: minified, or shrunk for their
kind.
"""

from __future__ import absolute_import  # house

import mitogen  # house
import mitogen.core  # house
import mitogen.parent  # house

from mitogen.master import _log_swallowed, LOG  # house


#: The core's source as children get it, once a child has needed it.
_core_source = None

_get_full_core_source = None


def _get_core_source():
    """
    Return the source of the core, minified, in the type that
    :func:`mitogen.parent._get_core_source` has. Any thread. The core on disk
    is read once: a child must run what this process runs, even if it is
    upgraded meanwhile.
    """
    global _core_source
    if _core_source is None:
        import mitogen.minify
        full = _get_full_core_source()
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
    import mitogen._shrink
    source = mitogen.parent._get_core_source()
    constants = {'PY3': py3, '_REDUCED': True}
    try:
        text = source.replace(mitogen.parent._FUTURE, b'') if py3 else source
        if whole:
            return mitogen._shrink.shrink_source(text, constants), None
        return mitogen._shrink.divide_source(text, constants)
    except ImportError:
        # PyPy has no symbol tables.
        LOG.debug('cannot reduce the core', exc_info=True)
    except Exception:
        _log_swallowed(LOG, 'cannot reduce %r, so children are sent twice as '
                       'much', 'mitogen.core')
    # The whole text then, since a child may pass it on to a child of the other
    # kind.
    return mitogen.core.to_text(source), None


if mitogen.is_master and \
        mitogen.parent._get_core_source.__module__ != __name__:
    _get_full_core_source = mitogen.parent._get_core_source
    mitogen.parent._get_core_source = _get_core_source
    mitogen.parent._reduce_core_source = _reduce_core_source
