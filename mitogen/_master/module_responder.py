# SPDX-License-Identifier: BSD-3-Clause
"""
ModuleResponder: serves modules to children.
"""

from __future__ import absolute_import  # house

import os  # house
import re  # house
import sys  # house
import zlib  # house

import mitogen  # house
import mitogen.core  # house
import mitogen.parent  # house

from mitogen.master import _BySource, _cut_main, _Freight, _log_swallowed, _minified_before, _Parcels, _Push  # house
from mitogen.master import _Server, _Shipments  # house
from mitogen.master import _with_absolute_imports, b, get_child_modules, is_stdlib_path, ModuleFinder, PY3  # house
from mitogen.master import RESPONDER_LOG, to_text  # house


#: Module name -> its source minified, and module name -> that source
#: compressed.
_minified_by_source = _BySource()
_compressed_by_source = _BySource()


def _minimize(fullname, path, source):
    """
    Return `source` minified, as bytes.
    """
    before = _minified_before(fullname, source)
    if before is not None:
        return before
    import mitogen.minify
    # Only from UTF-8: a source in another encoding says so in a
    # comment that stays, and must go on being right.
    minified = mitogen.minify.minimize_source(
        source.decode('utf-8'), fill=True).encode('utf-8')
    # Our own files are covered by a test.
    if fullname.partition('.')[0] != 'mitogen':
        compile(minified, path, 'exec', 0, True)
    return minified


