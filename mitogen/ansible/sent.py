# SPDX-License-Identifier: BSD-3-Clause
"""
Modules that a task sends as files, since Ansible starts asynchronous tasks by the names of these.
"""

from __future__ import absolute_import

import os

import mitogen.ansible.payload
from mitogen.ansible.values import plain

#: The module that starts and watches another one.
WRAPPER = 'async_wrapper'

#: Begin the names of files with a module and its archive.
NAMES = ('AnsiballZ_', WRAPPER)


def is_module(path):
    """
    Return whether Ansible gives such a name to a module with an archive.
    """
    return os.path.basename(path).startswith(NAMES)


class Sent(object):
    """
    The modules that a worker has sent.
    """

    def __init__(self):
        self.payloads = {}  # path on the target -> (interpreter, Payload)

    def note(self, local, path):
        """
        Remember a file that is about to be sent, if it is such a module.
        """
        path = plain(path)
        if not is_module(path):
            return
        with open(local, 'rb') as fp:
            data = fp.read()
        payload = mitogen.ansible.payload.take_apart(data)
        if payload is not None:
            line = data.partition(b'\n')[0].decode('utf-8', 'replace')
            self.payloads[path] = line[2:].strip(), payload

    def read_command(self, words):
        """
        Return (payload of the wrapper, that of the module or None) if these words start an
        asynchronous task, or None. The payloads know the arguments of their programs.
        """
        interpreter, wrapper = self.payloads.get(words[1], ('', None)) if len(words) > 4 else ('', None)
        if wrapper is None or wrapper.name.rpartition('.')[2] != WRAPPER or words[0] != interpreter:
            return None
        wrapper.call['argv'] = words[1:]
        for word in reversed(words[2:]):
            # Modules in other styles are run by the wrapper as it always does.
            interpreter, inner = self.payloads.get(word, ('', None))
            if inner is not None and words[0] == interpreter:
                inner.call['argv'] = [word]
                return wrapper, inner
        return wrapper, None
