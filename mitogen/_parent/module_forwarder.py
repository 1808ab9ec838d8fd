# SPDX-License-Identifier: BSD-3-Clause
"""
ModuleForwarder: children get modules that came from the parent.
"""

from __future__ import absolute_import  # house

import zlib  # house

import mitogen  # house
import mitogen.core  # house
from mitogen.core import b, to_text  # house
from mitogen.parent import _announced_by, _Forwarder, _handle, _is_far, _late_source_in, _pack_modules  # house
from mitogen.parent import _receive_announcements, _send_load_module, ABSENT_MAX, is_immediate_child, LOG, PACKAGES_MAX, PY3, REQUEST_MAX  # house
from mitogen.parent import Throttle  # house


class _Needs(object):
    """
    The modules that a module needs, of those that came from the parent.

    :param dict cache: of the importer.
    """
    def __init__(self, cache):
        self._cache = cache
        self._seen = set()

    def walk(self, fullname):
        """
        Yield the names of the module, of the packages that hold it, and of those
        that these need, in order of need.
        """
        stack = [mitogen.core.module_lineage(fullname)]
        while stack:
            for name in stack[-1]:
                if name in self._cache and name not in self._seen:
                    self._seen.add(name)
                    yield name
                    stack.append(map(to_text, self._cache[name][4]))
                    break
            else:
                stack.pop()


def _is_bytecode(content):
    """
    Tell whether the content of a module is what an interpreter has compiled.
    """
    return content is not None and \
        b('\0') in zlib.decompressobj().decompress(bytes(content), 9)


