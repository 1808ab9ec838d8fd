# SPDX-License-Identifier: BSD-3-Clause
"""
Options: those that every connection method takes, and their defaults.
"""

from __future__ import absolute_import  # house

import getpass  # house
import os  # house
import re  # house
import socket  # house
import sys  # house

import mitogen.core  # house
from mitogen.core import to_text  # house
from mitogen.parent import LOG  # house


SYS_EXECUTABLE_MSG = (
    'sys.executable is empty, so the path of this Python is not known; '
    'children are started with /usr/bin/python instead.'
)


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


def make_secret(password):
    """
    Return `password`, text or UTF-8 bytes, as text that logs do not show. None
    stays None.
    """
    if password is None:
        return None
    return mitogen.core.Secret(to_text(password))


class Options(object):
    """
    The options that each connection method has.

    :param int max_message_size: bytes; the child takes it over.
    :param name: name of the context; made up by the method if None.
    :param remote_name: what the child's process title says, without slashes.
    :param python_path: interpreter to run: a path, or a list that begins the
        command line.
    :param bool debug: let the child write a debug log to a file.
    :param connect_timeout: seconds until the child must be ready. They count
        from now.
    :param bool profiling: let the child write profiles.
    :param bool unidirectional: the child routes only upwards and downwards.
    :param old_router: used by the method fork.
    :raises ValueError: slash in `remote_name`, or a dash before a word that a
        tool would then take for an option of its own.
    """
    name = None
    python_path = get_sys_executable()
    connect_timeout = 30.0

    def __init__(self, max_message_size, name=None, remote_name=None,
                 python_path=None,      # text or list
                 debug=False,
                 connect_timeout=None,  # seconds, more than zero
                 profiling=False, unidirectional=False, old_router=None):
        if remote_name is None:
            title = get_default_remote_name()
        else:
            title = to_text(remote_name)
        if re.search(u'[/\\\\]', title):
            # Python finds its own installation by the title, so that must be
            # its path.
            raise ValueError('remote_name must not contain slashes: %r'
                             % (title,))

        self.name = name
        self.remote_name = title
        self.max_message_size = max_message_size
        self.old_router = old_router
        self.debug, self.profiling = debug, profiling
        self.unidirectional = unidirectional
        # The defaults are attributes of the class, which methods override.
        self.python_path = python_path or self.python_path
        self.connect_timeout = connect_timeout or self.connect_timeout
        self.connect_deadline = mitogen.core.now() + self.connect_timeout
        self._refuse_dash('python_path')

    def _refuse_dash(self, *names):
        """
        Refuse options whose values begin with a dash. They are names that may
        come from others, and the tools are given them as words.

        :param names: attributes: None, text, or a list that begins with text.
        :raises ValueError: there is one.
        """
        for name in names:
            value = getattr(self, name)
            if isinstance(value, (list, tuple)):
                value = value[0] if value else None
            if value is not None and to_text(value).startswith(u'-'):
                raise ValueError(
                    '%s=%r begins with a dash, so a program would take it for '
                    'an option of its own. Name it in another way: by an '
                    'absolute path, a number, or an alias.' % (name, value))
