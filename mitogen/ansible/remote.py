# SPDX-License-Identifier: BSD-3-Clause
"""
Functions that the daemon calls in the context of a host: the hub, and files.
"""

from __future__ import absolute_import

import os
import stat

import mitogen.core
import mitogen.ansible.fragments
import mitogen.ansible.hub

#: The hub of this context, once there is one.
HUB = None

#: Digest -> archive of a module, as it stands in a file.
ARCHIVES = {}


def begin(source):
    """
    Make the hub.

    :param bytes source: the text of zygotes.
    """
    global HUB
    HUB = mitogen.ansible.hub.Hub(bytes(source))


def request(sender, key, start, number, frame, digests):
    """
    See :meth:`mitogen.ansible.hub.Hub.request`. The answers go to `sender`.
    """
    def answer(data):
        try:
            sender.send(mitogen.core.Blob(data))
        except mitogen.core.Error:
            # The link is gone, and with it the process that asked.
            pass

    HUB.request(answer, key, start, number, bytes(frame), digests)


def add_payload(digest, name, members, texts):
    """
    :param texts: list of (digest, text).
    """
    HUB.add_payload(digest, name, [tuple(member) for member in members],
                    dict((key, bytes(text)) for key, text in texts))


def say(key, data):
    HUB.say(key, bytes(data))


def cancel(key, number):
    HUB.cancel(key, number)


def fragment(operation):
    """
    See :func:`mitogen.ansible.fragments.perform`.
    """
    return mitogen.ansible.fragments.perform(operation)


def put(path, mode, data, first):
    """
    Write a piece of a file; the first one makes it, or makes it empty.
    """
    flags = os.O_WRONLY | (os.O_CREAT | os.O_TRUNC if first else os.O_APPEND)
    fd = os.open(os.path.expanduser(path), flags, mode)
    try:
        data = memoryview(bytes(data))
        while data:
            data = data[os.write(fd, data):]
    finally:
        os.close(fd)


def keep_archive(digest, archive):
    """
    Keep the archive of a module, which comes again and again.
    """
    ARCHIVES[bytes(digest)] = archive


def put_module(path, mode, head, digest, tail):
    """
    Write a module with an archive in it that was kept.
    """
    put(path, mode, head, True)
    put(path, mode, ARCHIVES[bytes(digest)], False)
    put(path, mode, tail, False)


def describe(path):
    """
    Return (size, permissions) of a regular file.

    :raises ValueError: it is something else.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError('not a regular file')
    return found.st_size, found.st_mode & 0o777


def get(path, offset, size):
    """
    Return a piece of a file.
    """
    with open(path, 'rb') as fp:
        fp.seek(offset)
        return mitogen.core.Blob(fp.read(size))
