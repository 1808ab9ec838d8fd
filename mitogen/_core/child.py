# SPDX-License-Identifier: BSD-3-Clause
"""
ExternalContext: the run of a child, from the bootstrap to the end of the process.
"""

from __future__ import absolute_import  # house

import gc  # house
import os  # house
import sys  # house
import time  # house

import mitogen  # house
from mitogen.core import _core_source, _LOGGERS, _profile_hook, _REDUCED, _seldom, Broker, Context, CORE  # house
from mitogen.core import DETACHING, Dispatcher, enable_debug_logging, enable_profiling  # house
from mitogen.core import has_parent_authority, Importer, ImportPolicy, IoLoggerProtocol, LazyLogger  # house
from mitogen.core import listen, LOG, LogHandler, Message, MitogenProtocol, PY3, Router  # house
from mitogen.core import set_blocking, set_cloexec, SHUTDOWN, thread, to_text  # house


class ExternalContext(object):
    """
    The run of a child, from the end of the bootstrap to the end of the
    process. Attributes after start, for functions that take `econtext`:
    config, broker, router, master, parent, stream, importer, log_handler,
    dispatcher, detached; loggers, if stdio was set up.

    :param dict config: see `main`.
    """
    #: True after :meth:`detach`.
    detached = False
    #: Whether to look for garbage once the child has started.
    _collects = True
    #: Replaced by the fork hook.
    service_stub_lock = thread.allocate_lock()

    def __init__(self, config):
        self.config = config

    def _on_broker_exit(self):
        if not self.config['profiling']:
            # SIGTERM, by number to spare an import: even a main thread that
            # is stuck in a function ends now.
            os.kill(os.getpid(), 15)
            # Not much later if the program ignores or handles it.
            thread.start_new_thread(self._insist, ())

    def _insist(self):
        time.sleep(1.5)
        os.kill(os.getpid(), 9)

    def _on_parent_disconnect(self):
        if self.detached:
            self._on_detached()
        else:
            self._end()

    def _end(self):
        """The parent wants us to end, or is gone. A main thread that waits for
        a call ends first, as in any program, but not for long."""
        if self.dispatcher._busy:
            self.broker.shutdown()
        else:
            self.dispatcher.recv.close()
            thread.start_new_thread(self._hurry, ())

    def _hurry(self):
        time.sleep(1)
        self.broker.shutdown()

    @_seldom
    def _on_detached(self):
        mitogen.parent_id, mitogen.parent_ids = None, []
        self.importer._abandon()
        # The parent may have been in the middle of sending modules.
        self.importer._on_last_module()
        self.importer._resource_requester._abandon()
        LOG.info('detached')

    def _on_shutdown_msg(self, msg):
        if not msg.is_dead:
            self._end()

    @_seldom
    def detach(self):
        """Live on without a parent, in a session of our own. Main thread."""
        self.detached = True
        stream = self.router.stream_by_id(mitogen.parent_id)
        if not stream:
            return
        try:
            os.setsid()
        except OSError:
            # Already the leader of a group.
            pass
        self.parent.send_await(Message(handle=DETACHING))
        LOG.info('detaching from %r', self.parent)
        for _ in range(20):
            if not self.broker.defer_sync(stream.protocol.pending_bytes):
                break
            time.sleep(0.05)
        else:
            LOG.error('%r: not everything was sent before detaching', stream)
        self.broker.defer(stream.on_disconnect, self.broker)

    def _setup_title(self, name):
        """
        Show the name in `ps`, and nothing of the bootstrap's arguments.

        Linux only, by writing over them: the kernel shows the area from its
        start to the first NUL if its last byte is not NUL.
        """
        sys.argv = ['']
        if hasattr(sys, 'orig_argv'):
            sys.orig_argv = ['']
        try:
            fp = open('/proc/self/stat', 'rb')
            # The second field may contain anything, even parentheses.
            fields = fp.read().rpartition(b')')[2].split()
            fp.close()
            # Fields 48 and 49; the list here begins with field 3.
            start, end = int(fields[45]), int(fields[46])
            title = to_text('%s(mitogen:%s)') % (to_text(sys.executable),
                                                 to_text(name))
            title = title.encode('utf-8')[:end - start - 2]
            fp = open('/proc/self/mem', 'r+b', 0)
            fp.seek(start)
            fp.write(title.ljust(end - start - 1, b'\0') + b' ')
            fp.close()
        except Exception:
            LOG.debug('no process title: %s', sys.exc_info()[1])

    def _setup_globals(self):
        parent_ids = self.config['parent_ids']
        mitogen.is_master = False
        mitogen.__version__ = self.config['version']
        mitogen.context_id = self.config['context_id']
        mitogen.parent_ids = parent_ids[:]
        mitogen.parent_id = parent_ids[0]
        if self.config.get('setup_package', True):
            mitogen.core = sys.modules[__name__]
            # In a child, @mitogen.main() does nothing.
            mitogen.main = lambda *_args, **_kwargs: lambda _func: None
            # An import of it then fetches the master's.
            main = sys.modules.pop('__main__', None)
            if not PY3:
                # Python 2 wipes the globals of a module it frees, and its code
                # still runs.
                self._main = main

    def _setup_master(self):
        config = self.config
        # The program that starts us may have closed stderr. No file of ours may
        # get its number.
        fd = os.open('/dev/null', os.O_RDWR)
        while fd < 3:
            fd = os.dup(fd)
        os.close(fd)
        Router.max_message_size = config['max_message_size']
        self.broker = Broker(_start=False)
        self.router = Router(self.broker)
        self.router.debug = config.get('debug', False)
        self.router.unidirectional = config['unidirectional']
        self.router.add_handler(self._on_shutdown_msg, SHUTDOWN,
                                policy=has_parent_authority)
        self.master = Context(self.router, 0, 'master')
        self.parent = self.master
        if mitogen.parent_id:
            self.parent = Context(self.router, mitogen.parent_id, 'parent')
        in_fd, out_fd = config.get('in_fd', 0), config.get('out_fd', 1)
        in_fp = os.fdopen(os.dup(in_fd), 'rb', 0)
        out_fp = os.fdopen(os.dup(out_fd), 'wb', 0)
        # Number 0 is not merely closed: the next file would get it. 1 stays
        # for children without `setup_stdio`.
        if in_fd <= 2:
            self._null(in_fd, os.O_RDONLY)
        for fd in in_fd, out_fd:
            if fd > 2:
                os.close(fd)
        for fp in in_fp, out_fp:
            set_blocking(fp.fileno(), False)
        self.stream = MitogenProtocol.build_stream(
            self.router, mitogen.parent_id, local_id=mitogen.context_id,
            parent_ids=mitogen.parent_ids)
        self.stream.name = u'parent'
        self.stream.accept(in_fp, out_fp)
        self.stream.receive_side.keep_alive = False
        listen(self.stream, 'disconnect', self._on_parent_disconnect)
        listen(self.broker, 'exit', self._on_broker_exit)

    @staticmethod
    def _null(fd, flags):
        null = os.open('/dev/null', flags)
        if null != fd:
            os.dup2(null, fd)
            os.close(null)
        elif PY3:
            os.set_inheritable(fd, True)

    def _setup_logging(self):
        self.log_handler = LazyLogger.sink = LogHandler(self.master)
        self.log_handler.install = lambda: self._install_log_handler()
        LazyLogger.levels = dict(zip(_LOGGERS, self.config['log_levels']))
        if self.config['debug']:
            self._install_log_handler()
            enable_debug_logging()

    @_seldom
    def _install_log_handler(self):
        """Set up `logging`, now that it is imported: until now `LazyLogger`
        stood for it."""
        import logging
        self.log_handler._join_logging()
        LazyLogger.sink = None
        for logger, least in zip(_LOGGERS, self.config['log_levels']):
            logging.getLogger(logger).setLevel(least)
        logging.getLogger().handlers[:] = [self.log_handler]
        for stream in getattr(self, 'loggers', ()):
            stream.protocol.attach_logger()

    def _setup_importer(self):
        importer = self.config.get('importer')
        if importer:
            importer._adopt(self.router, self.parent)
        else:
            importer = Importer(
                self.router, self.parent, _core_source,
                ImportPolicy(self.config.get('import_overrides', ()),
                             self.config.get('import_blocks', ())))
        self.importer = self.router.importer = importer
        if PY3:
            importer._told = False
        if _core_source and self.config.get('setup_package', True):
            for name in 'mitogen', 'mitogen.core':
                sys.modules[name].__loader__ = importer
                if PY3:
                    # Python 3.15 warns if only one of them is set.
                    sys.modules[name].__spec__ = type(sys.__spec__)(
                        name, importer, is_package=name == 'mitogen')

    def _setup_stdio(self):
        if os.isatty(2):
            # Some tools hang up the terminal, and thereby us, when nobody has
            # it open any more.
            self.reserve_tty_fp = os.fdopen(os.dup(2), 'r+b', 0)
            set_cloexec(self.reserve_tty_fp.fileno())
        if sys.stdin is not None:
            self._null(0, os.O_RDONLY)
        if sys.stderr is not None:
            self._null(2, os.O_RDWR)
        if sys.stdout is not None:
            # Closing the file writes the bytes that a forked process had not
            # flushed, and may close the descriptor. So the descriptor is
            # replaced before that, and again after it.
            self._null(1, os.O_RDWR)
            sys.stdout.close()
            self._null(1, os.O_RDWR)
        self.loggers = []
        for fd in 1, 2:
            stream = IoLoggerProtocol.build_stream(_LOGGERS[fd + 2], fd)
            self.broker.start_receive(stream)
            self.loggers.append(stream)
        sys.stdout = os.fdopen(1, 'w', 1)
        if sys.stderr is None:
            sys.stderr = os.fdopen(2, 'w', 1)

    def _start(self):
        config = self.config
        self._setup_logging()
        if config.get('remote_name'):
            self._setup_title(config['remote_name'])
        self._setup_importer()
        if config.get('setup_stdio', True):
            self._setup_stdio()
        self.dispatcher = Dispatcher(self)
        # From here on messages come in; everything that takes them is there.
        self.router.register(self.parent, self.stream)
        if not _REDUCED and CORE == 'native':
            self.stream.protocol._end_with(5.0)
        # Written before there is another thread that may send, and before this
        # one waits for that to start: so the parent can go on sooner.
        if config.get('send_ec2', True):
            self.stream.transmit_side.write(
                ('MITO002%s\n' % config.get('marker', '')).encode())
        self.broker._make_thread()
        # The finder is added after our own start has imported, which never
        # asks the parent, and before a message comes, whose thread may import.
        if self.importer not in sys.meta_path:
            sys.meta_path.insert(0, self.importer)
        self.broker._thread.start()
        self.log_handler.uncork()
        if LazyLogger.sink and 'logging' in sys.modules:
            # Imported before the importer could notice.
            self._install_log_handler()
        if LOG.isEnabledFor(10):
            self._log_start()

    @_seldom
    def _log_start(self):
        LOG.debug('Python version is %s', sys.version)
        LOG.debug('Parent is context %s (%s), this is context %s',
                  self.parent.context_id, self.parent.name,
                  mitogen.context_id)
        LOG.debug('host %s, process %s of %s, user %s, group %s',
                  os.uname()[1], os.getpid(), os.getppid(),
                  (os.getuid(), os.geteuid()), (os.getgid(), os.getegid()))

    def main(self):
        """Run the child. Returns, or raises, when it has been told to end;
        the process then ends by the broker's SIGTERM."""
        self._setup_globals()
        if self.config['profiling']:
            enable_profiling(self)
        self._setup_master()
        try:
            self._start()
            # The objects that are here stay: the collector need not look at
            # them as if they were young.
            if hasattr(gc, 'freeze') and not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            if self._collects:
                gc.enable()
            _profile_hook('mitogen.child_main', self.dispatcher.run)
            # A fork of its parent does not run functions that the parent has
            # registered.
            if 'atexit' in sys.modules and self.config.get('setup_package', True):
                sys.modules['atexit']._run_exitfuncs()
            for fp in sys.stdout, sys.stderr:
                fp and fp.flush()
        except BaseException:
            if not isinstance(sys.exc_info()[1], KeyboardInterrupt):
                LOG.exception('the external context main crashed')
                raise
        finally:
            self.broker.shutdown()
