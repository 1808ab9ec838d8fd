# SPDX-License-Identifier: BSD-3-Clause
"""
Poller: wait for descriptors with select().
"""

from __future__ import absolute_import  # house

from mitogen.core import _REDUCED, io_op  # house


if _REDUCED:
    import select
if not _REDUCED:
    def _import_select():
        global select
        import select


class Poller(object):
    """
    Wait for descriptors with select(2). Also the base of the other pollers.

    One thread at a time. A `poll()` does not report a descriptor that was
    registered after it began: the number may mean another file by then.
    """
    SUPPORTED = True

    def __init__(self):
        #: fd -> (data, number of the poll() before registration).
        self._rfds = {}
        self._wfds = {}
        self._generation = 1
        # A child on the compiled core never needs it. It is kept then, since eventlet puts another
        # module in its place for a while, when a program imports eventlet.
        if not _REDUCED and not getattr(self, 'native', False):
            _import_select()

    @property
    def readers(self):
        """List of (fd, data) watched for reading."""
        return [(fd, data) for fd, (data, _) in list(self._rfds.items())]

    @property
    def writers(self):
        """List of (fd, data) watched for writing."""
        return [(fd, data) for fd, (data, _) in list(self._wfds.items())]

    def close(self):
        """Release what the poller holds. Repeatable."""
        pass

    def start_receive(self, fd, data=None):
        """Report `data`, or the fd itself, whenever `fd` can be read."""
        self._rfds[fd] = data or fd, self._generation

    def stop_receive(self, fd):
        """Undo `start_receive`, if there was one."""
        self._rfds.pop(fd, None)

    def start_transmit(self, fd, data=None):
        """Report `data`, or the fd itself, whenever `fd` can be written."""
        self._wfds[fd] = data or fd, self._generation

    def stop_transmit(self, fd):
        """Undo `start_transmit`, if there was one."""
        self._wfds.pop(fd, None)

    def poll(self, timeout=None):
        """Return an iterable of the data of ready descriptors, after at most
        `timeout` seconds."""
        self._generation += 1
        return self._poll(timeout)

    def _poll(self, timeout):
        ready, _ = io_op(select.select, list(self._rfds), list(self._wfds),
                         (), timeout)
        for fds, table in (ready[0], self._rfds), (ready[1], self._wfds):
            for fd in fds:
                data, generation = table.get(fd, (None, self._generation))
                if generation < self._generation:
                    yield data
