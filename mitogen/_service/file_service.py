# SPDX-License-Identifier: BSD-3-Clause
"""
FileService: files fetched from anywhere in the tree.
"""

from __future__ import absolute_import  # house

import sys  # house

import mitogen  # house
import mitogen.core  # house
import mitogen.select  # house

from mitogen.service import _ANY, _forget_closed, _has_room, _hurry, _log_refusal, _OfferedFiles, _PATH  # house
from mitogen.service import _reply, _room_of, _tell_pool, _text_path, _Transfer, arg_spec, Error, expose  # house
from mitogen.service import FileStreamState, LOG, no_reply  # house


#: Whether :func:`_keep_heap` has done its work.
_heap_kept = False


def _keep_heap():
    """
    glibc frees the end of its heap again and again, and fetches it page by
    page for the next parts of a file, until a block larger than those parts
    has been freed. The block made here is never touched. The compiled core
    does the same by itself.
    """
    global _heap_kept
    if mitogen.core.PY3 and mitogen.core.CORE == 'pure' and not _heap_kept:
        _heap_kept = True
        bytes(4 << 20)


#: Reasons to look at a state, beside the loss of a context. _GO_ON: there is room in the stream, or
#: a thread has left the rest of its work. _CHECK: time has passed.
_GO_ON, _CHECK = object(), object()


