# SPDX-License-Identifier: BSD-3-Clause
"""
FileService: files fetched from anywhere in the tree.
"""

from __future__ import absolute_import  # house

import collections  # house
import os  # house
import stat  # house
import sys  # house
import threading  # house

import mitogen  # house
import mitogen.core  # house
import mitogen.select  # house

from mitogen.service import _ANY, _forget_closed, _log_refusal, _PARENTS, _PATH, _reply, _text_path  # house
from mitogen.service import arg_spec, Error, expose, LOG, no_reply, Service, to_text  # house


#: Whether :func:`_keep_heap` has done its work.
_heap_kept = False


def _keep_heap():
    """
    glibc gives the end of its heap back again and again, and fetches it page
    by page for the next parts of a file, until a larger block than these has
    been given back. Nothing in this one is touched. The compiled core does the
    same by itself.
    """
    global _heap_kept
    if mitogen.core.PY3 and mitogen.core.CORE == 'pure' and not _heap_kept:
        _heap_kept = True
        bytes(4 << 20)


class FileStreamState(object):
    """
    The files that a :class:`FileService` sends over one stream, and how much
    is on its way there. `lock` guards the rest.
    """
    def __init__(self):
        self.lock = threading.Lock()
        #: `(sender, open file)`, in the order to send them.
        self.jobs = collections.deque()
        #: Bytes sent that nobody said to have received.
        self.unacked = 0
        #: The same, by the id of the context they went to.
        self.unacked_by_id = {}