class ModuleForwarder(_Forwarder):
    """
    Answers children that ask for modules in a context that gets its own from a
    parent: each module comes down once, and is kept.

    :param mitogen.core.Importer importer: whose cache is served.
    """
    def __init__(self, router, parent_context, importer):
        super(ModuleForwarder, self).__init__(router, parent_context)
        self.importer = importer
        _receive_announcements(router, self._on_report)
        _handle(router, mitogen.core.GET_MODULE,
                Throttle(router, self._on_get_module), is_immediate_child)
        _handle(router, mitogen.core.FORWARD_MODULE,
                self._on_forward_module, mitogen.core.has_parent_authority)

    def _on_report(self, stream, report):
        """
        Note which modules a child has used: they have not come here in vain. Tell our parent.
        """
        if report[:1] != b('-'):
            return
        importer = vars(self.importer)
        used = stream.protocol.sent_modules.difference(report[1:].decode('utf-8', 'replace').split())
        importer.setdefault('_used_below', set()).update(used)
        tell = importer.get('_tell_unused')
        if tell:
            tell()

    def _on_get_module(self, msg):
        child_id = msg.src_id
        if len(msg.data) > REQUEST_MAX:
            mitogen.core._tell_seldom(
                LOG.error, self, 'names', '%r: context %d asks for a module with a name of %d bytes', self,
                child_id, len(msg.data))
            return
        fullname = to_text(msg.data)
        LOG.debug('%r: context %d asks for %r', self, child_id, fullname)

        def on_cached():
            stream = self._stream_to(child_id)
            if stream is not None:
                self._when_complete(lambda: self._answer(stream, fullname))

        reason = None
        if fullname.count('.') > PACKAGES_MAX:
            reason = 'a module in too many packages'
        elif (fullname not in self.importer._cache and
                len(self.importer._cache) >= ABSENT_MAX):
            # No program needs that many modules.
            reason = 'too many modules'
        if reason:
            tell, more = mitogen.core._may_log_now(self, reason)
            if tell:
                LOG.error('%r: context %d asks for %s, the last one is %.100r%s',
                          self, child_id, reason, fullname, more)
            stream = self._stream_to(child_id)
            if stream is not None:
                self._send(stream, mitogen.core.LOAD_MODULE,
                           (fullname, None, None, None, ()))
            return
        if PY3 and not self.importer._told:
            self.importer._tell()
        self.importer._request_module(fullname, on_cached)

    def _when_complete(self, func):
        """
        Call a function once our parent has sent all that it has said it would.
        """
        if self.importer._held is None:
            func()
        else:
            vars(self.importer).setdefault('_waiting', []).append(func)

    def _on_forward_module(self, msg):
        id_bytes, _, name_bytes = mitogen.core.bytes_partition(
            msg.data, b('\x00'))
        target_id, fullname = int(id_bytes), to_text(name_bytes)
        stream = self.router.stream_by_id(target_id)
        if stream is None or stream.protocol.remote_id == mitogen.parent_id:
            LOG.error('%r: dropping the forward of %r to context %d: no route '
                      'down to it', self, fullname, target_id)
            return
        if fullname in stream.protocol.sent_modules:
            return

        def pass_on():
            self._send_with_related(stream, fullname)
            # Each context on the way to the target sends it on in the same
            # way.
            next_id = stream.protocol.remote_id
            if next_id != target_id:
                stream.protocol.send(mitogen.core.Message(
                    dst_id=next_id,
                    handle=mitogen.core.FORWARD_MODULE,
                    data=msg.data,
                ))

        def on_cached():
            self._when_runnable(stream, self._related(fullname), pass_on)

        self.importer._request_module(fullname, on_cached)

    def _answer(self, stream, fullname):
        """
        Send a module that was asked for, and those that it needs.
        """
        announcement = _announced_by(stream)
        if announcement is None or fullname not in self.importer._cache:
            self._when_runnable(
                stream, self._related(fullname),
                lambda: self._send_with_related(stream, fullname))
            return
        self._send_late_core(stream)
        announcement.names.discard(fullname.partition('.')[0])
        sent, has = stream.protocol.sent_modules, announcement.names
        names = [
            name for name in _Needs(self.importer._cache).walk(fullname)
            if name == fullname or
            name not in sent and name.partition('.')[0] not in has
        ]
        sent.update(names)
        self._when_runnable(stream, names,
                            lambda: self._send_many(stream, names))

    def _send_late_core(self, stream):
        """
        Send the rest of the core, which reads what follows, to a child that was
        sent the same part of it as we.
        """
        key = u'mitogen', u'core.late'
        late = self.importer._resource_requester._cache.get(key)
        conn = getattr(stream, 'conn', None)
        if late and getattr(conn, '_lacks_core', False) is True:
            conn._lacks_core = False
            if _is_far(stream):
                late = _late_source_in(bytes(late))
            self._send(stream, mitogen.core.LOAD_RESOURCE, key, late)

    #: Bytes of content in one message, about.
    _chunk = 131072

    def _send_many(self, stream, names):
        entries, contents, size = [], [], 0
        for name in names:
            present, path, content, needs = self._entry(stream, name)
            entries.append((name, present, path, list(needs), len(content)))
            contents.append(content)
            size += len(content)
            if size > self._chunk:
                _send_load_module(self.router, stream,
                                  _pack_modules(True, entries, contents))
                entries, contents, size = [], [], 0
        _send_load_module(self.router, stream,
                          _pack_modules(False, entries, contents))

    def _related(self, fullname):
        """
        Return the names of a module and of those that it asks for itself, as
        far as we have them.
        """
        cache = self.importer._cache
        if fullname not in cache:
            return []
        return [to_text(name) for name in cache[fullname][4]
                if name in cache] + [fullname]

    @staticmethod
    def _runs_our_bytecode(stream):
        announcement = _announced_by(stream)
        return announcement is not None and announcement.runs_our_bytecode()

    def _when_runnable(self, stream, names, func):
        """
        Call a function once we have the modules in a form that the child can run. That is their
        source, if our parent has sent us bytecode that only our kind of interpreter runs.
        """
        missing = [] if self._runs_our_bytecode(stream) else [
            name for name in names
            if _is_bytecode(self.importer._cache[name][3])]
        left = [len(missing)]

        def on_source():
            left[0] -= 1
            if left[0] == 0:
                func()

        if not missing:
            return func()
        for name in missing:
            self.importer._resource_requester._request_resource(
                name, mitogen.core._SOURCE_RESOURCE, on_source)

    def _entry(self, stream, name):
        """
        Return the tuple that a child is sent for a module, without its name: a
        content is bytes, also if there is no module.
        """
        _, present, path, content, needs = self.importer._cache[name]
        if not self._runs_our_bytecode(stream) and _is_bytecode(content):
            source = self.importer._resource_requester._cache.get(
                (name, mitogen.core._SOURCE_RESOURCE))
            if source is None:
                # The child has gone meanwhile, or our parent has.
                present = path = None
            content = zlib.compress(source or b(''), 1)
        return present, path, b('') if path is None else bytes(content), needs

    def _send_with_related(self, stream, fullname):
        """
        Send a module that is in the cache, and before it those that it will
        ask for, unless they were sent on this stream before.
        """
        self._send_late_core(stream)
        if fullname not in self.importer._cache:
            # Our parent was lost before it could answer, or its answer was damaged.
            self._send(stream, mitogen.core.LOAD_MODULE,
                       (fullname, None, None, to_text(str(self.importer._why_not(fullname))), ()))
            return
        for name in self._related(fullname):
            if name not in stream.protocol.sent_modules:
                stream.protocol.sent_modules.add(name)
                present, path, content, needs = self._entry(stream, name)
                self._send(stream, mitogen.core.LOAD_MODULE, (
                    name, present, path,
                    None if path is None else mitogen.core.Blob(content),
                    needs))
