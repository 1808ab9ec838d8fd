# SPDX-License-Identifier: BSD-3-Clause
"""
Pollers: poll(), epoll and kqueue, and which one is used.
"""

from __future__ import absolute_import  # house

import errno  # house
import math  # house
import select  # house

import mitogen.core  # house
from mitogen.parent import LOG  # house


#
# Pollers
#

class _TablePoller(mitogen.core.Poller):
    """
    Base of the pollers below: which descriptors are registered, and since when.

    Each registration remembers the generation it was made in, and `poll`
    opens a new one. A descriptor that was registered since then may be another
    file under the number that an event is about, so it yields nothing until
    the next call. All of them are level triggered, so nothing is lost by that.

    `mitogen.core.Poller` is the base for :func:`isinstance` only.
    """
    def __init__(self):
        self._generation = 1
        self._rfds = {}   # fd -> (data, generation)
        self._wfds = {}
        self._known = set()   # fds that the kernel watches for us

    @property
    def readers(self):
        return [(fd, data) for fd, (data, _) in list(self._rfds.items())]

    @property
    def writers(self):
        return [(fd, data) for fd, (data, _) in list(self._wfds.items())]

    def _change(self, fd):
        """Tell the kernel which events of `fd` are wanted now."""
        raise NotImplementedError()

    def _interest(self, fd, read_bit, write_bit):
        """Return those of two bits whose events are wanted of `fd`."""
        return ((fd in self._rfds and read_bit) |
                (fd in self._wfds and write_bit))

    def _note(self, fd, mask):
        """Remember whether the kernel watches `fd` now."""
        if mask:
            self._known.add(fd)
        else:
            self._known.discard(fd)

    def _wait(self, timeout):
        """Wait; return a list of (fd, readable, writable)."""
        raise NotImplementedError()

    def start_receive(self, fd, data=None):
        self._rfds[fd] = (data or fd, self._generation)
        self._change(fd)

    def stop_receive(self, fd):
        if self._rfds.pop(fd, None):
            self._change(fd)

    def start_transmit(self, fd, data=None):
        self._wfds[fd] = (data or fd, self._generation)
        self._change(fd)

    def stop_transmit(self, fd):
        if self._wfds.pop(fd, None):
            self._change(fd)

    def close(self):
        pass

    def poll(self, timeout=None):
        """
        Return an iterator over the data of files that are ready. The wait,
        of `timeout` seconds or for ever, begins with the first step.
        """
        self._generation += 1
        return self._ready(timeout, self._generation)

    def _ready(self, timeout, generation):
        for fd, readable, writable in self._wait(timeout):
            # Looked up one by one: the consumer changes the tables between
            # two steps.
            if readable:
                entry = self._rfds.get(fd)
                if entry and entry[1] < generation:
                    yield entry[0]
            if writable:
                entry = self._wfds.get(fd)
                if entry and entry[1] < generation:
                    yield entry[0]


def _timeout_ms(timeout):
    """Round up, or a loop wakes just before its timer is due, and spins. A
    wait of more than the system's 24 days looks again in between."""
    return int(math.ceil(min(timeout, 1e6) * 1000))


class PollPoller(_TablePoller):
    """
    Poller on :func:`select.poll`: no limit on descriptor numbers, and no
    descriptor of its own, so it is cheap to make.
    """
    SUPPORTED = hasattr(select, 'poll')

    def __init__(self):
        super(PollPoller, self).__init__()
        self._pollobj = select.poll()
        # Errors wake a poll unasked. The caller learns of them by trying to
        # read or write.
        self._readmask = select.POLLIN | select.POLLHUP | select.POLLERR
        self._writemask = select.POLLOUT | select.POLLERR

    def _change(self, fd):
        mask = self._interest(fd, select.POLLIN, select.POLLOUT)
        if mask:
            self._pollobj.register(fd, mask)
        elif fd in self._known:
            self._pollobj.unregister(fd)
        self._note(fd, mask)

    def _drop_closed(self, fd):
        # If it stays registered, a number that the program has closed makes
        # each poll return at once.
        LOG.debug('%r: fd %d was closed while registered', self, fd)
        for table in self._rfds, self._wfds:
            table.pop(fd, None)
        self._change(fd)

    def _wait(self, timeout):
        limit = None if timeout is None else _timeout_ms(timeout)
        events, _ = mitogen.core.io_op(self._pollobj.poll, limit)
        ready = []
        for fd, event in events or ():
            if event & select.POLLNVAL:
                self._drop_closed(fd)
            else:
                ready.append((fd, event & self._readmask,
                              event & self._writemask))
        return ready


