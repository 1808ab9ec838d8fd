# SPDX-License-Identifier: BSD-3-Clause
"""
PushFileService: files pushed down the tree.
"""

from __future__ import absolute_import  # house

import collections  # house
import sys  # house
import threading  # house

import mitogen  # house
import mitogen.core  # house
import mitogen.select  # house

from mitogen.service import _forget_closed, _has_room, _hurry, _PARENTS, _PATH_TO_CONTEXT, _patience, _tell_pool  # house
from mitogen.service import _pools_by_select, _room_of, _text_path  # house
from mitogen.service import arg_spec, Error, expose, LOG, no_reply, Service  # house


class PushFileService(Service):
    """
    Brings small files to contexts further down, each once over each stream on
    the way, and keeps them in memory there. The file is read where it is first
    asked for by :meth:`propagate_to`.
    """
    lost_msg = 'the file %r will not arrive: no context is left that could send it'

    def __init__(self, **kwargs):
        super(PushFileService, self).__init__(**kwargs)
        self._lock = threading.Lock()
        # All guarded by _lock.
        self._cache = {}           # path -> Blob
        self._waiters = {}         # path -> functions to call when it is there
        self._sent_by_stream = {}  # stream -> paths it has seen
        self._held_by_stream = {}  # full stream -> (context, path), in order
        self._extra_sys_paths = set()
        self._getters = set()      # latches of get()
        self._lost = False         # nothing will be pushed any more
        # Streams that have room again.
        self._free = mitogen.core.Latch()
        self.select = mitogen.select.Select([self._free], oneshot=False)
        if mitogen.parent_id is not None:
            mitogen.core.listen(
                self.router.context_by_id(mitogen.parent_id),
                'disconnect', self.on_shutdown)

    def on_shutdown(self):
        """
        Wake the threads that wait for a file which will not come.
        """
        with self._lock:
            self._lost = True
            getters = list(self._getters)
        for latch in getters:
            latch.close()

    def _when_cached(self, path, func):
        """
        Call `func()` once the file is there: now, or on the thread that
        brings it.
        """
        with self._lock:
            if path not in self._cache:
                self._waiters.setdefault(path, []).append(func)
                return
        func()

    def _store(self, path, data):
        """
        Keep a file and return the functions to call because of it.
        """
        with self._lock:
            self._cache[path] = data
            return self._waiters.pop(path, ())

    def _call_waiters(self, path, waiters):
        """
        Call those functions. One of them may find its target lost, which is
        nothing to the others.
        """
        for func in waiters:
            try:
                func()
            except Exception:
                LOG.exception('%r: %r cannot be passed on', self, path)

    def get(self, path):
        """
        Return the content of a file, as soon as it is there. Any thread but
        the broker's.

        :param path: text.
        :raises mitogen.core.ChannelError:
            The parent, which would bring it, is lost, or the service ends.
        """
        assert isinstance(path, mitogen.core.UnicodeType)
        if path not in self._cache:
            latch = mitogen.core.Latch()
            with self._lock:
                self._getters.add(latch)
                if self._lost:
                    latch.close()
            try:
                self._when_cached(path, lambda: self._wake(latch))
                LOG.debug('%r: waiting for %r', self, path)
                latch.get()
            except mitogen.core.LatchError:
                raise mitogen.core.ChannelError(self.lost_msg % (path,))
            finally:
                with self._lock:
                    self._getters.discard(latch)
        return self._cache[path]

    @staticmethod
    def _wake(latch):
        try:
            latch.put()
        except mitogen.core.LatchError:
            # It was given up just now.
            pass

    def _forward(self, context, path):
        """
        Send a file on its way to `context`. If the neighbour that passes it on has the file
        already, send that one a request only.
        """
        stream = self.router.stream_by_id(context.context_id)
        if stream is None:
            raise Error('there is no way to %r' % (context,))
        if self._is_free(stream, context, path):
            self._send(stream, context, path)

    def _is_free(self, stream, context, path):
        """
        Return whether a stream has room. If not, the file is sent when it has:
        no thread of a pool waits for a peer that does not read.
        """
        if not self._is_served():
            return True
        with self._lock:
            held = self._held_by_stream.get(stream)
            if held is None:
                if _has_room(stream):
                    return True
                held = collections.deque()
                self._held_by_stream[stream] = held
            held.append((context, path))
            first = len(held) == 1
        if first:
            _room_of(self.router).when_there(
                stream, lambda: _tell_pool(self._free, stream))
        return False

    def _is_served(self):
        """
        Return whether a pool has this service. Else only its own process calls
        it, and may wait.
        """
        return id(self.select) in _pools_by_select

    def _hurry(self):
        return _hurry(self.router) if self._is_served() else _patience

    def on_message(self, event):
        """
        A stream has room for what was held back, or has ended.
        """
        stream = event.data
        with self._lock:
            held = self._held_by_stream.pop(stream, ())
        if stream.transmit_side.closed:
            return
        for context, path in held:
            try:
                self._forward(context, path)
            except Exception:
                LOG.exception('%r: %r cannot be passed on', self, path)

    def _send(self, stream, context, path):
        child = self.router.context_by_id(stream.protocol.remote_id)
        with self._lock:
            known = stream in self._sent_by_stream
            sent = self._sent_by_stream.setdefault(stream, set())
            first = path not in sent
            sent.add(path)
        if not known:
            _forget_closed(stream, lambda: self._forget(stream))

        args = {'path': path, 'context': context}
        if first:
            method = 'store_and_forward'
            args['data'] = self._cache[path]
        elif child.context_id == context.context_id:
            return
        else:
            method = 'forward'
        LOG.debug('%r: %s of %r by %r', self, method, path, child)
        try:
            with self._hurry():
                child.call_service_async(self.name(), method, **args).close()
        except Exception:
            if first:
                with self._lock:
                    sent.discard(path)
            raise

    def _forget(self, stream):
        with self._lock:
            self._sent_by_stream.pop(stream, None)

    @expose(_PARENTS)
    @arg_spec(_PATH_TO_CONTEXT)
    def propagate_to(self, context, path, overridden_source=None):
        """
        Bring a file to a context.

        :param mitogen.core.Context context:
        :param path:
            Name of the file in this process, and its name for :meth:`get`.
        :param bytes overridden_source:
            Bring this instead of what is in the file.
        """
        name = _text_path(path)
        if name not in self._cache:
            data = overridden_source
            if data is None:
                with open(path, 'rb') as fp:
                    data = fp.read()
            waiters = self._store(name, mitogen.core.Blob(data))
            self._call_waiters(name, waiters)
        self._forward(context, name)

    @expose(_PARENTS)
    @arg_spec({'paths': list, 'context': mitogen.core.Context})
    def propagate_paths_and_modules(self, context, paths,
                                    overridden_sources=None,
                                    extra_sys_paths=None):
        """
        Bring files to a context, each as :meth:`propagate_to` does.

        :param overridden_sources:
            Dict, path -> bytes to bring instead of what is in the file.
        :param extra_sys_paths:
            Entries to append to :data:`sys.path` of this process, once each.
        """
        sources = dict((_text_path(path), source) for path, source in
                       mitogen.core.iteritems(overridden_sources or {}))
        for path in paths:
            name = _text_path(path)
            self.propagate_to(context, name, sources.get(name))
        for entry in extra_sys_paths or ():
            with self._lock:
                seen = entry in self._extra_sys_paths
                self._extra_sys_paths.add(entry)
            if not seen:
                sys.path.append(entry)

    @expose(_PARENTS)
    @no_reply()
    @arg_spec(dict(_PATH_TO_CONTEXT, data=mitogen.core.Blob))
    def store_and_forward(self, path, data, context):
        """
        Keep a file, and send it on if it is for another context.
        """
        waiters = self._store(path, data)
        try:
            if context.context_id != mitogen.context_id:
                self._forward(context, path)
        finally:
            self._call_waiters(path, waiters)

    @expose(_PARENTS)
    @no_reply()
    @arg_spec(_PATH_TO_CONTEXT)
    def forward(self, path, context):
        """
        Send a file on to another context, as soon as this process has it.
        """
        self._when_cached(path, lambda: self._forward(context, path))