class FileService(_OfferedFiles):
    """
    Sends files of this process to contexts that fetch them, of any size, with
    little in memory at either end: no more than a window is on its way over a
    stream, however many contexts behind it fetch.
    """
    #: A chunk is sent if less than this is on its way.
    window_size_bytes = 1048576

    #: Bytes in a chunk. With its header, it is what one read takes.
    IO_SIZE = mitogen.core.CHUNK_SIZE - mitogen.core.Message.HEADER_LEN

    #: Seconds to wait for each part that is still on its way, when writing to
    #: the file at the receiving end has failed.
    give_up_timeout = 5.0

    #: Steps of sending that a thread takes before it serves others.
    turn = 32

    too_many_msg = 'too many files are requested at the same time'
    ended_msg = 'the file service sends nothing more'
    context_mismatch_msg = 'a file can only be sent to the context that asks for it'

    def __init__(self, router):
        super(FileService, self).__init__(router)
        self._state_by_stream = {} # guarded by _lock
        self._watching = False     # guarded by _lock
        # Contexts and streams that left, and others to look at: files are
        # closed, opened and sent on threads of the pool.
        self._left = mitogen.core.Latch()
        self.select = mitogen.select.Select([self._left], oneshot=False)

    def _get_state(self, context):
        """
        Return the state of the stream to a context.
        """
        # None for this process.
        stream = self.router.stream_by_id(context.context_id)
        with self._lock:
            state = self._state_by_stream.get(stream)
            new = state is None
            if new:
                state = self._state_by_stream[stream] = FileStreamState()
                state._stream = stream
        if new and stream is not None:
            _forget_closed(stream, lambda: self._tell(stream, None))
        return state

    def _expect(self, state, context_id):
        """
        Prepare for a context to leave while something is on its way to it. The
        lock of the state is held.
        """
        if context_id not in state.unacked_by_id:
            state.unacked_by_id[context_id] = 0
            mitogen.core.listen(
                self.router.context_by_id(context_id), 'disconnect',
                lambda: self._tell(state._stream, context_id))

    def _tell(self, stream, what):
        """Have `on_message` called on a thread of the pool. Any thread."""
        _tell_pool(self._left, (stream, what))

    def on_message(self, event):
        """
        A stream, or a context behind it, has left; or it is time to look at
        one again.
        """
        stream, what = event.data
        if what is _CHECK:
            return self._check_all()
        with self._lock:
            state = self._state_by_stream.get(stream)
            if what is None:
                self._state_by_stream.pop(stream, None)
        if state is None:
            return
        if what is _GO_ON:
            with state.lock:
                state._held = False
        else:
            self._forget(state, what)
        self._pump(state)

    def _forget(self, state, context_id, tell=False):
        """
        End the transfers to a context, or to all behind a stream, and tell
        them if they are there.
        """
        with state.lock:
            jobs = [job for job in state.jobs
                    if context_id in (None, job.context_id)]
            requests = [request for request in state._waiting
                        if context_id in (None, request[2].src_id)]
            for request in requests:
                state._waiting.remove(request)
            state._forget(context_id)
        for job in jobs:
            self._end(state, job, tell)
        for _, _, msg in requests if tell else ():
            _reply(msg, mitogen.core.CallError(self.ended_msg))

    @expose(_ANY)
    @no_reply()
    @arg_spec(dict(_PATH, sender=mitogen.core.Sender))
    def fetch(self, path, sender, msg):
        """
        Send a file. The answer comes before the content: a dict of `size`,
        `mode`, `owner`, `group`, `mtime` and `atime`. Of these, `owner` and
        `group` are text, or :data:`None` if they have no name here.

        A peer has a limited number of files open at a time. A request
        beyond that is answered once another file has been sent.

        :param path:
            Name of the file, text.
        :param mitogen.core.Sender sender:
            Where to send its content, in chunks; closed at the end.
        """
        try:
            self._need_sane(path, msg)
            if not self._is_permitted(path, msg):
                raise Error(self.unregistered_msg % (path,))
            if msg.src_id != sender.context.context_id:
                raise Error(self.context_mismatch_msg)
            state = self._get_state(sender.context)
            self._queue(state, (path, sender, msg))
        except Exception:
            return self._refuse(msg)
        self._pump(state)
        self._watch()

    def _refuse(self, msg):
        """
        Answer a request with the exception that is being handled.
        """
        answer = mitogen.core.CallError(sys.exc_info()[1])
        _log_refusal(self.name(), 'fetch', answer, msg)
        _reply(msg, answer)

    def _queue(self, state, request):
        limits = mitogen.core._limits_of(self.router)
        with state.lock:
            full = len(state._waiting) >= limits.fetches
            if not full or mitogen.core.has_parent_authority(request[2]):
                state._waiting.append(request)
                return
        mitogen.core._refuse(self.router, state._stream, 'fetches',
                              'it asks for too many files at a time')
        raise Error(self.too_many_msg)

    def _start(self, state, path, sender, msg):
        """
        Open a file that was asked for, and answer. It is counted as open.
        """
        try:
            fp, st = self._open(path, msg)
            answer = self._metadata(st)
        except Exception:
            with state.lock:
                state._opened -= 1
            return self._refuse(msg)
        # Not earlier: the answer has to come first.
        _reply(msg, answer)
        with state.lock:
            self._expect(state, msg.src_id)
            state.jobs.append(_Transfer(sender, fp))
        if not self._is_there(msg.src_id, state._stream):
            # The context left while its request waited here, so no signal will
            # tell.
            self._tell(state._stream, msg.src_id)

    def _is_there(self, context_id, stream):
        """
        Return whether a context is still reached over `stream`. If so, a
        listener for its loss that is registered now will be called.
        """
        if getattr(self.router.context_by_id(context_id), '_loss', None):
            return False
        # That is a new object if the context was no child of ours. But its
        # route is removed before listeners are called.
        now = self.router.stream_by_id(context_id)
        return now is stream and (now is not None or
                                  context_id == mitogen.context_id)

    def _state_for(self, msg):
        """
        Return the state of the stream to the sender of a message, or
        :data:`None` if nothing was sent over it.
        """
        stream = self.router.stream_by_id(msg.src_id)
        with self._lock:
            return self._state_by_stream.get(stream)

    @expose(_ANY)
    @no_reply()
    @arg_spec({'size': mitogen.core.integer_types})
    def acknowledge(self, size, msg):
        """
        Take note that bytes have arrived, and send more.
        """
        state = self._state_for(msg)
        if state is None:
            LOG.debug('%r: acknowledgement of nothing by context %d', self,
                      msg.src_id)
            return
        with state.lock:
            mine = state.unacked_by_id.get(msg.src_id, 0)
            state._acknowledged(msg.src_id, size)
        if size > mine:
            tell, more = mitogen.core._may_log_now(
                state._stream or self.router, 'acknowledge')
            if tell:
                LOG.error('%r: context %d acknowledged %d bytes, of %d%s',
                          self, msg.src_id, size, mine, more)
        self._pump(state)

    @expose(_ANY)
    @no_reply()
    @arg_spec({'handle': mitogen.core.integer_types})
    def abandon(self, handle, msg):
        """
        Send no more of a file to the sender for a handle of the caller, and
        close that.
        """
        state = self._state_for(msg)
        if state is None:
            return
        wanted = msg.src_id, handle
        with state.lock:
            jobs = [job for job in state.jobs
                    if (job.context_id, job.sender.dst_handle) == wanted]
        for job in jobs:
            self._end(state, job)
        self._pump(state)

    def _end(self, state, job, tell=True):
        """
        End a transfer. May be repeated.
        """
        with state.lock:
            first = not job.ended
            if first:
                job.ended = True
                state.jobs.remove(job)
                state._opened -= 1
            unread = not job.is_read
        if unread:
            job.fp.close()
        if first and tell:
            try:
                with _hurry(self.router):
                    job.sender.close()
            except mitogen.core.Error:
                LOG.debug('the broker exited during a transfer')

    def _pump(self, state):
        """
        Open files as the limit permits, and send as much as the window has
        room for, unless another thread does so. After a while, leave the rest
        to a thread that is free: other peers wait for this one.
        """
        with state.lock:
            if state._pumping:
                return
            state._pumping = True
        for _ in range(self.turn):
            step = self._next_step(state)
            if step is None:
                return
            try:
                step[0](state, *step[1])
            except Exception:
                # The error must not end the other transfers.
                LOG.exception('%r: a transfer failed', self)
        with state.lock:
            state._pumping = False
        self._tell(state._stream, _GO_ON)

    def _next_step(self, state):
        """
        Return a function and its arguments behind the state. If nothing is to
        be done, return :data:`None`; then the caller pumps no more.
        """
        limits = mitogen.core._limits_of(self.router)
        with state.lock:
            if state._waiting and state._opened < max(1, limits.open_files):
                state._opened += 1
                return self._start, state._waiting.popleft()
            if state.jobs and state.unacked < self.window_size_bytes and \
                    self._has_room(state):
                job = state.jobs[0]
                job.is_read = True
                return self._send_chunk, (job,)
            state._pumping = False

    def _has_room(self, state):
        """
        Return whether the peer reads what was sent, whatever it acknowledges.
        If it does not, go on when it has. The lock of the state is held.
        """
        stream = state._stream
        if _has_room(stream):
            return True
        if not state._held:
            state._held = True
            try:
                _room_of(self.router).when_there(
                    stream, lambda: self._tell(stream, _GO_ON))
            except mitogen.core.Error:
                LOG.debug('the broker exited during a transfer')
        return False

    def _send_chunk(self, state, job):
        data = b''
        try:
            data = job.fp.read(self.IO_SIZE)
        except Exception:
            # The receiver sees that it did not get everything.
            LOG.exception('%r: cannot read %r', self, job.fp)
        with state.lock:
            job.is_read = False
            if data and not job.ended:
                state._sent(job.context_id, len(data))
        if data and not job.ended:
            try:
                with _hurry(self.router):
                    job.sender.send(data, enc=mitogen.core.Message.ENC_BIN)
                return
            except Exception:
                LOG.exception('%r: cannot send %r', self, job.fp)
        self._end(state, job)

    def _watch(self):
        """
        Look again later whether a context has stopped acknowledging.
        """
        room = _room_of(self.router)
        with self._lock:
            if room is None or self._watching:
                return
            self._watching = True
        room.call_later(self.router.limits.stalled_seconds / 4.0,
                        lambda: self._tell(None, _CHECK))

    def _check_all(self):
        with self._lock:
            self._watching = False
            states = list(self._state_by_stream.values())
        for state in states:
            self._check(state)
        if any(state.jobs for state in states):
            self._watch()

    def _check(self, state):
        """
        Send no more to contexts that acknowledge nothing.
        """
        seconds = self.router.limits.stalled_seconds
        with state.lock:
            stalled = state._stalled(mitogen.core.now() - seconds)
        for context_id in stalled:
            mitogen.core._refuse(
                self.router, state._stream, 'stalled_seconds',
                'files are no longer sent to context %d, which has '
                'acknowledged nothing for so long', context_id)
            self._forget(state, context_id, tell=True)
        if stalled:
            self._pump(state)

    def on_shutdown(self):
        """
        End all transfers. The receivers see that something is missing.
        """
        with self._lock:
            states = list(self._state_by_stream.values())
            self._state_by_stream.clear()
        for state in states:
            with state.lock:
                requests, jobs = list(state._waiting), list(state.jobs)
                state._waiting.clear()
            for job in jobs:
                self._end(state, job)
            for _, _, msg in requests:
                _reply(msg, mitogen.core.CallError(self.ended_msg))

    @classmethod
    def _take_chunk(cls, context, recv, timeout=None):
        """
        Return the next part of a file.

        :raises mitogen.core.ChannelError:
            There is none.
        """
        data = recv.get(timeout).decode()
        # Acknowledge at once, so that more comes while this part is used.
        context.call_service_async(
            cls.name(), 'acknowledge', size=len(data)).close()
        return data

    @classmethod
    def _give_up(cls, context, recv):
        """
        Have no more of a file sent. Chunks on their way count against the
        window of others until they are acknowledged, so wait for that.
        """
        try:
            context.call_service_async(
                cls.name(), 'abandon', handle=recv.handle).close()
            while True:
                cls._take_chunk(context, recv, cls.give_up_timeout)
        except mitogen.core.Error:
            LOG.debug('%r: gave up a file: %s', context, sys.exc_info()[1])

    @classmethod
    def get(cls, context, path, out_fp):
        """
        Fetch a file from the file service of another context. Any thread but
        the broker's.

        :param mitogen.core.Context context:
        :param path:
            Name of the file there, text.
        :param out_fp:
            Binary file to write to; only its method `write` is used.
        :returns:
            `(ok, metadata)`: whether everything arrived, and the dict of
            :meth:`fetch`.
        :raises mitogen.core.CallError:
            It may not be fetched, or not be read.
        :raises mitogen.core.ChannelError:
            The context cannot be reached.
        """
        router = context.router
        # The one object that is told when the context leaves.
        respondent = router.context_by_id(context.context_id)
        received = 0
        with mitogen.core.Receiver(router, respondent=respondent) as recv:
            metadata = context.call_service(
                cls.name(), 'fetch', path=_text_path(path),
                sender=recv.to_sender())
            try:
                while True:
                    try:
                        data = cls._take_chunk(context, recv)
                    except mitogen.core.ChannelError:
                        break
                    received += len(data)
                    out_fp.write(data)
                    if received > cls.window_size_bytes:
                        _keep_heap()
            except BaseException:
                cls._give_up(context, recv)
                raise
        if received != metadata[u'size']:
            LOG.error('%r: %d bytes of %r arrived, of %d',
                      context, received, path, metadata[u'size'])
        return received == metadata[u'size'], metadata
