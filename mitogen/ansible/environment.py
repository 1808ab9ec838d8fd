# SPDX-License-Identifier: BSD-3-Clause
"""
The variables that a process was given. Also a part of the text of a zygote; see `zygote.py`.
"""

import os

#: Values of `LC_CTYPE` that an interpreter sets for itself where the locale is C.
COERCED = ('C.UTF-8', 'C.utf8', 'UTF-8')


def given():
    """
    Return the environment without the locale that our interpreter has added. A shell of Ansible's
    has no interpreter above it, and another locale means other words in messages.
    """
    found = dict(os.environ)
    if found.get('LC_CTYPE') in COERCED:
        try:
            with open('/proc/self/environ', 'rb') as fp:
                first = fp.read().split(b'\0')
        except OSError:
            # This system does not tell.
            return found
        if not any(item.startswith(b'LC_CTYPE=') for item in first):
            del found['LC_CTYPE']
    return found
