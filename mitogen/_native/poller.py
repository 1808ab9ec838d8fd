# SPDX-License-Identifier: BSD-3-Clause
"""
Poller: the engine's loop, behind the interface of a poller.
"""

from __future__ import absolute_import  # house

import time  # house

import _mitogen_core as _c  # house
from mitogen._native import core, LOG  # house


#: Kind of event -> function that does what Python has to do about it. The part
#: `events` enters them.
_HANDLERS = {}


class Poller(core.Poller):
    """
    The engine's loop, behind the interface of a poller. `poll` runs it until
    there is something for Python to do. Streams of frames are listed among
    `readers`, and never reported: the engine reads them.
    """
    #: Tells `mitogen.parent.upgrade_router` that there is nothing to gain.
    native = True

    def __init__(self):
        core.Poller.__init__(self)
        self._loop = _c.Loop()
        self._watches = {}
        self._links = {}
        self._fired = []
        self._closed = False
        #: Called by the broker thread where its turn comes among what has
        #: arrived, once for each `call_later` of the loop.
        self.on_call = None

    def _watch(self, fd, writing):
        watch = self._watches.get((fd, writing))
        if watch is None:
            watch = self._loop.watch(fd, writing, (fd, writing))
            watch.start()
            self._watches[fd, writing] = watch

    def _unwatch(self, fd, writing):
        watch = self._watches.pop((fd, writing), None)
        if watch is not None:
            watch.stop()

    def start_receive(self, fd, data=None):
        self._watch(fd, False)
        core.Poller.start_receive(self, fd, data)

    def start_transmit(self, fd, data=None):
        self._watch(fd, True)
        core.Poller.start_transmit(self, fd, data)

    def start_link(self, fd, data, link):
        """List a stream of frames, and have the engine read it."""
        # The stream may have spoken another protocol before.
        self._unwatch(fd, False)
        link.start()
        core.Poller.start_receive(self, fd, data)
        self._links[fd] = link

    def stop_receive(self, fd):
        core.Poller.stop_receive(self, fd)
        link = self._links.pop(fd, None)
        if link is not None:
            link.stop()
        self._unwatch(fd, False)

    def stop_transmit(self, fd):
        core.Poller.stop_transmit(self, fd)
        self._unwatch(fd, True)

    def _poll(self, timeout):
        fired, self._fired = self._fired, []
        for watch in fired:
            if self._watches.get(watch.data) is watch:
                self._watch_again(watch)
        self._loop.wait(timeout)
        while True:
            try:
                event = self._loop.next_event()
            except MemoryError:
                # It stays the next one, for when there is memory.
                break
            if event is None:
                break
            if event[0] == _c.EV_IO:
                watch = event[2]
                self._fired.append(watch)
                fd, writing = watch.data
                if self._watches.get(watch.data) is watch:
                    table = self._wfds if writing else self._rfds
                    data, generation = table.get(fd, (None, self._generation))
                    if generation < self._generation:
                        yield data
            elif event[0] == _c.EV_CALL:
                self.on_call()
            else:
                self._handle(event)
            event = watch = None

    @staticmethod
    def _watch_again(watch):
        try:
            watch.start()
        except OSError:
            # The program closed the descriptor without telling the broker. As
            # with epoll, no more is heard of it.
            LOG.debug('%r: closed while it was watched', watch)

    @staticmethod
    def _handle(event):
        try:
            _HANDLERS[event[0]](*event[1:])
        except Exception:
            LOG.exception('cannot handle an event: %r', event)

    def finish(self):
        """
        Deliver what was accepted before the end, and forget the rest. The
        thread that was the broker's.
        """
        while True:
            try:
                event = self._loop.next_event()
            except MemoryError:
                # A thread that waits for an answer has to get one, if later.
                time.sleep(0.01)
                continue
            if event is None:
                return
            if event[0] in (_c.EV_FRAME, _c.EV_NOTIFY):
                self._handle(event)
            event = None

    def close(self):
        if self._closed:
            return
        self._closed = True
        for watch in list(self._watches.values()):
            watch.stop()
        self._watches.clear()
        self._loop.close()
        self.finish()
        del self._fired[:]
