# SPDX-License-Identifier: BSD-3-Clause
"""
Router, as a parent has it: children, ids and connection methods.
"""

from __future__ import absolute_import  # house

import sys  # house

import mitogen  # house
import mitogen.core  # house
import mitogen.parent  # house
from mitogen.core import to_text  # house
from mitogen.parent import _error_text, _handle, _native_str, _note_router, _raise_foreign, ChildIdAllocator, ConnectError  # house
from mitogen.parent import Context, get_connection_class, LOG, make_secret, ModuleForwarder, ResourceForwarder  # house
from mitogen.parent import _ChildStream, _Losses, _Room, RouteMonitor  # house


def _connection_method(name):
    """
    Return the method of `Router` that connects by the method of that name.
    """
    def method(self, **kwargs):
        return self.connect(name, **kwargs)

    method.__name__ = _native_str(name)
    method.__doc__ = 'Start a child by the connection method "%s".' % (name,)
    return method


#: Failures of connection methods that keep their class on the way from an
#: intermediary.
_KINDS = u'PasswordError', u'HostKeyError'


def _failure_class(method_name, kind):
    """
    Return the class of a failure that another context tells of.
    """
    if kind in _KINDS:
        klass = get_connection_class(method_name)
        return getattr(sys.modules[klass.__module__], _native_str(kind), ConnectError)
    return ConnectError


#: Characters of a text in the answer of a context that was asked to connect.
_SAID_MAX = 65536


def _said(value):
    """
    Return a text from another context's answer, or an empty one for a value of
    another type. Such a value is not converted, as its text may be endless: a
    tuple may hold another tuple twice, which holds a third one twice.
    """
    if isinstance(value, mitogen.core.BytesType):
        value = mitogen.core.UnicodeType(value, 'utf-8', 'replace')
    return value[:_SAID_MAX] if isinstance(value, mitogen.core.UnicodeType) else u''


def _shown_id(value):
    """
    Return the text of what another context says is an id.
    """
    is_id = isinstance(value, mitogen.core.integer_types) and abs(value) < 1 << 64
    return u'%d' % (value,) if is_id else u'(no number)'