class EpollPoller(_TablePoller):
    """
    Poller on Linux epoll: the cost of a call follows the number of events.
    """
    SUPPORTED = hasattr(select, 'epoll')
    _max_events = 32

    def __init__(self):
        super(EpollPoller, self).__init__()
        self._epoll = select.epoll(self._max_events)
        mitogen.core.set_cloexec(self._epoll.fileno())
        self._readmask = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
        self._writemask = select.EPOLLOUT | select.EPOLLERR

    def close(self):
        self._epoll.close()

    def _change(self, fd):
        mask = self._interest(fd, select.EPOLLIN, select.EPOLLOUT)
        known = fd in self._known
        self._note(fd, mask)
        if known:
            try:
                if mask:
                    self._epoll.modify(fd, mask)
                else:
                    self._epoll.unregister(fd)
                return
            except (IOError, OSError) as e:
                # The kernel forgets a file that is closed, so this is a new
                # one under an old number, or none.
                if e.args[0] not in (errno.ENOENT, errno.EBADF):
                    raise
        if mask:
            self._epoll.register(fd, mask)

    def _wait(self, timeout):
        if timeout is None:
            timeout = -1
        else:
            # Python 2 truncates to milliseconds; the addition keeps it from
            # losing one to a rounding error.
            timeout = (_timeout_ms(timeout) + 0.01) / 1000
        events, _ = mitogen.core.io_op(
            self._epoll.poll, timeout, self._max_events)
        return [(fd, event & self._readmask, event & self._writemask)
                for fd, event in events or ()]


class KqueuePoller(_TablePoller):
    """
    Poller on the kqueue of macOS and the BSDs.
    """
    SUPPORTED = hasattr(select, 'kqueue')
    _max_events = 32

    def __init__(self):
        super(KqueuePoller, self).__init__()
        self._kqueue = select.kqueue()
        mitogen.core.set_cloexec(self._kqueue.fileno())
        self._filters = set()   # (fd, filter) pairs that the kernel holds

    def close(self):
        self._kqueue.close()

    def _change_filter(self, fd, filt, wanted):
        held = (fd, filt) in self._filters
        if wanted == held:
            return
        if wanted:
            self._filters.add((fd, filt))
            action = select.KQ_EV_ADD
        else:
            self._filters.discard((fd, filt))
            action = select.KQ_EV_DELETE
        try:
            # Asking for no events makes the kernel apply the change alone.
            self._kqueue.control([select.kevent(fd, filt, action)], 0, 0)
        except (IOError, OSError) as e:
            # A file that is closed takes its filters with it.
            if wanted or e.args[0] not in (errno.ENOENT, errno.EBADF):
                raise

    def start_receive(self, fd, data=None):
        self._filters.discard((fd, select.KQ_FILTER_READ))
        super(KqueuePoller, self).start_receive(fd, data)

    def start_transmit(self, fd, data=None):
        self._filters.discard((fd, select.KQ_FILTER_WRITE))
        super(KqueuePoller, self).start_transmit(fd, data)

    def _change(self, fd):
        self._change_filter(fd, select.KQ_FILTER_READ, fd in self._rfds)
        self._change_filter(fd, select.KQ_FILTER_WRITE, fd in self._wfds)

    def _wait(self, timeout):
        events, _ = mitogen.core.io_op(
            self._kqueue.control, None, self._max_events, timeout)
        ready = []
        for event in events or ():
            if event.flags & select.KQ_EV_ERROR:
                LOG.debug('%r: error event on fd %d: %s',
                          self, event.ident, event.data)
                continue
            ready.append((event.ident,
                          event.filter == select.KQ_FILTER_READ,
                          event.filter == select.KQ_FILTER_WRITE))
        return ready


#: In order of preference.
POLLERS = (EpollPoller, KqueuePoller, PollPoller, mitogen.core.Poller)

#: For brokers.
PREFERRED_POLLER = [cls for cls in POLLERS if cls.SUPPORTED][0]

#: For short waits on one or two files: needs no descriptor.
if PollPoller.SUPPORTED:
    POLLER_LIGHTWEIGHT = PollPoller
else:
    POLLER_LIGHTWEIGHT = PREFERRED_POLLER

# The default, select(), cannot watch a descriptor above 1023, and a parent of
# many children has those.
mitogen.core.Latch.poller_class = POLLER_LIGHTWEIGHT