class FileService(Service):
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

    unregistered_msg = 'the file %r is not one that may be fetched'
    context_mismatch_msg = 'a file can only be sent to who asks for it'

    def __init__(self, router):
        super(FileService, self).__init__(router)
        self._lock = threading.Lock()
        self._paths = set()        # guarded by _lock
        self._prefixes = set()     # guarded by _lock
        self._state_by_stream = {} # guarded by _lock
        # Contexts and streams that left: the broker thread must not wait for
        # a lock that is held while something is sent.
        self._left = mitogen.core.Latch()
        self.select = mitogen.select.Select([self._left], oneshot=False)

    @expose(_PARENTS)
    @arg_spec(_PATH)
    def register(self, path):
        """
        Let every context fetch the file of exactly this name.

        :param path: text.
        """
        with self._lock:
            self._paths.add(_text_path(path))

    @expose(_PARENTS)
    @arg_spec(_PATH)
    def register_prefix(self, path):
        """
        Let every context fetch the files in a directory, at any depth. Names
        count, not where symbolic links lead.
        """
        with self._lock:
            self._prefixes.add(os.path.abspath(_text_path(path)))

    def _is_permitted(self, path, msg):
        name = _text_path(path)
        with self._lock:
            if name in self._paths:
                return True
            prefixes = set(self._prefixes)
        if mitogen.core.has_parent_authority(msg):
            return True
        name = os.path.abspath(name)
        while name not in prefixes:
            parent = os.path.dirname(name)
            if parent == name:
                return False
            name = parent
        return True

    @staticmethod
    def _open(path):
        """
        Open a regular file and return it, and what :func:`os.fstat` tells.
        """
        irregular = '%r is not a regular file' % (path,)
        # Opening is not without effect on everything else.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Error(irregular)
        fp = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 'rb', 0)
        try:
            if not mitogen.core.PY3:
                mitogen.core.set_cloexec(fp.fileno())
            st = os.fstat(fp.fileno())
            if not stat.S_ISREG(st.st_mode):
                raise Error(irregular)
        except Exception:
            fp.close()
            raise
        return fp, st

    @staticmethod
    def _metadata(st):
        import grp
        import pwd
        names = []
        for find, number in ((pwd.getpwuid, st.st_uid),
                             (grp.getgrgid, st.st_gid)):
            try:
                names.append(to_text(find(number)[0]))
            except KeyError:
                names.append(None)
        return {
            u'size': st.st_size,
            u'mode': st.st_mode,
            u'owner': names[0],
            u'group': names[1],
            u'mtime': st.st_mtime,
            u'atime': st.st_atime,
        }

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
        if new and stream is not None:
            _forget_closed(stream, lambda: self._left.put((stream, None)))
        return state, stream

    def _expect(self, state, stream, context_id):
        """
        Prepare for a context to leave while something is on its way to it. The
        lock of the state is held.
        """
        if context_id not in state.unacked_by_id:
            state.unacked_by_id[context_id] = 0
            mitogen.core.listen(
                self.router.context_by_id(context_id), 'disconnect',
                lambda: self._left.put((stream, context_id)))

    def on_message(self, event):
        """
        A stream, or a context behind it, has left.
        """
        stream, context_id = event.data
        with self._lock:
            state = self._state_by_stream.get(stream)
            if context_id is None:
                self._state_by_stream.pop(stream, None)
        if state is None:
            return
        with state.lock:
            for job in list(state.jobs):
                if context_id in (None, job[0].context.context_id):
                    state.jobs.remove(job)
                    job[1].close()
            state.unacked -= state.unacked_by_id.pop(context_id, 0)
        self._pump(state)

    @expose(_ANY)
    @no_reply()
    @arg_spec(dict(_PATH, sender=mitogen.core.Sender))
    def fetch(self, path, sender, msg):
        """
        Send a file. The answer comes before the content: a dict of `size`,
        `mode`, `owner`, `group`, `mtime` and `atime`. Of these, `owner` and
        `group` are text, or :data:`None` if they have no name here.

        :param path:
            Name of the file, text.
        :param mitogen.core.Sender sender:
            Where to send its content, in chunks; closed at the end.
        """
        fp = None
        try:
            if not self._is_permitted(path, msg):
                raise Error(self.unregistered_msg % (path,))
            if msg.src_id != sender.context.context_id:
                raise Error(self.context_mismatch_msg)
            fp, st = self._open(path)
            answer = self._metadata(st)
            state, stream = self._get_state(sender.context)
        except Exception:
            if fp is not None:
                fp.close()
            answer = mitogen.core.CallError(sys.exc_info()[1])
            _log_refusal(self.name(), 'fetch', answer)
            return _reply(msg, answer)

        # Not before: the answer comes first.
        _reply(msg, answer)
        with state.lock:
            self._expect(state, stream, msg.src_id)
            state.jobs.append((sender, fp))
        if not self._is_there(msg.src_id, stream):
            # It left while its question waited here, so nobody will say so.
            self._left.put((stream, msg.src_id))
        self._pump(state)

    def _is_there(self, context_id, stream):
        """
        Return whether a context is still reached over `stream`. If so, who
        listens for its loss already will be told of it.
        """
        if getattr(self.router.context_by_id(context_id), '_loss', None):
            return False
        # That is a new object if it was no child of ours. But the route goes
        # before anybody is told.
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
            if size > state.unacked:
                LOG.error('%r: context %d acknowledged %d bytes, of %d',
                          self, msg.src_id, size, state.unacked)
            size = max(0, min(state.unacked, size))
            state.unacked -= size
            mine = state.unacked_by_id.get(msg.src_id)
            if mine is not None:
                state.unacked_by_id[msg.src_id] = max(0, mine - size)
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
        with state.lock:
            for job in list(state.jobs):
                sender = job[0]
                if (sender.context.context_id, sender.dst_handle) == (
                        msg.src_id, handle):
                    state.jobs.remove(job)
                    self._end(job)
        self._pump(state)

    @staticmethod
    def _end(job):
        sender, fp = job
        fp.close()
        try:
            sender.close()
        except mitogen.core.Error:
            LOG.debug('the broker exited during a transfer')

    def _pump(self, state):
        """
        Send what the window has room for.
        """
        with state.lock:
            while state.jobs and state.unacked < self.window_size_bytes:
                self._send_chunk(state, state.jobs[0])

    def _send_chunk(self, state, job):
        sender, fp = job
        try:
            data = fp.read(self.IO_SIZE)
            if data:
                context_id = sender.context.context_id
                state.unacked += len(data)
                state.unacked_by_id[context_id] = len(data) + \
                    state.unacked_by_id.get(context_id, 0)
                sender.send(data, enc=mitogen.core.Message.ENC_BIN)
                return
        except Exception:
            # The receiver sees that it did not get everything.
            LOG.exception('%r: cannot send %r', self, fp)
        state.jobs.popleft()
        self._end(job)

    def on_shutdown(self):
        """
        End all transfers. The receivers see that something is missing.
        """
        with self._lock:
            states = list(self._state_by_stream.values())
            self._state_by_stream.clear()
        for state in states:
            with state.lock:
                while state.jobs:
                    self._end(state.jobs.popleft())

    @classmethod
    def _take_chunk(cls, context, recv, timeout=None):
        """
        Return the next part of a file.

        :raises mitogen.core.ChannelError:
            There is none.
        """
        data = recv.get(timeout).decode()
        # At once, so that more comes while this part is made use of.
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
