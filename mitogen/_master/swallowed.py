# SPDX-License-Identifier: BSD-3-Clause
"""
Errors after which the master goes on with a worse result.
"""

from __future__ import absolute_import  # house

import logging  # house
import sys  # house

import mitogen.parent  # house


#: (text, name) of each error that was logged as a warning.
_swallowed = set()


def _log_swallowed(logger, text, name):
    """
    Log the exception that is being handled, and with which name that happened.
    The first time is a warning, with a traceback, since the program works on
    and nothing else would show why it is slower or lacks something. The rest
    is for the debug log: children ask as often as they like. Any thread.

    :param logger: of the standard library.
    :param text: format with one ``%r``, for `name`.
    :param name: of the module or class that is the worse for it.
    """
    level = logging.DEBUG
    if (text, name) not in _swallowed and len(_swallowed) < mitogen.parent.ABSENT_MAX:
        _swallowed.add((text, name))
        level = logging.WARNING
    logger.log(level, text + ': %s', name, sys.exc_info()[1], exc_info=True)
