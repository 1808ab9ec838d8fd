"""
Hashes and indexes files that it is sent.
"""

import hashlib
import logging
import os
import platform

import mitogen.core

from demo_pkg import names

LOG = logging.getLogger(__name__)


def describe():
    """
    Return (process id, core, version of Python) of the context this runs in.
    """
    LOG.info('process %d is ready, with code from %s', os.getpid(), __file__.replace(os.getcwd() + '/', ''))
    return os.getpid(), mitogen.core.CORE, platform.python_version()


def index_files(results, files):
    """
    Index some files, and send what is found in each as soon as it is known.

    :param mitogen.core.Sender results:
        Gets one (path, SHA-256, lines, definitions) for each file.
    :param files:
        List of (path, content).
    :returns:
        How many bytes there were.
    """
    size = 0
    for path, content in files:
        size += len(content)
        defined = []
        if path.endswith('.py'):
            defined = names.definitions(content)
            try:
                content.decode('utf-8')
            except UnicodeDecodeError:
                LOG.warning('%s is Python, but not UTF-8', path)
        digest = hashlib.sha256(content).hexdigest()
        results.send((path, digest, content.count(b'\n'), defined))
    return size
