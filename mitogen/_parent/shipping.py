# SPDX-License-Identifier: BSD-3-Clause
"""
The word of the environment that says which code children are sent.
"""

from __future__ import absolute_import  # house

import os  # house


#: Word of MITOGEN_SHIP -> the choice: empty for code where it is not installed, 'always' for code
#: in any case, 'source' for code that is never compiled, 'core' for the whole package with the
#: compiled core.
_SHIP_CHOICES = {
    '': '', '0': '', 'no': '', 'off': '', 'false': '',
    '1': 'always', 'yes': 'always', 'on': 'always', 'true': 'always',
    'source': 'source', 'core': 'core',
}


def _ship_choice():
    """
    Return what MITOGEN_SHIP chooses. Any thread.

    :raises ValueError: it is none of the words.
    """
    word = os.environ.get('MITOGEN_SHIP', '')
    try:
        return _SHIP_CHOICES[word.strip().lower()]
    except KeyError:
        raise ValueError('MITOGEN_SHIP is %r, and must be "1" or "0", "source" or "core", or not set' % (word,))