class ModuleResponder(_Server):
    """
    Serve modules to children. Handlers run on the broker thread.
    """
    #: Names of the attributes that count the work done; see
    #: :meth:`Router.get_stats`. Those in seconds are floats once used.
    COUNTERS = (
        'bad_load_module_count', 'good_load_module_count',
        'good_load_module_size', 'get_module_count', 'get_module_secs',
        'minify_secs', 'pushed_module_count', 'unused_module_count',
    )

    _minify_word = b('minify_safe')
    minify_safe_re = re.compile(b(r'\s#[ \t]*!mitogen:[ \t]*minify_safe'))

    MAIN_RE = re.compile(
        b(r'^if[ \t]+__name__[ \t]*==[ \t]*.__main__.[ \t]*:'),
        re.MULTILINE
    )

    main_guard_msg = (
        "A child tried to import __main__, but the main module, %r, has no "
        "execution guard, so importing it would run the whole program again "
        "in the child. Put what starts the program into a function, and end "
        "the file with:\n"
        "\n"
        "    if __name__ == '__main__':\n"
        "        main()\n"
    )

    def __init__(self, router, policy):
        self.policy = policy
        self._finder = ModuleFinder()
        #: Module name -> tuple as on the wire.
        self._cache = {}
        #: Module name -> the same, pickled. Many children ask for the same.
        self._packed_cache = {}
        #: Context id -> set of module names already forwarded to it.
        self._forwarded_by_context = {}
        self._forget_parcels()
        self._freight = _Freight(self, router)

        for counter in self.COUNTERS:
            setattr(self, counter, 0)
        mitogen.parent._receive_announcements(router, self._on_report)
        # Last: a request may come at once.
        super(ModuleResponder, self).__init__(
            router, mitogen.core.GET_MODULE,
            mitogen.parent.Throttle(router, self._on_get_module,
                                    self._refuse_module),
            # As for resources.
            mitogen.parent.is_immediate_child)

    def add_source_modifier(self, fullname, callable):
        """
        Let a function change the source that is served; parameters as of the
        method of that name of :class:`ModuleFinder`. Before the first child
        asks.
        """
        self._finder.add_source_modifier(fullname, callable)

    def add_source_override(self, fullname, path, source, is_pkg):
        """
        Serve a given text for a module; parameters as of the method of that
        name of :class:`ModuleFinder`. Before the first child asks.
        """
        self._finder.add_source_override(fullname, path, source, is_pkg)

    def whitelist_prefix(self, fullname):
        """
        Serve `fullname` and its submodules. From the first call on, only names
        that were listed so are served, and Mitogen itself. Children learn of
        it when they are started.
        """
        if not self.policy.overrides:
            self.policy.overrides.add('mitogen')
        self.policy.overrides.add(fullname)

    def blacklist_prefix(self, fullname):
        """
        Do not serve `fullname`, nor anything inside it. Children started
        before will still ask.
        """
        self.policy.blocks.add(fullname)

    def neutralize_main(self, path, src):
        """
        Return the source of the main module without the part that runs the
        program.

        :param path:
            Path, for the error message.
        :param bytes src:
            Source of the main module.
        :raises ImportError:
            There is no telling which part that is.
        """
        cut = _cut_main(src, self.MAIN_RE)
        if cut is not None:
            return cut
        RESPONDER_LOG.error(self.main_guard_msg, path)
        raise ImportError(self.main_guard_msg % (path,))

    def _is_minify_safe(self, source):
        # Few sources match, and the expression is slow.
        return self._minify_word in source and \
            self.minify_safe_re.search(source) is not None

    def _minify(self, fullname, path, source):
        """
        Return `source` minified, or as it is if that is not possible.
        """
        start = mitogen.core.now()
        try:
            minified = _minified_by_source.get(
                fullname, source, _minimize, fullname, path, source)
        except UnicodeDecodeError:
            RESPONDER_LOG.debug('%r: cannot minify %r, which is not UTF-8',
                                self, fullname)
            minified = source
        except Exception:
            _log_swallowed(RESPONDER_LOG, 'cannot minify %r, which is sent as '
                           'it is', fullname)
            minified = source
        self.minify_secs += mitogen.core.now() - start
        return minified

    def _make_negative_response(self, fullname):
        # Text even where names are bytes: Python 3 takes it for a key.
        return (to_text(fullname), None, None, None, ())

    def _find_servable(self, fullname):
        """
        Find a module that may be served; three times :data:`None` if there is
        none.
        """
        found = self._finder.get_module_source(fullname)
        if found[0] and is_stdlib_path(os.path.abspath(found[0])):
            # It is of another version than the child's own.
            RESPONDER_LOG.debug('refusing to serve %r: %r is in the standard '
                                'library', fullname, found[0])
            return None, None, None
        return found

    def _get_source(self, fullname):
        """
        Return the text that a child is to run as bytes, :data:`None` if there is
        no such module. The policy is not asked.
        """
        fullname = mitogen.parent._native_str(fullname)
        path, source, _ = self._find_servable(fullname)
        if source is not None:
            return self._prepare(fullname, path, source)

    def _forget(self, fullname):
        """
        Forget all results for a module that has changed.
        """
        self._finder._forget(fullname)
        self._cache.pop(fullname, None)
        self._packed_cache.pop(fullname, None)

    def _forget_parcels(self):
        """
        Look at all modules anew for children that ask from now on.
        """
        self._parcels = _Parcels(self)
        self._shipments = _Shipments(self)

    def _is_sent_as_it_is(self, fullname):
        """
        Tell whether children run exactly the file of a module.
        """
        return fullname != '__main__' and \
            fullname.partition('.')[0] != 'mitogen' and \
            not self._is_minify_safe(self._find_servable(fullname)[1])

    def _prepare(self, fullname, path, source):
        """
        Return the text a child is to run, as bytes.
        """
        if self._is_minify_safe(source):
            source = self._minify(fullname, path, source)
        if fullname == '__main__':
            source = self.neutralize_main(path, source)
            package = getattr(sys.modules.get(fullname), '__package__', None)
            if package:
                source = _with_absolute_imports(source, package)
        return source

    def _build_tuple(self, fullname):
        """
        Return the tuple that tells a child about a module.

        :raises ImportError:
            The policy denies the module, or it is a main module that cannot
            be imported.
        """
        # Forgets a module whose file was edited.
        self._parcels.get(fullname)
        tup = self._cache.get(fullname)
        if tup is None:
            # A denial is not remembered, as the policy may change.
            self.policy.denied_raise(fullname)
            tup = self._build_new_tuple(fullname)
            if self._keeps(tup, self._cache):
                self._cache[fullname] = tup
        return tup

    @staticmethod
    def _keeps(tup, cache):
        """
        Return whether to remember a module: a child may ask for any number of
        modules that do not exist.
        """
        return tup[2] is not None or len(cache) < mitogen.parent.ABSENT_MAX

    def _build_new_tuple(self, fullname):
        path, source, is_pkg = self._find_servable(fullname)
        if source is None:
            return self._make_negative_response(fullname)
        text = self._prepare(fullname, path, source)
        compressed = _compressed_by_source.get(
            fullname, text, zlib.compress, text, 9)
        needs = self._finder.find_related(fullname)
        return (
            to_text(fullname),
            get_child_modules(path, fullname) if is_pkg else None,
            to_text(path),
            mitogen.core.Blob(compressed),
            [to_text(need) for need in needs if not self.policy.denied(need)],
        )

    def _send_tuple(self, stream, tup, data=None):
        if data is None:
            data = mitogen.core.Message.pickled(tup).data
        if tup[2] is not None:
            self.good_load_module_count += 1
            self.good_load_module_size += len(data)
        else:
            self.bad_load_module_count += 1
        self._router._async_route(mitogen.core.Message(
            dst_id=stream.protocol.remote_id,
            handle=mitogen.core.LOAD_MODULE,
            data=data,
            enc=mitogen.core.Message.ENC_PKL,
        ))
        return data

    def _send_load_module(self, stream, fullname):
        """
        Send one module.

        :raises Exception:
            Its tuple could not be built; nothing was sent.
        """
        tup = self._build_tuple(fullname)
        packed = self._send_tuple(stream, tup,
                                  self._packed_cache.get(fullname))
        if self._keeps(tup, self._packed_cache):
            self._packed_cache[fullname] = packed
        if self._keeps(tup, stream.protocol.sent_modules):
            stream.protocol.sent_modules.add(fullname)

    def _send_related(self, stream, fullname):
        """
        Send the modules that this one needs, if the child is known to lack
        them: it asked for, or was sent, the package at the top.
        """
        sent = stream.protocol.sent_modules
        for name in self._build_tuple(fullname)[4]:
            top = name.partition('.')[0]
            if name in sent or (top != fullname and top not in sent):
                continue
            try:
                self._send_load_module(stream, name)
            except ImportError:
                # It may be denied, for example. The child asks for it if it
                # needs it.
                RESPONDER_LOG.debug('skipping %r, which %r needs', name,
                                    fullname, exc_info=True)
            except Exception:
                _log_swallowed(RESPONDER_LOG, 'cannot send %r, which another '
                               'module needs', name)

    def _send_late_core(self, stream):
        """
        Send the rest of the core, once, to a child that runs a program's code:
        so the child need not wait for it, and has it on its broker thread,
        too.
        """
        conn = getattr(stream, 'conn', None)
        if getattr(conn, '_lacks_core', False) is True:
            conn._lacks_core = False
            key = u'mitogen', u'core.late'
            announcement = mitogen.parent._announced_by(stream)
            late = announcement is not None and announcement.runs_our_bytecode() and \
                not mitogen.parent._is_far(stream) and mitogen.parent._get_late_code()
            msg = mitogen.core.Message.pickled(
                key, late or mitogen.parent.get_late_source(*key))
            msg.dst_id = stream.protocol.remote_id
            msg.handle = mitogen.core.LOAD_RESOURCE
            self._router._async_route(msg)

    def _send_module_and_related(self, stream, fullname):
        """
        Send a module after those it needs, even if the stream had it before.
        Failure is reported to the child.
        """
        try:
            self._send_late_core(stream)
            self._send_related(stream, fullname)
            self._send_load_module(stream, fullname)
        except Exception as e:
            # It is not marked as sent: the reason for the failure may go away.
            self._send_tuple(stream, self._make_negative_response(fullname))
            if isinstance(e, ImportError):
                RESPONDER_LOG.debug('%r cannot be served to %s', fullname,
                                    stream, exc_info=True)
            else:
                _log_swallowed(RESPONDER_LOG, 'cannot send %r to a child',
                               fullname)

    @staticmethod
    def _name_in(msg):
        """
        Return the name of the module that is asked for.
        """
        name = bytes(msg.data).decode('utf-8', 'replace')
        # In Python 2, module names are of type str.
        return name if PY3 else name.encode('utf-8')

    def _refuse_module(self, msg):
        stream = self._stream_of(msg)
        if stream is not None:
            self._send_tuple(
                stream, self._make_negative_response(self._name_in(msg)))

    def _on_get_module(self, msg):
        stream = self._stream_of(msg)
        if stream is None:
            return
        if len(msg.data) > mitogen.parent.REQUEST_MAX:
            mitogen.core._tell_seldom(
                RESPONDER_LOG.error, stream, 'names', '%s asks for a module with a name of %d bytes', stream,
                len(msg.data))
            return

        began = mitogen.core.now()
        name = self._name_in(msg)
        self.get_module_count += 1
        if name.count('.') > mitogen.parent.PACKAGES_MAX:
            tell, more = mitogen.core._may_log_now(stream, 'packages')
            if tell:
                RESPONDER_LOG.error('%s asks for a module in %d packages%s',
                                    stream, name.count('.'), more)
            self._refuse_module(msg)
            return
        if name in stream.protocol.sent_modules and \
                not mitogen.parent._announced_by(stream):
            mitogen.core._tell_seldom(
                RESPONDER_LOG.warning, stream, 'duplicates', 'duplicate request for %r from %s', name, stream)
        else:
            RESPONDER_LOG.debug('%s asks for %r', stream, name)
        if mitogen.parent._announced_by(stream):
            self._push(stream, name)
        else:
            self._send_module_and_related(stream, name)
        self.get_module_secs += mitogen.core.now() - began

    @staticmethod
    def _on_report(stream, report):
        push = getattr(stream.protocol, '_push', None)
        if push is not None:
            push.hear(report)

    def _push(self, stream, fullname):
        """
        Answer a child that takes more than it has asked for.
        """
        push = getattr(stream.protocol, '_push', None)
        if push is None:
            # The child needs the rest of the core to read the next messages.
            self._send_late_core(stream)
            push = stream.protocol._push = _Push(self, stream)
        if push.is_full():
            # The refused request is not answered: the answer would have to
            # wait, too.
            self._router.refuse(stream, 'requests', 'dropping a request: it asks for too many modules')
        else:
            push.answer(fullname)

    def _forward_one_module(self, context, stream, fullname):
        forwarded = self._forwarded_by_context[context.context_id]
        if fullname in forwarded:
            return
        forwarded.add(fullname)
        if fullname not in stream.protocol.sent_modules:
            self._send_module_and_related(stream, fullname)
        if stream.protocol.remote_id != context.context_id:
            self._router._async_route(mitogen.core.Message(
                dst_id=stream.protocol.remote_id,
                handle=mitogen.core.FORWARD_MODULE,
                data=(u'%d\0%s' % (context.context_id,
                                   to_text(fullname))).encode('utf-8'),
            ))

    def _forward_modules(self, context, fullnames):
        target_id = context.context_id
        stream = self._router.stream_by_id(target_id)
        if not stream:
            RESPONDER_LOG.debug('dropping forward of %r: there is no way to '
                                '%r (any more)', fullnames, context)
            return
        if target_id not in self._forwarded_by_context:
            self._forwarded_by_context[target_id] = set()
            self._watch_context(target_id)
        for fullname in fullnames:
            for name in mitogen.core.module_lineage(fullname):
                self._forward_one_module(context, stream, name)

    def _watch_context(self, context_id):
        """
        Forget about a context when it disconnects.
        """
        context = self._router.context_by_id(context_id, create=False)
        if context is not None:
            mitogen.core.listen(
                context, 'disconnect',
                lambda: self._forwarded_by_context.pop(context_id, None))

    #: Seconds :meth:`forward_modules` waits for the broker thread. The wait is
    #: in vain if that thread waits for this one to finish an import.
    forward_timeout = 5.0

    def forward_modules(self, context, fullnames):
        """
        Send modules, the packages that hold them and what they need towards a
        context before it asks, so that every process on the way has them.
        Messages that the calling thread sends next come after them. Any thread.

        :param context:
            Target context.
        :param fullnames:
            Iterable of module names.
        :raises TypeError:
            One of them is no text.
        """
        names = list(fullnames)
        for name in names:
            if not isinstance(name, mitogen.core.AnyTextType):
                raise TypeError('not the name of a module: %r' % (name,))
        names = [mitogen.parent._native_str(name) for name in names]
        done = mitogen.core.Latch()

        def forward():
            try:
                self._forward_modules(context, names)
            except Exception:
                # The child asks for what it lacks.
                RESPONDER_LOG.exception('%r: cannot forward %r', self, names)
            finally:
                done.put()

        # Messages need not pass the broker thread, so a call that follows
        # could overtake what is merely deferred, and ask for the modules.
        self._router.broker.defer(forward)
        try:
            done.get(timeout=self.forward_timeout)
        except mitogen.core.TimeoutError:
            RESPONDER_LOG.debug('not waiting for the forward of %r', names)
