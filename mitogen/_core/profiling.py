# SPDX-License-Identifier: BSD-3-Clause
"""
The profile of each thread.
"""

from __future__ import absolute_import  # house

import os  # house
import sys  # house

from mitogen.core import _open_own, _private_folder, _seldom, now  # house


def _profile_hook(name, func, *args):
    """Run a thread's main function. :func:`enable_profiling` replaces it."""
    return func(*args)


@_seldom
def _profile_path(ext, name, stamp):
    """
    Return the path of a file about a thread of that name.

    :raises ValueError: MITOGEN_PROFILE_FMT makes none.
    """
    template = os.environ.get('MITOGEN_PROFILE_FMT')
    try:
        return (template or os.path.join(
            _private_folder(),
            'mitogen.stats.%(pid)s.%(identity)s.%(now)s.%(ext)s')) % {
                'ext': ext, 'identity': name, 'pid': os.getpid(), 'now': stamp}
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            'MITOGEN_PROFILE_FMT is %r, and may hold %%(pid)s, %%(identity)s, '
            '%%(now)s and %%(ext)s' % (template,))


@_seldom
def enable_profiling(econtext=None):
    """Profile each thread of the library, and write the result to the files
    that `MITOGEN_PROFILE_FMT` names when the thread ends."""
    global _profile_hook
    import marshal
    import pstats
    if sys.version_info < (3, 12):
        from cProfile import Profile
    else:
        # cProfile measures all threads at once there, as if they were one, and
        # only one profile may run.
        import profile

        def Profile():
            profiler = profile.Profile(now)
            inner = profiler.dispatcher
            # While other threads are profiled, the profiler sees this function
            # return without having been called.
            profiler.dispatcher = lambda frame, event, arg: \
                arg is sys.setprofile or inner(frame, event, arg)
            return profiler

    # Now, and not at the end of a thread, when nobody is told.
    if os.environ.get('MITOGEN_PROFILE_FMT'):
        _profile_path('', '', 0)

    def _profile_thread(name, func, *args):
        profiler = Profile()
        try:
            return profiler.runcall(func, *args)
        finally:
            profiler.create_stats()
            stamp = int(now() * 1000000)

            def create(ext, mode):
                return os.fdopen(_open_own(_profile_path(ext, name, stamp)), mode)

            with create('pstats', 'wb') as fp:
                marshal.dump(profiler.stats, fp)
            with create('log', 'w') as fp:
                report = pstats.Stats(profiler, stream=fp)
                report.sort_stats('cumulative')
                report.print_stats()
                report.print_callers()

    _profile_hook = _profile_thread
