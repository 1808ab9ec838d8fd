# SPDX-License-Identifier: BSD-3-Clause
"""
Errors after which the master goes on with a worse result.
"""

from __future__ import absolute_import  # house

import errno  # house
import logging  # house
import sys  # house

import mitogen.parent  # house


#: (text, name) of each error that was logged as a warning.
_swallowed = set()

#: Numbers of errors that say that there is no such file, which is no mistake.
#: An archive gives 0.
_ABSENT = (None, 0, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


def _log_swallowed(logger, text, name):
    """
    Log the exception that is being handled, and the name that it happened with.
    The first time it is a warning, with a traceback: the program goes on, and
    nothing else would show why it is slower or lacks something. Later it is for
    the debug log, since children ask as often as they like. Any thread.

    :param logger: of the standard library.
    :param text: format with one ``%r``, for `name`.
    :param name: of the module or class that could not be read or used.
    """
    level = logging.DEBUG
    if (text, name) not in _swallowed and len(_swallowed) < mitogen.parent.ABSENT_MAX:
        _swallowed.add((text, name))
        level = logging.WARNING
    logger.log(level, text + ': %s', name, sys.exc_info()[1], exc_info=True)


def _log_unreadable(logger, text, name):
    """
    Log the :class:`OSError` that is being handled as :func:`_log_swallowed`
    does, unless there is just no such file: the master goes on as if there were
    none.
    """
    if sys.exc_info()[1].errno not in _ABSENT:
        _log_swallowed(logger, text, name)
