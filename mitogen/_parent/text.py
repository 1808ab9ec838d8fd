# SPDX-License-Identifier: BSD-3-Clause
"""
Texts for people: of exceptions, exit statuses and defaults.
"""

from __future__ import absolute_import  # house

import getpass  # house
import logging  # house
import os  # house
import socket  # house
import sys  # house

import mitogen.core  # house
from mitogen.core import to_text  # house
from mitogen.parent import LOG, SIGNAL_BY_NUM, SYS_EXECUTABLE_MSG  # house


def make_secret(password):
    """
    Return `password`, text or UTF-8 bytes, as text that logs do not show. None
    stays None.
    """
    if password is None:
        return None
    return mitogen.core.Secret(to_text(password))


def get_log_levels(loggers=('', 'mitogen', 'mitogen.io')):
    """
    Return the effective numeric levels of `loggers`, in that order. A child
    gets them at its start, so that it sends no record that nobody wants.
    """
    return [logging.getLogger(name).getEffectiveLevel() for name in loggers]


_warned_sys_executable = False


def get_sys_executable():
    """
    Return the path of the running interpreter, or a guess (and one warning
    for the life of the process) where Python does not know it.
    """
    global _warned_sys_executable
    if sys.executable:
        return sys.executable
    if not _warned_sys_executable:
        _warned_sys_executable = True
        LOG.warning(SYS_EXECUTABLE_MSG)
    return '/usr/bin/python'


def get_default_remote_name():
    """
    Return ``<login user>@<hostname>:<pid>`` as text, fit to be part of a
    process title: it contains neither kind of slash.
    """
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):
        # A uid without an entry in the user database, as containers have.
        user = os.getuid()
    name = u'%s@%s:%d' % (
        to_text(user), to_text(socket.gethostname()), os.getpid())
    return name.replace(u'/', u'_').replace(u'\\', u'_')


def is_immediate_child(msg, stream):
    """
    Handler policy: accept messages only from the context at the other end of
    the stream they came in on, be it a child or the parent.
    """
    return stream is not None and msg.src_id == stream.protocol.remote_id


def returncode_to_str(n):
    """
    Describe a `subprocess` style return code for people.
    """
    if n >= 0:
        return 'exited with return code %d' % (n,)
    signum = -n
    return 'exited due to signal %d (%s)' % (
        signum, SIGNAL_BY_NUM.get(signum))
