# SPDX-License-Identifier: BSD-3-Clause
"""
The modules that a daemon sends to every host, kept from run to run.

A master looks for the modules that a child will need, and makes them smaller. That takes longer
than all that a daemon does for a short play. The results are kept in the user's folder of Ansible,
and are used again only while every file of this package is the same. The core's own text comes with
the package.
"""

from __future__ import absolute_import

import contextlib
import marshal
import os
import sys

import mitogen
import mitogen.ansible.folder
import mitogen.master

#: Of the format: a file that another one has written is not read.
MARSHAL = 4

#: Answers to requests for modules that are kept, and bytes of them: kinds of hosts are few.
MOST_ANSWERS, MOST_BYTES = 32, 4 << 20


class Kept(object):
    """
    :param str folder: where the file is. Empty: nothing is kept.
    """

    def __init__(self, folder):
        self.answers = {}
        self.path = folder and os.path.join(folder, 'daemon-%d.%d.%d' % sys.version_info[:3])
        self.stamp = self.path and stamp()

    def load(self, router):
        """
        Give a router what an earlier run's has made. Any failure means that it is made anew.
        """
        with contextlib.suppress(IOError, OSError, ValueError, EOFError, TypeError):
            if self.path:
                self.answers = read(self.path, self.stamp)
        self.before = set(self.answers)
        kept = router.responder._shipments._kept
        for key, answer in self.answers.items():
            kept[key] = [(data, [mitogen.master._Parcel(*parcel) for parcel in parcels]) for data, parcels in answer]

    def save(self, router):
        """
        Keep what the router has made besides. Its broker has ended.
        """
        for key, answer in router.responder._shipments._kept.items():
            if not any(parcel.load for _, parcels in answer for parcel in parcels):
                self.answers[key] = [(data, [tuple(parcel) for parcel in parcels]) for data, parcels in answer]
        while len(self.answers) > MOST_ANSWERS:
            del self.answers[next(iter(self.answers))]
        if not self.path or self.before == set(self.answers):
            return
        with contextlib.suppress(IOError, OSError, ValueError):
            data = marshal.dumps((self.stamp, self.answers), MARSHAL)
            if len(data) < MOST_BYTES:
                mitogen.ansible.folder.write(self.path, data)


def stamp():
    """
    Return a value that changes with any file of this package, and with the interpreter.
    """
    found = []
    for base, folders, names in os.walk(os.path.dirname(os.path.abspath(mitogen.__file__))):
        folders[:] = [name for name in folders if name != '__pycache__']
        for name in names:
            path = os.path.join(base, name)
            status = os.stat(path)
            found.append((path, status.st_mtime_ns, status.st_size))
    return sys.version, tuple(sorted(found))


def read(path, stamp):
    """
    :raises ValueError: the file is not to be used.
    """
    with open(path, 'rb') as fp:
        status = os.fstat(fp.fileno())
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            # It becomes code on hosts.
            raise ValueError('others may write to %s' % (path,))
        found, answers = marshal.loads(fp.read())
    if found != stamp:
        raise ValueError('it was made from other files')
    return answers

