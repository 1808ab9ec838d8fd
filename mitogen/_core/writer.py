# SPDX-License-Identifier: BSD-3-Clause
"""
BufferedWriter: any thread writes to a stream, and the broker writes the rest.
"""

from __future__ import absolute_import  # house

import errno  # house
import os  # house
import sys  # house
import time  # house

from mitogen.core import _deque, _REDUCED, _seldom, BufferType, imap, LOG, now, PY3, thread  # house

if PY3:  # house
    from mitogen.core import _writev  # house


if not _REDUCED:
    def _read_last_words(writer, stream):
        """
        Take what the other end of a stream sent before it left: results, or
        what a child logs as it ends. It is read so many times only, as a peer
        that takes nothing may go on sending.
        """
        for _ in range(16):
            side = stream and stream.receive_side
            if writer.closed or not side or side.closed or \
                    stream.protocol is not writer._protocol:
                break
            writer._broker._call(stream, stream.on_receive)


class BufferedWriter(object):
    """
    Write to the transmit side of a protocol's stream: at once as far as the
    kernel takes it, the rest when it takes more. Any thread.

    Chunks are appended to `_buf` first. Then the thread that gets `_lock`
    writes from its left end, and looks again after releasing it; a thread that
    does not get the lock knows that the holder will look. Nobody waits for the
    lock, so a signal handler may send while it interrupts a sender. `_armed`
    means that the broker watches for the descriptor to become writable, and
    will do the writing. Only the holder of the lock writes, and the broker
    takes it for good before it closes the descriptor.
    """
    #: How many chunks go in one system call, the least IOV_MAX in use.
    BATCH = 16
    #: Bytes that wait, about: threads that send at the same time may miscount,
    #: until nothing waits the next time.
    size = 0

    def __init__(self, broker, protocol):
        self._broker = broker
        self._protocol = protocol
        self._buf = _deque()
        self._lock = thread.allocate_lock()
        self._armed = False
        self.closed = False
        #: Streams that are not read until half of the high-water mark waits.
        self.feeders = []
        #: As long as threads wait for room.
        self.blocked = []
        #: Bytes written, and when the last of them were.
        self.sent = 0
        self.last = None

    @property
    def _len(self):
        """Bytes that wait. Programs made for upstream read it."""
        return sum(map(len, list(self._buf)))

    def write(self, *chunks):
        """
        Write non-empty byte strings, kept together.

        :returns: False if the stream has been closed, else True.
        """
        # Count them before they can be written, as `_write` subtracts.
        self.size += sum(map(len, chunks))
        # One call, and one that runs no Python: atomic.
        self._buf.extend(chunks)
        while (self._buf and not self._armed and not self.closed and
               self._lock.acquire(False)):
            then = None
            try:
                then = self._flush()
            finally:
                self._lock.release()
            if then:
                self._broker.defer(then)
        return not self.closed

    def _flush(self):
        """
        Write until nothing is left or the kernel is full. REQUIRES `_lock`.

        :returns: None, or what the broker thread must call, without the
            lock, before anybody writes again.
        """
        buf = self._buf
        while buf and not self.closed:
            stream = self._protocol.stream
            side = stream and stream.transmit_side
            if not side or side.closed:
                # The stream went on with another protocol, or ended.
                buf.clear()
                return
            sent = []
            full = False
            try:
                try:
                    # The result lands in `sent` within one call, before the
                    # interpreter can raise KeyboardInterrupt. Were it lost,
                    # the same bytes would be written twice.
                    if PY3:
                        chunks = [buf[i] for i in
                                  range(min(len(buf), self.BATCH))]
                        sent.extend(imap(_writev, (side.fd,), (chunks,)))
                    else:
                        sent.extend(imap(os.write, (side.fd,), (buf[0],)))
                finally:
                    n = sum(sent)
                    self.size -= n
                    self.sent += n
                    self.last = now()
                    while n:
                        size = len(buf[0])
                        if n < size:
                            buf[0] = BufferType(buf[0], n)
                            full = True
                            break
                        n -= size
                        buf.popleft()
                    if not buf:
                        self.size = 0
                if full:
                    # The peer has read little meanwhile. Waiting until it has
                    # read more takes less time than many small writes.
                    self._armed = True
                    return self._watch
            except (OSError, IOError):
                e = sys.exc_info()[1]
                if e.errno != errno.EINTR:
                    self._armed = True
                    if e.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                        return self._watch
                    if not _REDUCED:
                        LOG.debug('%r: disconnected while writing: %s',
                                  self._protocol, e)
                    stream.why = str(e)
                    return self._disconnect
            except:
                # The caller returns; its bytes stay queued.
                self._armed = True
                self._broker.defer(self._watch)
                raise

    @_seldom
    def _relay(self, side, data):
        """As `write`, to the transmit side. Broker thread, which no signal
        handler interrupts: so it takes less."""
        if self._lock.acquire(False):
            try:
                if not (self._buf or self._armed or self.closed or
                        side.closed):
                    try:
                        n = os.write(side.fd, data)
                    except (OSError, IOError):
                        # It is counted again below.
                        n = 0
                    self.sent += n
                    self.last = now()
                    if n < len(data):
                        # In front of bytes that others have appended
                        # meanwhile.
                        self.size += len(data) - n
                        self._buf.appendleft(data[n:])
                    data = None
            finally:
                self._lock.release()
        if data:
            self.write(data)
        elif self._buf:
            self.write()

    def _watch(self):
        stream = self._protocol.stream
        if stream and not self.closed:
            self._broker._start_transmit(stream)

    def _disconnect(self):
        stream = self._protocol.stream
        if not _REDUCED:
            _read_last_words(self, stream)
        if stream and not self.closed:
            # The sender has no part in an exception of a listener.
            self._broker._call(stream, stream.on_disconnect)

    def on_transmit(self, broker):
        """Go on writing. Broker thread."""
        then = None
        if self._lock.acquire(False):
            try:
                then = self._flush()
            finally:
                self._lock.release()
        if (self.feeders and
                self.size <= self._protocol._router.high_water // 2):
            self.resume()
        if then == self._disconnect:
            then()
        elif not self._buf and not self.closed:
            broker._stop_transmit(self._protocol.stream)
            self._armed = False
            # A thread may have appended after the look above, and trusted
            # `_armed`.
            self.write()

    def close(self):
        """Drop what the kernel does not take and never write again: the
        descriptor may be closed afterwards. Broker thread."""
        if not self.closed:
            self._lock.acquire()
            if not self._armed:
                # Chunks that came while another thread had the lock, which
                # would have looked only now.
                self._flush()
            self.closed = True
            self._buf.clear()
            if self.feeders:
                self.resume()

    @_seldom
    def resume(self):
        """Read the streams again that were paused because of this one. Broker
        thread."""
        while self.feeders:
            stream = self.feeders.pop()
            if not stream.receive_side.closed:
                self._broker._watch_receive(stream)

    def wait_room(self):
        """Wait until half of the high-water mark waits. The broker thread,
        which writes it, never does, nor a thread that serves others."""
        ident = thread.get_ident()
        if (ident != self._broker._ident and
                ident not in self._protocol._router._unwaiting):
            self.blocked.append(1)
            try:
                while (self._buf and not self.closed and
                       self.size > self._protocol._router.high_water // 2):
                    # Megabytes still wait: that is not worth a wake-up.
                    time.sleep(0.005)
            finally:
                self.blocked.pop()
