# SPDX-License-Identifier: BSD-3-Clause
"""
Connection: how a child is started, becomes a context, and ends.
"""

from __future__ import absolute_import  # house

import time  # house

import mitogen.core  # house
from mitogen.core import to_text  # house
from mitogen.parent import _close_all, _describe_failure, _eof_error, _error_text, EofError, _full_text, _Launch  # house
from mitogen.parent import _native_str, _note_facts, _timeout_error, BootstrapProtocol, CancelledError, ConnectError  # house
from mitogen.parent import LOG, LogProtocol, MitogenProtocol, Options, Reaper, returncode_to_str  # house


BROKER_SHUTDOWN_MSG = (
    'The connection attempt was given up: the local broker is shutting down.'
)


def _disconnect(broker, stream):
    """
    Close a stream. An exception of a listener is logged, as no caller would
    catch it. Broker thread.
    """
    broker._call(stream, stream.on_disconnect)


class Connection(_Launch):
    """
    One attempt to start a child and, if it succeeds, the child's process and
    streams. This class starts a local child; the modules of the other methods
    derive from it.

    States, all changes on the broker thread: *idle* until `connect`, *pending*
    while a marker is awaited, then *done*, with `exception` set or not. The
    process is handed to a `Reaper` when both of its streams are closed,
    whenever that is.

    :param Options options: an instance of `options_class`.
    :param Router router: whose child this is to be.
    """
    options_class = Options

    #: Protocols of the child's standard files, and of its stderr if separate.
    stream_protocol_class = BootstrapProtocol
    diag_protocol_class = LogProtocol

    #: False if the process is a front-end and the context another one.
    child_is_immediate_subprocess = True

    eof_error_msg = 'EOF on stream; last 100 lines received:\n'

    #: Advice added to the text of a failure.
    eof_error_hint = None

    STAGE_IDLE = u'not started'
    STAGE_STARTING = u'starting the process'
    STAGE_STARTED = u'waiting for the interpreter to start (no %s seen)' % (
        to_text(BootstrapProtocol.EC0_MARKER),)
    STAGE_ANSWERED = u'password typed, ' + STAGE_STARTED
    STAGE_SENT = u'interpreter started, waiting for the child to be ready ' \
                 u'(no %s seen)' % (to_text(BootstrapProtocol.EC2_MARKER),)
    STAGE_READY = u'ready'

    #: Characters of the last output that a failure shows at most.
    history_chars = 20000

    #: Seconds that stderr may outlive the stream of a child that was ready.
    #: A background process of the tool may hold it for ever.
    stderr_linger = 1.0

    #: Seconds that a front-end may go on after its child has left us. It holds
    #: the streams, and would end with the child only.
    detach_linger = 3.0

    #: Bytes that had come, and that were sent, when the child was ready.
    _start_bytes = 0, 0

    latch = None
    stdio_stream = None
    stderr_stream = None
    exception = None
    detached = False

    _timer = None
    _linger_timer = None
    _reaper = None
    _stage = STAGE_IDLE
    _stages = ()
    _pending = False
    _stdio_open = False
    _stderr_open = False
    _told_end = False

    def __repr__(self):
        return 'Connection(%r)' % (self.stdio_stream,)

    def _runs_command_itself(self):
        # Derived classes may wrap the command.
        return type(self) is Connection

    def _sees_our_files(self):
        # A class of a connection method may start its child anywhere.
        return type(self) is Connection

    # The attempt.

    def connect(self, context):
        """
        Start the child and block until it is ready. Not on the broker thread.

        :param Context context: what the child is to be known as.
        :raises mitogen.core.TimeoutError: it took longer than allowed.
        :raises mitogen.core.StreamError: it failed otherwise.
        :raises mitogen.core.Error: the broker has exited.
        """
        self.context = context
        self.latch = mitogen.core.Latch()
        broker = self._router.broker
        # A broker that ends before it gets to our function would leave us
        # asleep for ever.
        mitogen.core.listen(broker, 'exit', self._on_broker_exit)
        try:
            broker.defer(self._start)
            self.latch.get()
        except BaseException:
            # The caller was interrupted, by Ctrl-C for example, and nobody
            # would own the child.
            self._abandon()
            raise
        finally:
            mitogen.core.unlisten(broker, 'exit', self._on_broker_exit)
        if self.exception is not None:
            self._await_status()
            raise self.exception

    def _await_status(self):
        """
        Note how the process of a failed attempt ended. It has closed its files,
        and ends about now.
        """
        facts = self.exception.facts
        if self.proc is None or not isinstance(self.exception, EofError):
            return
        for _ in range(25):
            if facts[u'returncode'] is not None:
                return
            try:
                facts[u'returncode'] = self._router.broker.defer_sync(self.proc.poll)
            except Exception:
                # The broker has exited, or another part of the program has waited for it.
                return
            time.sleep(0.01)

    def _abandon(self):
        try:
            self._router.broker.defer(self._on_abandoned)
        except mitogen.core.Error:
            # The broker has exited, and closed all streams.
            pass

    def _on_abandoned(self):
        if self._stage is self.STAGE_IDLE or self._pending:
            self._fail_connection(
                CancelledError('The connection attempt was interrupted.'))

    def _on_broker_exit(self):
        if self._stage is self.STAGE_IDLE or self._pending:
            self._fail_connection(CancelledError(BROKER_SHUTDOWN_MSG))

    def _on_broker_shutdown(self):
        self._fail_connection(CancelledError(BROKER_SHUTDOWN_MSG))

    def _start(self):
        """Second half of `connect`, on the broker thread."""
        if self.exception is not None:
            return
        broker = self._router.broker
        if getattr(broker, '_alive', True) is False:
            # Its `shutdown` signal is past and its timers stop soon.
            self._fail_connection(CancelledError(BROKER_SHUTDOWN_MSG))
            return

        self._pending = True
        self._enter_stage(self.STAGE_STARTING)
        mitogen.core.listen(broker, 'shutdown', self._on_broker_shutdown)
        deadline = self.options.connect_deadline
        self._timer = broker.timers.schedule(deadline, self._on_timer_expired)
        try:
            self.proc = self.start_child()
            self._enter_stage(self.STAGE_STARTED)
            self._setup_streams()
        except Exception as e:
            LOG.debug('cannot start the child of %r', self.context,
                      exc_info=True)
            self._close_loose_files()
            self._fail_connection(e)
            self._maybe_reap()

    def stream_factory(self):
        """
        Return a new stream, without files, for the child's standard files.
        """
        return self.stream_protocol_class.build_stream(
            broker=self._router.broker)

    def stderr_stream_factory(self):
        """
        Return a new stream, without files, for the child's stderr.
        """
        return self.diag_protocol_class.build_stream()

    def _setup_streams(self):
        proc = self.proc
        self.stdio_stream = self.stream_factory()
        self.stdio_stream.name = name = self.options.name or self._get_name()
        if not self.context.name:
            self.context.name = name
        proc.name = name
        if proc.stderr is not None:
            self.stderr_stream = self.stderr_stream_factory()
            self.stderr_stream.name = name

        self._stdio_open = True
        self._open_stream(self.stdio_stream, proc.stdout, proc.stdin,
                          self.on_stdio_disconnect)
        if self.stderr_stream is not None:
            self._stderr_open = True
            self._open_stream(self.stderr_stream, proc.stderr, proc.stderr,
                              self.on_stderr_disconnect)

    def _open_stream(self, stream, rfp, wfp, on_disconnect):
        for fp in rfp, wfp:
            mitogen.core.set_blocking(fp.fileno(), False)
        stream.conn = self
        mitogen.core.listen(stream, 'disconnect', on_disconnect)
        stream.accept(rfp, wfp)
        self._router.broker.start_receive(stream)

    def _close_loose_files(self):
        """
        Close what a failure half way through `_setup_streams` left without a
        stream to close it.
        """
        if self.proc is None:
            return
        fps = []
        stream = self.stdio_stream
        if stream is None or stream.receive_side is None:
            self._stdio_open = False
            fps += [self.proc.stdin, self.proc.stdout]
        stream = self.stderr_stream
        if stream is None or stream.receive_side is None:
            self._stderr_open = False
            fps.append(self.proc.stderr)
        _close_all(*fps)

    # The attempt has ended, well or not.

    def _finish(self):
        """
        Leave the pending state and let `connect` return. Repeatable.
        """
        if self._timer is not None:
            self._timer.cancel()
        if self._pending:
            self._pending = False
            mitogen.core.unlisten(self._router.broker, 'shutdown',
                                  self._on_broker_shutdown)
        self.latch.put()

    def _complete_connection(self):
        """
        Called when the child says it is ready: the stream becomes a framed one
        and the context reachable. Broker thread.
        """
        if not self._pending:
            return
        try:
            self._finish_stage()
        except Exception as e:
            LOG.exception('%r: cannot take the child over', self)
            self._fail_connection(e)
            return
        self._finish()

    def _finish_stage(self):
        router = self._router
        stream = self.stdio_stream
        protocol = stream.protocol
        self._start_bytes = protocol._bytes_in, protocol._bytes_out
        stream.set_protocol(MitogenProtocol(
            router=router,
            remote_id=self.context.context_id,
        ))
        router.register(self.context, stream)
        router.route_monitor.notice_stream(stream)
        self._enter_stage(self.STAGE_READY)

    def _enter_stage(self, stage):
        """
        Note how far the attempt got, and when. Broker thread.
        """
        self._stage = stage
        self._stages += ((stage, mitogen.core.now()),)

    def _fail_connection(self, exc):
        """
        Give up: close what is open and have `connect` raise `exc`, or rather
        the first that this was called with. Broker thread; repeatable, and
        called again by way of the streams that it closes.

        Does nothing once the child is ready. Protocols that watch stderr for
        complaints go on watching it.
        """
        if self._stage is self.STAGE_READY:
            LOG.debug('%r: not a failure any more: %s', self, exc)
            return

        if self.exception is None:
            if isinstance(exc, ConnectError):
                exc.detail = self._describe(_error_text(exc))
            if self.eof_error_hint:
                text = _full_text(exc)
                exc.args = (u'%s\n\n%s' % (text, self.eof_error_hint),)
                exc.detail = u''
            self.exception = exc
            _note_facts(self, exc)

        broker = self._router.broker
        # Also if a listener raises: `connect` waits until this method has
        # ended.
        if self._stdio_open:
            _disconnect(broker, self.stdio_stream)
        if self._stderr_open:
            _disconnect(broker, self.stderr_stream)
        self._finish()

    def _describe(self, text=u''):
        """
        Return what is known of the attempt, to be the `detail` of a failure.

        :param text: what the exception says already.
        """
        return _describe_failure(self, text)

    def _on_timer_expired(self):
        self._fail_connection(_timeout_error(self))

    def on_stdio_disconnect(self):
        """
        Listener of the ``disconnect`` signal of the stdio stream.
        """
        self._stdio_open = False
        self._tell_end()
        if (self._stderr_open and self._stage is self.STAGE_READY and
                self._linger_timer is None and not self.detached):
            self._linger_timer = self._router.broker.timers.schedule(
                when=mitogen.core.now() + self.stderr_linger,
                func=self._on_linger_expired,
            )
        self._on_stream_closed()

    def on_stderr_disconnect(self):
        """
        Listener of the ``disconnect`` signal of the stderr stream.
        """
        self._stderr_open = False
        self._tell_words()
        self._on_stream_closed()

    def _waits_for_process(self):
        """
        Return whether the end of the child's stream is most likely the end of
        the process, whose status is then waited for. Broker thread.
        """
        return (self._stage is self.STAGE_READY and not self.detached and
                self.child_is_immediate_subprocess)

    def _tell_end(self):
        """
        Have the loss of the context tell how the process ended: at once, or as
        soon as it is known.
        """
        stream = self.stdio_stream
        if (self._stage is not self.STAGE_READY or self._told_end or
                self.detached or stream.why == type(stream).why):
            return
        self._told_end = True
        # stderr may be closed already; if not, more lines will come.
        words = self._words()
        if words:
            self.context._last_words = words
        status = None
        if self.child_is_immediate_subprocess:
            # The stream has waited for that.
            status = self.proc.poll()
        if status is None:
            mitogen.core.listen(self.proc, 'exit', self._on_proc_exit)
        else:
            stream.why += '; the process ' + returncode_to_str(status)

    def _on_proc_exit(self):
        if self._router._losses is not None:
            self._router._losses.tell_of_end(
                self.context.context_id, returncode_to_str(self.proc.poll()))

    def _tell_words(self):
        """
        Have the loss of the context tell the last lines of stderr.
        """
        words = self._words()
        if self._told_end and words and self._router._losses is not None:
            self._router._losses.tell_of_words(self.context.context_id, words)

    def _words(self):
        """Return the last lines of stderr, if it is apart."""
        protocol = getattr(self.stderr_stream, 'protocol', None)
        return [line[:200] for _, line in getattr(protocol, 'logged_lines', ())][-5:]

    def _on_detached(self):
        """
        The child is about to leave us. Broker thread.
        """
        self.detached = True
        if not self.child_is_immediate_subprocess:
            self._linger_timer = self._router.broker.timers.schedule(
                when=mitogen.core.now() + self.detach_linger,
                func=self._on_detach_expired,
            )

    def _on_detach_expired(self):
        if self._stdio_open:
            _disconnect(self._router.broker, self.stdio_stream)
        self._on_linger_expired()

    def _on_linger_expired(self):
        if self._stderr_open:
            _disconnect(self._router.broker, self.stderr_stream)

    def _on_stream_closed(self):
        # A dying child closes its output while its reasons are still unread
        # on stderr, so one of them closing means nothing yet.
        if self._stdio_open or self._stderr_open:
            return
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        if self._pending and self.exception is None:
            self._fail_connection(_eof_error(self))
        self._maybe_reap()

    def _maybe_reap(self):
        if (self.proc is None or self._reaper is not None or
                self._stdio_open or self._stderr_open):
            return
        spared = self.detached and self.child_is_immediate_subprocess
        self._reaper = Reaper(
            broker=self._router.broker,
            proc=self.proc,
            # A profile takes a while to be written.
            kill=not (spared or self.options.profiling or
                      getattr(self._router, 'profiling', False)),
            wait_on_shutdown=not spared,
        )
        self._reaper.reap()


def get_connection_class(name):
    """
    Return the `Connection` class of a connection method.

    :param name: such as ``local`` or ``ssh``.
    :raises ImportError: no such method.
    """
    if name == u'local':
        name = u'parent'
    return mitogen.core.import_module(
        _native_str(u'mitogen.' + to_text(name))).Connection
