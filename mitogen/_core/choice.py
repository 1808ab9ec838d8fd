# SPDX-License-Identifier: BSD-3-Clause
"""
The choice of the core: whether a class with two leaves becomes the pure one or the compiled one.
"""

from __future__ import absolute_import  # house

import os  # house
import sys  # house

from mitogen.core import _core_source, _REDUCED, LOG, thread  # house


#: Which core this process uses: 'pure' or 'native'.
CORE = 'pure'
if not _REDUCED:
    def _has_green_threads():
        """
        Return whether gevent or eventlet has put threads of its own in the
        place of the interpreter's: they share one thread of the system, and a
        wait in compiled code keeps it from all of them. Tracers replace how
        threads are started, so this looks at a lock instead.
        """
        return type(thread.allocate_lock) is not type(len)

    #: gevent and eventlet cannot patch later: threads and locks made by then
    #: would stay as they are.
    _had_green_threads = _has_green_threads()

    def _threads_were_patched_late():
        return _has_green_threads() and not _had_green_threads

    def _find_native():
        """
        Return :mod:`mitogen._native` if this process uses the compiled core, None
        if it uses the pure one.

        :raises ImportError: MITOGEN_CORE is 'native', and it cannot be had; or it
            is something else than the two.
        """
        wanted = os.environ.get('MITOGEN_CORE', '').lower()
        if wanted not in ('', 'auto', 'native', 'pure'):
            raise ImportError('MITOGEN_CORE is %r, and must be "pure" or "native", '
                              'or not set' % (os.environ['MITOGEN_CORE'],))
        # A text that the bootstrap has sent has no extension beside it.
        if _core_source or wanted == 'pure':
            return None
        if _had_green_threads:
            if wanted == 'native':
                raise ImportError('MITOGEN_CORE is "native", but threads are '
                                  'patched (by gevent or eventlet), and only the '
                                  'pure core can wait in such threads')
            return None
        try:
            # Imported in a function: else a child that imports this module
            # would be sent it, too.
            from mitogen import _native
        except ImportError:
            e = sys.exc_info()[1]
            if wanted == 'native':
                raise
            # If there is no extension, say nothing. If the system cannot load
            # one, say so, as it was meant to be used.
            if str(getattr(e, 'path', None)).endswith('.so'):
                LOG.warning('the compiled core cannot be loaded, so the pure '
                            'core is used: %s', e)
            return None
        return _native

    _native = _find_native()
    if _native:
        CORE = 'native'
    #: Name -> pure leaf, also where the compiled one is used.
    _pure = {}

    def _chosen(leaf):
        """Decorate the pure leaf of a class of which there are two. The name
        becomes the leaf of the core that this process uses."""
        _pure[leaf.__name__] = leaf
        return getattr(_native, leaf.__name__, leaf)
