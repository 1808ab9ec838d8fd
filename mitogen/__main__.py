# SPDX-License-Identifier: BSD-3-Clause
"""
``python -m mitogen``: tell which core this interpreter uses, and why.
"""

from __future__ import absolute_import

import os
import sys
import warnings

import mitogen
import mitogen.core

# If this Python cannot have an extension, say so instead of proposing a
# compiler.
OLDEST_NATIVE = (3, 9)


def reasons():
    """
    Return why the native core is not in use, as a list of lines.
    """
    if os.environ.get('MITOGEN_CORE', '').lower() == 'pure':
        return ['MITOGEN_CORE=pure is set in the environment',
                'remedy: unset it']
    if sys.version_info < OLDEST_NATIVE or not hasattr(sys, 'implementation') \
            or sys.implementation.name != 'cpython':
        return ['the extension needs CPython %d.%d or newer' % OLDEST_NATIVE,
                'remedy: none on this interpreter; the pure core does the '
                'same job']
    lines = []
    try:
        with warnings.catch_warnings():
            # The warning was shown when mitogen.core was imported.
            warnings.simplefilter('ignore')
            from mitogen import _native
        why = getattr(_native, 'why_not', None)
        lines += [why()] if callable(why) else []
    except Exception:
        lines.append('mitogen._native: %s' % (sys.exc_info()[1],))
    try:
        # A name, not the bare module: an unbuilt checkout imports as an
        # empty namespace package.
        from _mitogen_core import __version__ as found
        wanted = '.'.join(map(str, mitogen.__version__))
        if found != wanted:
            lines.append('_mitogen_core is %s, the package is %s'
                         % (found, wanted))
    except Exception:
        lines.append('_mitogen_core: %s' % (sys.exc_info()[1],))
    try:
        # Left by a build that went on without the extension.
        from mitogen._build import REASON
        lines.append(REASON)
    except ImportError:
        pass
    lines = [line for line in lines if line]
    if not any('pip install' in line for line in lines):
        # By path: the name alone may get upstream's.
        lines.append('remedy: python -m pip install --force-reinstall PATH, '
                     'of a wheel, or of the source with a C compiler and '
                     'libev at hand')
    return lines


def main():
    print('mitogen %s' % '.'.join(map(str, mitogen.__version__)))
    print('python  %s (%s)' % (sys.version.split()[0], sys.executable))
    print('core    %s' % mitogen.core.CORE)
    if mitogen.core.CORE == 'pure':
        for line in reasons():
            print('        %s' % line)


if __name__ == '__main__':
    main()