class Router(mitogen.core.Router):
    """
    A router that can have children.

    The methods named after connection methods, such as `local` and `ssh`,
    start a child and return its `Context`. They take keyword arguments only:
    those of the method's `Options`, and `via`, the context that is to start
    the child in our place. They block, and so must not run on the broker
    thread.

    :cvar bool debug: default of the option `debug`.
    :cvar bool profiling: default of the option `profiling`.
    """
    connection_timeout_msg = u'Connection timed out.'
    context_class = Context

    # Defaults of options.
    profiling = False
    debug = False

    #: Children send what is printed there, whatever the levels of the loggers.
    _shows_output = False

    # The parts of a router, set by `mitogen.master.Router` or by `upgrade`.
    route_monitor = None       # RouteMonitor
    id_allocator = None        # has allocate()
    log_forwarder = None       # in a master only
    resource_responder = None  # serves package data to children
    responder = None           # serves modules to children
    _room = None               # _Room
    _losses = None             # _Losses, once something was lost

    def upgrade(self, importer, parent):
        """
        Install what a router of a child, which became one of this class just
        now, still lacks. Broker thread.

        :param mitogen.core.Importer importer: source of modules for children.
        :param mitogen.core.Context parent: our own parent.
        """
        LOG.debug('upgrading %r with %r and %r', self, importer, parent)
        _note_router(self)
        self._room = _Room(self)
        self.route_monitor = RouteMonitor(self, parent)
        self.id_allocator = ChildIdAllocator(self)
        self.responder = ModuleForwarder(self, parent, importer)
        self.resource_responder = ResourceForwarder(
            self, parent, importer._resource_requester)
        self._add_detaching_handler()

    def _add_detaching_handler(self):
        _handle(self, mitogen.core.DETACHING, self._on_detaching)

    def _on_detaching(self, msg):
        """
        A child leaves us: its process must outlive the connection.
        """
        if msg.is_dead:
            # Only `_handle` keeps dead messages away, and a program may have
            # registered this method itself.
            return
        stream = self.stream_by_id(msg.src_id)
        # A client of a UNIX socket has a stream, but no connection.
        conn = getattr(stream, 'conn', None)
        if (conn is None or conn.detached or
                stream.protocol.remote_id != msg.src_id):
            mitogen.core._tell_seldom(
                LOG.warning, stream or self, 'detaching', 'bad DETACHING received on %r: %r', stream, msg)
            return
        LOG.debug('%r: marking as detached', stream)
        conn._on_detached()
        msg.reply(None)

    def add_route(self, target_id, stream):
        """
        Have messages to `target_id` written to `stream`. Any thread.
        """
        assert isinstance(target_id, mitogen.core.integer_types)
        assert isinstance(stream, mitogen.core.Stream)
        if not 0 <= target_id < 1 << 32:
            raise OverflowError('target_id must be a number from 0 to %d, '
                                'not %r' % ((1 << 32) - 1, target_id))
        LOG.debug('%r: adding route to %d via %r', self, target_id, stream)
        self._find_again(target_id)
        self._add_route(target_id, stream)

    def _find_again(self, context_id):
        """
        Note that a context which may have been lost has another way.
        """
        with self._write_lock:
            if self._lost_ids:
                self._lost_ids.discard(context_id)

    def del_route(self, target_id):
        """
        Forget the route to `target_id`, if there is one. Any thread.
        """
        LOG.debug('%r: removing route to %d', self, target_id)
        self._del_route(target_id)

    def get_streams(self):
        """
        Return a list of all streams that messages are routed to. Any thread.
        """
        return list(self._streams())

    # Streams that were registered since this router may have children, or
    # None for none yet.
    _neighbours = None

    def register(self, context, stream):
        if self._neighbours is None:
            self._neighbours = set()
        self._neighbours.add(stream)
        self._find_again(context.context_id)
        mitogen.core.listen(stream, 'disconnect',
                            lambda: self._neighbours.discard(stream))
        super(Router, self).register(context, stream)
        if self._room:
            self._room.watch()
    register.__doc__ = mitogen.core.Router.register.__doc__

    def neighbours(self):
        """
        Return a list of the streams to children and clients.
        """
        return list(self._neighbours or ())

    # The id of the context at the other end of a stream that just ends.
    _losing = None

    def _fire_lost(self, stream, *args):
        self._losing = stream.protocol.remote_id
        try:
            super(Router, self)._fire_lost(stream, *args)
        finally:
            self._losing = None

    def _note_loss(self, context, how):
        super(Router, self)._note_loss(context, how)
        if self._losses is None:
            self._losses = _Losses()
        self._losses.add(context, self._losing)

    def _explain(self, text):
        """
        Return the text of a dead message of ours, with how the context was
        lost that there is no route to. Any thread.
        """
        if self._losses is None:
            return text
        return self._losses.explain(text, self.no_route_msg)

    def _maybe_send_dead(self, unreachable, msg, reason, *args):
        if reason == self.no_route_msg and msg.src_id == mitogen.context_id:
            reason, args = self._explain(reason % args), ()
        super(Router, self)._maybe_send_dead(unreachable, msg, reason, *args)

    @property
    def limits(self):
        """
        The limits of each peer, see :class:`mitogen.limits.Limits`.
        """
        return mitogen.core._limits_of(self)

    def refuse(self, peer, name, text, *args):
        """
        Note that a limit has refused something of a peer, see
        :func:`mitogen.limits.refuse`. Any thread.
        """
        mitogen.core._refuse(self, peer, name, text, *args)

    def allocate_id(self):
        """
        Return a context id that is new to the whole tree. In a child this may
        block for a reply of the master.
        """
        return self.id_allocator.allocate()

    def disconnect(self, context):
        """
        Close the stream to `context` and block until that is done. Returns at
        once if the context is not at the other end of a stream of ours.
        """
        def disconnect():
            if isinstance(stream, _ChildStream):
                stream.end()
            stream.on_disconnect(self.broker)

        for stream in self.get_streams():
            if stream.protocol.remote_id == context.context_id:
                # Not the signal: a listener that raises would keep it from the
                # listeners after it.
                self.broker.defer_sync(disconnect)
                return

    def connect(self, method_name, name=None, **kwargs):
        """
        Start a child by the method of that name.

        :raises ImportError: no such method.
        :raises mitogen.core.StreamError: the child could not be started.
        :raises TypeError: unknown option.
        """
        klass = get_connection_class(method_name)
        kwargs.setdefault('debug', self.debug)
        kwargs.setdefault('profiling', self.profiling)
        kwargs.setdefault('unidirectional', self.unidirectional)
        if 'password' in kwargs:
            # The arguments of calls are logged, here and on the way.
            kwargs['password'] = make_secret(kwargs['password'])
        text = None if name is None else to_text(name)
        via = kwargs.pop('via', None)
        if via is None:
            return self._connect(klass, name=text, **kwargs)
        return self.proxy_connect(via, method_name, name=text, **kwargs)

    def _connect(self, klass, **kwargs):
        context_id = self.allocate_id()
        context = self.context_class(self, context_id)
        context.name = kwargs.get('name')
        options = klass.options_class(
            old_router=self,
            max_message_size=self.max_message_size,
            **kwargs
        )
        conn = klass(options, self)
        try:
            conn.connect(context=context)
        except mitogen.core.TimeoutError as e:
            # Programs compare the text.
            failure = ConnectError(self.connection_timeout_msg)
            failure.detail = _error_text(e)
            failure.facts = getattr(e, 'facts', None)
        else:
            return context
        raise failure

    def proxy_connect(self, via_context, method_name, name=None, **kwargs):
        """
        Have `via_context` start a child, and return its `Context` here.
        """
        if getattr(via_context, 'router', self) is not self:
            _raise_foreign(self, via_context)
        reply = self._ask_to_connect(via_context, method_name, name, kwargs)
        reply = reply if isinstance(reply, dict) else {}
        if reply.get('msg') is not None:
            failure = _failure_class(method_name, _said(reply.get('kind')))(
                _said(reply['msg']))
            failure.detail = _said(reply.get('detail'))
            failure.facts = reply.get('facts')
            raise failure

        context_id, child_name = reply.get('id'), reply.get('name')
        if (not isinstance(child_name, mitogen.core.UnicodeType) or
                not self._may_have_started(via_context, context_id)):
            raise ConnectError(u'%r says that it started context %s, which is '
                               u'none that it can have started' % (
                                   via_context, _shown_id(context_id)))
        # The announcement of the route came before the reply, so there is an
        # entry. Kept if possible: somebody may listen to it already.
        context = self.context_by_id(context_id)
        if type(context) is not self.context_class:
            context = self.context_class(self, context_id)
            self._context_by_id[context_id] = context
        context.name = u'%s.%s' % (via_context.name, self.route_monitor._clean_name(
            child_name.encode('utf-8')))
        context.via = via_context
        return context

    #: Seconds that an intermediary has in addition to the child's own: it may
    #: first have to fetch the modules that start children.
    via_grace = 5.0

    def _ask_to_connect(self, via_context, method_name, name, kwargs):
        """
        Have another context start a child, and return its answer.

        :raises ConnectError: it does not answer in time.
        """
        receiver = via_context.call_async(
            # This function is of the part above this one. It is only named
            # here, and called in the other context.
            mitogen.parent._proxy_connect,
            name=name,
            method_name=to_text(method_name),
            kwargs=mitogen.core.Kwargs(kwargs),
        )
        seconds = self.via_grace + float(
            kwargs.get('connect_timeout') or
            get_connection_class(method_name).options_class.connect_timeout)
        try:
            return receiver.get(timeout=seconds).unpickle()
        except mitogen.core.ChannelError as e:
            if e.args[0] != self.invalid_handle_msg:
                raise
            # Another version, met at a UNIX socket.
            return via_context.send_async(mitogen.core.Message.pickled(
                (None, u'mitogen.parent', None, u'_proxy_connect', (),
                 mitogen.core.Kwargs({'name': name, 'method_name': to_text(method_name),
                                      'kwargs': mitogen.core.Kwargs(kwargs)})),
                handle=mitogen.core.CALL_FUNCTION)).get().unpickle()
        except mitogen.core.TimeoutError:
            receiver.notify = lambda receiver: self._on_late_child(via_context, receiver)
            failure = ConnectError(self.connection_timeout_msg)
            failure.detail = u'%r did not answer within %.2f seconds.' % (via_context, seconds)
        raise failure

    def _on_late_child(self, via_context, receiver):
        """A child that nobody waits for any more was started: end it. Broker
        thread."""
        try:
            reply = receiver.get(block=False).unpickle()
            if self._is_new_below(via_context, reply.get('id')):
                self.context_by_id(reply['id']).shutdown()
        except (mitogen.core.Error, AttributeError):
            LOG.debug('a child that was started too late', exc_info=True)

    def _may_have_started(self, via_context, context_id):
        """
        Return whether a context with that id can be a new child of another. Any
        thread but the broker's.
        """
        return self.broker.defer_sync(
            lambda: self._is_new_below(via_context, context_id))

    def _is_new_below(self, via_context, context_id):
        """
        As `_may_have_started`. Broker thread.
        """
        if (not isinstance(context_id, mitogen.core.integer_types) or
                not 0 <= context_id < mitogen.core.NOBODY):
            return False
        via_id = via_context.context_id
        stream = self.stream_by_id(via_id)
        if stream is not None and \
                stream.protocol.remote_id != mitogen.parent_id:
            return self.route_monitor.gave(via_id, context_id)
        # That context is not below us, so we are told of no routes. But we
        # must not know the id of a new context.
        return (self.stream_by_id(context_id) is stream and
                context_id not in (mitogen.context_id, via_id) and
                context_id not in mitogen.parent_ids and
                context_id not in self._context_by_id)

    buildah = _connection_method(u'buildah')
    doas = _connection_method(u'doas')
    docker = _connection_method(u'docker')
    fork = _connection_method(u'fork')
    incus = _connection_method(u'incus')
    jail = _connection_method(u'jail')
    kubectl = _connection_method(u'kubectl')
    local = _connection_method(u'local')
    lxc = _connection_method(u'lxc')
    lxd = _connection_method(u'lxd')
    podman = _connection_method(u'podman')
    setns = _connection_method(u'setns')
    srun = _connection_method(u'srun')
    ssh = _connection_method(u'ssh')
    su = _connection_method(u'su')
    sudo = _connection_method(u'sudo')
